import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

import mcss
from mcss.cli import main, using
from mcss.data.capture import Capture
from mcss.errors import PoseIndexError, QueryError
from mcss.models.model import Model
from mcss.models.model_file import save_model
from mcss.search.index import PoseIndex
from mcss.search.index_table import Entries, Filter, ModelIdentity
from mcss.search.indexing import index_capture
from mcss.search.memory_index import IndexedImage, MemoryIndex
from mcss.search.search import distinct_moments
from mcss.web.analysis import AnalysisResult
from mcss.web.gallery import Gallery, GalleryError
from mcss.web.handlers import PageHandlers
from mcss.web.results import ForgottenError, ResultStore
from runs_for_tests import equipped_run, small_network


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return mcss.load(equipped_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def index(model: Model, tiny_capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("index") / "poses")
    index_capture(tiny_capture, model, uri)
    return uri


@pytest.fixture(scope="module", params=["capture", "index"])
def gallery(request: pytest.FixtureRequest, model: Model, tiny_capture: Capture, index: str) -> Gallery:
    if request.param == "capture":
        return Gallery.of_capture(model, tiny_capture, 10_000)
    return Gallery.of_index(index, model)


def name(shown: IndexedImage) -> tuple[str, str, int, str]:
    return shown.subject, shown.sequence, shown.frame, shown.view


def test_a_gallery_holds_every_image_with_its_other_views(gallery: Gallery, tiny_capture: Capture) -> None:
    assert (len(gallery), gallery.subjects, gallery.views) == (576, ("S1", "S2", "S3"), ("1", "2", "3", "4"))
    instants = tiny_capture.instants()
    for place in (0, 100, 575):
        shown = gallery.image(place)
        i = next(
            i
            for i in range(len(instants))
            if instants.describe(i) == f"{shown.subject}/{shown.sequence} frame {shown.frame}"
        )
        row = instants.rows[i : i + 1, instants.views.index(shown.view)]
        assert gallery.jpeg(place) == tiny_capture.images(row)[0]
        others = gallery.index.other_views(shown)
        assert [other.view for other in others] == [view for view in instants.views if view != shown.view]
        assert {name(other)[:3] for other in others} == {name(shown)[:3]}
        predicted, true = gallery.poses(place)
        assert predicted is not None
        assert true is not None
        np.testing.assert_allclose(predicted[0], 0, atol=1e-4)
    with pytest.raises(GalleryError, match="no image 576; there are 576"):
        gallery.image(576)


def random_walks() -> Gallery:
    """Two people, two sequences of 24 images each, in three views that hardly differ; in no order."""
    rng = np.random.default_rng(0)
    walks = {key: np.cumsum(rng.normal(size=(24, 16)), axis=0) for key in itertools.product(("S1", "S2"), "ab")}
    keys = [(*key, frame, view) for key in walks for frame in range(24) for view in "123"]
    keys = [keys[i] for i in rng.permutation(len(keys))]
    vector = np.stack([walks[subject, sequence][frame] for subject, sequence, frame, _ in keys])
    vector += 0.1 * rng.normal(size=vector.shape)
    frame = np.array([key[2] for key in keys])
    subjects, sequences, views = ([str(key[k]) for key in keys] for k in (0, 1, 3))
    unit = (vector / np.linalg.norm(vector, axis=1, keepdims=True)).astype(np.float32)
    entries = Entries("c", np.arange(len(keys)), subjects, sequences, frame, frame / 25, views, unit)
    return Gallery("walks", MemoryIndex.of(entries, ModelIdentity("digest", 16, "run")), {})


def test_a_movement_of_the_gallery_is_found_there_and_left_out_if_it_is_the_query() -> None:
    gallery = random_walks()
    place = next(place for place in range(len(gallery)) if name(gallery.image(place)) == ("S2", "b", 6, "3"))
    query = gallery.around(place, 0.21)
    assert [gallery.image(row).frame for row in query.row.tolist()] == list(range(1, 12))
    found = gallery.movements(query.vector, query.time, 3, Filter())
    assert [name(end) for end in (found[0].first, found[0].last)] == [("S2", "b", 1, "3"), ("S2", "b", 11, "3")]
    assert found[0].distance == pytest.approx(0, abs=1e-3)
    assert [gallery.image(row).frame for row in found[0].strip] == [1, 3, 6, 9, 11]
    (elsewhere,) = gallery.movements(query.vector, query.time, 1, Filter(subject=("S1",)))
    assert elsewhere.first.subject == "S1"
    others = gallery.movements(query.vector, query.time, 3, Filter(), query)
    assert [name(other.first) for other in others[:2]] == [name(one.first) for one in found[1:]]
    assert len(gallery.around(place, 0.5).row) == 6 + 1 + 12  # the sequence begins 6 images before this one
    few = gallery.around(place, 0.05)
    with pytest.raises(QueryError, match="expected a movement of 5 images or more, got 3"):
        gallery.movements(few.vector, few.time, 3, Filter())


@pytest.mark.parametrize(
    "condition",
    [Filter(), Filter(subject=("S2",)), Filter(view=("1", "3"), not_subject=("S1",)), Filter(not_view=("4",))],
)
def test_the_nearest_are_those_of_a_plain_search(gallery: Gallery, condition: Filter) -> None:
    vector = gallery.index.vector(17)
    found = gallery.index.nearest(vector, 15, condition)
    expected = []
    for place in range(len(gallery)):
        shown = gallery.image(place)
        if (condition.subject and shown.subject not in condition.subject) or shown.subject in condition.not_subject:
            continue
        if (condition.view and shown.view not in condition.view) or shown.view in condition.not_view:
            continue
        expected.append(float(np.linalg.norm(gallery.index.vector(place).astype(float) - vector)))
    np.testing.assert_allclose([one.distance for one in found], sorted(expected)[:15], atol=1e-5)


def test_a_large_capture_is_thinned_out_evenly(model: Model, tiny_capture: Capture) -> None:
    gallery = Gallery.of_capture(model, tiny_capture, 40)
    assert len(gallery) == 40
    assert gallery.subjects == ("S1", "S2", "S3")
    assert len(gallery.index.other_views(gallery.image(0))) == 3


def test_an_index_finds_its_capture_elsewhere_and_refuses_others(
    model: Model, index: str, tiny_capture: Capture, scenic_capture: Capture, tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(tiny_capture.uri)
    gallery = Gallery.of_index(index, model, str(tmp_path / "moved"))
    assert gallery.jpeg(0).startswith(b"\xff\xd8")
    with pytest.raises(PoseIndexError, match=r"holds no images of the capture at .*: add it with `mcss index"):
        Gallery.of_index(index, model, scenic_capture.uri)
    shutil.copytree(index, tmp_path / "index")
    PoseIndex.open(tmp_path / "index").remember_capture(tiny_capture.fingerprint, scenic_capture.uri)
    with pytest.raises(
        PoseIndexError, match=r"has changed since it was indexed: index it again with `mcss index"
    ) as caught:
        Gallery.of_index(str(tmp_path / "index"), model)
    assert f"-o {tmp_path / 'index'} --run {model.source.absolute()}`" in str(caught.value)
    network = small_network()
    network.pose_std.fill_(50.0)
    save_model(tmp_path / "model.safetensors", network, {})
    with pytest.raises(PoseIndexError, match="other weights"):
        Gallery.of_index(index, mcss.load(tmp_path))


def test_the_page_of_an_index_takes_the_model_it_was_made_with(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[PageHandlers] = []
    monkeypatch.setattr(using, "run_server", lambda handlers, *_: served.append(handlers))
    main(["serve", "--index", index])
    assert len(served) == 1


def test_one_image_is_shown_of_each_moment() -> None:
    def found(subject: str, sequence: str, time: float, view: str, distance: float, capture: str = "c") -> IndexedImage:
        return IndexedImage(capture, 0, subject, sequence, round(10 * time), time, view, distance, position=0)

    near = [
        found("A", "walk", 1.0, "1", 0.0),  # the query
        found("A", "walk", 1.0, "2", 0.1),  # the same moment
        found("A", "walk", 1.4, "1", 0.2),  # almost the same
        found("A", "walk", 1.5, "1", 0.3),
        found("B", "walk", 1.0, "1", 0.4),  # another person's recording of the same name
        found("B", "walk", 1.1, "3", 0.5),
        found("B", "wave", 1.0, "1", 0.6),
        found("A", "walk", 1.0, "1", 0.7, "d"),  # another capture, whose people have the same names
    ]
    asked = near[0]
    assert [one.distance for one in distinct_moments(near, 9, None, False)] == [0.0, 0.3, 0.4, 0.6, 0.7]
    assert [one.distance for one in distinct_moments(near, 9, asked, False)] == [0.4, 0.6, 0.7]
    assert [one.distance for one in distinct_moments(near, 9, asked, True)] == [0.3, 0.4, 0.6, 0.7]
    assert [one.distance for one in distinct_moments(near, 2, asked, True)] == [0.3, 0.4]


def test_results_are_forgotten_when_they_are_old_or_many() -> None:
    now = [0.0]
    results = ResultStore(seconds=60.0, most_bytes=100_000, clock=lambda: now[0])
    answer = AnalysisResult({"frames": []}, np.zeros((1, 4), np.float32), [b"x" * 30_000], b"y" * 10_000)
    first = results.keep(answer)
    assert results[first] is answer
    now[0] = 59
    second = results.keep(answer)
    assert results[first] is answer  # which makes it the newest again
    third = results.keep(answer)
    with pytest.raises(ForgottenError, match=r"no longer kept .* send the file again"):
        results[second]
    assert results[first] is results[third] is answer
    now[0] = 200
    with pytest.raises(ForgottenError):
        results[third]
    assert len(results) == 0
    assert len({first, second, third}) == 3
