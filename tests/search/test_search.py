import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from captures_for_tests import INSTANTS, SEQUENCES, SUBJECTS, VIEWS, stick_pose
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.errors import PoseIndexError, QueryError
from mcss.metrics import pa_mpjpe
from mcss.models.model import Model, load
from mcss.search.index import PoseIndex
from mcss.search.index_table import Filter
from mcss.search.indexing import index_capture
from mcss.search.pages import query_images, result_rows, search_sheet
from mcss.search.query import (
    ImageQuery,
    NamedImageQuery,
    PoseQuery,
    RowQuery,
    SequenceQuery,
    SequenceSource,
    VideoQuery,
    parsed_clip,
    parsed_query,
)
from mcss.search.search import SearchResult, SearchSettings, answer, movements, recall_of
from mcss.skeletons import JOINTS
from runs_for_tests import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run)


@pytest.fixture(scope="module")
def index(tiny_capture: Capture, model: Model, tmp_path_factory: pytest.TempPathFactory) -> PoseIndex:
    place = tmp_path_factory.mktemp("index") / "i"
    index_capture(tiny_capture, model, str(place))
    return PoseIndex.open(place)


def asked(index: PoseIndex, model: Model, text: str, **settings: object) -> SearchResult:
    return answer(index, parsed_query(text), SearchSettings(**settings), lambda: model)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("row:7", RowQuery(7)),
        ("S9/Walking 1/40/left", NamedImageQuery("S9", "Walking 1", 40, "left")),
        ("S9/Walking 1/left", SequenceQuery("S9", "Walking 1", "left", None)),
        ("S9/Walking 1/left@.5:2", SequenceQuery("S9", "Walking 1", "left", (0.5, 2.0))),
        ("a/b/c.MP4@1:2.5", VideoQuery(Path("a/b/c.MP4"), (1.0, 2.5))),
        ("a@b.jpg", ImageQuery(Path("a@b.jpg"))),
        ("poses.trc@12", PoseQuery(Path("poses.trc"), 12)),
        ("poses.csv", PoseQuery(Path("poses.csv"), 0)),
    ],
)
def test_a_query_is_recognised_by_its_form(text: str, query: object) -> None:
    assert parsed_query(text) == query


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row:x", "expected a number after row:, got 'row:x'"),
        ("clip.mp4@3:1", "expected two times in s after @, such as @1.5:3, the earlier first, got 'clip.mp4@3:1'"),
        ("S1/Walking 1/2@a:b", "expected two times in s"),
        ("poses.npz@last", "expected a frame number after @"),
        ("nothing", "query: expected an image file; row:NUMBER"),
        ("S1/Walking 1/x/2", "(.bvh, .c3d, .csv, .h5, .npy, .npz, .trc, .tsv); got 'S1/Walking 1/x/2'"),
    ],
)
def test_impossible_queries_are_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(QueryError) as problem:
        parsed_query(text)
    assert message in str(problem.value)


def test_a_clip_is_a_video_or_a_view_of_a_sequence() -> None:
    assert parsed_clip("a.mov@1:2") == VideoQuery(Path("a.mov"), (1.0, 2.0))
    assert parsed_clip("s3://bucket/c:S1/W/2") == SequenceSource("s3://bucket/c", "S1/W/2", None)
    with pytest.raises(QueryError, match=r"'S1/W/2': expected a video \(.*\) or CAPTURE:SUBJECT/SEQUENCE/VIEW"):
        parsed_clip("S1/W/2")


def test_an_indexed_image_finds_others_but_never_itself(index: PoseIndex, model: Model) -> None:
    name = f"S2/{SEQUENCES[0]}/5/3"
    found = asked(index, model, name, top=6, filter=Filter(not_view=("1",)))
    assert found.query is not None
    assert found.query.name == name
    assert len(found.hits) == 6
    assert found.query.row not in [hit.row for hit in found.hits]
    assert all(hit.view != "1" for hit in found.hits)
    distances = [hit.distance for hit in found.hits]
    assert distances == sorted(distances)
    assert asked(index, model, f"row:{found.query.row}", top=6, filter=Filter(not_view=("1",))) == found
    assert not found.approximate, "a small index is searched in full"


def test_an_image_file_finds_the_entry_made_from_it(
    index: PoseIndex, model: Model, tiny_capture: Capture, tmp_path: Path
) -> None:
    (tmp_path / "who.png").write_bytes(
        cv2.imencode(".png", tiny_capture.decode(np.array([77]))[0][..., ::-1])[1].tobytes()
    )
    query = parsed_query(str(tmp_path / "who.png"))
    whole = (4.2, 4.2, 55.6, 55.6)  # with its margin the whole image, as the capture has it
    found = answer(index, query, SearchSettings(top=2), lambda: model, whole)
    assert found.hits[0].row == 77
    assert found.hits[0].distance < 1e-3
    by_pose = answer(index, query, SearchSettings(top=2, by="pose"), lambda: model, whole)
    assert by_pose.hits[0].row == 77
    assert by_pose.by == "PA-MPJPE to the predicted pose, mm"


def test_a_3d_pose_finds_the_instants_that_show_it_in_every_view(
    index: PoseIndex, model: Model, tmp_path: Path
) -> None:
    pose = stick_pose(1, 1, 0.7) * 0.001  # metres, which the reader recognises
    names = [f"{joint}.{axis}" for joint in JOINTS for axis in "xyz"]
    rows = [",".join(f"{value:.6f}" for value in (pose + shift).ravel()) for shift in (5, 0)]
    (tmp_path / "pose.csv").write_text(
        "\n".join([",".join(["time", *names]), *(f"{t},{r}" for t, r in enumerate(rows))])
    )
    found = asked(index, model, f"{tmp_path / 'pose.csv'}@1", top=4, by="true-pose", every_image=True)
    assert {(hit.subject, hit.sequence, hit.frame) for hit in found.hits} == {("S2", SEQUENCES[1], 7)}
    assert sorted(hit.view for hit in found.hits) == list(VIEWS)
    assert max(hit.distance for hit in found.hits) < 0.1
    with pytest.raises(QueryError, match="frame 9 has no pose with all joints; the file has 2 frames"):
        asked(index, model, f"{tmp_path / 'pose.csv'}@9")


def test_poses_are_compared_by_pa_mpjpe_to_the_query(index: PoseIndex, model: Model, tiny_capture: Capture) -> None:
    found = asked(index, model, f"S1/{SEQUENCES[0]}/3/2", top=5, by="true-pose", filter=Filter(subject=("S3",)))
    own = np.asarray(index.pose(found.query, "true"))  # type: ignore[arg-type]
    for hit in found.hits:
        pose = torch.from_numpy(np.asarray(index.pose(hit, "true")))
        assert hit.distance == pytest.approx(float(pa_mpjpe(pose[None, 1:], torch.from_numpy(own)[None, 1:])), abs=1e-3)


def test_a_movement_is_found_where_it_is_and_not_as_itself(index: PoseIndex, model: Model) -> None:
    name = f"S1/{SEQUENCES[0]}/2"
    found = asked(index, model, f"{name}@0.5:1.4", top=5)
    assert found.asked == f"the movement in {name}, 0.50 to 1.40 s"
    assert len(found.movements) == 5
    for movement in found.movements:
        assert movement.track != name or movement.last.time < 0.5 or movement.first.time > 1.4
    track = next(t for t in index.view_sequences(Filter(subject=("S1",), view=("2",))) if t.sequence == SEQUENCES[0])
    again = movements(index, track.vector[5:15], track.time[5:15], SearchSettings(top=1))[0]
    assert (again.track, again.first.frame, again.last.frame) == (name, 5, 14)
    assert again.distance < 1e-3


def test_queries_that_do_not_exist_are_named(index: PoseIndex, model: Model) -> None:
    with pytest.raises(QueryError, match=r"row 99999 is not in the index at .*, which has 576 images"):
        asked(index, model, "row:99999")
    with pytest.raises(QueryError, match="S1/Walking 1 frame 400 view 2 is not in the index"):
        asked(index, model, "S1/Walking 1/400/2")
    with pytest.raises(PoseIndexError, match=r"subject: there is no 'S7' in the index at .*; there are S1, S2, S3"):
        asked(index, model, "S7/Walking 1/4/2")
    with pytest.raises(PoseIndexError, match=r"view: there is no '9' in the index at .*; there are 1, 2, 3, 4"):
        asked(index, model, "row:1", filter=Filter(not_view=("9",)))
    with pytest.raises(QueryError, match="expected a movement of 5 images or more, got 2"):
        asked(index, model, "S1/Walking 1/2@0.1:0.2")
    with pytest.raises(QueryError, match="has no images of S1/Walking 1/2 at that time"):
        asked(index, model, "S1/Walking 1/2@70:80")
    with pytest.raises(QueryError, match="movements are compared by their embeddings alone"):
        asked(index, model, "S1/Walking 1/2@0:1", by="pose")


def test_a_model_that_did_not_make_the_index_is_refused(
    index: PoseIndex, tiny_capture: Capture, tmp_path: Path
) -> None:
    other = load(small_run(tmp_path, seed=1))
    (tmp_path / "a.jpg").write_bytes(tiny_capture.images(np.array([0]))[0])
    with pytest.raises(PoseIndexError, match="was made with other weights"):
        asked(index, other, str(tmp_path / "a.jpg"))
    smaller = load(small_run(tmp_path, dim=16))
    with pytest.raises(PoseIndexError, match=r"holds embeddings of 128 numbers, .* gives 16"):
        asked(index, smaller, str(tmp_path / "a.jpg"))
    with pytest.raises(PoseIndexError, match=r"holds embeddings of 128 numbers, .* gives 16"):
        index_capture(tiny_capture, smaller, index.uri)


def test_the_recall_of_an_approximate_search_is_measured_on_request(
    index: PoseIndex, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(index, model, "row:5", recall=True).recall is None, "the search is exact"
    monkeypatch.setattr(PoseIndex, "structured_count", lambda self: self.count())
    found = asked(index, model, "row:5")
    assert found.approximate
    assert found.recall is None
    assert asked(index, model, "row:5", recall=True).recall == 1.0
    assert not asked(index, model, "row:5", recall=True, exact=True).approximate


def test_recall_counts_entries_as_near_as_the_last_exact_hit(index: PoseIndex, model: Model) -> None:
    hits = asked(index, model, "row:5", top=8).hits
    assert recall_of(hits, hits) == 1
    assert recall_of(hits[:6], hits) == 0.75
    assert recall_of((), hits) == 0
    assert recall_of((), ()) == 1


def test_hits_are_shown_with_what_the_other_views_saw(index: PoseIndex, model: Model, tiny_capture: Capture) -> None:
    found = asked(index, model, "row:5", top=3)
    rows = result_rows(found, {tiny_capture.fingerprint: tiny_capture})
    assert [len(row.images) for row in rows] == [4, 4, 4, 4]
    first = found.hits[0]
    assert rows[1].images[0].caption == f"view {first.view}"
    np.testing.assert_array_equal(rows[1].images[0].pixels, tiny_capture.decode(np.array([first.row]), 160)[0])
    assert sorted(seen.caption for seen in rows[1].images) == [f"view {view}" for view in VIEWS]
    assert search_sheet(found, {tiny_capture.fingerprint: tiny_capture}).shape == (4 * (160 + 32), 640, 3)
    assert search_sheet(found, {}).shape == (4 * (160 + 32), 160, 3), "the capture is out of reach"


def test_hits_are_apart_in_time_unless_every_image_is_asked_for(index: PoseIndex, model: Model) -> None:
    found = asked(index, model, "S1/Walking 1/5/2", top=8)
    moments = [(hit.subject, hit.sequence, hit.time) for hit in (*found.hits, found.query) if hit is not None]
    for i, (subject, sequence, time) in enumerate(moments):
        for other_subject, other_sequence, other_time in moments[i + 1 :]:
            assert (subject, sequence) != (other_subject, other_sequence) or abs(time - other_time) >= 0.5
    every = asked(index, model, "S1/Walking 1/5/2", top=8, every_image=True)
    assert [hit.distance for hit in every.hits] == sorted(hit.distance for hit in every.hits)
    assert every.hits[-1].distance <= found.hits[-1].distance


def test_the_sheet_begins_with_the_query(index: PoseIndex, model: Model, tiny_capture: Capture, tmp_path: Path) -> None:
    captures = {tiny_capture.fingerprint: tiny_capture}
    image = tiny_capture.decode(np.array([7]), 64)[0]
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image[:, :, ::-1])
    query = parsed_query(str(path))
    (seen,) = query_images(query, index, captures)
    assert seen.caption == "photo.png"
    assert seen.pixels is not None
    assert seen.pixels.shape == (160, 160, 3)
    found = answer(index, query, SearchSettings(top=2), lambda: model)
    rows = result_rows(found, captures, (seen,))
    assert len(rows) == 3
    assert rows[0].title == "query: photo.png"
    movement = query_images(parsed_query("S1/Walking 1/2@0.2:1"), index, captures)
    assert [seen.caption for seen in movement] == ["0.20 s", "0.40 s", "0.50 s", "0.70 s", "0.80 s", "1.00 s"]
    assert query_images(parsed_query("row:5"), index, captures) == (), "its views are read from the capture"


def test_a_search_in_a_half_built_index_says_so(
    tiny_capture: Capture,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    index_capture(tiny_capture, load(run), "index")
    main(["search", "S1/Walking 1/5/2", "--top", "1"])
    assert "not in this index yet" not in capsys.readouterr().out
    PoseIndex.open("index").remove(Filter(subject=("S3",)))
    main(["search", "S1/Walking 1/5/2", "--top", "1"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"192 of the 576 images of {tiny_capture.uri} are not in this index yet: mcss index" in said


def failing(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit with status 1, and return its message."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_index_and_search_on_the_command_line(
    tiny_capture: Capture,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["index", tiny_capture.uri, "--run", str(run), "--json", "indexed.json"])
    assert json.loads(Path("indexed.json").read_text())["count"] == len(SUBJECTS) * 2 * INSTANTS * len(VIEWS)
    main(["search", "S1/Walking 1/5/2", "--top", "3", "--not-view", "2", "--not-view", "1", "--not-subject", "S1",
          "--between", "0.2", "1.5", "-o", "page.html", "--json", "found.json"])  # fmt: skip
    found = json.loads(Path("found.json").read_text())
    assert len(found["hits"]) == 3
    for hit in found["hits"]:
        assert hit["view"] in "34"
        assert hit["subject"] != "S1"
        assert 0.2 <= hit["time"] <= 1.5
    page = Path("page.html").read_text()
    assert page.count("data:image/jpeg") == 16
    assert "S1/Walking 1/5/2" in page
    out = capsys.readouterr().out
    assert "Searched exactly." in out
    main(["search", "S1/Walking 1/2@0.2:1", "--subject", "S2", "--view", "3", "-o", "sheet.png"])
    assert cv2.imread("sheet.png") is not None
    (tmp_path / "no.jpg").write_bytes(b"GIF89a")
    assert "not a readable image" in failing(["search", "no.jpg"], capsys)
    assert "expected a file that ends in .html, .jpg or .png, got page.pdf" in failing(
        ["search", "row:1", "-o", "page.pdf"], capsys
    )
    assert "no index at nowhere" in failing(["search", "row:1", "--index", "nowhere"], capsys)
    with pytest.raises(SystemExit):
        main(["search", "row:1", "--top", "0"])
    assert "top: expected 1 or more, got 0" in capsys.readouterr().err


def test_hits_of_a_missing_capture_have_no_images(
    tiny_capture: Capture,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    index_capture(tiny_capture, load(run), "index")
    PoseIndex.open("index").remember_capture(tiny_capture.fingerprint, str(tmp_path / "moved"))
    main(["search", "row:5", "--top", "2", "-o", "page.html"])
    assert "Images of a capture are not shown: no capture at" in capsys.readouterr().out
    assert "the capture cannot be read" in Path("page.html").read_text()
