"""Filters that take the trembling out of poses through time."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.signal import savgol_filter

Filter = Literal["savgol", "one-euro", "none"]

_ORDER = 2
_SPEED_CUTOFF = 1.0


@dataclass(frozen=True)
class SmoothingSettings:
    """How poses of a video are smoothed."""

    smooth: Filter = "savgol"
    """savgol: Savitzky–Golay, a parabola through the neighbouring poses, which delays nothing. one-euro: the 1€ filter,
    which looks back alone, as a live program has to. none: poses as predicted."""
    window: float = 0.3
    """savgol: seconds that a parabola spans; longer is calmer."""
    cutoff: float = 1.5
    """one-euro: Hz that pass while nothing moves; lower is calmer."""
    quickness: float = 0.005
    """one-euro: Hz more for each mm/s that a joint moves; higher follows quick movement more closely."""

    def __post_init__(self) -> None:
        if self.window <= 0 or self.cutoff <= 0 or self.quickness < 0:
            raise ValueError(
                "expected window > 0 s, cutoff > 0 Hz and quickness ≥ 0, came "
                f"window {self.window}, cutoff {self.cutoff}, quickness {self.quickness}"
            )


def smoothed(
    values: Float[np.ndarray, "n ..."], times: Float64[np.ndarray, " n"], settings: SmoothingSettings
) -> Float64[np.ndarray, "n ..."]:
    """Values through time, smoothed along the first axis.

    Args:
        values: Such as poses in mm.
        times: Seconds, growing; not necessarily in even steps.
        settings: The filter.
    """
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    match settings.smooth:
        case "none":
            found = flat
        case "savgol":
            found = _savgol(flat, times, settings.window)
        case "one-euro":
            found = one_euro(flat, times, settings.cutoff, settings.quickness)
    return found.reshape(np.shape(values))


def _savgol(
    values: Float64[np.ndarray, "n k"], times: Float64[np.ndarray, " n"], window: float
) -> Float64[np.ndarray, "n k"]:
    if len(values) <= _ORDER + 1:
        return values
    steps = np.diff(times)
    step = float(np.median(steps))
    half = min(max(round(window / step / 2), 0), (len(values) - 1) // 2)
    if 2 * half + 1 <= _ORDER:
        return values
    if np.abs(steps - step).max() < 0.05 * step:
        return np.asarray(savgol_filter(values, 2 * half + 1, _ORDER, axis=0), np.float64)
    # Dropped images, or a variable frame rate: the filter works on even steps.
    even = np.linspace(times[0], times[-1], max(2 * half + 1, round((times[-1] - times[0]) / step) + 1))
    resampled = np.stack([np.interp(even, times, column) for column in values.T], axis=1)
    calm = savgol_filter(resampled, 2 * half + 1, _ORDER, axis=0)
    return np.stack([np.interp(times, even, column) for column in calm.T], axis=1)


def one_euro(
    values: Float64[np.ndarray, "n k"], times: Float64[np.ndarray, " n"], cutoff: float, quickness: float
) -> Float64[np.ndarray, "n k"]:
    """The 1€ filter: exponential smoothing whose cutoff grows with the speed, so that it lags little when it matters.

    Args:
        values: Through time.
        times: Seconds, growing.
        cutoff: Hz at rest.
        quickness: Hz more for each unit of `values` a second.

    Reference:
        Casiez, Roussel, Vogel, "1€ filter: a simple speed-based low-pass filter for noisy input in interactive
        systems", CHI 2012.
    """
    out = np.array(values, np.float64)
    speed = np.zeros(values.shape[1])
    for i in range(1, len(values)):
        step = max(float(times[i] - times[i - 1]), 1e-6)
        share = _share(np.array(_SPEED_CUTOFF), step)
        speed = speed + share * ((values[i] - out[i - 1]) / step - speed)
        out[i] = out[i - 1] + _share(cutoff + quickness * np.abs(speed), step) * (values[i] - out[i - 1])
    return out


def _share(cutoff: Float64[np.ndarray, "*k"], step: float) -> Float64[np.ndarray, "*k"]:
    """The weight of a new value at a cutoff in Hz, `step` seconds after the last."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * step)), np.float64)
