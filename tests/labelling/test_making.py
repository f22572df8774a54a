from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captures_for_tests import VIEWS
from landmarks_for_tests import body_of, stick_landmarks, with_world, without_views
from mcss.data.capture import Capture
from mcss.errors import LandmarkError
from mcss.labelling.bodies import cameras_of
from mcss.labelling.image_sizes import guessed_size, with_guessed_sizes
from mcss.labelling.joints import joints_of_landmarks, values_of_landmarks
from mcss.labelling.make import LabelSettings, MadeLabels, labels_of, make_labels
from mcss.labelling.sheet import _in_images, label_sheet
from mcss.landmarks.landmark_files import write_landmarks
from mcss.landmarks.view_landmarks import LANDMARKS
from mcss.metrics import pa_mpjpe
from mcss.skeletons import JOINTS, LIMBS, canonical_pose
from mcss.smoothing import SmoothingSettings

PLAIN = LabelSettings(smoothing=SmoothingSettings("none"), cameras=False)


def limb_errors(made: MadeLabels, capture: Capture) -> np.ndarray:
    """PA-MPJPE over the joints of arms and legs, mm."""
    true = capture.instants()
    there = {(s, q, f): i for i, (s, q, f) in enumerate(zip(true.subject, true.sequence, true.frame, strict=True))}
    keys = zip(made.instants.subject, made.instants.sequence, made.instants.frame, strict=True)
    at = [there[key] for key in keys]
    limbs = list(LIMBS)
    poses, labels = torch.from_numpy(made.poses[:, limbs]), torch.from_numpy(true.pose[at][:, limbs])
    return pa_mpjpe(poses, labels.double()).numpy()


def test_joints_are_means_of_landmarks_and_the_head_is_above_the_ears() -> None:
    points = np.zeros((1, 33, 3))
    place = {"left_hip": (-100, 0, 0), "right_hip": (100, 0, 0), "left_shoulder": (-200, 0, 500)}
    place |= {
        "right_shoulder": (200, 0, 500),
        "left_ear": (-75, 0, 700),
        "right_ear": (75, 0, 700),
        "nose": (0, 100, 700),
    }
    for name, where in place.items():
        points[0, LANDMARKS.index(name)] = where
    joints = dict(zip(JOINTS, joints_of_landmarks(points)[0], strict=True))
    assert joints["Hip"].tolist() == [0, 0, 0]
    assert joints["Thorax"].tolist() == [0, 0, 500]
    assert joints["Spine"].tolist() == [0, 0, 250]
    assert joints["Neck"].tolist() == [0, 100, 700]
    np.testing.assert_allclose(joints["Head"], [0, 0, 700 + 0.85 * 150])
    points[0, LANDMARKS.index("nose")] = np.nan
    points[0, LANDMARKS.index("left_ear")] = np.nan
    joints = dict(zip(JOINTS, joints_of_landmarks(points)[0], strict=True))
    np.testing.assert_allclose(joints["Neck"], [0, 0, 500 + 0.35 * 500])
    np.testing.assert_allclose(joints["Head"], [0, 0, 500 + 0.65 * 500])
    values = np.zeros((1, 33))
    values[0, LANDMARKS.index("left_hip")] = 1
    assert values_of_landmarks(values)[0, [JOINTS.index(name) for name in ("Hip", "LHip", "Spine")]].tolist() == [
        0.5,
        1,
        0.25,
    ]


def test_labels_are_the_canonical_poses_of_the_people_filmed(tiny_capture: Capture) -> None:
    made = labels_of(stick_landmarks(tiny_capture, noise=5, depth_noise=60), PLAIN)
    assert len(made) == made.candidates == 144
    assert limb_errors(made, tiny_capture).mean() < 15
    true = canonical_pose(torch.from_numpy(tiny_capture.instants().pose)).numpy()
    assert np.linalg.norm((made.poses - true)[:, list(LIMBS)], axis=2).mean() < 60  # headings of noisy hips
    assert made.confidence.min() > 0.8
    np.testing.assert_allclose(made.poses[:, JOINTS.index("LHip"), 1], 0, atol=1e-3)
    assert made.instants.heading_valid.all()
    assert made.summary().startswith("Labelled 144 of 144 instants; confidence 0.9")
    assert "4 views were turned onto each other and lie" in made.summary()


def test_smoothing_takes_noise_away(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=40)
    rough = labels_of(landmarks, PLAIN)
    smooth = labels_of(landmarks, replace(PLAIN, smoothing=SmoothingSettings("savgol", window=0.5)))
    assert limb_errors(smooth, tiny_capture).mean() < 0.95 * limb_errors(rough, tiny_capture).mean()


def test_instants_whose_views_disagree_are_left_out(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5)
    world = landmarks.world.copy()
    world[30:40] += 250 * np.random.default_rng(0).normal(size=world[30:40].shape).astype(np.float32)
    made = labels_of(replace(landmarks, world=world), PLAIN)
    assert made.doubtful == 10
    assert len(made) == 134
    assert limb_errors(made, tiny_capture).max() < 30
    assert "(left out: 10 of low confidence)" in made.summary()
    everything = labels_of(replace(landmarks, world=world), replace(PLAIN, min_confidence=0.0, max_jump=1e6))
    assert everything.confidence[30:40].max() < 0.5 < everything.confidence[:30].min()


def test_a_pose_that_jumps_is_left_out(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    instants = landmarks.instants
    faster = replace(instants, time=instants.time / 4)  # 40 images a second, so that neighbours tell
    world = landmarks.world.copy()
    for start in range(0, 144, 24):
        world[start : start + 24] = world[start]  # they stand still
    world[60] = world[130]  # somebody else, in all views at once
    made = labels_of(replace(landmarks, instants=faster, world=world), PLAIN)
    assert made.jumping == 1
    left_out = set(range(144)) - {
        int(np.flatnonzero((instants.subject == s) & (instants.sequence == q) & (instants.frame == f))[0])
        for s, q, f in zip(made.instants.subject, made.instants.sequence, made.instants.frame, strict=True)
    }
    assert left_out == {60}


def test_instants_without_a_whole_body_are_left_out(tiny_capture: Capture) -> None:
    landmarks = without_views(stick_landmarks(tiny_capture), slice(0, 3), [0, 1, 2, 3])
    landmarks.world[5, :, LANDMARKS.index("left_wrist")] = np.nan
    made = labels_of(landmarks, PLAIN)
    assert made.unseen == 4
    assert "4 without a whole body" in made.summary()


def test_one_view_alone_is_refused_unless_asked_for(tiny_capture: Capture) -> None:
    landmarks = without_views(stick_landmarks(tiny_capture, noise=5), slice(None), [1, 2, 3])
    rows = np.where(np.arange(4) == 0, landmarks.instants.rows, -1)
    landmarks = replace(landmarks, instants=replace(landmarks.instants, rows=rows))
    message = r"every instant has one view, and a single view says little about depth; film with two cameras"
    with pytest.raises(LandmarkError, match=message):
        labels_of(landmarks, PLAIN)
    made = labels_of(landmarks, replace(PLAIN, min_confidence=0.0))
    assert made.confidence.max() <= 0.301
    assert "One view alone says where joints are" in made.summary()


def test_views_of_different_people_are_refused_and_one_of_them_is_left_out(tiny_capture: Capture) -> None:
    landmarks, random = stick_landmarks(tiny_capture, depth_noise=40), np.random.default_rng(1)
    for view in (1, 2, 3):
        landmarks = with_world(landmarks, view, landmarks.world[random.permutation(144), view])
        if view == 1:
            made = labels_of(landmarks, replace(PLAIN, min_confidence=0.3))
            assert made.views_left_out == ("2",)
            assert limb_errors(made, tiny_capture).mean() < 20
            assert made.warnings()[0].startswith("2 does not show the same person at the same time as the other views")
            assert "3 views were turned onto each other" in made.summary()
    with pytest.raises(LandmarkError, match=r"the views 1, 2, 3, 4 do not agree: turned onto each other, the nearest"):
        labels_of(landmarks, PLAIN)


def test_no_instant_that_is_sure_enough_is_an_error(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=40)
    with pytest.raises(
        LandmarkError, match=r"none of the 144 instants reaches the confidence 1 .the highest is 0\.\d+"
    ):
        labels_of(landmarks, replace(PLAIN, min_confidence=1.0))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_confidence: expected 0 to 1, got 2\.0"):
        LabelSettings(min_confidence=2.0)
    with pytest.raises(ValueError, match=r"max_jump: expected millimetres above 0, got 0\.0"):
        LabelSettings(max_jump=0.0)


def test_labels_of_a_split_are_made_of_a_file_of_landmarks(tiny_capture: Capture, tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    write_landmarks(path, stick_landmarks(tiny_capture))
    made = make_labels(tiny_capture, "validation", replace(PLAIN, landmarks=path))
    assert made.instants.present_subjects() == ("S3",)
    assert len(made) == 16


def test_the_sheet_draws_labels_where_the_person_is(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    made = labels_of(landmarks, PLAIN)
    sheet = label_sheet(tiny_capture, made, count=6, size=64)
    assert sheet.shape[1] == 64 * (len(VIEWS) + 1)
    assert sheet.shape[0] > 5 * 64
    drawn = _in_images(made, np.array([10, 90]))
    true = joints_of_landmarks(body_of(tiny_capture.instants().pose[[10, 90]].astype(np.float64)))
    for i, row in enumerate(tiny_capture.instants().rows[[10, 90]]):
        cameras = tiny_capture.cameras(row)
        pixels = cameras.project(np.repeat(true[i : i + 1], 4, axis=0).astype(np.float32))
        assert np.linalg.norm(drawn[i] - pixels, axis=2).max() < 25  # of 512; drawn without perspective


def test_with_known_cameras_labels_are_places_in_their_room(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5, depth_noise=60)
    made = labels_of(landmarks, replace(PLAIN, cameras=True), cameras_of(tiny_capture, landmarks.instants))
    assert made.triangulated
    assert made.summary().startswith("Labelled 144 of 144 instants")
    assert "Cameras are known: 4 views were triangulated, and joints lie" in made.summary()
    true = tiny_capture.instants().pose
    limbs = list(LIMBS)
    assert np.linalg.norm((made.poses - true)[:, limbs], axis=2).mean() < 25
    seen = (made.poses[:, None] @ made.to_view)[:, 2, limbs]
    rotation = tiny_capture.cameras(landmarks.instants.rows[:, 2]).rotation.astype(np.float64)
    np.testing.assert_allclose(seen, made.poses[:, limbs] @ rotation.transpose(0, 2, 1), atol=0.01)


def test_cameras_that_nobody_knows_are_found(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5, depth_noise=60)
    found = labels_of(landmarks, replace(PLAIN, cameras=True))
    assert found.triangulated
    assert limb_errors(found, tiny_capture).mean() < limb_errors(labels_of(landmarks, PLAIN), tiny_capture).mean()


def test_cameras_that_move_are_not_known(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    known = cameras_of(tiny_capture, instants)
    assert known is not None
    assert known.views == VIEWS
    shifted = replace(instants, rows=np.roll(instants.rows, 1, axis=1))
    mixed = np.where(np.arange(144)[:, None] < 72, instants.rows, shifted.rows)
    assert cameras_of(tiny_capture, replace(instants, rows=mixed)) is None
    alone = np.where(np.arange(4) == 2, instants.rows, -1)
    assert cameras_of(tiny_capture, replace(instants, rows=alone)) is None


def test_a_view_without_a_camera_is_left_out_where_the_others_have_one(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5, depth_noise=60)
    instants = landmarks.instants
    known = cameras_of(tiny_capture, replace(instants, rows=np.where(np.arange(4) == 2, -1, instants.rows)))
    assert known is not None
    assert known.views == ("1", "2", "4")
    made = labels_of(landmarks, replace(PLAIN, cameras=True), known)
    assert "Cameras are known: 3 views were triangulated" in made.summary()
    assert np.isnan(made.to_view[:, 2]).all()


@pytest.mark.parametrize(
    ("reached", "size"),
    [
        ((1032, 952), (1024, 1024)),
        ((1210, 1078), (1440, 1080)),
        ((1900, 1000), (1920, 1080)),
        ((700, 1270), (720, 1280)),
        ((5000, 700), (5000, 700)),
    ],
)
def test_the_size_of_images_is_guessed_from_what_crops_reach(reached: tuple[int, int], size: tuple[int, int]) -> None:
    assert guessed_size(np.array(reached, np.float64)).tolist() == list(size)


def test_known_sizes_stay_and_unknown_ones_are_guessed(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    sizes = np.array([[512.0, 512.0], [np.nan, np.nan], [640.0, 480.0], [np.nan, np.nan]])
    filled = with_guessed_sizes(replace(landmarks, image_size=sizes), tiny_capture).image_size
    assert filled[[0, 2]].tolist() == [[512, 512], [640, 480]]
    boxes = tiny_capture.boxes(tiny_capture.instants().rows[:, 1])
    assert filled[1].tolist() == guessed_size(boxes[:, 2:].max(axis=0)).tolist()


def test_landmarks_of_another_video_lie_elsewhere(tiny_capture: Capture, tmp_path: Path) -> None:
    landmarks = stick_landmarks(tiny_capture)
    write_landmarks(tmp_path / "scaled.npz", replace(landmarks, image=landmarks.image * 3))
    with pytest.raises(
        LandmarkError, match=r"\d+ % of those in .*scaled\.npz lie far from the person whom the capture"
    ):
        make_labels(tiny_capture, None, replace(PLAIN, landmarks=tmp_path / "scaled.npz"))
    unknown = np.full_like(landmarks.image, np.nan)
    write_landmarks(tmp_path / "without.npz", replace(landmarks, image=unknown))
    assert len(make_labels(tiny_capture, None, replace(PLAIN, landmarks=tmp_path / "without.npz"))) == 144


def test_cameras_that_were_moved_between_sequences_are_found_for_each(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5, depth_noise=60)
    chosen = landmarks.take(np.flatnonzero(landmarks.instants.subject == 0))
    waving = chosen.instants.sequence == 1
    image, world = chosen.image.copy(), chosen.world.copy()
    # In the second sequence the third and the fourth camera have changed places.
    image[waving], world[waving] = image[waving][:, [0, 1, 3, 2]], world[waving][:, [0, 1, 3, 2]]
    moved = replace(chosen, image=image, world=world)
    made = labels_of(moved, replace(PLAIN, cameras=True))
    assert made.triangulated
    assert "in 2 of 2 sequences, which were triangulated" in made.how
    assert limb_errors(made, tiny_capture).mean() < 15
