from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.landmarks.detection import (
    CropLandmarks,
    DetectionSettings,
    LandmarkDetector,
    _aligned,
    _enlarged,
    _mapped,
    _together,
    _warped,
    detect_landmarks,
)
from mcss.landmarks.view_landmarks import MIRROR
from mcss.models.blazepose import IMAGE_SIZE


@pytest.fixture(scope="module")
def crops(tiny_capture: Capture) -> np.ndarray:
    return tiny_capture.decode(tiny_capture.instants().rows[[3, 40], 1])


def test_the_mirrored_person_has_the_mirrored_landmarks(crops: np.ndarray) -> None:
    detector = LandmarkDetector(DetectionSettings(aligned=False))
    found, other = detector(crops), detector(np.ascontiguousarray(crops[:, :, ::-1]))
    np.testing.assert_allclose(other.world[:, MIRROR] * [-1, 1, 1], found.world, atol=0.05)
    np.testing.assert_allclose(other.image[:, MIRROR] * [-1, 1] + [1, 0], found.image, atol=1e-4)
    np.testing.assert_allclose(other.visibility[:, MIRROR], found.visibility, atol=1e-4)


def test_without_more_looks_it_is_the_network_itself(crops: np.ndarray) -> None:
    detector = LandmarkDetector(DetectionSettings(room=1.0, aligned=False, mirrored=False))
    found = detector(crops)
    pixels = torch.nn.functional.interpolate(
        torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, IMAGE_SIZE, mode="bilinear", align_corners=False
    )
    maps = pixels
    for stage in detector._net.stages:
        maps = stage(maps)
    expected = detector._net.heads(maps)
    np.testing.assert_allclose(found.world, expected.world.detach(), atol=15)  # OpenCV rounds to whole brightnesses
    np.testing.assert_allclose(found.image * IMAGE_SIZE, expected.image[..., :2].detach(), atol=3)


def look(joints: np.ndarray, presence: float) -> CropLandmarks:
    """A look at one crop; sides of arms and legs are 0.2 apart in it."""
    transform = np.array([[[1 / IMAGE_SIZE, 0, 0], [0, 1 / IMAGE_SIZE, 0]]])
    world = np.concatenate([joints, np.zeros((33, 1))], axis=1)
    return CropLandmarks(joints[None], world[None], np.ones((1, 33)), np.array([presence]), transform)


def test_looks_that_agree_are_averaged_and_of_others_the_surer_counts() -> None:
    body = np.full((33, 2), 0.5)
    body[[i for i, other in enumerate(MIRROR) if i < other], 0] = 0.6
    body[[i for i, other in enumerate(MIRROR) if i > other], 0] = 0.4
    transform = np.array([[[1 / IMAGE_SIZE, 0, 0], [0, 1 / IMAGE_SIZE, 0]]])
    first = look(body, 0.9)
    near = _together(first, look(body + np.array([0.02, 0]), 0.7), transform)
    np.testing.assert_allclose(near.image[0], body + np.array([0.01, 0]))
    assert near.presence == pytest.approx([0.8])
    for exchanged in (look(body[list(MIRROR)], 0.7), look(body + 0.2, 0.7)):
        np.testing.assert_array_equal(_together(first, exchanged, transform).world, first.world)
        np.testing.assert_array_equal(_together(exchanged, first, transform).image, first.image)
        assert _together(exchanged, first, transform).presence == pytest.approx([0.9])


def test_a_crop_with_room_is_continued_by_its_border() -> None:
    crop = np.zeros((1, 128, 128, 3), np.uint8)
    crop[:, :, :64] = 200
    seen = _warped(crop, _enlarged(1, 2.0))[0, 0].numpy() * 255
    assert seen[:, :120].min() == pytest.approx(200, abs=0.01)
    assert seen[:, 136:].max() == 0
    same = _warped(crop, _enlarged(1, 1.0))[0, 0].numpy() * 255
    assert same[128, 126] == pytest.approx(200, abs=0.01)
    assert same[128, 129] == 0


def test_the_second_look_is_turned_upright_and_as_large_as_the_person() -> None:
    # Hips at the middle, the person's top to the right of them: the head points right, at 0.3 of the side.
    transform = _aligned(np.array([[[0.5, 0.5], [0.8, 0.5]]]))
    top = _mapped(np.array([[[128.0, 128.0], [128.0, 0.0], [256.0, 128.0]]]), transform)[0]
    np.testing.assert_allclose(top, [[0.5, 0.5], [0.5 + 1.25 * 0.3, 0.5], [0.5, 0.5 + 1.25 * 0.3]], atol=1e-9)
    crop = np.zeros((1, 200, 200, 3), np.uint8)
    crop[0, 95:105, 140:160] = 255  # on the line from the hips to the head
    seen = _warped(crop, transform)[0, 0].numpy()
    y, x = np.nonzero(seen > 0.5)
    assert x.mean() == pytest.approx(127.5, abs=1)  # above the hips
    assert y.mean() == pytest.approx(128 * (1 - 0.25 / 0.375), abs=2)


def test_a_turned_look_gives_landmarks_along_the_axes_of_the_camera(crops: np.ndarray) -> None:
    """A person who lies on the side in the image is seen upright by a look that is turned as they are."""
    detector = LandmarkDetector(DetectionSettings())
    upright = _enlarged(len(crops), 1.0)
    lying = np.ascontiguousarray(np.rot90(crops, axes=(2, 1)))  # the head points right
    turn = np.array([[0.0, -1.0 / IMAGE_SIZE, 1.0], [1.0 / IMAGE_SIZE, 0.0, 0.0]])
    found = detector._look(crops, upright, mirrored=True)
    turned = detector._look(lying, np.broadcast_to(turn, upright.shape), mirrored=True)
    expected = found.world @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(turned.world, expected, atol=0.5)
    np.testing.assert_allclose(turned.image, found.image @ np.array([[0.0, 1], [-1, 0]]) + [1, 0], atol=0.01)


def test_landmarks_of_a_capture_lie_in_the_source_images(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    writer.append([f for f in stick_part(0, 0, instants=3) if not (f.frame == 1 and f.view == "2")])
    capture = writer.finish()
    instants = capture.instants()
    landmarks = detect_landmarks(capture, instants)
    assert landmarks.world.shape == (3, 4, 33, 3)
    missing = instants.rows < 0
    assert missing.sum() == 1
    assert np.isnan(landmarks.world[missing]).all()
    assert np.isnan(landmarks.image[missing]).all()
    assert landmarks.visibility[missing].max() == landmarks.presence[missing].max() == 0
    np.testing.assert_array_equal(landmarks.seen, ~missing)
    detector = LandmarkDetector(DetectionSettings())
    row = instants.rows[2, 3:]
    alone, box = detector(capture.decode(row)), capture.boxes(row)[0]
    expected = box[:2] + alone.image[0] * (box[2:] - box[:2])
    np.testing.assert_allclose(landmarks.image[2, 3], expected, atol=0.05)
    assert np.isnan(landmarks.image_size).all()


def test_a_room_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"room: expected 1 to 3 times the side of the crop, got 0\.5"):
        DetectionSettings(room=0.5)


def test_images_that_were_looked_at_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0, instants=4))
    capture = writer.finish()
    looks: list[int] = []
    look = LandmarkDetector.__call__

    def counted(self: LandmarkDetector, crops: np.ndarray) -> object:
        looks.append(len(crops))
        return look(self, crops)

    monkeypatch.setattr(LandmarkDetector, "__call__", counted)
    fast = DetectionSettings(aligned=False, mirrored=False)
    first = detect_landmarks(capture, capture.instants().take(np.array([0, 2])), fast)
    assert sum(looks) == 8
    both = detect_landmarks(capture, capture.instants(), fast)
    assert sum(looks) == 16
    np.testing.assert_array_equal(both.world[[0, 2]], first.world)
    again = detect_landmarks(capture, capture.instants(), fast)
    assert sum(looks) == 16
    np.testing.assert_array_equal(again.image, both.image)
    detect_landmarks(capture, capture.instants(), replace(fast, mirrored=True))  # other settings, other answers
    assert sum(looks) == 32
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    repaired = detect_landmarks(capture, capture.instants(), fast)
    assert sum(looks) == 48
    np.testing.assert_allclose(repaired.world, both.world, atol=0.01)


def test_a_run_that_is_stopped_keeps_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0, instants=4))
    capture = writer.finish()
    look, looks = LandmarkDetector.__call__, []

    def stopping(self: LandmarkDetector, crops: np.ndarray) -> object:
        if len(looks) == 2:
            raise KeyboardInterrupt
        looks.append(len(crops))
        return look(self, crops)

    fast = DetectionSettings(aligned=False, mirrored=False)
    monkeypatch.setattr(LandmarkDetector, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        detect_landmarks(capture, capture.instants(), fast)
    looks.clear()
    detect_landmarks(capture, capture.instants().take(np.arange(2)), fast)
    assert looks == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "file"))
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0, instants=1))
    capture = writer.finish()
    fast = DetectionSettings(aligned=False, mirrored=False)
    assert detect_landmarks(capture, capture.instants(), fast).seen.all()
