from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from captures_for_tests import INFO, stick_part
from keypoints_for_tests import coco, dump
from mcss.data.capture import Capture
from mcss.data.keypoints import BONES, COLUMNS, joints_of_tools, keypoints_of, normalised_points, skeleton_maps
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.skeletons import JOINTS


def detected(capture: Capture, path: Path, left_out: str = "") -> None:
    """Write a file as a detector might: the exact points in source pixels, without one joint."""
    instants = capture.instants("train")
    lines = []
    for i in range(len(instants)):
        for v, view in enumerate(instants.views):
            row = instants.rows[i, v : v + 1]
            camera = capture.cameras(row)
            seen = instants.pose[i] @ camera.rotation[0].T + camera.translation[0]
            pixels = seen @ camera.intrinsics[0].T
            subject, sequence = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
            lines += [
                f"{subject},{sequence},{instants.frame[i]},{view},{joint},{p[0] / p[2]},{p[1] / p[2]}"
                for joint, p in zip(JOINTS, pixels, strict=True)
                if joint != left_out
            ]
    path.write_text(",".join(COLUMNS) + "\n" + "\n".join(lines) + "\n")


def test_points_of_labels_and_of_a_file_are_the_same(scenic_capture: Capture, tmp_path: Path) -> None:
    instants = scenic_capture.instants("train")
    ours = keypoints_of(scenic_capture, instants, "labels", "a test")
    detected(scenic_capture, tmp_path / "points.csv")
    theirs = keypoints_of(scenic_capture, instants, str(tmp_path / "points.csv"), "a test")
    assert ours.shape == (len(instants), 4, 17, 2)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    table = pa.csv.read_csv(
        tmp_path / "points.csv", convert_options=pa.csv.ConvertOptions(column_types={"view": "string"})
    )
    pyarrow.parquet.write_table(table, tmp_path / "points.parquet")
    parquet = keypoints_of(scenic_capture, instants, str(tmp_path / "points.parquet"), "a test")
    np.testing.assert_array_equal(theirs, parquet)


def test_keypoints_of_tools_belong_to_the_images_that_a_capture_names(tmp_path: Path) -> None:
    """Views 1 and 2 of recorded videos, of which the second began two images before; the third has no keypoints."""
    first = {"1": 0, "2": 2}
    frames = [replace(f, image_number=f.frame + first[f.view] if f.view in first else None) for f in stick_part(0, 0)]
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(frames)
    capture = writer.finish()
    instants = capture.instants()
    assert capture.image_numbers(instants.rows[5]).tolist() == [5, 7, 5, 5]
    for view in first:
        dump(tmp_path / "points" / f"{view}.json", coco([f"{i}.jpg" for i in range(26)]))
    notes: list[str] = []
    found = joints_of_tools(tmp_path / "points", capture, instants, "points", notes.append)
    left_hip = found[:, :, JOINTS.index("LHip"), 0]
    np.testing.assert_array_equal(left_hip[:, 0], 112 + np.arange(24))
    np.testing.assert_array_equal(left_hip[:, 1], 114 + np.arange(24))
    assert np.isnan(left_hip[:, 2:]).all()
    assert notes == []
    for view in first:
        dump(tmp_path / "points" / f"{view}.json", coco([f"{i + 1}.jpg" for i in range(26)]))
    keypoints_of(capture, instants, str(tmp_path / "points"), "a test", notes.append)
    (note,) = notes  # the second view has no image 0
    assert "1.json: its images begin with 1, and are taken as numbers that count from 0" in note


def test_a_hip_that_no_detector_gives_lies_midway_and_another_joint_stays_unknown(
    scenic_capture: Capture, tmp_path: Path
) -> None:
    instants = scenic_capture.instants("train")
    exact = keypoints_of(scenic_capture, instants, "labels", "a test")
    detected(scenic_capture, tmp_path / "points.csv", left_out="Hip")
    np.testing.assert_allclose(
        keypoints_of(scenic_capture, instants, str(tmp_path / "points.csv"), "t"), exact, atol=0.02
    )
    detected(scenic_capture, tmp_path / "points.csv", left_out="Head")
    found = keypoints_of(scenic_capture, instants, str(tmp_path / "points.csv"), "t")
    head = JOINTS.index("Head")
    assert np.isnan(found[:, :, head]).all()
    assert np.isfinite(np.delete(found, head, axis=2)).all()


def test_normalised_points_forget_place_and_size_and_nothing_else() -> None:
    points = np.random.default_rng(0).normal(size=(5, 17, 2))
    found = normalised_points(points)
    np.testing.assert_allclose(normalised_points(points * 7 + [3, -2]), found, atol=1e-5)
    np.testing.assert_allclose(found[:, 0], 0)
    np.testing.assert_allclose(np.square(found[:, 1:]).sum(2).mean(1), 1, atol=1e-5)
    few = points[:1].copy()
    few[:, 4:] = np.nan
    assert np.isnan(normalised_points(few)).all()
    assert np.isnan(normalised_points(np.ones((1, 17, 2)))).all()


def test_a_map_equals_a_slow_drawing_and_leaves_out_what_is_unknown() -> None:
    points = torch.from_numpy(normalised_points(np.random.default_rng(1).normal(size=(2, 17, 2)))).double()
    points[1, JOINTS.index("LWrist")] = torch.nan
    drawn = skeleton_maps(points, 8, extent=2.0, width=0.3)
    for image in range(2):
        for bone, (a, b) in enumerate(BONES):
            if not points[image, [a, b]].isfinite().all():
                assert drawn[image, bone].eq(0).all()
                continue
            start, end = points[image, a].numpy(), points[image, b].numpy()
            for row in range(8):
                for column in range(8):
                    place = np.array([(column + 0.5) / 2 - 2, (row + 0.5) / 2 - 2])
                    along = start + np.linspace(0, 1, 4001)[:, None] * (end - start)
                    nearest = np.linalg.norm(along - place, axis=1).min()
                    expected = np.exp(-(nearest**2) / (2 * 0.3**2))
                    assert drawn[image, bone, row, column].item() == pytest.approx(expected, abs=1e-3)
    assert torch.autograd.gradcheck(lambda p: skeleton_maps(p, 4), (points[:1].clone().requires_grad_(),))


def test_captures_and_files_without_points_are_refused_with_a_way_out(tmp_path: Path, scenic_capture: Capture) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0, labelled=False))
    capture = writer.finish()
    with pytest.raises(
        CaptureError,
        match=r"a test needs 2D joints, and the pose or the camera of 96 of 96 images .*S1/Walking 1 frame 0 view 1"
        r".*a file",
    ):
        keypoints_of(capture, capture.instants("train"), "labels", "a test")
    instants = scenic_capture.instants("train")
    with pytest.raises(ValueError, match=r"points: there is no file nowhere.csv; expected a CSV or Parquet"):
        keypoints_of(scenic_capture, instants, "nowhere.csv", "a test")
    path = tmp_path / "points.csv"
    path.write_text("subject,frame\nS1,0\n")
    with pytest.raises(ValueError, match=r"points.csv lacks the columns sequence, view, joint, x, y"):
        keypoints_of(scenic_capture, instants, str(path), "a test")
    path.write_text(",".join(COLUMNS) + "\nS1,Walking 1,zero,1,Hip,1,2\n")
    with pytest.raises(ValueError, match=r"points.csv is not a table of joints .*zero"):
        keypoints_of(scenic_capture, instants, str(path), "a test")
    path.write_text(",".join(COLUMNS) + "\nS9,Walking 1,0,1,Hip,1,2\n")
    with pytest.raises(ValueError, match=r"has points of none of the 96 images .*names of"):
        keypoints_of(scenic_capture, instants, str(path), "a test")
