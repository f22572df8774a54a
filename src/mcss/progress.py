"""Progress of long work, kept apart from the work itself: functions report, the command line shows."""

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
    """One piece of long work."""

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more of the total are done."""

    def note(self, text: str) -> None:
        """Show a short text beside the bar, such as the current loss."""


@runtime_checkable
class Progress(Protocol):
    """Where long work reports to."""

    def task(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` steps of which `done` were finished before (a resumed run)."""


class _SilentTask:
    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentProgress:
    """Reports to nobody: the default of every function in the library."""

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task that nobody sees."""
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
    """Bars with elapsed and remaining time on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A bar that stays on the screen when its work is done."""
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
