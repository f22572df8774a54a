"""Keep the results of visitors' files in memory for a while, and nowhere else."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from mcss.web.analysis import AnalysisResult
from mcss.web.limits import MEGABYTE

KEPT_SECONDS = 1800.0
KEPT_BYTES = 300 * MEGABYTE


class ForgottenError(LookupError):
    """There is no such result, or it is no longer kept."""


class ResultStore:
    """Results under names that cannot be guessed; those unused longest are forgotten first."""

    def __init__(
        self,
        seconds: float = KEPT_SECONDS,
        most_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept: OrderedDict[str, tuple[float, AnalysisResult]] = OrderedDict()
        self._seconds, self._most_bytes, self._clock = seconds, most_bytes, clock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, result: AnalysisResult) -> str:
        """Keep a result; returns its name."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[name] = (self._clock(), result)
            self._forget()
        return name

    def __getitem__(self, name: str) -> AnalysisResult:
        with self._lock:
            self._forget()
            if name not in self._kept:
                raise ForgottenError(
                    f"this result is no longer kept (results last {self._seconds / 60:.0f} minutes at most); send the "
                    "file again"
                )
            self._kept[name] = (self._clock(), self._kept[name][1])
            self._kept.move_to_end(name)
            return self._kept[name][1]

    def _forget(self) -> None:
        now, size = self._clock(), sum(_bytes(result) for _, result in self._kept.values())
        while len(self._kept) > 1 and size > self._most_bytes:
            size -= _bytes(self._kept.popitem(last=False)[1][1])
        while self._kept and now - next(iter(self._kept.values()))[0] > self._seconds:
            self._kept.popitem(last=False)


def _bytes(result: AnalysisResult) -> int:
    # A pose as Python numbers takes some kilobytes.
    return sum(map(len, result.crops)) + len(result.image) + result.embedding.nbytes + 8_000 * len(result.crops)
