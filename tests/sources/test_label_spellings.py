"""Columns, numbers and headers of label files as programs and countries spell them, each with the same poses."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pose_writing import POSE2SIM, pose2sim_markers, walk, write_bvh, write_csv, write_trc, y_up

from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.videos.pose_labels import RecordingLabels, pose_file, read_labels

COUNT, RATE = 24, 25.0
WALK = walk(COUNT, RATE)
Table = list[list[str]]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """The cells of a CSV as mcss writes it, header first."""
    path = write_csv(tmp_path / "plain.csv", JOINTS, WALK, (np.arange(COUNT) / RATE).tolist(), "time")
    return [line.split(",") for line in path.read_text().splitlines()]


def text_of(table: Table, separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in table) + "\n"


def checked(tmp_path: Path, ending: str, content: str | bytes, expected: np.ndarray = WALK) -> RecordingLabels:
    path = tmp_path / f"poses{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    labels = read_labels(path, COUNT, RATE)
    np.testing.assert_allclose(labels.poses, expected, atol=0.5)
    return labels


def with_header(clock: str, spelling: Callable[[str, str], str], scale: float = 1.0) -> Callable[[Table], str]:
    """Spell the header anew, and count the times in other units."""

    def written(table: Table) -> str:
        header = [clock, *(spelling(*cell.split(".")) for cell in table[0][1:])]
        return text_of([header, *([f"{float(row[0]) * scale:g}", *row[1:]] for row in table[1:])])

    return written


def plain(name: str, axis: str) -> str:
    return f"{name}.{axis}"


@pytest.mark.parametrize(
    "written",
    [
        with_header("Time (ms)", plain, 1000),
        with_header("time_ms", plain, 1000),
        with_header("Timestamp [s]", plain),
        with_header("Frame Number", plain, RATE),
        with_header("frame_id", plain, RATE),
        with_header("Frame#", plain, RATE),
        with_header("", plain, RATE),  # the index that pandas writes
        with_header("time", lambda name, axis: f"{name} {axis.upper()} (mm)"),
        with_header("time", lambda name, axis: f"{axis.upper()}_{name}"),
        with_header("time", lambda name, axis: f"Ann:{name}:{axis}"),
        lambda table: "# exported by a lab, in mm\n\n" + text_of(table),
        lambda table: text_of([row if i == 0 else [*row, "", ""] for i, row in enumerate(table)]),
        lambda table: text_of(table, "|"),
        lambda table: text_of(table, "  "),
    ],
)
def test_a_table_is_read_however_its_columns_are_spelled(
    written: Callable[[Table], str], table: Table, tmp_path: Path
) -> None:
    checked(tmp_path, ".csv", written(table))


def test_of_several_clocks_the_plainest_is_taken(table: Table, tmp_path: Path) -> None:
    header = ["timestamp", "frame", "frame_id", *table[0][1:]]
    rows = [[str(1.7e9 + i), str(i), str(7 * i), *row[1:]] for i, row in enumerate(table[1:])]
    checked(tmp_path, ".csv", text_of([header, *rows]))


def thousands(cell: str) -> str:
    return f"{float(cell):,.3f}".translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize(
    ("separator", "number"),
    [
        (";", thousands),
        (",", lambda cell: '"' + cell.replace(".", ",") + '"'),
        (";", lambda cell: f"{float(cell):,.3f}"),
    ],
)
def test_decimal_commas_quotes_and_marks_of_thousands_are_numbers(
    separator: str, number: Callable[[str], str], table: Table, tmp_path: Path
) -> None:
    checked(tmp_path, ".csv", text_of([table[0], *([number(cell) for cell in row] for row in table[1:])], separator))


@pytest.mark.parametrize("nothing", ["", "NaN", "N/A", "null", "-nan(ind)", "1.#QNAN"])
def test_words_for_nothing_are_missing_points(nothing: str, table: Table, tmp_path: Path) -> None:
    last = len(table) - 1
    words = [[*row[:1], nothing, nothing, nothing, *row[4:]] if i == last else row for i, row in enumerate(table)]
    expected = np.where(np.arange(COUNT)[:, None, None] == COUNT - 1, np.nan, WALK)
    checked(tmp_path, ".csv", text_of(words), expected)


def test_names_in_the_code_page_of_a_country_and_utf16_without_a_mark_are_read(table: Table, tmp_path: Path) -> None:
    named = [[*row, "Größe" if i == 0 else "1"] for i, row in enumerate(table)]
    checked(tmp_path, ".csv", text_of(named).encode("cp1252"))
    checked(tmp_path, ".csv", text_of(table).encode("utf-16-le"))


def test_times_without_a_unit_that_last_a_thousand_times_as_long_are_milliseconds(table: Table, tmp_path: Path) -> None:
    rows = [[f"{1000 * float(row[0]):g}", *row[1:]] for row in table[1:]]
    labels = checked(tmp_path, ".csv", text_of([table[0], *rows]))
    assert any("its times are taken as milliseconds, as they last 1,000 times as long" in note for note in labels.notes)


def test_a_table_with_a_line_per_point_is_read_and_two_people_in_it_refused(tmp_path: Path) -> None:
    lines = ["frame,timestamp,model,keypoint,x,y,z,reprojection_error"]
    for i, pose in enumerate(WALK):
        lines += [f"{i},{i / RATE},body,{name},{x},{y},{z},1.0" for name, (x, y, z) in zip(JOINTS, pose, strict=True)]
    checked(tmp_path, ".csv", "\n".join(lines))
    with pytest.raises(SourceError, match=r"line 19: the point 'Hip' comes twice at frame 0; expected one person"):
        checked(tmp_path, ".csv", "\n".join([*lines[:18], lines[1]]))


def trc(tmp_path: Path) -> list[str]:
    path = write_trc(tmp_path / "plain.trc", POSE2SIM, y_up(pose2sim_markers(WALK)) / 1000, RATE)
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    "written",
    [
        lambda lines: "\n\n" + "\n".join(lines) + "\n",
        lambda lines: "\n".join([lines[0].lower(), *lines[1:]]) + "\n",
        lambda lines: "\n".join(lines).replace("\t", ",") + "\n",
        lambda lines: "\n".join(lines[:4] + lines[5:]) + "\n",  # without X1, Y1, Z1 …
        lambda lines: "\n".join(re.sub(r"\t(0\.\d+)", lambda m: f"\t{1000 * float(m[1]):g}", line, count=1)
                                if i >= 5 else line for i, line in enumerate(lines)) + "\n",
    ],
)  # fmt: skip
def test_a_trc_is_read_however_its_header_is_spelled(written: Callable[[list[str]], str], tmp_path: Path) -> None:
    text = written(trc(tmp_path))
    expected = read_labels(tmp_path / "plain.trc", COUNT, RATE).poses
    checked(tmp_path, ".trc", text, expected)


def test_markers_that_were_lost_at_the_end_of_a_line_may_lack_their_cells(tmp_path: Path) -> None:
    lines = trc(tmp_path)
    expected = read_labels(tmp_path / "plain.trc", COUNT, RATE).poses
    lines[5] = "\t".join(lines[5].split("\t")[:-6])
    expected[0] = np.nan
    checked(tmp_path, ".trc", "\n".join(lines) + "\n", expected)
    cut = "\n".join([*lines[:-1], "\t".join(lines[-1].split("\t")[:-6])])
    with pytest.raises(SourceError, match="expected 63 coordinates of 21 markers, got 57; the file was cut short"):
        checked(tmp_path, ".trc", cut)


def test_points_that_nobody_named_may_share_a_name(tmp_path: Path) -> None:
    names = [*JOINTS, "*1", "Ann:Unlabeled", "Ann:Unlabeled", "*1"]
    places = np.concatenate([WALK, np.full((COUNT, 4, 3), 30.0)], axis=1)
    checked(tmp_path, ".trc", write_trc(tmp_path / "plain.trc", names, places, RATE, "mm").read_text())


def test_a_bvh_is_read_however_its_words_are_spelled(tmp_path: Path) -> None:
    write_bvh(tmp_path / "plain.bvh", COUNT, RATE)
    text = (tmp_path / "plain.bvh").read_text()
    expected = read_labels(tmp_path / "plain.bvh", COUNT, RATE).poses
    for other in (
        text.replace("Frames: ", "Frames:").replace("Frame Time: ", "Frame Time:\t"),
        text.replace("Zrotation", "zrotation").replace("Xposition", "XPosition"),
        text.replace("HIERARCHY", "Hierarchy").replace("MOTION", "Motion").replace("End Site", "End site"),
        text.replace("JOINT ", "Joint ").replace("OFFSET", "Offset"),
    ):
        checked(tmp_path, ".bvh", other, expected)
    labels = checked(tmp_path, ".bvh", text + text.splitlines()[-1] + "\n", expected)
    assert any("its header states 24 frames, it has 25; all are read" in note for note in labels.notes)


def test_a_label_file_may_be_named_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "POSES.TRC").touch()
    assert pose_file(tmp_path) == tmp_path / "POSES.TRC"
