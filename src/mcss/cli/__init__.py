"""The command line: ``mcss VERB …``. Only this package prints, and only it ends the program."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NoReturn
from unicodedata import category

from rich.console import Console
from rich.markup import escape

import mcss
from mcss.cli.stand_ins import heavy_packages_are_loaded, heavy_packages_replaced
from mcss.cli.verbs import DESCRIPTION, SECTIONS, UnknownVerbError, all_verbs, show_group, show_overview

MENDABLE = (ValueError, OSError, ImportError, FloatingPointError)
"""Errors that a user can mend: they are shown as one message."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are one message, without a traceback."""
    given = list(sys.argv[1:] if args is None else args)
    errors = Console(stderr=True)
    _stop_on_termination()
    try:
        match given:
            case [] | ["-h" | "--help"]:
                show_overview(Console())
            case ["--version"]:
                print(f"mcss {mcss.__version__}")
            case _:
                _run(given)
    except KeyboardInterrupt as stop:
        errors.print("\n[yellow]Stopped.[/] Finished work is kept; the same command (train: with --resume) continues.")
        sys.exit(143 if isinstance(stop, TerminatedError) else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as in `mcss … | head`: nobody reads on
        sys.exit(1)
    except SystemExit:
        raise
    except BaseException as error:  # libraries written in Rust raise errors that are no Exception
        if _is_lack_of_memory(error):
            _end_for_lack_of_memory()
        words = _words_of(error)
        if words is None:
            raise
        errors.print(f"[red]Error[/] {escape(_harmless(words))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UnknownVerbError) else 1)


class TerminatedError(KeyboardInterrupt):
    """The program is asked to end by SIGTERM, as systems and schedulers do; it ends as with Ctrl-C."""


def _words_of(error: BaseException) -> str | None:
    """Return the message of an error that a user can mend, with the way out where the system's own words have none."""
    too_many = os.strerror(errno.EMFILE)
    for cause in _causes(error):
        if (isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)) or too_many in str(cause):
            said = cause if isinstance(cause, ValueError | OSError) else too_many
            return f"{said}. Allow more (`ulimit -n 4096`) or use fewer processes, then run the same command again"
    return str(error) if isinstance(error, MENDABLE) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that led to it; libraries wrap what goes wrong within them in errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _harmless(text: str) -> str:
    """Replace control characters, which names and contents of files may bring in to steer the terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) == "Cc" and c not in "\n\t" else c for c in text)


def _end_for_lack_of_memory() -> NoReturn:
    """Say it without Rich, which would need memory for that."""
    sys.stderr.write(
        "Error There is too little memory. Finished work is kept: close other programs, or run the same command again "
        "with fewer processes, smaller batches, images or files.\n"
    )
    sys.exit(1)


def _is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python, or a library in its own words, has asked for more memory than there is.

    What could not be imported for that may be called missing. A mendable error has said what lacked, unless Python or a
    library says so itself.
    """
    words = ("allocate memory", "out of memory", "bad_alloc", "bad allocation", "new thread", "failed to map segment")
    of_onednn = ("could not create a primitive", "could not execute a primitive")
    is_told = isinstance(error, MENDABLE) and not isinstance(error, ImportError)
    return not is_told and any(
        isinstance(cause, MemoryError) or any(word in str(cause).lower() for word in (*words, *of_onednn))
        for cause in _causes(error)
    )


def _stop_on_termination() -> None:
    """Tidy up when the program is asked to end, instead of leaving temporary files with images."""

    def stop(number: int, frame: object) -> None:
        raise TerminatedError

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)


def _run(args: Sequence[str]) -> None:
    """Read the arguments without heavy packages, which prints help and refuses mistakes at once; then run the verb."""
    if args[0].startswith("--tyro-"):
        modules = tuple(SECTIONS.values())
    elif args[0] in all_verbs():
        modules = (all_verbs()[args[0]].module,)
    else:
        raise UnknownVerbError("mcss", "verb", args[0], all_verbs())
    if not heavy_packages_are_loaded():
        if {"-h", "--help"} & set(args) and "numpy" not in sys.modules:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # help needs no threads, which cost time to start
        with heavy_packages_replaced():
            try:
                _read(modules, args)
            except (FileNotFoundError, UnknownVerbError):
                raise
            except Exception:
                pass  # either a stand-in is to blame, or the real packages will fail with the right message
    verb = _read(modules, args)
    from mcss.cli.terminal import begin
    from mcss.processes import check_limits

    begin(args, verb)
    check_limits()
    verb()


def _read(modules: Sequence[str], args: Sequence[str]) -> Callable[[], None]:
    """Load the modules of some verbs, and return the verb that `args` name with its arguments."""
    for module in modules:
        import_module(f"mcss.cli.{module}")
    from mcss.cli.arguments import Command, Verbs  # here, since `mcss --help` needs no tyro
    from mcss.cli.terminal import app

    if args[0].startswith("--tyro-"):
        app.complete("mcss", DESCRIPTION, args)
    prog = "mcss"
    entry: Verbs | Command = app
    while isinstance(entry, Verbs):
        if args[:1] in ([], ["-h"], ["--help"]):
            show_group(Console(), prog, entry.word, entry.help, entry.summaries())
            sys.exit(0 if args else 2)
        (name, entry), args = entry.named(args[0], prog), args[1:]
        prog = f"{prog} {name}"
    return entry.read(prog, args)
