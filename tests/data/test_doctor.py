"""Each check must find the one fault of a small capture, and all other checks must pass it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import lance
import numpy as np
import pyarrow as pa
import pytest

from captures_for_tests import INFO, SUBJECTS, VIEWS, stick_camera, stick_image, stick_part, stick_pose
from mcss.data.capture import Capture
from mcss.data.doctor.checks import Check, Diagnosis
from mcss.data.doctor.diagnose import diagnose
from mcss.data.schema import SCHEMA, CaptureInfo, Frame, Selector
from mcss.data.writer import CaptureWriter
from mcss.skeletons import JOINTS, MIRROR

Part = list[Frame]


def seen(tmp_path: Path, *parts: Part, info: CaptureInfo = INFO) -> Capture:
    writer = CaptureWriter.open(tmp_path / "capture", info=info)
    for part in parts:
        writer.append(part)
    return writer.finish()


def plain(*subjects: int) -> list[Part]:
    return [stick_part(s, q) for s in subjects or (0, 1, 2) for q in (0, 1)]


def changed(part: Part, change: Callable[[Frame], Frame], *frames: int, view: str | None = None) -> Part:
    """Change some frames of a part, in one view or in all."""
    return [change(f) if (f.frame in frames or not frames) and view in (None, f.view) else f for f in part]


def at_fault(diagnosis: Diagnosis) -> set[str]:
    return {check.name for check in diagnosis.checks if check.verdict in ("fault", "note")}


def check_of(diagnosis: Diagnosis, name: str) -> Check:
    return next(check for check in diagnosis.checks if check.name == name)


def drawn(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frame], Frame]:
    """A change that affects only the pixels."""

    def changed_frame(f: Frame) -> Frame:
        pixels = cv2.imdecode(np.frombuffer(f.image, np.uint8), cv2.IMREAD_COLOR)
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(change(pixels)), [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert done
        return replace(f, image=data.tobytes())

    return changed_frame


def posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frame], Frame]:
    """A change that affects only the label."""

    def changed_frame(f: Frame) -> Frame:
        assert f.pose is not None
        return replace(f, pose=change(f.pose.copy()).astype(np.float32))

    return changed_frame


def irregular(instants: int, labelled: bool, ahead: dict[str, int], subject: int = 0) -> Part:
    """A person who never repeats a movement, seen by cameras of which some run ahead."""
    rng = np.random.default_rng(4)
    speed = np.exp(np.convolve(rng.normal(size=instants + 29), np.ones(6) / 2, "valid"))[: instants + 20]
    clock = np.cumsum(0.12 * speed / speed.mean())
    poses = [stick_pose(subject, 0, float(t)) for t in clock]
    frames = []
    for number in range(instants):
        for place, view in enumerate(VIEWS):
            camera = stick_camera(place)
            image, box = stick_image(poses[number + ahead.get(view, 0)], camera, subject)
            frames.append(
                Frame(SUBJECTS[subject], "Walking 1", "Walking", number, number / 10, view, image, box,
                      poses[number] if labelled else None, camera if labelled else None)
            )  # fmt: skip
    noisy = drawn(lambda p: np.clip(p + rng.normal(0, 2, p.shape), 0, 255).astype(np.uint8))
    return [noisy(f) for f in frames]


def test_a_sound_capture_has_no_fault(tiny_capture: Capture) -> None:
    diagnosis = diagnose(tiny_capture)
    assert at_fault(diagnosis) == set()
    assert {check.verdict for check in diagnosis.checks} == {"ok"}
    assert diagnosis.splits["train"].images == 96 * 4
    assert diagnosis.splits["all"].labelled == 144
    assert diagnosis.to_json()["healthy"] is True


def test_a_capture_without_labels_and_cameras_is_no_fault(tmp_path: Path) -> None:
    bare = [[replace(f, pose=None, camera=None) for f in part] for part in plain()]
    diagnosis = diagnose(seen(tmp_path, *bare))
    assert diagnosis.faults == ()
    assert "none" in check_of(diagnosis, "labels").text
    assert check_of(diagnosis, "bones").verdict == "not checked"


def test_splits_that_share_instants_or_are_empty(tmp_path: Path) -> None:
    splits = {"train": (Selector(),), "test": (Selector(subjects=("S1",)),), "odd": (Selector(subjects=("S7",)),)}
    diagnosis = diagnose(seen(tmp_path, *plain(0, 1), info=replace(INFO, splits=splits)))
    assert at_fault(diagnosis) == {"splits"}
    text = check_of(diagnosis, "splits").text
    assert "train and test share 48 instants" in text
    assert "the split odd has no instants" in text


def test_times_that_go_back(tmp_path: Path) -> None:
    parts = plain()
    parts[1] = changed(parts[1], lambda f: replace(f, time=0.05), 5)
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"times"}
    assert "S1/Waving 1 frame 5" in check_of(diagnosis, "times").cases[0].where


def test_views_whose_frames_do_not_meet(tmp_path: Path) -> None:
    apart = [replace(f, frame=f.frame + 1000 * VIEWS.index(f.view)) for f in stick_part(0, 0)]
    apart = [replace(f, time=f.frame / 10, pose=None, camera=None) for f in apart]
    info = replace(INFO, splits={"train": (Selector(),)})
    diagnosis = diagnose(seen(tmp_path, apart, info=info))
    assert {c.name for c in diagnosis.faults} == {"views"}
    assert check_of(diagnosis, "views").found == 96


def test_a_bone_that_grows(tmp_path: Path) -> None:
    def longer(pose: np.ndarray) -> np.ndarray:
        elbow, wrist = JOINTS.index("LElbow"), JOINTS.index("LWrist")
        pose[wrist] = pose[elbow] + 1.5 * (pose[wrist] - pose[elbow])
        return pose

    parts = plain()
    parts[2] = changed(parts[2], posed(longer), 7, 8)
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"bones"}
    bones = check_of(diagnosis, "bones")
    assert bones.found == 2
    assert "S2/Walking 1 frame" in bones.cases[0].where
    assert "LWrist +50%" in bones.cases[0].where


def test_poses_in_metres(tmp_path: Path) -> None:
    parts = [changed([replace(f, camera=None) for f in part], posed(lambda p: p / 1000)) for part in plain()]
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert {c.name for c in diagnosis.faults} == {"bones"}
    assert "are the poses in millimetres?" in check_of(diagnosis, "bones").text


def test_limbs_in_the_wrong_order(tmp_path: Path) -> None:
    """With knee and ankle of the left leg exchanged, its bones differ from those of the right leg."""

    def mixed(pose: np.ndarray) -> np.ndarray:
        pose[5] = pose[4] + 1.6 * (pose[5] - pose[4])
        return pose

    parts = [changed([replace(f, camera=None) for f in part], posed(mixed)) for part in plain()]
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert {c.name for c in diagnosis.faults} == {"bones"}
    assert "S1's bone to LKnee is +60%" in check_of(diagnosis, "bones").text


def test_a_pose_that_jumps_to_the_side(tmp_path: Path) -> None:
    parts = plain()
    parts[1] = changed(parts[1], posed(lambda p: p + np.array([1500, 0, 0])), 11)
    parts[4] = changed(parts[4], posed(lambda p: p + np.array([0, 2500, 0])), 20, 21, 22, 23)
    diagnosis = diagnose(seen(tmp_path, *[p for i, p in enumerate(parts) if i != 4]))
    assert at_fault(diagnosis) == {"jumps"}
    jumps = check_of(diagnosis, "jumps")
    assert jumps.found == 1
    assert "S1/Waving 1 frame 11" in jumps.cases[0].where


@pytest.mark.parametrize("frames", [(9, 10, 11), (0, 1), (23,), tuple(range(24))], ids=str)
def test_sides_that_are_exchanged(frames: tuple[int, ...], tmp_path: Path) -> None:
    parts = plain()
    parts[4] = changed(parts[4], posed(lambda p: p[list(MIRROR)]), *frames)
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"left and right"}
    assert check_of(diagnosis, "left and right").found == len(frames)
    assert "S3/Walking 1" in check_of(diagnosis, "left and right").cases[0].where


def test_a_view_out_of_step_with_the_labels(tmp_path: Path) -> None:
    diagnosis = diagnose(seen(tmp_path, irregular(48, True, {"3": 4}), *plain(1, 2)))
    assert at_fault(diagnosis) == {"sync"}
    sync = check_of(diagnosis, "sync")
    assert sync.found == 1
    assert "S1/Walking 1 view 3 runs 4 instants (0.40 s) ahead" in sync.cases[0].where


@pytest.mark.parametrize(("view", "ahead"), [("2", 5), ("4", 3)])
def test_a_view_out_of_step_with_the_others_where_nothing_is_labelled(view: str, ahead: int, tmp_path: Path) -> None:
    info = replace(INFO, splits={"train": (Selector(),)})
    diagnosis = diagnose(seen(tmp_path, irregular(120, False, {view: ahead}), info=info))
    assert {c.name for c in diagnosis.faults} == {"sync"}
    sync = check_of(diagnosis, "sync")
    assert f"S1/Walking 1 view {view} runs {ahead} instants ({ahead / 10:.2f} s) ahead" in sync.cases[0].where
    assert sync.found == 1


def test_views_in_step_are_left_in_peace_where_nothing_is_labelled(tmp_path: Path) -> None:
    info = replace(INFO, splits={"train": (Selector(),)})
    diagnosis = diagnose(seen(tmp_path, irregular(120, False, {}), info=info))
    assert check_of(diagnosis, "sync").verdict == "ok"
    assert diagnosis.faults == ()


def test_cameras_that_are_mixed_up(tmp_path: Path) -> None:
    parts = plain()
    parts[0] = changed(
        parts[0],
        lambda f: replace(f, camera=replace(stick_camera(1), translation=stick_camera(1).translation + 4000)),
        view="2",
    )
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"projection"}
    assert check_of(diagnosis, "projection").found == 24
    assert "view 2" in check_of(diagnosis, "projection").cases[0].where


def test_a_camera_in_a_mirror(tmp_path: Path) -> None:
    parts = plain()
    mirror = replace(stick_camera(0), rotation=stick_camera(0).rotation * np.array([1, 1, -1]))
    parts[0] = changed(parts[0], lambda f: replace(f, camera=mirror), view="1")
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert "projection" in {c.name for c in diagnosis.faults}
    assert "whose rotation matrix is not a rotation" in check_of(diagnosis, "projection").text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dark", drawn(lambda p: p // 40)),
        ("white", drawn(lambda p: np.full_like(p, 255))),
        ("white", drawn(lambda p: np.full_like(p, 120))),
        ("blurred", drawn(lambda p: cv2.GaussianBlur(p, (0, 0), 4))),
    ],
    ids=["dark", "white", "grey", "blurred"],
)
def test_images_that_show_little(name: str, change: Callable[[Frame], Frame], tmp_path: Path) -> None:
    parts = plain()
    parts[3] = changed(parts[3], change, 4, 5, view="2")
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {name}
    check = check_of(diagnosis, name)
    assert check.found == 2
    assert {case.where for case in check.cases} == {f"S2/Waving 1 frame {f} view 2" for f in (4, 5)}
    assert all(len(case.rows) == 1 for case in check.cases)


def test_a_camera_out_of_focus_from_beginning_to_end(tmp_path: Path) -> None:
    parts = plain()
    parts[3] = changed(parts[3], drawn(lambda p: cv2.GaussianBlur(p, (0, 0), 4)), view="2")
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"blurred"}
    assert check_of(diagnosis, "blurred").found == 24


def test_a_camera_that_froze(tmp_path: Path) -> None:
    parts = plain()
    still = next(f for f in parts[5] if f.frame == 8 and f.view == "4").image
    parts[5] = changed(parts[5], lambda f: replace(f, image=still), 9, 10, view="4")
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"duplicates"}
    assert check_of(diagnosis, "duplicates").found == 2


def test_a_broken_image(tmp_path: Path) -> None:
    capture = seen(tmp_path, *plain())
    table = lance.dataset(f"{capture.uri}/frames.lance").to_table()
    images = table["image"].to_pylist()
    images[6] = images[6][:200]
    broken = table.set_column(6, SCHEMA.field("image"), pa.array(images, pa.binary()))
    lance.write_dataset(broken, f"{capture.uri}/frames.lance", mode="overwrite")
    diagnosis = diagnose(Capture.open(capture.uri))
    assert at_fault(diagnosis) == {"broken"}
    assert check_of(diagnosis, "broken").cases[0].where == "S1/Walking 1 frame 1 view 3"


def narrowed(f: Frame) -> Frame:
    """The same image cut to its upper two thirds, so that the feet are outside."""
    x0, y0, x1, _ = f.box
    side = (x1 - x0) * 0.65
    box = (x0 + 0.175 * (x1 - x0), y0, x0 + 0.175 * (x1 - x0) + side, y0 + side)
    pixels = cv2.imdecode(np.frombuffer(f.image, np.uint8), cv2.IMREAD_COLOR)
    n = len(pixels)
    cut = pixels[: round(0.65 * n), round(0.175 * n) : round(0.825 * n)]
    done, data = cv2.imencode(".jpg", cv2.resize(cut, (n, n)), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return replace(f, image=data.tobytes(), box=box)


def test_people_whose_labelled_feet_are_outside_the_crop(tmp_path: Path) -> None:
    parts = plain()
    parts[0] = changed(parts[0], narrowed, view="3")
    diagnosis = diagnose(seen(tmp_path, *parts))
    assert at_fault(diagnosis) == {"cut off"}
    cut = check_of(diagnosis, "cut off")
    assert cut.found == 24
    assert "S1/Walking 1" in cut.cases[0].where
    assert "view 3" in cut.cases[0].where
    assert cut.text.endswith("make the crops larger where the capture is made")
    for importer, way_out in (("human36m", "(mcss import human36m: --margin)"), ("videos", "detector (--find)")):
        info = replace(INFO, importer=importer, settings={"margin": 1.0})
        cut = check_of(diagnose(seen(tmp_path / importer, *parts, info=info)), "cut off")
        assert cut.text.endswith(way_out)


def test_people_who_move_across_the_edge_where_nothing_is_labelled(tmp_path: Path) -> None:
    bare = [[replace(f, pose=None, camera=None) for f in part] for part in plain(0, 1)]
    bare[0] = changed(bare[0], narrowed, view="3")
    diagnosis = diagnose(seen(tmp_path, *bare, info=replace(INFO, splits={"train": (Selector(),)})))
    assert {c.name for c in diagnosis.faults} == {"cut off"}
    assert all("S1/Walking 1" in case.where and "view 3" in case.where for case in check_of(diagnosis, "cut off").cases)


def test_labels_that_move_after_the_images_are_found_without_cameras(tmp_path: Path) -> None:
    part = irregular(90, True, {})
    pose_at = {f.frame: f.pose for f in part}
    late = [replace(f, pose=pose_at[max(f.frame - 4, 0)], camera=None) for f in part]
    found = check_of(diagnose(seen(tmp_path, late)), "labels in time")
    assert found.verdict == "fault"
    assert "labels move 4 instants (" in found.text
    assert "too late" in found.text
    assert "--poses.offset" in found.text
    right = [replace(f, camera=None) for f in part]
    assert check_of(diagnose(seen(tmp_path / "right", right)), "labels in time").verdict == "ok"


def test_a_rate_that_varies_is_noted(tmp_path: Path) -> None:
    slower = [replace(f, time=f.time if f.frame < 6 else 2 * f.time - 6 * 0.1) for f in stick_part(0, 0)]
    steps = np.unique(np.round(np.diff(sorted({f.time for f in slower})), 3))
    assert len(steps) > 1
    assert check_of(diagnose(seen(tmp_path, slower)), "rate").verdict == "note"
    assert check_of(diagnose(seen(tmp_path / "even", stick_part(0, 0))), "rate").verdict == "ok"


def test_views_without_colours_are_named(tmp_path: Path) -> None:
    grey = drawn(lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2))
    parts = [changed(part, grey, view=VIEWS[1]) for part in plain()]
    found = check_of(diagnose(seen(tmp_path, *parts)), "colour")
    assert (found.verdict, found.found) == ("note", 1)
    assert found.text == f"there are no colours in the images of {VIEWS[1]} (grey-scale, infrared or night cameras)"
    videos = replace(INFO, importer="videos")
    found = check_of(diagnose(seen(tmp_path / "own", *parts, info=videos)), "colour")
    assert "see the track sheet beside the capture" in found.text


def test_images_that_a_view_lacks_are_noted(tmp_path: Path) -> None:
    part = [f for f in stick_part(0, 0) if (f.view, f.frame) not in ((VIEWS[1], 3), (VIEWS[1], 4))]
    found = check_of(diagnose(seen(tmp_path, part)), "views")
    assert (found.verdict, found.found) == ("note", 2)
    assert f"2 images of instants are missing, most in {VIEWS[1]} (2)" in found.text
