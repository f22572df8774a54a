import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.images import decode_jpeg
from mcss.sources.synthetic import build as building
from mcss.sources.synthetic.body import Body
from mcss.sources.synthetic.build import build, capture_info
from mcss.sources.synthetic.figure import BOTTOM, HAIR, SKIN, TOP, Figure
from mcss.sources.synthetic.performances import ACTIONS, NEW_ACTIONS
from mcss.sources.synthetic.rendering import PosedBones, posed_vertices
from mcss.sources.synthetic.sequences import (
    RenderedSequence,
    SyntheticSettings,
    _on_floor,
    _performances,
    body_of,
    figure_of,
    render_sequences,
    renderers_of,
)

pytestmark = pytest.mark.filterwarnings("default")  # Warp, which Anny loads, warns where there is no GPU

TINY = SyntheticSettings(subjects=3, instants=8 * len(ACTIONS), size=32, views=2, takes=1, rate=5.0)
SUBJECTS = ("S1", "S2", "S3")


def content(capture: Capture) -> list[tuple[Any, ...]]:
    """All that the rows hold."""
    rows = lance.dataset(f"{capture.uri}/frames.lance").to_table().to_pylist()
    return sorted(tuple(repr(value) for value in row.values()) for row in rows)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return build(tmp_path_factory.mktemp("synthetic"), TINY, processes=1)


def test_all_subjects_perform_all_actions_and_only_test_subjects_the_new_ones(capture: Capture) -> None:
    assert set(capture.splits) == {"train", "validation", "test", "new-motion"}
    by_split = {name: capture.instants(name) for name in capture.splits}
    subjects = {name: {i.subjects[k] for k in i.subject} for name, i in by_split.items()}
    assert subjects == {"train": {"S1"}, "validation": {"S2"}, "test": {"S3"}, "new-motion": {"S3"}}
    actions = {name: {i.actions[k] for k in i.action} for name, i in by_split.items()}
    assert actions["train"] == actions["validation"] == actions["test"] == set(ACTIONS)
    assert actions["new-motion"] == set(NEW_ACTIONS)
    assert sum(map(len, by_split.values())) == len(capture.instants())
    assert len(by_split["train"]) >= TINY.instants


def test_joints_fall_into_the_crop_by_the_stored_camera(capture: Capture) -> None:
    instants = capture.instants()
    assert (instants.rows >= 0).all()
    rows = instants.rows.reshape(-1)
    cameras, boxes = capture.cameras(rows), capture.boxes(rows)
    joints = np.repeat(instants.pose, instants.rows.shape[1], axis=0)
    seen = np.einsum("nij,nkj->nki", cameras.rotation, joints) + cameras.translation[:, None]
    flat = np.einsum("nij,nkj->nki", cameras.intrinsics, seen)
    pixels = flat[..., :2] / flat[..., 2:]
    inside = (pixels - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])
    assert (seen[..., 2] > 1500).all()
    assert inside.min() > 0.02
    assert inside.max() < 0.98
    spread = np.ptp(inside, axis=1).max(axis=1)
    assert np.median(spread) > 0.6  # the person fills the crop
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1], rtol=1e-4)


def test_the_person_is_where_the_joints_are(capture: Capture) -> None:
    """The image differs from the stored background at the joints, and hardly at its corners."""
    instants = capture.instants("train")
    for instant, view in itertools.product(range(0, len(instants), 20), range(2)):
        row = instants.rows[instant, view : view + 1]
        stage = capture.background(instants.views[view], "S1")
        assert stage is not None
        x0, y0, x1, _ = capture.boxes(row)[0]
        at = (np.arange(32) + 0.5) / 32 * (x1 - x0)
        columns, lines = (x0 + at).astype(int).clip(0, 999), (y0 + at).astype(int).clip(0, 999)
        empty = decode_jpeg(stage)[np.ix_(lines, columns)].astype(float)
        difference = np.abs(capture.decode(row)[0].astype(float) - empty).mean(axis=-1)
        camera = capture.cameras(row)
        seen = camera.rotation[0] @ instants.pose[instant].T + camera.translation[0][:, None]
        flat = camera.intrinsics[0] @ seen
        x, y = ((flat[:2] / flat[2] - [[x0], [y0]]) / (x1 - x0) * 32).astype(int)
        corners = np.concatenate([difference[:3, :3], difference[:3, -3:]])
        assert np.median(difference[y, x]) > np.median(corners) + 8


def test_a_jump_stays_in_the_air_and_everybody_else_on_the_floor() -> None:
    settings = SyntheticSettings(subjects=3, instants=40 * len(ACTIONS), size=16, views=1, takes=1)
    for action, leaves in (("Walking", False), ("Jumping", True)):
        lowest = lowest_points(settings, action)
        assert lowest.min() > -0.002
        assert np.quantile(lowest, 0.1) < 0.02
        assert (lowest.max() > 0.12) == leaves


def lowest_points(settings: SyntheticSettings, action: str) -> np.ndarray:
    body = body_of(0, settings.seed)
    performance = next(p for p in _performances(settings, 0) if p.action == action)
    figure = figure_of(settings, 0, performance.sequence)
    heads = _on_floor(body, figure, performance)
    bones = PosedBones.of(body, performance.orientations, heads)
    return np.array([posed_vertices(figure, bones, frame)[:, 2].min() for frame in range(len(heads))])


def test_a_subject_changes_outfits_between_sequences_but_not_skin_or_hair() -> None:
    settings = replace(TINY, takes=3, instants=3 * TINY.instants)
    first, second, third = (figure_of(settings, 0, f"Walking {take}") for take in (1, 2, 3))
    assert first is third
    same = [np.array_equal(finest(first, material), finest(second, material)) for material in (SKIN, HAIR, TOP, BOTTOM)]
    assert same == [True, True, False, False]
    assert capture_info(settings).outfits == ("* 1", "* 2", "* 3")
    assert capture_info(TINY).outfits == ("*",)


def finest(figure: Figure, material: int) -> np.ndarray:
    """The texture of a material, before it was halved."""
    start, height, width = figure.textures[0, material]
    return figure.texels[start : start + height * width]


def test_a_sequence_does_not_depend_on_those_rendered_before() -> None:
    names = frozenset({"Walking 1"})
    first = render_sequences(TINY, 1, "Walking", names)[0]
    render_sequences(TINY, 0, "Phoning", frozenset({"Phoning 1"}))
    again = render_sequences(TINY, 1, "Walking", names)[0]
    assert [frame.image for frame in first.frames] == [frame.image for frame in again.frames]
    assert len({frame.image for frame in first.frames}) == len(first.frames)


def test_an_interrupted_build_continues_to_the_same_capture(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    append, appended = CaptureWriter.append, []

    def append_five(writer: CaptureWriter, frames: list) -> None:  # type: ignore[type-arg]
        if len(appended) == 5:
            raise Killed
        appended.append(frames[0].sequence)
        append(writer, frames)

    with monkeypatch.context() as patched:
        patched.setattr(CaptureWriter, "append", append_five)
        with pytest.raises(Killed):
            build(tmp_path, TINY, processes=1)
    with pytest.raises(CaptureError, match=r"unfinished \(5 sequences so far\)"):
        Capture.open(tmp_path)
    made: list[str] = []
    make = building.render_sequences
    with monkeypatch.context() as patched:
        patched.setattr(building, "render_sequences", lambda *job: made.append(f"S{job[1] + 1} {job[2]}") or make(*job))
        resumed = build(tmp_path, TINY, processes=1)
    assert f"S1 {appended[0].removesuffix(' 1')}" not in made
    assert resumed.fingerprint == capture.fingerprint
    assert content(resumed) == content(capture)


@pytest.mark.slow
def test_two_processes_make_the_same_capture_as_one(capture: Capture, tmp_path: Path) -> None:
    again = build(tmp_path, TINY, processes=2)
    assert content(again) == content(capture)
    np.testing.assert_array_equal(again.instants().rows, capture.instants().rows)  # in the same order, too


def test_the_fingerprint_is_of_the_settings_so_that_machines_that_round_otherwise_agree(
    capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nudged(*job: Any) -> list[RenderedSequence]:
        scenes = render_sequences(*job)
        return [replace(s, frames=[replace(f, pose=np.nextafter(f.pose, 1e9)) for f in s.frames]) for s in scenes]

    monkeypatch.setattr(building, "render_sequences", nudged)
    elsewhere = build(tmp_path / "elsewhere", TINY, processes=1)
    assert content(elsewhere) != content(capture)
    assert elsewhere.fingerprint == capture.fingerprint
    assert build(tmp_path / "other", replace(TINY, seed=1), processes=1).fingerprint != capture.fingerprint
    monkeypatch.setattr(building, "RENDERER", 2)
    assert build(tmp_path / "later", TINY, processes=1).fingerprint != capture.fingerprint


def test_continuing_with_other_settings_is_refused(capture: Capture) -> None:
    with pytest.raises(CaptureError, match="other settings"):
        build(
            capture.uri, SyntheticSettings(subjects=3, instants=8 * len(ACTIONS), size=32, views=3, takes=1, rate=5.0)
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subjects": 2}, "subjects: expected at least 3, got 2"),
        ({"instants": 10}, r"instants: expected at least \d+ \(8 for each of \d+ sequences\), got 10"),
        ({"size": 8}, "size: expected at least 16, got 8"),
        ({"views": 0}, "views: expected at least 1, got 0"),
        ({"rate": 0.0}, "rate: expected more than 0 and at most 120"),
    ],
)
def test_bad_settings_say_what_was_expected(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticSettings(**wrong)  # type: ignore[arg-type]


def test_no_process_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="processes: expected at least 1, got 0"):
        build(tmp_path, TINY, processes=0)


def test_cameras_per_sequence_and_stages_per_subject_come_with_their_backgrounds() -> None:
    settings = SyntheticSettings(
        subjects=3, instants=8 * len(ACTIONS), size=16, views=1, takes=1, rate=5.0, cameras="per-sequence",
        stages="hall",
    )  # fmt: skip
    walking, waiting = (
        render_sequences(settings, 0, name, frozenset({f"{name} 1"}))[0] for name in ("Walking", "Waiting")
    )
    assert (walking.stage, waiting.stage) == ("S1/Walking 1", "S1/Waiting 1")
    assert walking.backgrounds["1"] != waiting.backgrounds["1"]
    assert walking.frames[0].camera is not None
    assert waiting.frames[0].camera is not None
    assert not np.allclose(walking.frames[0].camera.rotation, waiting.frames[0].camera.rotation)


def test_stages_per_sequence_belong_to_their_sequences_with_the_same_cameras() -> None:
    settings = SyntheticSettings(
        subjects=3, instants=8 * len(ACTIONS) * 2, size=16, views=1, rate=5.0, stages="per-sequence"
    )
    scenes = render_sequences(settings, 0, "Walking", frozenset({"Walking 1", "Walking 2"}))
    assert [scene.stage for scene in scenes] == ["S1/Walking 1", "S1/Walking 2"]
    assert scenes[0].backgrounds["1"] != scenes[1].backgrounds["1"]
    first, second = (scene.frames[0].camera for scene in scenes)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.rotation, second.rotation)


def test_stages_per_view_share_nothing_but_the_person() -> None:
    settings = SyntheticSettings(subjects=3, instants=8 * len(ACTIONS) * 2, size=16, views=3, stages="per-view")
    renderers = [renderers_of(settings, 0, f"Walking {take}") for take in (1, 2)]
    places = [[renderer.stage.name for renderer in of_take] for of_take in renderers]
    assert [len(set(names)) for names in places] == [3, 3]
    assert places[0] != places[1]
    (scene,) = render_sequences(settings, 0, "Walking", frozenset({"Walking 1"}))
    assert scene.stage == "S1/Walking 1"
    assert len(set(scene.backgrounds.values())) == 3
    assert [frame.view for frame in scene.frames[:3]] == ["1", "2", "3"]
    same = SyntheticSettings(subjects=3, instants=8 * len(ACTIONS) * 2, size=16, views=3)
    (plain,) = render_sequences(same, 0, "Walking", frozenset({"Walking 1"}))
    assert [frame.box for frame in plain.frames] == [frame.box for frame in scene.frames]


def test_a_body_is_posed_the_same_in_every_process() -> None:
    np.testing.assert_array_equal(Body.of_subject(1, 0).vertices, Body.of_subject(1, 0).vertices)
