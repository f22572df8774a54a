"""mcss can read what it writes, in every format that it both reads and writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from captures_for_tests import stick_pose
from mcss.data.formats.bvh import with_fixed_bones, write_bvh, y_up
from mcss.data.formats.csv import read_csv_table, write_csv
from mcss.data.formats.npz import write_npz
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.formats.trajectories import Trajectories
from mcss.data.formats.trc import write_trc
from mcss.errors import SourceError
from mcss.skeletons import JOINTS, PARENTS, canonical_pose

RATE, COUNT = 25.0, 12
TIMES = 0.4 + np.arange(COUNT) / RATE


def walk() -> np.ndarray:
    poses = np.stack([stick_pose(0, 0, i / RATE) for i in range(COUNT)])
    return canonical_pose(torch.from_numpy(poses)).numpy()


def joints_of(read: Trajectories) -> np.ndarray:
    """The joints in mcss's order. A root at the origin is read as missing: such files mark missing points by zeros."""
    return np.nan_to_num(read.points[:, [read.names.index(name) for name in JOINTS]])


def test_a_csv_keeps_joints_times_and_further_columns(tmp_path: Path) -> None:
    path, notes = tmp_path / "walk.csv", [f"note, {i}" for i in range(COUNT)]
    write_csv(path, walk(), np.arange(COUNT) * 2, TIMES, {"note": notes})
    read = read_pose_file(path)
    np.testing.assert_allclose(joints_of(read), walk(), atol=0.006)
    np.testing.assert_allclose(read.times, TIMES, atol=1e-6)
    assert read.clock == "video"
    table = read_csv_table(path)
    assert [row.named(table.header)["note"] for row in table.rows] == notes
    assert [row.line for row in table.rows] == list(range(2, COUNT + 2))


def test_an_npz_keeps_joints_times_unit_and_further_arrays(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    write_npz(path, walk(), TIMES, {"frames": np.arange(COUNT)})
    read = read_pose_file(path)
    np.testing.assert_array_equal(joints_of(read), walk().astype(np.float32))
    np.testing.assert_array_equal(read.times, TIMES)
    assert (read.unit, read.up, read.clock) == ("mm", "+z", "video")
    assert np.load(path)["frames"].tolist() == list(range(COUNT))


def test_a_trc_keeps_joints_and_unit_in_opensims_axes(tmp_path: Path) -> None:
    write_trc(tmp_path / "walk.trc", walk(), TIMES, RATE)
    read = read_pose_file(tmp_path / "walk.trc")
    x, y, z = joints_of(read).transpose(2, 0, 1)
    np.testing.assert_allclose(np.stack([-z, -x, y], axis=-1), walk(), atol=1e-4)
    np.testing.assert_allclose(read.times, TIMES - TIMES[0], atol=1e-6)
    assert read.unit == "mm"


def test_a_bvh_keeps_the_direction_of_every_bone(tmp_path: Path) -> None:
    write_bvh(tmp_path / "walk.bvh", walk(), RATE)
    read = read_pose_file(tmp_path / "walk.bvh")
    np.testing.assert_allclose(10 * joints_of(read), y_up(with_fixed_bones(walk())), atol=1e-3)
    np.testing.assert_allclose(read.times, np.arange(COUNT) / RATE, atol=1e-6)
    assert {f"{JOINTS[j]}_end" for j in range(17) if j not in PARENTS} < set(read.names)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"a,b\n\xff,1\n"), "expected text in UTF-8, got other bytes"),
        (lambda path: path.write_text("a,b\n" + "x" * 200_000 + ",1\n"), r"not a readable CSV \(field larger"),
    ],
)
def test_files_that_are_not_csv_are_named(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "table.csv")
    with pytest.raises(SourceError, match=rf"table\.csv: {message}"):
        read_csv_table(tmp_path / "table.csv")


def test_a_csv_table_skips_empty_lines_and_fills_missing_cells(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("\ufeffa, b\n\n 1,2 \n,\n3\n", encoding="utf-8")
    table = read_csv_table(tmp_path / "table.csv")
    assert table.header == ("a", "b")
    assert [(row.line, row.named(table.header)) for row in table.rows] == [
        (3, {"a": "1", "b": "2"}),
        (5, {"a": "3", "b": ""}),
    ]
