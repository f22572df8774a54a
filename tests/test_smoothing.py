import math

import numpy as np
import pytest

from mcss.smoothing import SmoothingSettings, one_euro, smoothed

TIMES = np.arange(60) / 30


def slow_one_euro(values: list[float], times: list[float], cutoff: float, quickness: float) -> list[float]:
    """The published algorithm for one number, with its low-pass filters written out."""
    out, speed = [values[0]], 0.0
    for i in range(1, len(values)):
        step = times[i] - times[i - 1]

        def alpha(frequency: float, step: float = step) -> float:
            tau = 1.0 / (2 * math.pi * frequency)
            return 1.0 / (1.0 + tau / step)

        raw = (values[i] - out[-1]) / step
        speed = alpha(1.0) * raw + (1 - alpha(1.0)) * speed
        a = alpha(cutoff + quickness * abs(speed))
        out.append(a * values[i] + (1 - a) * out[-1])
    return out


def test_the_one_euro_filter_is_the_published_one() -> None:
    rng = np.random.default_rng(0)
    values, times = rng.normal(size=(40, 2)) * 50, np.cumsum(rng.uniform(0.01, 0.1, 40))
    found = one_euro(values, times, 1.2, 0.01)
    for k in range(2):
        np.testing.assert_allclose(found[:, k], slow_one_euro(values[:, k].tolist(), times.tolist(), 1.2, 0.01))


def test_savgol_leaves_parabolas_alone_on_even_and_on_uneven_steps() -> None:
    curve = np.stack([3 * TIMES**2 - TIMES, 5 - 2 * TIMES], axis=1)
    np.testing.assert_allclose(smoothed(curve, TIMES, SmoothingSettings()), curve, atol=1e-9)
    uneven = np.delete(TIMES, [7, 8, 20, 41])
    line = np.stack([uneven * 4, 1 - uneven], axis=1)
    np.testing.assert_allclose(smoothed(line, uneven, SmoothingSettings()), line, atol=1e-9)


@pytest.mark.parametrize("kind", ["savgol", "one-euro"])
@pytest.mark.parametrize("dropped", [[], [5, 6, 30]])
def test_filters_calm_noise_and_keep_the_movement(kind: str, dropped: list[int]) -> None:
    times = np.delete(TIMES, dropped)
    true = 300 * np.sin(2 * np.pi * 0.5 * times)[:, None, None] * np.ones((1, 17, 3))
    noisy = true + np.random.default_rng(0).normal(0, 20, true.shape)
    calm = smoothed(noisy, times, SmoothingSettings(smooth=kind))  # type: ignore[arg-type]
    assert np.abs(np.diff(calm - true, axis=0)).mean() < 0.5 * np.abs(np.diff(noisy - true, axis=0)).mean()
    if kind == "savgol":
        assert np.abs(calm - true).mean() < 0.7 * np.abs(noisy - true).mean()


def test_no_smoothing_changes_nothing_and_short_videos_pass() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    np.testing.assert_array_equal(smoothed(values, TIMES, SmoothingSettings(smooth="none")), values)
    for count in range(1, 6):
        assert smoothed(values[:count], TIMES[:count], SmoothingSettings()).shape == (count, 3)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"got window 0\.0, cutoff"):
        SmoothingSettings(window=0.0)
