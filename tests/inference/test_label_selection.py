import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.labels import Labels, select_labels, write_instants
from mcss.data.writer import CaptureWriter
from mcss.evaluation.predictions import target_poses
from mcss.inference.label_selection import SelectSettings, k_center, select_instants
from mcss.models.model_file import save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork


def slow_k_center(points: list[list[float]], budget: int) -> list[int]:
    """Greedy k-center from its definition, without arrays."""

    def squared(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    mean = [sum(column) / len(points) for column in zip(*points, strict=True)]
    chosen = [min(range(len(points)), key=lambda i: squared(points[i], mean))]
    while len(chosen) < budget:
        rest = [i for i in range(len(points)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(squared(points[i], points[c]) for c in chosen)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_k_center_follows_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(-8, 9, (30, 3)).astype(float)  # small integers: exact, and with ties
    points[7] = points[3]
    chosen, radius = k_center(points, 30)
    assert chosen.tolist() == slow_k_center(points.tolist(), 30)
    assert sorted(chosen.tolist()) == list(range(30))
    assert (np.diff(radius) <= 0).all()
    assert radius[-1] == 0


def test_the_radius_is_at_most_twice_the_best() -> None:
    points = np.random.default_rng(0).normal(size=(11, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    best = min(distances[list(some)].min(axis=0).max() for some in itertools.combinations(range(11), 3))
    assert best <= k_center(points, 3)[1][-1] <= 2 * best


def test_a_smaller_budget_selects_the_first_of_a_larger_one() -> None:
    points = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    assert k_center(points, 7)[0].tolist() == k_center(points, 20)[0][:7].tolist()


def test_k_center_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="expected 1 to 4, the number of instants, got 5"):
        k_center(np.zeros((4, 2)), 5)
    with pytest.raises(ValueError, match="expected 1 to 4"):
        k_center(np.zeros((4, 2)), 0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        k_center(np.array([[0.0], [np.nan]]), 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    network = PoseNetwork(NetworkConfig(image_size=32, dim=8))
    save_model(folder / "model.safetensors", network.eval(), {})
    return folder


def test_instants_chosen_by_a_run_are_the_same_every_time_and_lie_in_the_split(
    tiny_capture: Capture, run: Path
) -> None:
    settings = SelectSettings(budget=9, run=str(run), candidates=40)
    first, second = (select_instants(tiny_capture, settings) for _ in range(2))
    assert first.instants.rows.tolist() == second.instants.rows.tolist()
    assert first.radius.tolist() == second.radius.tolist()
    assert (first.space, first.candidates, len(first.instants)) == ("embedding", 40, 9)
    assert set(first.instants.present_subjects()) <= {"S1", "S2"}


def test_the_feature_of_an_instant_is_the_mean_of_its_views(tmp_path: Path, run: Path) -> None:
    """A missing view does not change the mean of the others; here all views are the same image."""
    part = stick_part(0, 0, instants=12)
    same = {f.frame: f.image for f in part if f.view == "1"}
    writers = []
    for name, kept in (("all", part), ("some", [f for f in part if f.view == "1" or f.frame % 2])):
        writer = CaptureWriter.open(tmp_path / name, info=INFO)
        writer.append([type(f)(**{**vars(f), "image": same[f.frame]}) for f in kept])
        writers.append(writer.finish())
    frames = [select_instants(c, SelectSettings(budget=5, run=str(run))).instants.frame.tolist() for c in writers]
    assert frames[0] == frames[1]


def test_instants_chosen_by_pose_cover_the_canonical_poses(tiny_capture: Capture) -> None:
    settings = SelectSettings(budget=6, by="pose", subjects=("S2",))
    chosen = select_instants(tiny_capture, settings)
    train = tiny_capture.instants("train")
    own = train.take(train.subject == 1)
    features = target_poses(own).flatten(1).numpy()
    assert chosen.instants.rows.tolist() == own.rows[k_center(features, 6)[0]].tolist()
    assert chosen.instants.present_subjects() == ("S2",)


def test_instants_are_chosen_by_features_of_a_backbone_without_a_run(tiny_capture: Capture) -> None:
    settings = SelectSettings(budget=3, candidates=6, weights="random")
    found = select_instants(tiny_capture, settings)
    assert (found.space, found.posed, len(found.instants)) == ("imagenet", 6, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "budget: expected 1 instant or more, got 0"),
        ({"budget": 10, "candidates": 5}, "candidates: expected at least the budget of 10, got 5"),
        ({"by": "embedding"}, "name one with --run"),
        ({"by": "pose", "run": "runs/x"}, "run: not used when instants are chosen by pose"),
    ],
)
def test_settings_that_do_not_fit_together(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectSettings(**wrong)  # type: ignore[arg-type]


def test_subjects_and_budgets_that_are_not_there(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match="no 'S3' in the split train; there are S1, S2"):
        select_instants(tiny_capture, SelectSettings(by="pose", budget=2, subjects=("S3",)))
    with pytest.raises(ValueError, match=r"expected at most 96, .* that have a pose with a heading, got 97"):
        select_instants(tiny_capture, SelectSettings(by="pose", budget=97))


def test_a_list_of_instants_is_read_as_it_was_written_and_selects_exactly_these(
    tiny_capture: Capture, tmp_path: Path
) -> None:
    chosen = select_instants(tiny_capture, SelectSettings(by="pose", budget=7)).instants
    write_instants(tmp_path / "some, here.csv", chosen)
    spec = Labels.parse(f"@{tmp_path / 'some, here.csv'}")
    assert len(spec.listed) == 7
    assert str(spec) == f"@{tmp_path / 'some, here.csv'}"
    train = tiny_capture.instants("train")
    mask = select_labels(train, spec)
    assert mask.sum() == 7
    assert set(train.rows[mask, 0]) == set(chosen.rows[:, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "subject,sequence\nS1,Walking 1\n",
            "lacks the columns frame; expected the header subject,sequence,frame,time",
        ),
        ("", "lacks the columns subject, sequence, frame"),
        ("subject,sequence,frame\nS1,Walking 1,three\n", "line 2: expected .* a frame number"),
        ("subject,sequence,frame\nS1\n", "line 2"),
        ("subject,sequence,frame\nS1,Walking 1,-3\n", "line 2"),
        ("subject,sequence,frame\n", "lists no instants"),
    ],
)
def test_lists_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Labels.parse(f"@{path}")


def test_lists_of_other_files_and_other_captures(tiny_capture: Capture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.csv; `mcss select` writes"):
        Labels.parse(f"@{tmp_path / 'nothing.csv'}")
    path = tmp_path / "list.csv"
    path.write_bytes(os.urandom(64) + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"expected text in UTF-8|lacks the columns"):
        Labels.parse(f"@{path}")
    path.write_text("subject,sequence,frame,time\nS1,Walking 1,3,0.3\nS3,Walking 1,4,0.4\n")
    with pytest.raises(ValueError, match=r"1 of the 2 instants .* such as S3/Walking 1 frame 4"):
        select_labels(tiny_capture.instants("train"), Labels.parse(f"@{path}"))


def test_of_a_list_the_instants_with_a_pose_are_used_and_one_must_have_one(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "half", info=INFO)
    writer.append(stick_part(0, 0, instants=4))
    writer.append(stick_part(0, 1, instants=4, labelled=False))
    instants = writer.finish().instants()
    path = tmp_path / "list.csv"
    path.write_text("subject,sequence,frame\nS1,Walking 1,2\nS1,Waving 1,2\n")
    assert select_labels(instants, Labels.parse(f"@{path}")).sum() == 1
    path.write_text("subject,sequence,frame\nS1,Waving 1,2\n")
    with pytest.raises(ValueError, match=r"none of the instants .* has a pose; label them"):
        select_labels(instants, Labels.parse(f"@{path}"))
