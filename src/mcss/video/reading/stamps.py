"""The times at which the pictures of a video were taken, by their own time stamps.

This is the only place that turns time stamps into a rate: the header of a file states an average that a lost picture,
a long last picture or a variable rate makes wrong.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

REGULAR = 0.4
"""A step between two pictures that differs from the median step by less than this share of it is regular."""

SAME_STEP = 0.1
"""Stamps that jitter about even times have a mean step that differs from their median step by less than this share."""

EVEN = 0.25
"""Pictures that lie within this share of a step of evenly spaced times count as evenly spaced."""

SAME_RATE = 5e-4
"""A stated rate that differs from the measured one by less than this share is taken for exact."""

ROUNDED = 1e-3
"""Seconds to which some containers round their time stamps."""

FAST_SHARE = 0.1
"""If at least this share of the steps is much shorter than the median step, the file has a faster part."""


def rate_of_stamps(seconds: Float64[np.ndarray, " n"], stated: Sequence[float]) -> float:
    """Return the pictures per second: one over the median step, without the rounding of single stamps.

    Args:
        seconds: The times of the pictures, increasing.
        stated: Rates that the file states, the best first; one that agrees with the stamps is exact. Used as it is if
            there are fewer than two stamps.
    """
    if len(seconds) < 2:
        return next(iter(stated), 0.0)
    steps = np.diff(seconds)
    median = float(np.median(steps))
    regular = steps[np.abs(steps / median - 1) < 0.5]
    measured = len(regular) / float(regular.sum())
    if abs(measured * median - 1) > SAME_STEP:  # the rate itself varies
        measured = 1 / median
    unsure = max(SAME_RATE, ROUNDED / float(seconds[-1] - seconds[0]))
    return next((rate for rate in stated if abs(rate / measured - 1) < unsure), measured)


def fastest_rate(seconds: Float64[np.ndarray, " n"], rate: float) -> float:
    """Return the pictures per second of the fastest part of a video whose rate varies, else `rate`."""
    steps = np.diff(seconds)
    short = steps[steps < (1 - REGULAR) / rate]
    return rate if len(short) < max(FAST_SHARE * len(steps), 2) else float(1 / np.median(short))


def is_even(seconds: Float64[np.ndarray, " n"], rate: float) -> bool:
    """Whether pictures are spaced evenly, `rate` per second, from the first one on."""
    late = seconds - seconds[:1] - np.arange(len(seconds)) / rate
    return not len(late) or bool(np.abs(late).max() <= EVEN / rate)


def nearest(seconds: Float64[np.ndarray, " n"], at: Float64[np.ndarray, "*k"]) -> Int64[np.ndarray, "*k"]:
    """Return the number of the picture that is nearest to each of some times; of two, the earlier one."""
    after = np.searchsorted(seconds, at).clip(0, len(seconds) - 1)
    before = (after - 1).clip(0)
    earlier: Bool[np.ndarray, "*k"] = np.abs(seconds[before] - at) <= np.abs(seconds[after] - at)
    return np.where(earlier, before, after).astype(np.int64)
