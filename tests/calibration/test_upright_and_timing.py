"""Up, floor, size of images and clocks, on values worked out by hand."""

import numpy as np

from mcss.calibration.body import JOINTS
from mcss.calibration.sightings import Sightings
from mcss.calibration.timing import in_step, velocities
from mcss.calibration.triangulation import second_surest, smoothed
from mcss.calibration.upright import floor_plane, standing_direction


def test_up_is_from_ankles_to_shoulders_of_those_who_stand() -> None:
    up = np.array([0.6, 0.0, 0.8])
    joints = np.zeros((20, len(JOINTS), 3))
    for name, height in (("shoulder", 1400), ("ankle", 80)):
        for side in ("left", "right"):
            joints[:, JOINTS.index(f"{side}_{name}")] = height * up
    joints[15:, [JOINTS.index("left_shoulder"), JOINTS.index("right_shoulder")]] = [900, 300, 0]  # bent forward
    assert np.allclose(standing_direction(joints, np.ones((20, len(JOINTS)))), up, atol=1e-6)


def test_feet_that_cover_the_floor_tell_its_slope() -> None:
    random = np.random.default_rng(0)
    places = random.uniform(-3000, 3000, (400, 2))
    feet = np.zeros((400, 4, 3))
    feet[..., :2] = places[:, None]
    feet[..., 2] = (0.03 * places[:, 0] + 50)[:, None]
    feet[:, 1, 2] += random.uniform(0, 300, 400)  # a lifted foot
    slope, height = floor_plane(feet, np.ones((400, 4), bool))
    assert np.allclose(slope, [0.03, 0], atol=2e-3)
    assert abs(height - 50) < 5


def test_feet_in_one_place_say_nothing_about_the_slope() -> None:
    feet = np.random.default_rng(1).normal(size=(50, 4, 3)) * 10
    assert np.abs(floor_plane(feet, np.ones((50, 4), bool))[0]).max() < 0.01


def moving(n: int = 8) -> Sightings:
    pixels = np.zeros((n, 2, len(JOINTS), 2))
    pixels[..., 0] = 10 * np.arange(n)[:, None, None]
    return Sightings(pixels, np.zeros((n, 2, len(JOINTS), 3)), np.ones(pixels.shape[:3]), np.zeros(n, np.int64))


def test_what_is_late_is_taken_between_its_images() -> None:
    sightings, time, sequence = moving(), np.arange(8) / 10, np.zeros(8, np.int64)
    assert np.allclose(velocities(sightings, time, sequence)[1:-1, ..., 0], 100)
    shifted = in_step(sightings, np.array([0.05, -0.05]), time, sequence)
    assert np.allclose(shifted.pixels[3, 0, :, 0], 35)
    assert np.allclose(shifted.pixels[3, 1, :, 0], 25)


def test_the_second_surest_view_counts() -> None:
    certainty = np.array([[[0.9, 0.2], [0.5, 0.0], [0.7, 0.0]]])
    assert second_surest(certainty).tolist() == [[0.7, 0.0]]
    assert second_surest(certainty[:, :1]).tolist() == [[0.0, 0.0]]


def test_smoothing_does_not_lag_and_leaves_gaps() -> None:
    time = np.arange(40) / 20
    line = np.stack([time, 2 * time, -time], axis=-1)[:, None]
    line[20] = np.nan
    smooth = smoothed(line, np.ones((40, 1)), time, np.zeros(40, np.int64), 0.1)
    assert np.isnan(smooth[20]).all()
    assert np.allclose(smooth[8:12], line[8:12], atol=1e-9)
    apart = smoothed(line, np.ones((40, 1)), time, np.repeat([0, 1], 20), 0.1)
    assert apart[19, 0, 0] < smooth[19, 0, 0]  # the next sequence does not count
