import contextlib
import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import mcss.experiments.landmarks as landmarks_module
import mcss.experiments.pose_tables as pose_parts
import mcss.experiments.tuning as tuning
from captures_for_tests import INFO, VIEWS, empty_scene, stick_part
from mcss.data.augmentation import NO_AUGMENTATION
from mcss.data.capture import Capture
from mcss.data.schema import Selector
from mcss.data.writer import CaptureWriter
from mcss.errors import WeightsError
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments import reproduce as module
from mcss.experiments import signals
from mcss.experiments.landmarks import COLUMNS, landmark_rows, mediapipe_file, mediapipe_rows, read_landmarks
from mcss.experiments.mediapipe_process import SHARED, Landmarks
from mcss.experiments.reproduce import PARTS, ReproducePlan, estimate, reproduce, wanted_parts
from mcss.experiments.runs import train_cells
from mcss.experiments.tuning import Budget
from mcss.methods.chen_cvpr19 import ChenCVPR19Settings, SkeletonMapConfig, SkeletonMapSettings
from mcss.methods.mcss import MCSSSettings
from mcss.methods.method import Method, information_of
from mcss.methods.points2d import Points2DSettings
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import NovelViewSettings, RhodinECCV18Settings, SynthesisConfig
from mcss.methods.supervised import SupervisedSettings
from mcss.models.pose_network import NetworkConfig
from mcss.skeletons import JOINTS
from mcss.training.settings import TrainSettings

METHODS: dict[str, Method] = {
    "mcss": MCSSSettings(metric_loss="infonce", instants=4, min_gap=0.2, pose_images=4),
    "supervised": SupervisedSettings(pose_images=4),
    "rhodin_cvpr18": RhodinCVPR18Settings(instants=4, views=2, min_gap=0.2, pose_images=4),
    "rhodin_eccv18": RhodinECCV18Settings(
        NovelViewSettings(3, 2, 0.2, synthesis=SynthesisConfig(8, 4, 16, 32, 1, 16)), pose_images=4
    ),
    "chen_cvpr19": ChenCVPR19Settings(
        SkeletonMapSettings("labels", 3, 2, 0.2, maps=SkeletonMapConfig(8, 8, 0.4, 32, 16)),
        pose_images=4,
    ),
    "points2d": Points2DSettings(instants=4, views=2, min_gap=0.2),
}


def tiny_recipe(name: str, method: str, capture: str) -> TrainSettings:
    network = NetworkConfig(dim=16, image_size=32, embedding_norm=True, batchnorm_affine=True)
    return TrainSettings(
        capture, network=network, weights="random", validation=None, method=METHODS[method],
        augmentation=NO_AUGMENTATION, labels="none" if method == "points2d" else "S1",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "recipe", tiny_recipe)
    looked = EvaluationSettings(max_instants=12)
    monkeypatch.setattr(module, "BUDGETS", {"small": Budget(steps=2, evaluation=looked)})


def made(place: Path, test: tuple[str, ...]) -> Capture:
    splits = {"train": (Selector(subjects=("S1",)),), "test": (Selector(subjects=test),)}
    writer = CaptureWriter.open(place, info=replace(INFO, splits=splits))
    for subject in range(3):
        writer.append(stick_part(subject, 0, instants=14))
    writer.add_backgrounds({view: empty_scene() for view in VIEWS})
    return writer.finish()


@pytest.fixture(scope="module")
def two_captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Capture]:
    """A capture with one training subject and two test subjects, and another capture."""
    place = tmp_path_factory.mktemp("captures")
    return made(place / "one", ("S2", "S3")), made(place / "other", ("S1", "S3"))


@pytest.mark.slow
def test_all_parts_are_measured_written_and_continued(
    two_captures: tuple[Capture, Capture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, other = two_captures

    def lacking(*_: object) -> None:
        raise WeightsError("no hub here.")

    monkeypatch.setattr(pose_parts, "build_backbone", lacking)
    monkeypatch.setattr("mcss.experiments.estimates.step_seconds", lambda _: 1.0)  # tested by itself
    plan = ReproducePlan(seeds=1, trials=0, other=other.uri)
    study = plan.study(capture.uri, tmp_path)
    assert (study.labels, study.seeds) == ("S1", (0,))
    parts, notes = wanted_parts(["all"], study)
    assert (tuple(parts), notes) == (PARTS, [])
    left = estimate(parts, study, 0)
    assert {one.system.split(",")[0] for one in left} == set(METHODS)
    told: list[str] = []
    found = reproduce(parts, study, 0, "mcss reproduce all", told.append)
    assert [part.name for part in found] == list(PARTS)
    assert len(told) == len(PARTS)
    assert estimate(parts, study, 0) == []

    table1 = json.loads((tmp_path / "table1.json").read_text())
    systems = [(row["system"], row["variant"], row["frame"]) for row in table1["rows"] if row["labels"] == "S1"]
    assert systems == [
        ("mean_pose", "", "canonical"), ("mean_pose", "in camera space", "camera"),
        ("mcss", "", "canonical"), ("supervised", "", "canonical"),
        ("rhodin_cvpr18", "", "camera"), ("rhodin_eccv18", "", "camera"), ("chen_cvpr19", "", "camera"),
        ("rhodin_cvpr18", "backbone first trained on 2D joints", "camera"),
    ]  # fmt: skip
    assert all(row["n_mpjpe"] > 0 and row["pa_mpjpe"] > 0 for row in table1["rows"])
    starred = [row["uses"]["points"] for row in table1["rows"] if row["labels"] == "S1"]
    assert starred == [False, False, False, False, False, False, True, True]
    assert {row["source"] for row in table1["paper"]} == {"Mitra et al., CVPR 2020"}
    text = (tmp_path / "table1.md").read_text()
    assert "| Chen et al., CVPR 2019* | S1 | 3D labels, views, rotations, 2D | camera | 1 |" in text
    assert "The paper's, on Human3.6M:" in text
    assert "| MCSS | S1 | 111.94 | 120.95 | 90.76 |" in text

    about2 = json.loads((tmp_path / "table2.json").read_text())
    table2 = about2["rows"]
    assert [(row["variant"], row["frame"]) for row in table2] == [
        ("canonical pose", "canonical"), ("global pose", "world"), ("canonical pose, resnet34", None),
    ]  # fmt: skip
    assert table2[2]["missing"] == "not measured, see below"
    assert about2["notes"][-1] == "resnet34 is not measured: no hub here."
    assert table2[0]["cell"] == table1["rows"][2]["cell"], "cells are shared"
    table3 = json.loads((tmp_path / "table3.json").read_text())["rows"]
    assert [row["variant"] for row in table3[:3]] == [
        "labels of views 1, 2, 3, 4", "labels of views 1, 2, 3", "labels of views 1, 2",
    ]  # fmt: skip
    assert table3[0]["cell"] == table2[0]["cell"]
    sweep = json.loads((tmp_path / "fig3.json").read_text())["rows"]
    assert [row["labels"] for row in sweep[::2]] == ["S1:0.05", "S1:0.1", "S1:0.5", "S1", "all"]
    fig5 = json.loads((tmp_path / "fig5.json").read_text())["rows"]
    assert {row["case"] for row in fig5} == {"all_subjects", "cross_subject"}
    assert all(row["above_oracle"] == pytest.approx(row["mean_pa_mpjpe"] - row["oracle"]) for row in fig5)
    moved = json.loads((tmp_path / "generalisation.json").read_text())["rows"]
    assert {row["variant"] for row in moved} == {"as it came", "fine-tuned without labels"}
    assert {row["cell"] for row in moved} > {
        row["cell"] for row in json.loads((tmp_path / "table4.json").read_text())["rows"]
    }
    assert all(-1 <= row["rho"] <= 1 for row in json.loads((tmp_path / "fig6.json").read_text())["rows"])

    page = (tmp_path / "index.html").read_text()
    for part in found:
        for name in part.figures:
            image = cv2.imread(str(tmp_path / f"{name}.png"))
            assert image is not None
            assert image.std() > 5
            assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
            assert f'id="{name}-figure_1"' in page
        assert part.title in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("mcss.training.parallel.train", never)
    again = reproduce(["table1", "fig5"], study, 0, "mcss reproduce all")
    assert [part.rows for part in again] == [part.rows for part in found if part.name in ("table1", "fig5")]


def test_tables_can_be_written_before_all_is_trained(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    plan = ReproducePlan(seeds=2, trials=0, train=False)
    study = plan.study(two_captures[0].uri, tmp_path)
    train_cells([study.budget.cell("supervised", study.capture, "S1", 1)], study.cells, 1)
    told: list[str] = []
    found = reproduce(["table1", "table3", "fig5"], study, 0, "mcss reproduce --no-train", told.append)
    assert [part.name for part in found] == ["table1", "table3"]
    assert told[-1].startswith("fig5 is left out: mcss-S1-seed0-")
    lines = {(line[0], line[1]): line for line in found[0].table}
    assert lines["MCSS", "S1"] == ["MCSS", "S1", "not trained yet", "–", "0", "–", "–", "–"]
    assert lines["Supervised baseline", "S1"][2:5] == ["3D labels", "canonical", "1"]
    assert found[0].rows[5]["seed"] == 1


def test_machines_share_the_runs_and_one_of_them_writes(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    uri, trained = two_captures[0].uri, set[str]()
    for share, count in (("0/2", 3), ("1/2", 3)):
        study = ReproducePlan(seeds=1, trials=0, share=share).study(uri, tmp_path)
        told: list[str] = []
        assert reproduce(["table3"], study, 0, "mcss reproduce", told.append) == []
        assert told == ["This share is trained. When all are, the same command without --share writes the results."]
        now = {path.name for path in study.cells.iterdir()}
        assert len(now - trained) == count
        trained |= now
    assert not (tmp_path / "table3.json").exists()
    (part,) = reproduce(["table3"], replace(study, share=None, train=False), 0, "mcss reproduce")
    assert {row["cell"] for row in part.rows} == trained
    with pytest.raises(ValueError, match=r"share: expected I/N with I from 0 to N - 1, such as 0/4, got '4/4'"):
        ReproducePlan(share="4/4")
    with pytest.raises(ValueError, match=r"share: with --no-train there is nothing to share"):
        ReproducePlan(share="0/2", train=False)


def test_a_signal_is_taken_away_and_nothing_else(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1, trials=0).study(two_captures[0].uri, tmp_path)
    pairs = {cell.system: lacking for cell, lacking in signals.signal_pairs(study)}
    assert pairs["mcss"].system == "supervised"
    cvpr18 = pairs["rhodin_cvpr18"].settings.method
    assert cvpr18 == replace(METHODS["rhodin_cvpr18"], consistency_weight=0.0, drift_weight=0.0)
    for system in ("rhodin_eccv18", "chen_cvpr19"):
        whole, alone = (one.representation for one in (METHODS[system], pairs[system].settings.method))
        assert alone == replace(whole, views=1, instants=whole.instants * whole.views)
    for lacking in pairs.values():
        told = information_of(lacking.settings.method)
        assert (told.labels, told.views, told.rotations) == (True, False, False)
    with pytest.raises(ValueError, match="SupervisedSettings has no signal"):
        signals.without_signal(METHODS["supervised"])


def test_signals_are_measured_with_and_without(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1, trials=0).study(two_captures[0].uri, tmp_path)
    (part,) = reproduce(["signals"], study, 0, "mcss reproduce signals")
    assert [row["variant"] for row in part.rows[::2]] == [""] * 4
    assert [row["variant"] for row in part.rows[1::2]] == [
        "MCSS without L_cnstr",
        "views need not agree",
        "each view drawn from itself",
        "each view drawn from itself",
    ]
    for own, other, note in zip(part.rows[::2], part.rows[1::2], part.notes[1:], strict=True):
        changes = [100 * (own[name] / other[name] - 1) for name in ("n_mpjpe", "pa_mpjpe")]
        assert note.endswith("N-MPJPE changes by {:+.1f} %, PA-MPJPE by {:+.1f} %.".format(*changes))


def test_impossible_parts_are_refused_or_left_out(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1).study(two_captures[0].uri, tmp_path)
    parts, notes = wanted_parts(["all"], study)
    assert "table4" not in parts
    assert notes[0] == "table4 is left out: it needs a second capture (--other)."
    with pytest.raises(ValueError, match=r"table4: retrieval on another capture needs one; give it as --other"):
        wanted_parts(["table4"], study)
    with pytest.raises(ValueError, match=r"reproduce: name one or more of table1, signals, fig3"):
        wanted_parts([], study)
    with pytest.raises(ValueError, match=r"seeds: expected 1 or more, got 0"):
        ReproducePlan(seeds=0)


def test_landmarks_of_another_program_are_scored_over_its_joints(
    two_captures: tuple[Capture, Capture], tmp_path: Path
) -> None:
    capture = two_captures[0]
    instants = capture.instants("test")
    path, names = tmp_path / "landmarks.csv", ("LHip", "RHip", "LKnee", "RKnee", "LShoulder", "RShoulder")
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for i in range(0, len(instants), 2):  # nobody is found in every second image
            subject, sequence = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
            for view in instants.views:
                for name in names:
                    joint = instants.pose[i, JOINTS.index(name)] * 0.001 @ np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
                    lines.writerow([subject, sequence, instants.frame[i], view, name, *joint])
    found = read_landmarks(path, capture, "test", EvaluationSettings())
    assert [name for name, common in zip(JOINTS, found.common, strict=True) if common] == sorted(
        names, key=JOINTS.index
    )
    assert found.seen.sum() * 2 == found.looked.sum()

    plan = ReproducePlan(seeds=1, trials=0, landmarks=str(path), program="Another")
    study = plan.study(capture.uri, tmp_path)

    ours = study.budget.cell("mcss", capture, "S1")
    train_cells([ours], study.cells, 1)
    theirs, own = landmark_rows(study, path, study.program, ours)
    assert theirs["system"] == "Another"
    assert theirs["milliseconds"] is None
    assert own["milliseconds"] > 0
    assert theirs["variant"] == "6 joints, the 50 % of images in which Another found somebody"
    assert theirs["pa_mpjpe"] < 0.1
    assert own["pa_mpjpe"] > 1
    path.write_text(",".join(COLUMNS) + "\nS2,Walking 1,0,1,LHip,1,2,3\n")
    with pytest.raises(ValueError, match=r"landmarks: .* expected 4 joints or more in every finding, came LHip"):
        read_landmarks(path, capture, "test", EvaluationSettings())
    path.write_text(",".join(COLUMNS) + "\nS7,Walking 1,0,1,LHip,1,2,3\n")
    with pytest.raises(ValueError, match=r"landmarks of none of the 112 images looked at"):
        read_landmarks(path, capture, "test", EvaluationSettings())


class StandIn:
    """Finds the person in the first two images of a request, a step further to the side in the second."""

    def landmarks(self, images: np.ndarray) -> Landmarks:
        count = len(images)
        world = np.full((count, 33, 3), np.nan, np.float32)
        world[:2] = np.arange(33 * 3).reshape(33, 3) % 17
        return Landmarks(NAMES, world, np.arange(count) < 2, np.full(count, 0.025), np.full(count, 0.05))


NAMES = (*SHARED.values(), *(f"OTHER_{i}" for i in range(21)))


def test_mediapipes_landmarks_are_kept_with_the_time_they_took(
    two_captures: tuple[Capture, Capture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = two_captures[0]
    study = ReproducePlan(seeds=1, trials=0, mediapipe=True).study(capture.uri, tmp_path)
    monkeypatch.setattr(landmarks_module, "mediapipe", lambda _: contextlib.nullcontext(StandIn()))
    path = mediapipe_file(study)
    found = read_landmarks(path, capture, "test", study.looked)
    assert found.seen.sum() == 2
    assert found.common.sum() == 12
    place = np.argwhere(found.seen)[1]
    assert found.joints[*place, JOINTS.index("RKnee")].tolist() == [3, 4, 5]
    ours = study.budget.cell("mcss", capture, "S1")
    train_cells([ours], study.cells, 1)
    theirs, own = landmark_rows(study, path, "MediaPipe", ours)
    assert theirs["variant"] == "12 joints, the 4 % of images in which MediaPipe found somebody, 25 ms each"
    assert own["pa_mpjpe"] > 0

    def never(_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(landmarks_module, "mediapipe", never)
    assert mediapipe_file(study) == path
    rows = mediapipe_rows(study, ours)
    assert [row["pa_mpjpe"] for row in rows] == [theirs["pa_mpjpe"], own["pa_mpjpe"]]
    path.unlink()
    (study.cells / ours.name / "model.safetensors").unlink()
    assert mediapipe_rows(study, ours) == rows
    with pytest.raises(AssertionError, match="asked again"):
        mediapipe_rows(replace(study, budget=Budget(2, evaluation=EvaluationSettings(max_instants=3))), ours)
