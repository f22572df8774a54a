"""How much later one recording of a sound starts: what both heard decides, and chance does not pass for it."""

from collections.abc import Callable

import numpy as np
import pytest

from mcss.video.sync.clocks import MIN_CONFIDENCE
from mcss.video.sync.sound import RATE, Sound
from mcss.video.sync.sound_lag import sound_lag


def noise(seed: int, seconds: float, loudness: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, round(seconds * RATE))


def bangs(room: int, times: np.ndarray, start: float, seconds: float) -> np.ndarray:
    """Short sounds at some times, as a camera hears them that starts at `start`; each room has its own."""
    sound = np.zeros(round(seconds * RATE) + 2 * 1600)
    for k, at in enumerate(times):
        begin = round((at - start) * RATE) + 1600
        if 0 <= begin < len(sound) - 1600:
            bang = np.random.default_rng([room, k]).normal(0, 0.3, 1600) * np.exp(-np.arange(1600) / 300)
            sound[begin : begin + 1600] += bang
    return sound[1600:-1600]


def knocks(room: int, start: float, seconds: float) -> np.ndarray:
    return bangs(room, np.cumsum(np.random.default_rng(room).uniform(0.2, 0.9, 200)), start, seconds)


def ticks(period: float, start: float, seconds: float) -> np.ndarray:
    time = (start + np.arange(round(seconds * RATE)) / RATE) % period
    return np.asarray(0.5 * np.exp(-time / 0.01) * np.sin(2 * np.pi * 1000 * time))


def hum(phase: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(0.3 * np.sin(2 * np.pi * 50 * time + phase) + 0.1 * np.sin(2 * np.pi * 150 * time + 3 * phase))


def matched(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the lag and the confidence; nan and 0 if the recordings have nothing in common."""
    x, y = (Sound((samples.clip(-1, 1) * 20000).astype(np.int16)) for samples in (a, b))
    found = sound_lag(x, y, None)
    return (float(np.median(found.lag)), found.confidence) if found is not None else (np.nan, 0.0)


@pytest.mark.parametrize("loudness", [0.0, 0.001, 0.01])
@pytest.mark.parametrize("seconds", [8.0, 60.0])
def test_one_clap_in_a_quiet_room_is_enough(seconds: float, loudness: float) -> None:
    a, b = (
        bangs(5, np.array([3.0]), start, seconds) + noise(seed, seconds, loudness)
        for seed, start in enumerate((0, 1.27))
    )
    lag, confidence = matched(a, b)
    assert lag == pytest.approx(1.27, abs=0.001)
    assert confidence > 2 * MIN_CONFIDENCE


def test_a_few_claps_are_more_certain_than_one() -> None:
    def confidence(times: list[float]) -> float:
        return matched(*(bangs(5, np.array(times), 0.4 * k, 9) + noise(k, 9, 0.002) for k in range(2)))[1]

    assert confidence([3.0, 5.0, 7.5]) > 0.7 > confidence([3.0])


UNRELATED: dict[str, Callable[[int, float], np.ndarray]] = {
    "noise": lambda seed, seconds: noise(seed, seconds, 0.05),
    "hum": lambda seed, seconds: hum(1.7 * seed, seconds) + noise(seed, seconds, 0.003),
    "knocks": lambda seed, seconds: knocks(seed, 0, seconds) + noise(seed, seconds, 0.01),
    "claps": lambda seed, seconds: bangs(seed, np.array([1 + seed % 2]), 0, seconds) + noise(seed, seconds, 0.002),
}


@pytest.mark.parametrize("kind", UNRELATED)
@pytest.mark.parametrize("seconds", [3.0, 8.0])
def test_sounds_that_have_nothing_in_common_are_not_trusted(kind: str, seconds: float) -> None:
    for seed in range(4):
        a, b = (UNRELATED[kind](2 * seed + k, seconds) for k in range(2))
        assert matched(a, b)[1] < MIN_CONFIDENCE


@pytest.mark.parametrize(("period", "seconds"), [(0.3, 4.0), (1.0, 4.0), (2.0, 8.0), (1.0, 20.0)])
def test_a_sound_that_repeats_itself_is_not_trusted(period: float, seconds: float) -> None:
    for lag in (-1.4, 0.2, 1.1):
        a, b = (ticks(period, 0.3 + start, seconds) + noise(k, seconds, 0.005) for k, start in enumerate((0, lag)))
        assert matched(a, b)[1] < MIN_CONFIDENCE


def test_what_both_heard_all_the_time_outweighs_the_beep_with_which_cameras_start() -> None:
    beep = 0.9 * np.sin(2 * np.pi * 2000 * np.arange(2400) / RATE)

    def recorded(seed: int, start: float) -> np.ndarray:
        sound = 0.05 * knocks(3, start, 8) + noise(seed, 8, 0.001)
        sound[800:3200] += beep
        return sound

    lag, confidence = matched(recorded(0, 2), recorded(1, 2.52))
    assert lag == pytest.approx(0.52, abs=0.001)
    assert confidence > MIN_CONFIDENCE


def test_common_sound_is_found_below_the_cameras_own_noise() -> None:
    room = noise(1, 9, 0.06)
    a, b = room[: 8 * RATE] + noise(2, 8, 0.12), room[RATE // 2 : 8 * RATE + RATE // 2] + noise(3, 8, 0.12)
    lag, confidence = matched(a, b)
    assert lag == pytest.approx(0.5, abs=0.001)
    assert confidence > MIN_CONFIDENCE
