import shutil
from pathlib import Path

import numpy as np
import pytest

import mcss
from mcss.data.capture import Capture
from mcss.errors import PoseIndexError
from mcss.models.model import Model
from mcss.models.model_file import save_model
from mcss.search.entries import Filter
from mcss.search.index import PoseIndex
from mcss.search.indexing import index_capture
from mcss.web.analysis import Answer
from mcss.web.gallery import CaptureGallery, Found, Gallery, GalleryError, IndexGallery, Shown, moments
from mcss.web.results import ForgottenError, Looks
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
        return CaptureGallery.embedded(model, tiny_capture, 10_000)
    return IndexGallery.open(index, model)


def name(shown: Shown) -> tuple[str, str, int, str]:
    return shown.subject, shown.sequence, shown.frame, shown.view


def test_a_gallery_holds_every_image_with_its_other_views(gallery: Gallery, tiny_capture: Capture) -> None:
    assert (len(gallery), gallery.subjects, gallery.views) == (576, ("S1", "S2", "S3"), ("1", "2", "3", "4"))
    instants = tiny_capture.instants()
    for place in (0, 100, 575):
        shown = gallery.shown(place)
        i = next(
            i
            for i in range(len(instants))
            if instants.describe(i) == f"{shown.subject}/{shown.sequence} frame {shown.frame}"
        )
        row = instants.rows[i : i + 1, instants.views.index(shown.view)]
        assert gallery.image(place) == tiny_capture.images(row)[0]
        others = gallery.others(shown)
        assert [other.view for other in others] == [view for view in instants.views if view != shown.view]
        assert {name(other)[:3] for other in others} == {name(shown)[:3]}
        predicted, true = gallery.poses(place)
        assert predicted is not None
        assert true is not None
        np.testing.assert_allclose(predicted[0], 0, atol=1e-4)
    with pytest.raises(GalleryError, match="no image 576; there are 576"):
        gallery.shown(576)


@pytest.mark.parametrize(
    "condition",
    [Filter(), Filter(subject=("S2",)), Filter(view=("1", "3"), not_subject=("S1",)), Filter(not_view=("4",))],
)
def test_the_nearest_are_those_of_a_plain_search(gallery: Gallery, condition: Filter) -> None:
    vector = gallery.embedding(17)
    found = gallery.nearest(vector, 15, condition)
    expected = []
    for place in range(len(gallery)):
        shown = gallery.shown(place)
        if (condition.subject and shown.subject not in condition.subject) or shown.subject in condition.not_subject:
            continue
        if (condition.view and shown.view not in condition.view) or shown.view in condition.not_view:
            continue
        expected.append(float(np.linalg.norm(gallery.embedding(place).astype(float) - vector)))
    np.testing.assert_allclose([one.distance for one in found], sorted(expected)[:15], atol=1e-5)


def test_a_large_capture_is_thinned_out_evenly(model: Model, tiny_capture: Capture) -> None:
    gallery = CaptureGallery.embedded(model, tiny_capture, 40)
    assert len(gallery) == 40
    assert gallery.subjects == ("S1", "S2", "S3")
    assert len(gallery.others(gallery.shown(0))) == 3


def test_an_index_finds_its_capture_elsewhere_and_refuses_others(
    model: Model, index: str, tiny_capture: Capture, scenic_capture: Capture, tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(tiny_capture.uri)
    gallery = IndexGallery.open(index, model, str(tmp_path / "moved"))
    assert gallery.image(0).startswith(b"\xff\xd8")
    with pytest.raises(PoseIndexError, match=r"holds no images of the capture at .*: add it with `mcss index"):
        IndexGallery.open(index, model, scenic_capture.uri)
    shutil.copytree(index, tmp_path / "index")
    PoseIndex.open(tmp_path / "index").remember_capture(tiny_capture.fingerprint, scenic_capture.uri)
    with pytest.raises(PoseIndexError, match=r"has changed since it was indexed: take it up again with `mcss index"):
        IndexGallery.open(str(tmp_path / "index"), model)
    network = small_network()
    network.pose_std.fill_(50.0)
    save_model(tmp_path / "model.safetensors", network, {})
    with pytest.raises(PoseIndexError, match="other weights"):
        IndexGallery.open(index, mcss.load(tmp_path))


def test_one_image_is_shown_of_each_moment() -> None:
    def found(subject: str, sequence: str, time: float, view: str, distance: float) -> Found:
        return Found(Shown(0, subject, sequence, round(10 * time), time, view), distance)

    near = [
        found("A", "walk", 1.0, "1", 0.0),  # the query
        found("A", "walk", 1.0, "2", 0.1),  # the same moment
        found("A", "walk", 1.4, "1", 0.2),  # almost the same
        found("A", "walk", 1.5, "1", 0.3),
        found("B", "walk", 1.0, "1", 0.4),  # another person's recording of the same name
        found("B", "walk", 1.1, "3", 0.5),
        found("B", "wave", 1.0, "1", 0.6),
    ]
    asked = near[0].shown
    assert [one.distance for one in moments(near, 9, None, False)] == [0.0, 0.3, 0.4, 0.6]
    assert [one.distance for one in moments(near, 9, asked, False)] == [0.4, 0.6]
    assert [one.distance for one in moments(near, 9, asked, True)] == [0.3, 0.4, 0.6]
    assert [one.distance for one in moments(near, 2, asked, True)] == [0.3, 0.4]


def test_results_are_forgotten_when_they_are_old_or_many() -> None:
    now = [0.0]
    looks = Looks(seconds=60.0, most=100_000, clock=lambda: now[0])
    answer = Answer({"frames": []}, np.zeros((1, 4), np.float32), [b"x" * 30_000], b"y" * 10_000)
    first = looks.keep(answer)
    assert looks[first] is answer
    now[0] = 59
    second = looks.keep(answer)
    assert looks[first] is answer  # which makes it the newest again
    third = looks.keep(answer)
    with pytest.raises(ForgottenError, match=r"not kept any more .* send the file again"):
        looks[second]
    assert looks[first] is looks[third] is answer
    now[0] = 200
    with pytest.raises(ForgottenError):
        looks[third]
    assert len(looks) == 0
    assert len({first, second, third}) == 3
