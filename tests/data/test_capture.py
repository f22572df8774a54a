import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from captures_for_tests import INFO, SIZE, VIEWS, stick_camera, stick_part, stick_parts, stick_pose
from mcss.data.capture import Capture
from mcss.data.schema import SCHEMA, Frame
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.images import jpeg_size


def written(uri: str | Path, parts: list[list[Frame]]) -> Capture:
    writer = CaptureWriter.open(uri, info=INFO)
    for part in parts:
        writer.append(part)
    return writer.finish()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A finished capture of one sequence that a test may break."""
    written(tmp_path / "small", [stick_part(0, 0, instants=3)])
    return tmp_path / "small"


def rewritten(capture: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Overwrite the table as a careless program would."""
    table = lance.dataset(str(capture / "frames.lance")).to_table()
    lance.write_dataset(change(table), str(capture / "frames.lance"), mode="overwrite")


def test_an_instant_holds_all_views_with_the_pose_and_time_that_were_written(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    assert len(instants) == 3 * 2 * 24
    assert instants.views == VIEWS
    for n in (0, 30, 100, 143):
        subject, sequence = int(instants.subject[n]), int(instants.sequence[n])
        pose = stick_pose(subject, sequence, float(instants.time[n]))
        np.testing.assert_array_equal(instants.pose[n], pose)
        for view, row in enumerate(instants.rows[n]):
            assert tiny_capture.describe(int(row)) == f"{instants.describe(n)} view {VIEWS[view]}"
            shown = (instants.subjects[subject], instants.sequences[sequence], int(instants.frame[n]))
            assert instants.position(*shown, VIEWS[view]) == (n, view)
    for absent in (("S9", "Walking 1", 0, "1"), ("S1", "Walking 1", 24, "1"), ("S1", "Walking 1", 0, "9")):
        with pytest.raises(CaptureError, match=f"no image {'/'.join(map(str, absent))}"):
            instants.position(*absent)


def test_images_cameras_and_boxes_come_in_the_order_asked_for(tiny_capture: Capture) -> None:
    part = stick_part(1, 1)
    instants = tiny_capture.instants().take(np.array([24 * 3 + 5, 24 * 3 + 2]))
    rows = instants.rows[:, [2, 0]].reshape(-1)
    expected = [part[5 * 4 + 2], part[5 * 4], part[2 * 4 + 2], part[2 * 4]]
    assert tiny_capture.images(rows) == [f.image for f in expected]
    np.testing.assert_array_equal(tiny_capture.boxes(rows), np.array([f.box for f in expected], np.float32))
    rotations = np.stack([f.camera.rotation for f in expected if f.camera])
    np.testing.assert_allclose(tiny_capture.cameras(rows).rotation, rotations, atol=1e-6)


def test_decoding_gives_rgb_and_can_scale_down(tiny_capture: Capture) -> None:
    rows = tiny_capture.instants("train").rows[:3].reshape(-1)
    pixels = tiny_capture.decode(rows)
    assert pixels.shape == (12, SIZE, SIZE, 3)
    red, green, blue = pixels[0].reshape(-1, 3)[pixels[0].reshape(-1, 3).sum(axis=1).argmin()]
    assert red > green  # S1 wears red
    assert red > blue
    half = tiny_capture.decode(rows, size=SIZE // 2)
    block_means = pixels.reshape(12, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(half - block_means).max() <= 1


def test_splits_select_by_subject_and_by_frame(tiny_capture: Capture) -> None:
    assert tiny_capture.instants("train").present_subjects() == ("S1", "S2")
    assert set(tiny_capture.instants("validation").frame) == set(range(8))
    test = tiny_capture.instants("test")
    assert (test.present_subjects(), test.frame.min(), test.frame.max()) == (("S3",), 8, 23)


def test_a_view_without_an_image_is_minus_one_and_a_pose_in_any_view_labels_the_instant(
    tmp_path: Path,
) -> None:
    frames = stick_part(0, 0, instants=3)
    kept = [replace(f, pose=None) if f.view != "3" else f for f in frames if (f.frame, f.view) != (1, "2")]
    instants = written(tmp_path, [kept]).instants()
    assert instants.rows[1, 1] == -1
    assert (instants.rows >= 0).sum() == 11
    np.testing.assert_array_equal(instants.pose[2], stick_pose(0, 0, 0.2))
    assert instants.heading_valid.all()


def test_unlabelled_poses_and_poses_without_heading_are_not_heading_valid(tmp_path: Path) -> None:
    frames = stick_part(0, 0, instants=2)
    upright_hip = np.zeros((17, 3), np.float32)
    upright_hip[4] = 0, 0, 120
    kept = [replace(f, pose=None if f.frame == 0 else upright_hip) for f in frames]
    instants = written(tmp_path, [kept]).instants()
    assert instants.heading_valid.tolist() == [False, False]
    assert np.isnan(instants.pose[0]).all()
    assert np.isfinite(instants.pose[1]).all()


def test_views_sort_as_people_count(tmp_path: Path) -> None:
    frames = [replace(f, view={"1": "10", "2": "9"}.get(f.view, f.view)) for f in stick_part(0, 0, instants=1)]
    assert written(tmp_path, [frames]).views == ("3", "4", "9", "10")


def test_the_fingerprint_depends_on_the_content_but_not_on_the_order_of_writing(tmp_path: Path) -> None:
    parts = [stick_part(s, q, instants=2) for s in (0, 1) for q in (0, 1)]
    forward = written(tmp_path / "forward", parts)
    backward = written(tmp_path / "backward", [part[::-1] for part in parts[::-1]])
    assert forward.fingerprint == backward.fingerprint
    nudged = [replace(f, time=f.time + 1e-9) if f.frame else f for f in parts[0]]
    assert written(tmp_path / "nudged", [nudged, *parts[1:]]).fingerprint != forward.fingerprint
    exchanged = [replace(parts[0][0], image=parts[0][1].image), *parts[0][1:]]
    assert written(tmp_path / "exchanged", [exchanged, *parts[1:]]).fingerprint != forward.fingerprint


@pytest.mark.parametrize("scheme", ["file", "shared-memory"])
def test_a_capture_lives_at_an_address_as_well_as_in_a_folder(scheme: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "here", [stick_part(0, 0, instants=2)])
    address = f"{scheme}://{tmp_path}/there" if scheme == "file" else f"{scheme}://bucket{tmp_path}/there"
    there = written(address + "/", [stick_part(0, 0, instants=2)])
    assert there.fingerprint == folder.fingerprint
    assert Capture.open(address + "/frames.lance").decode(np.arange(8)).shape == (8, SIZE, SIZE, 3)


def test_writing_can_stop_anywhere_and_continue(tmp_path: Path) -> None:
    parts = [stick_part(s, 0, instants=2) for s in range(3)]
    CaptureWriter.open(tmp_path / "stopped", info=INFO).append(parts[1])
    again = CaptureWriter.open(tmp_path / "stopped", info=INFO)
    assert again.done() == {("S2", "Walking 1")}
    for part in parts[:1] + parts[2:]:
        again.append(part)
    assert again.finish().fingerprint == written(tmp_path / "whole", parts).fingerprint


KILLED = """
import sys
from captures_for_tests import INFO, stick_part
from dataclasses import replace
from mcss.data.writer import CaptureWriter
part = stick_part(0, 0)
writer = CaptureWriter.open(sys.argv[1], info=INFO)
for number in range(10_000):
    writer.append([replace(f, sequence=f"Walking {number}") for f in part])
    print(number, flush=True)
"""


def test_a_writer_killed_while_appending_leaves_whole_parts_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], text=True) as writer:
        assert writer.stdout
        while writer.stdout.readline() != "4\n":
            pass
        writer.kill()
        announced = 5 + len(writer.stdout.read().splitlines())
    assert writer.returncode == -signal.SIGKILL
    done = CaptureWriter.open(tmp_path / "killed", info=INFO).done()
    assert len(done) in (announced, announced + 1)
    table = lance.dataset(str(tmp_path / "killed" / "frames.lance")).to_table(columns=["sequence"])
    counts = table.group_by("sequence").aggregate([("sequence", "count")])["sequence_count"].to_pylist()
    assert counts == [24 * 4] * len(done)


FULL = """
import resource, signal, sys
from captures_for_tests import INFO, stick_part
from mcss.data.writer import CaptureWriter
writer = CaptureWriter.open(sys.argv[1], info=INFO)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
writer.append(stick_part(0, 0, instants=2))
try:
    writer.append(stick_part(0, 1))
except ValueError as error:
    print(error)
assert writer.done() == {("S1", "Walking 1")}
"""


def test_when_nothing_more_can_be_written_the_error_names_the_place_and_finished_parts_stay(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "full")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert "S1/Waving 1 could not be written" in run.stdout
    assert str(tmp_path / "full") in run.stdout
    assert "make room" in run.stdout
    writer = CaptureWriter.open(tmp_path / "full", info=INFO)
    assert writer.done() == {("S1", "Walking 1")}
    writer.append(stick_part(0, 1))
    assert len(writer.finish()) == 8 + 96


def test_a_finished_capture_may_grow_and_is_unfinished_meanwhile(small: Path) -> None:
    before = Capture.open(small).fingerprint
    assert CaptureWriter.open(small, info=INFO).finish().fingerprint == before
    writer = CaptureWriter.open(small, info=INFO)
    writer.append(stick_part(2, 1, instants=2))
    with pytest.raises(CaptureError, match=r"unfinished \(2 sequences so far\).*run the command.*again"):
        Capture.open(small)
    assert writer.finish().fingerprint != before


def test_continuing_with_other_settings_names_the_difference(small: Path) -> None:
    other = replace(INFO, image_size=128, settings={"seed": 1, "subjects": 3})
    with pytest.raises(CaptureError, match="image_size: 64 there, 128 here; seed: 0 there, 1 here"):
        CaptureWriter.open(small, info=other)


def test_backgrounds_are_found_for_the_sequence_the_subject_or_the_capture(tmp_path: Path) -> None:
    images = [f.image for f in stick_part(0, 0, instants=1)]
    writer = CaptureWriter.open(tmp_path, info=INFO)
    writer.append(stick_part(0, 0, instants=1))
    without = writer.finish().fingerprint
    for stage, image in zip(("", "S1", "S1/Walking 1"), images, strict=False):
        writer.add_backgrounds({"1": image}, stage)
    writer.add_backgrounds({"1": images[3]})
    CaptureWriter.open(tmp_path, info=INFO).add_backgrounds({"1": images[3], "3": images[3]}, "S1")
    capture = writer.finish()
    assert capture.background("1", "S1", "Walking 1") == images[2]
    assert capture.background("1", "S1", "Waving 1") == images[1]
    assert capture.background("1", "S2", "Waving 1") == images[0]
    assert capture.background("3", "S1") == images[3]
    assert capture.background("2") is None
    assert capture.fingerprint != without


def test_info_survives_the_table(tiny_capture: Capture) -> None:
    assert tiny_capture.info == INFO


def test_outfits_are_read_back_by_the_first_pattern_that_matches(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=replace(INFO, outfits=("Walk*", "*ing 1")))
    for sequence in (0, 1):
        writer.append(stick_part(0, sequence))
    capture = writer.finish()
    assert Capture.open(capture.uri).info == capture.info
    instants = capture.instants()
    assert {(instants.sequences[s], int(w)) for s, w in zip(instants.sequence, instants.outfit, strict=True)} == {
        ("Walking 1", 0), ("Waving 1", 1),
    }  # fmt: skip


def test_opening_a_missing_capture_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no capture at .*nothing: .*mcss synthetic build"):
        Capture.open(tmp_path / "nothing")


def test_a_newer_schema_asks_for_a_newer_program(small: Path) -> None:
    lance.dataset(str(small / "frames.lance")).update_schema_metadata({"mcss.schema_version": "7"})
    with pytest.raises(CaptureError, match="schema version 7, this mcss reads up to 1: update mcss"):
        Capture.open(small)


def test_missing_and_mistyped_columns_and_metadata_are_named(small: Path) -> None:
    metadata = lance.dataset(str(small / "frames.lance")).schema.metadata
    rewritten(small, lambda t: t.cast(SCHEMA.set(4, pa.field("time", pa.float32())).with_metadata(metadata)))
    with pytest.raises(CaptureError, match=r"time: float, expected double"):
        Capture.open(small)
    rewritten(small, lambda t: t.drop_columns(["box", "view"]))
    with pytest.raises(CaptureError, match="lacks the columns view, box"):
        Capture.open(small)
    rewritten(small, lambda t: t.replace_schema_metadata({"mcss.schema_version": "1"}))
    with pytest.raises(CaptureError, match=r"lacks the metadata mcss\.skeleton"):
        Capture.open(small)
    rewritten(small, lambda t: t.replace_schema_metadata(None))
    with pytest.raises(CaptureError, match="is a Lance table but not a capture"):
        Capture.open(small)


def test_a_capture_of_before_the_numbers_of_images_is_read_and_grows_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    parts = [stick_part(0, 0, instants=3), [replace(f, image_number=9) for f in stick_part(0, 1, instants=3)]]
    whole = written(tmp_path / "whole", parts)
    assert whole.image_numbers(np.arange(24)).tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [9] * 12
    written(tmp_path / "old", parts[:1])
    rewritten(tmp_path / "old", lambda t: t.drop_columns(["image_number"]))
    assert Capture.open(tmp_path / "old").image_numbers(np.arange(8)).tolist() == [0] * 4 + [1] * 4
    writer = CaptureWriter.open(tmp_path / "old", info=INFO)
    writer.append(parts[1])
    assert writer.finish().fingerprint == whole.fingerprint


def test_a_broken_image_is_named_when_it_is_decoded(small: Path) -> None:
    def cut(table: pa.Table) -> pa.Table:
        images = table["image"].to_pylist()
        images[6] = images[6][:200]
        return table.set_column(6, SCHEMA.field("image"), pa.array(images, pa.binary()))

    rewritten(small, cut)
    capture = Capture.open(small)
    with pytest.raises(CaptureError, match=r"S1/Walking 1 frame 1 view 3 in .*small is broken"):
        capture.decode(np.arange(12))
    assert capture.decode(np.arange(6)).shape == (6, SIZE, SIZE, 3)


def test_a_view_pictured_twice_is_named(small: Path) -> None:
    rewritten(small, lambda t: pa.concat_tables([t, t.slice(5, 1)]))
    with pytest.raises(CaptureError, match="S1/Walking 1 frame 1 has two images of view 2"):
        Capture.open(small).instants()


def test_missing_views_and_unknown_splits_are_refused(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match=r"-1 in Instants\.rows stands for a missing view"):
        tiny_capture.images(np.array([3, -1]))
    with pytest.raises(CaptureError, match="no split 'tests'; it has: train, validation, test"):
        tiny_capture.instants("tests")


def test_frames_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    part = stick_part(0, 0, instants=2)
    with pytest.raises(CaptureError, match="S1/Walking 1 frame 0 view 1 is there twice"):
        writer.append([*part, part[0]])
    with pytest.raises(CaptureError, match="one append takes one sequence of one subject"):
        writer.append([*part, *stick_part(1, 0, instants=1)])
    with pytest.raises(CaptureError, match="frame 1 view 4: expected a JPEG of 64×64 pixels, got something"):
        writer.append([*part[:-1], replace(part[-1], image=b"PNG")])
    pose = np.full((17, 3), np.nan, np.float32)
    with pytest.raises(CaptureError, match="expected 17×3 finite millimetres"):
        writer.append([replace(part[0], pose=pose)])
    with pytest.raises(CaptureError, match="at least one frame"):
        writer.append([])
    with pytest.raises(CaptureError, match="has no frames yet"):
        writer.finish()
    writer.append(part)
    with pytest.raises(CaptureError, match=r"S1/Walking 1 is in the capture at .* already"):
        writer.append(part)


def test_the_stick_figures_are_seen_where_the_cameras_say() -> None:
    """The box of each crop contains the projected person, so tests can rely on boxes and matrices."""
    for frame in stick_part(0, 0, instants=2):
        assert frame.pose is not None
        camera = stick_camera(VIEWS.index(frame.view))
        seen = (frame.pose @ camera.rotation.T + camera.translation) @ camera.intrinsics.T
        pixels = seen[:, :2] / seen[:, 2:]
        assert (pixels >= frame.box[:2]).all()
        assert (pixels <= frame.box[2:]).all()
        assert jpeg_size(frame.image) == (SIZE, SIZE)


def test_every_part_of_the_tiny_capture_is_labelled() -> None:
    assert all(f.pose is not None for part in stick_parts() for f in part)


def test_what_changed_since_a_capture_was_begun_is_said_in_words(small: Path) -> None:
    poses = {"units": "mm", "up": "z"}
    plain, labelled = replace(INFO, settings={"margin": 1.0}), replace(INFO, settings={"margin": 1.0, "poses": poses})
    metres = replace(labelled, settings={"margin": 1.0, "poses": {**poses, "units": "m"}}, splits={"train": ()})
    assert plain.differences(labelled) == ["3D labels were added"]
    assert labelled.differences(plain) == ["3D labels were removed"]
    assert labelled.differences(metres) == [
        "poses.units: mm there, m here",
        "the splits pick other subjects, sequences or frames",
    ]
    assert replace(INFO, settings={}).differences(plain) == ["margin: not set there, 1.0 here"]
    with pytest.raises(
        CaptureError, match=r"other settings or files \(3D labels were added\): import into a new folder"
    ):
        CaptureWriter.open(small, info=replace(INFO, settings={**INFO.settings, "poses": poses}))
