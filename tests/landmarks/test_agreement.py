import numpy as np

from landmarks_for_tests import stick_landmarks, with_world, without_views
from mcss.data.capture import Capture
from mcss.landmarks.agreement import agreement


def test_views_of_one_person_at_one_time_agree(tiny_capture: Capture) -> None:
    found = agreement(stick_landmarks(tiny_capture, depth_noise=40))
    assert found.odd_views == ()
    assert found.describe_lag() == ""
    apart = ~np.eye(4, dtype=bool)
    assert (found.distance[apart] < 0.6 * found.by_chance[apart]).all()
    np.testing.assert_array_equal(found.distance[apart], found.distance.T[apart])


def test_a_view_of_somebody_else_is_named(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, depth_noise=40)
    other = np.random.default_rng(1).permutation(len(landmarks))
    found = agreement(with_world(landmarks, 2, landmarks.world[other, 2]))
    assert found.odd_views == ("3",)


def test_views_that_never_agree_are_all_odd(tiny_capture: Capture) -> None:
    landmarks, random = stick_landmarks(tiny_capture, depth_noise=100), np.random.default_rng(1)
    for view in range(1, 4):
        landmarks = with_world(landmarks, view, landmarks.world[random.permutation(len(landmarks)), view])
    assert agreement(landmarks).odd_views == ("1", "2", "3", "4")


def test_a_view_that_is_late_is_named_with_its_lag(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, depth_noise=20)
    late = landmarks.world[:, 1].copy()
    for start in range(0, len(landmarks), 24):
        late[start + 4 : start + 24] = landmarks.world[start : start + 20, 1]
    text = agreement(with_world(landmarks, 1, late)).describe_lag()
    assert "2 agrees best with 1 when it is taken 0.40 s later" in text
    assert "3 agrees best with 2 when it is taken 0.40 s earlier" in text
    assert "3 agrees best with 1" not in text


def test_nothing_is_said_about_views_that_are_hardly_there(tiny_capture: Capture) -> None:
    landmarks = without_views(stick_landmarks(tiny_capture), slice(5, None), [3])
    found = agreement(landmarks)
    assert np.isnan(found.distance[3]).all()
    assert found.odd_views == ()
