"""Progress of long work: library functions report it, and the command line shows it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichBars,
)


@runtime_checkable
class Task(Protocol):
    """A piece of long work in progress."""

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more of the total are done."""

    def note(self, text: str) -> None:
        """Show a short text beside the bar, such as the current loss."""


@runtime_checkable
class Progress(Protocol):
    """A receiver of reports from long work."""

    def task(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` steps, of which a resumed run has `done` finished before."""


class _SilentTask:
    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentProgress:
    """Discards all reports; the default of every function in the library."""

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task that discards its reports."""
        yield _SilentTask()


NO_PROGRESS = SilentProgress()


class _RichTask:
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: int = 1) -> None:
        self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


class RichProgress:
    """Shows bars with elapsed and remaining time on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task with a bar, which stays on the screen when the work is done."""
        bars = RichBars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
        )
        with bars:
            task = bars.add_task(name, total=total, completed=done, note="")
            yield _RichTask(bars, task)
