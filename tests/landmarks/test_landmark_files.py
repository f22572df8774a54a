import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from landmarks_for_tests import stick_landmarks
from mcss.data.capture import Capture
from mcss.errors import LandmarkError
from mcss.landmarks.landmark_files import LIMB_LANDMARKS, read_landmarks, write_landmarks
from mcss.landmarks.view_landmarks import LANDMARKS, ViewLandmarks


@pytest.fixture
def landmarks(tiny_capture: Capture) -> ViewLandmarks:
    return stick_landmarks(tiny_capture, noise=5)


def write_table(path: Path, landmarks: ViewLandmarks, names: dict[int, str], unit: float = 1000) -> None:
    """Write lines as another detector would: any origin, any unit."""
    instants = landmarks.instants
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["subject", "sequence", "frame", "view", "joint", "x", "y", "z", "u", "v", "visibility"])
        for i, view, joint in np.ndindex(len(landmarks), len(landmarks.views), len(names)):
            at, name = list(names.items())[joint]
            where = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
            world = (landmarks.world[i, view, at].astype(float) + np.array([100, 200, 4000])) / unit
            pixels = landmarks.image[i, view, at]
            lines.writerow([*where, instants.frame[i], landmarks.views[view], name, *world, *pixels, 0.75])


def test_a_file_gives_back_what_was_written_in_any_order_of_instants(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    write_landmarks(tmp_path / "some.npz", landmarks)
    wanted = landmarks.instants.take(np.array([7, 3, 100]))
    read = read_landmarks(tmp_path / "some.npz", wanted)
    assert read.instants is wanted
    assert read.detector == "blazepose"
    for name in ("image", "world", "visibility", "presence"):
        np.testing.assert_array_equal(getattr(read, name), getattr(landmarks, name)[[7, 3, 100]])
    np.testing.assert_array_equal(read.image_size, landmarks.image_size)


def test_a_table_is_understood_in_metres_about_any_origin(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    few = landmarks.take(np.arange(4))
    coco = {0: "nose", 7: "left_ear", 8: "right_ear"} | {i: LANDMARKS[i] for i in LIMB_LANDMARKS} | {1: "no_such_joint"}
    write_table(tmp_path / "coco.csv", few, coco)
    read = read_landmarks(tmp_path / "coco.csv", few.instants)
    known = [0, 7, 8, *LIMB_LANDMARKS]
    hips = few.world[:, :, [23, 24]].mean(axis=2, keepdims=True)
    np.testing.assert_allclose(read.world[:, :, known], (few.world - hips)[:, :, known], atol=0.01)
    np.testing.assert_allclose(read.image[:, :, known], few.image[:, :, known], atol=0.01)
    assert np.isnan(read.world[:, :, [i for i in range(33) if i not in known]]).all()
    assert set(read.visibility[:, :, known].ravel()) == {0.75}
    assert read.visibility.sum() == pytest.approx(0.75 * 4 * 4 * len(known))
    assert read.detector == "coco.csv"


def test_a_parquet_file_with_mcss_s_own_names_in_millimetres(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    few = landmarks.take(np.arange(2))
    ours = {"LHip": "left_hip", "RHip": "right_hip", "LKnee": "left_knee", "RKnee": "right_knee", "LFoot": "left_ankle"}
    ours |= {"RFoot": "right_ankle", "LShoulder": "left_shoulder", "RShoulder": "right_shoulder", "Neck": "nose"}
    ours |= {"LElbow": "left_elbow", "RElbow": "right_elbow", "LWrist": "left_wrist", "RWrist": "right_wrist"}
    write_table(tmp_path / "a.csv", few, {LANDMARKS.index(name): joint for joint, name in ours.items()}, unit=1)
    table = pa.csv.read_csv(
        tmp_path / "a.csv", convert_options=pa.csv.ConvertOptions(column_types={"view": pa.string()})
    )
    pyarrow.parquet.write_table(table.drop_columns(["u", "v", "visibility"]), tmp_path / "a.parquet")
    read = read_landmarks(tmp_path / "a.parquet", few.instants)
    hips = few.world[:, :, [23, 24]].mean(axis=2, keepdims=True)
    np.testing.assert_allclose(read.world[:, :, 15], (few.world - hips)[:, :, 15], atol=0.01)
    assert np.isnan(read.image).all()
    assert set(read.visibility[:, :, 15].ravel()) == {1.0}


def test_landmarks_of_another_video_are_refused(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    write_landmarks(tmp_path / "part.npz", landmarks.take(np.arange(50)))
    with pytest.raises(LandmarkError, match=r"has none for 94 of 144 instants, S2/Walking 1 frame 2 being the first"):
        read_landmarks(tmp_path / "part.npz", landmarks.instants)
    text = "subject,sequence,frame,view,joint,x,y,z\nS1,Walking 1,0,left,nose,0,0,0\n"
    (tmp_path / "views.csv").write_text(text)
    with pytest.raises(LandmarkError, match=r"is of the views left, and the capture has 1, 2, 3, 4"):
        read_landmarks(tmp_path / "views.csv", landmarks.instants)


def test_landmarks_without_arms_are_refused(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    names = {i: LANDMARKS[i] for i in LIMB_LANDMARKS if "elbow" not in LANDMARKS[i]}
    write_table(tmp_path / "a.csv", landmarks.take(np.arange(2)), names)
    with pytest.raises(LandmarkError, match=r"has no left_elbow, right_elbow; expected all joints of arms and legs"):
        read_landmarks(tmp_path / "a.csv", landmarks.instants.take(np.arange(2)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.npz", None, "there is no file .*no.npz; expected an .npz that `mcss label --landmarks-out` wrote"),
        ("a.npz", b"no archive", "cannot be read .it is not a zip archive.; expected a file that `mcss label"),
        ("a.txt", b"x", "should end in .npz, .csv or .parquet"),
        ("a.csv", b"subject,sequence\nS1,Walking 1\n", "lacks the columns frame, view, joint, x, y, z; expected"),
        ("b.csv", b"subject,sequence,frame,view,joint,x,y,z\nS1,W,zero,1,nose,0,0,0\n", "is not a table of landmarks"),
        ("a.parquet", b"nothing", "is not a table of landmarks"),
    ],
)
def test_files_that_are_none_say_what_was_expected(
    landmarks: ViewLandmarks, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LandmarkError, match=message):
        read_landmarks(tmp_path / name, landmarks.instants)


def test_an_archive_of_other_arrays_is_refused(landmarks: ViewLandmarks, tmp_path: Path) -> None:
    np.savez(tmp_path / "poses.npz", poses=np.zeros((3, 17, 3)))
    with pytest.raises(LandmarkError, match=r"poses\.npz cannot be read"):
        read_landmarks(tmp_path / "poses.npz", landmarks.instants)
    with pytest.raises(ValueError, match=r"landmarks_out: .*a\.csv should end in \.npz"):
        write_landmarks(tmp_path / "a.csv", landmarks)
