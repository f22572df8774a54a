"""Progress of long work: library functions report it, and the command line shows it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.progress import Task as BarTask
from rich.table import Column
from rich.text import Text

LINE_SECONDS = 30.0
"""Seconds between two lines about the same work where there is no terminal."""


@runtime_checkable
class Task(Protocol):
    """A piece of long work in progress."""

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more of the total are done."""

    def note(self, text: str) -> None:
        """Show a short text with the bar, such as the current loss."""


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


@runtime_checkable
class Talkative(Protocol):
    """A receiver that also shows lines of text."""

    def line(self, text: str) -> None:
        """Show a line about what was chosen or found, such as how images are kept."""


def say(progress: Progress, text: str) -> None:
    """Show a line of text, if the receiver shows any."""
    if isinstance(progress, Talkative):
        progress.line(text)


class _Bars(RichBars):
    """A bar that leaves room for count and time in 80 columns; the note has a line of its own."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"] and not task.finished:
                yield Text(f"  {task.fields['note']}", style="dim", no_wrap=True, overflow="ellipsis")


class _TimeColumn(TimeRemainingColumn):
    """The time that is left, or that the work took once it is done."""

    def render(self, task: BarTask) -> Text:
        return Text("in " if task.finished else "ETA ").append_text(super().render(task))


class _BarTask:
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: int = 1) -> None:
        self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


class _Lines:
    """Prints lines, and knows when the last one was printed."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self.clock = clock
        self.last = clock()

    def print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.last = self.clock()


class _LineTask:
    """Prints a line when some time has passed since its last one, or since the last one of any task."""

    def __init__(self, lines: _Lines, name: str, total: int, done: int) -> None:
        self._lines, self._name, self._total = lines, name, total
        self._done = self._before = done
        self._start = self._last = lines.clock()
        self._note = ""
        self._printed = False

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        now = self._lines.clock()
        if now - min(self._last, self._lines.last) >= LINE_SECONDS and self._done < self._total:
            self._print(self._rest(now))

    def note(self, text: str) -> None:
        self._note = text

    def finish(self) -> None:
        """Print a last line about work that has taken long enough for one, alone or with the work before it."""
        now = self._lines.clock()
        if self._printed or now - min(self._start, self._lines.last) >= LINE_SECONDS:
            self._note = ""
            self._print(f"took {_duration(now - self._start)}")

    def _rest(self, now: float) -> str:
        """The time that is left, if the work goes on at its mean pace."""
        new, spent = self._done - self._before, now - self._start
        return f"about {_duration(spent * (self._total - self._done) / new)} left" if new > 0 else ""

    def _print(self, time_in_words: str) -> None:
        share = f" ({100 * self._done // self._total} %)" if self._total else ""
        parts = [f"{self._done:,} of {self._total:,}{share}", time_in_words, self._note]
        self._lines.print(f"{self._name}: {', '.join(filter(None, parts))}")
        self._last, self._printed = self._lines.last, True


def _duration(seconds: float) -> str:
    """A duration in words, rounded as a reader would round it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class RichProgress:
    """Shows bars with the time left on a terminal, and elsewhere a plain line every half a minute."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._lines = _Lines(self._console, clock)

    def line(self, text: str) -> None:
        """Print a line."""
        self._lines.print(text)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task with a bar, which stays on the screen when the work is done."""
        if not self._console.is_terminal:
            task_in_lines = _LineTask(self._lines, name, total, done)
            yield task_in_lines
            task_in_lines.finish()
            return
        bars = _Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False, table_column=Column(width=28, no_wrap=True)),
            BarColumn(bar_width=14),
            MofNCompleteColumn(),
            _TimeColumn(elapsed_when_finished=True),
            console=self._console,
        )
        with bars:
            task = bars.add_task(name, total=total, completed=done, note="")
            yield _BarTask(bars, task)
