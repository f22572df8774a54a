"""The command line: ``mcss VERB …``. Only this package prints, and only it ends the program."""

import sys
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.markup import escape

import mcss
from mcss.cli.verbs import DESCRIPTION, VERBS, show_overview


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are told in one message, without a traceback."""
    given = list(sys.argv[1:] if args is None else args)
    errors = Console(stderr=True)
    try:
        match given:
            case [] | ["-h" | "--help"]:
                show_overview(Console())
            case ["--version"]:
                print(f"mcss {mcss.__version__}")
            case _:
                _run(given)
    except KeyboardInterrupt:
        errors.print(
            "\n[yellow]Stopped.[/] What was finished is kept; the same command (training: with --resume) goes on."
        )
        sys.exit(130)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        errors.print(f"[red]Error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _run(args: Sequence[str]) -> None:
    """Load the module of the verb, or all of them to say what there is or to complete in a shell, and run it."""
    verb = VERBS.get(args[0])
    for module in [verb.module] if verb is not None else dict.fromkeys(verb.module for verb in VERBS.values()):
        import_module(f"mcss.cli.{module}")
    import_module("mcss.cli.terminal").app.cli(prog="mcss", description=DESCRIPTION, args=args)
