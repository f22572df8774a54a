"""What long work shows, on a terminal and elsewhere."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from mcss.progress import RichProgress


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    """A console of 80 columns, and what is written to it."""
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=80, color_system=None), written


def ticking(*seconds: float) -> Callable[[], float]:
    """A clock that shows these times in turn."""
    times = iter(seconds)
    return lambda: next(times)


def test_without_a_terminal_a_plain_line_appears_every_half_a_minute() -> None:
    shown, written = console(terminal=False)
    now = [0.0]
    with RichProgress(shown, lambda: now[0]).task("Training run", 1000, done=100) as task:
        task.note("loss 0.5")
        for step in range(1, 901):
            now[0] = step / 5
            task.advance()
    assert written.getvalue().splitlines() == [
        "Training run: 250 of 1,000 (25 %), about 2 min left, loss 0.5",
        "Training run: 400 of 1,000 (40 %), about 2 min left, loss 0.5",
        "Training run: 550 of 1,000 (55 %), about 2 min left, loss 0.5",
        "Training run: 700 of 1,000 (70 %), about 60 s left, loss 0.5",
        "Training run: 850 of 1,000 (85 %), about 30 s left, loss 0.5",
        "Training run: 1,000 of 1,000 (100 %), took 3 min",
    ]


def test_without_a_terminal_short_work_leaves_no_trace() -> None:
    shown, written = console(terminal=False)
    with RichProgress(shown, ticking(0, 1, 2, 3, 4)).task("Reading images", 2) as task:
        task.advance()
        task.advance()
    assert written.getvalue() == ""


def test_short_pieces_of_long_work_are_not_silent_for_more_than_half_a_minute() -> None:
    shown, written = console(terminal=False)
    now = [0.0]
    progress = RichProgress(shown, lambda: now[0])
    for name in ("Reading", "Training a", "Training b", "Training c"):
        with progress.task(name, 200) as task:
            for _ in range(200):
                now[0] += 0.1
                task.advance()
    assert written.getvalue().splitlines() == [
        "Training a: 100 of 200 (50 %), about 10 s left",
        "Training a: 200 of 200 (100 %), took 20 s",
        "Training c: 100 of 200 (50 %), about 10 s left",
        "Training c: 200 of 200 (100 %), took 20 s",
    ]


@pytest.mark.parametrize("name", ["Reading", "Training supervised-S1-seed0-1a2b3c4d-with-a-long-name"])
def test_on_a_terminal_count_and_time_fit_into_80_columns_and_losses_have_their_own_line(name: str) -> None:
    shown, written = console(terminal=True)
    note = "loss 0.123 · D+ 0.400 · D− 0.333 · pose 0.456 · metric 0.223 · 1234 images/s"
    with RichProgress(shown).task(name, 64_000, done=12_345) as task:
        task.note(note)
        task.advance()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "\n")
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80
    bars = [line for line in lines if "12346/64000" in line]
    assert any(re.search(r"ETA (-|\d+):", line) for line in bars), lines
    assert f"  {note}" in lines
    assert not [line for line in bars if "loss" in line]
