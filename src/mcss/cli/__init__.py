"""The command line: ``mcss VERB …``. Only this package prints, and only it ends the program."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

# Each registers its verbs, in the order of `mcss --help`.
from mcss.cli import (  # noqa: F401
    captures,
    deployment,
    footage,
    measuring,
    predicting,
    searching,
    serving,
    training,
)
from mcss.cli.terminal import app

_DESCRIPTION = (
    "3D human pose and view-invariant pose search from synchronised, uncalibrated, unlabelled multi-view video and a "
    "few 3D labels. Start with `mcss demo`."
)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are told in one message, without a traceback."""
    errors = Console(stderr=True)
    try:
        app.cli(prog="mcss", description=_DESCRIPTION, args=args)
    except KeyboardInterrupt:
        errors.print(
            "\n[yellow]Stopped.[/] What was finished is kept; the same command (training: with --resume) goes on."
        )
        sys.exit(130)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        errors.print(f"[red]Error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
