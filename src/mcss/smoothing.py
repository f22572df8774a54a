"""Filters that remove jitter from poses over time."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.signal import savgol_filter

SmoothingMethod = Literal["savgol", "one-euro", "none"]

_ORDER = 2
"""Degree of the polynomial of the Savitzky–Golay filter."""
_SPEED_CUTOFF = 1.0
"""Hz at which the 1€ filter smooths its estimate of the speed."""


@dataclass(frozen=True)
class SmoothingSettings:
    """How poses are smoothed over time."""

    smooth: SmoothingMethod = "savgol"
    """savgol: Savitzky–Golay, which fits a parabola to the neighbouring poses and adds no delay. one-euro: the 1€
    filter, which uses only earlier poses, as a live program must. none: keep the poses as predicted."""
    window: float = 0.3
    """savgol: seconds that a parabola spans; longer is smoother. Where three images or fewer lie in it, poses stay as
    they are."""
    cutoff: float = 1.5
    """one-euro: cutoff frequency in Hz while nothing moves; lower is smoother."""
    quickness: float = 0.005
    """one-euro: Hz added to the cutoff for each mm/s that a joint moves; higher follows quick movements more
    closely."""

    def __post_init__(self) -> None:
        if self.window <= 0 or self.cutoff <= 0 or self.quickness < 0:
            raise ValueError(
                "expected window > 0 s, cutoff > 0 Hz and quickness ≥ 0, got "
                f"window {self.window}, cutoff {self.cutoff}, quickness {self.quickness}"
            )


def smoothed(
    values: Float[np.ndarray, "n ..."], times: Float64[np.ndarray, " n"], settings: SmoothingSettings
) -> Float64[np.ndarray, "n ..."]:
    """Smooth values over time, along the first axis.

    Args:
        values: Such as poses in mm.
        times: Increasing times in seconds; the steps may vary.
        settings: The filter.
    """
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    match settings.smooth:
        case "none":
            result = flat
        case "savgol":
            result = _savgol(flat, times, settings.window)
        case "one-euro":
            result = one_euro(flat, times, settings.cutoff, settings.quickness)
    return result.reshape(np.shape(values))


def _savgol(
    values: Float64[np.ndarray, "n k"], times: Float64[np.ndarray, " n"], window: float
) -> Float64[np.ndarray, "n k"]:
    if len(values) <= _ORDER + 1:
        return values
    steps = np.diff(times)
    step = float(np.median(steps))
    half = min(max(round(window / step / 2), 0), (len(values) - 1) // 2)
    if 2 * half + 1 <= _ORDER + 1:  # a parabola through three values is these values
        return values
    if np.abs(steps - step).max() < 0.05 * step:
        return np.asarray(savgol_filter(values, 2 * half + 1, _ORDER, axis=0), np.float64)
    # Images were dropped, or the frame rate varies: resample to the even steps that the filter needs, and back.
    even = np.linspace(times[0], times[-1], max(2 * half + 1, round((times[-1] - times[0]) / step) + 1))
    resampled = np.stack([np.interp(even, times, column) for column in values.T], axis=1)
    filtered = savgol_filter(resampled, 2 * half + 1, _ORDER, axis=0)
    return np.stack([np.interp(times, even, column) for column in filtered.T], axis=1)


def one_euro(
    values: Float64[np.ndarray, "n k"], times: Float64[np.ndarray, " n"], cutoff: float, quickness: float
) -> Float64[np.ndarray, "n k"]:
    """The 1€ filter: exponential smoothing whose cutoff grows with the speed, so that quick movements lag little.

    Args:
        values: Values over time.
        times: Increasing times in seconds.
        cutoff: Cutoff frequency at rest, in Hz.
        quickness: Hz added to the cutoff for each unit of `values` per second.

    Reference:
        Casiez, Roussel, Vogel, "1€ filter: a simple speed-based low-pass filter for noisy input in interactive
        systems", CHI 2012.
    """
    out = np.array(values, np.float64)
    speed = np.zeros(values.shape[1])
    for i in range(1, len(values)):
        step = max(float(times[i] - times[i - 1]), 1e-6)
        speed = speed + _weight(np.array(_SPEED_CUTOFF), step) * ((values[i] - out[i - 1]) / step - speed)
        out[i] = out[i - 1] + _weight(cutoff + quickness * np.abs(speed), step) * (values[i] - out[i - 1])
    return out


def _weight(cutoff: Float64[np.ndarray, "*k"], step: float) -> Float64[np.ndarray, "*k"]:
    """The weight of a new value, `step` seconds after the last, at a cutoff in Hz."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * step)), np.float64)
