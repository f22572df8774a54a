"""The command line: ``mcss VERB …``. Only this package prints, and only it ends the program."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

import mcss
from mcss.cli.stand_ins import heavy_packages_are_loaded, heavy_packages_replaced
from mcss.cli.verbs import DESCRIPTION, SECTIONS, UnknownVerbError, show_group, show_overview, verbs

if TYPE_CHECKING:
    from mcss.cli.arguments import Command, Verbs

MENDABLE = (ValueError, OSError, ImportError, FloatingPointError)
"""Errors that a user can mend: they are shown as one message."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are one message, without a traceback."""
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
        errors.print("\n[yellow]Stopped.[/] Finished work is kept; the same command (train: with --resume) continues.")
        sys.exit(130)
    except MENDABLE as error:
        errors.print(f"[red]Error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UnknownVerbError) else 1)


def _run(args: Sequence[str]) -> None:
    """Read the arguments without heavy packages, which prints help and refuses mistakes at once; then run the verb."""
    if args[0].startswith("--tyro-"):
        modules = tuple(SECTIONS.values())
    elif args[0] in verbs():
        modules = (verbs()[args[0]].module,)
    else:
        raise UnknownVerbError("mcss", args[0], verbs())
    if not heavy_packages_are_loaded():
        # What fails here because of a stand-in works, or fails with the right message, with the real packages.
        with heavy_packages_replaced(), suppress(*MENDABLE, TypeError, AttributeError):
            _read(modules, args)
    _read(modules, args)()


def _read(modules: Sequence[str], args: Sequence[str]) -> Callable[[], None]:
    """Load the modules of some verbs, and return the verb that `args` name with its arguments."""
    for module in modules:
        import_module(f"mcss.cli.{module}")
    entry: Verbs | Command = import_module("mcss.cli.terminal").app
    if args[0].startswith("--tyro-"):
        entry.complete("mcss", DESCRIPTION, args)
    prog = "mcss"
    while not hasattr(entry, "read"):
        if args[:1] in ([], ["-h"], ["--help"]):
            show_group(Console(), prog, entry.help, entry.summaries())
            sys.exit(0 if args else 2)
        prog, entry, args = f"{prog} {args[0]}", entry.named(args[0], prog), args[1:]
    return entry.read(prog, args)
