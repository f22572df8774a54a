"""What was found in the files of visitors, kept in memory for a while and nowhere else."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from mcss.web.analysis import Answer
from mcss.web.limits import MEGABYTE

KEPT_SECONDS = 1800.0
KEPT_BYTES = 300 * MEGABYTE


class ForgottenError(LookupError):
    """No such answer is kept (any more)."""


class Looks:
    """Answers under names that cannot be guessed; the oldest are forgotten first."""

    def __init__(
        self, seconds: float = KEPT_SECONDS, most: int = KEPT_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._seconds, self._most, self._clock = seconds, most, clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, answer: Answer) -> str:
        """Keep an answer; returns its name."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[name] = (self._clock(), answer)
            self._tidy()
        return name

    def __getitem__(self, name: str) -> Answer:
        with self._lock:
            self._tidy()
            if name not in self._kept:
                raise ForgottenError(
                    f"this result is not kept any more ({self._seconds / 60:.0f} minutes at most); send the file again"
                )
            self._kept[name] = (self._clock(), self._kept[name][1])
            self._kept.move_to_end(name)
            return self._kept[name][1]

    def _tidy(self) -> None:
        now, size = self._clock(), sum(_bytes(answer) for _, answer in self._kept.values())
        while len(self._kept) > 1 and size > self._most:
            size -= _bytes(self._kept.popitem(last=False)[1][1])
        while self._kept and now - next(iter(self._kept.values()))[0] > self._seconds:
            self._kept.popitem(last=False)


def _bytes(answer: Answer) -> int:
    # A pose as Python's numbers takes some kilobytes.
    return sum(map(len, answer.crops)) + len(answer.image) + answer.embedding.nbytes + 8_000 * len(answer.crops)
