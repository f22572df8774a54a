import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from torch import Tensor

from mcss.data.capture import Capture
from mcss.errors import MCSSError, WeightsError
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments import reproduce as module
from mcss.experiments import study as studies
from mcss.experiments.landmarks import COLUMNS, KEPT, MILLISECONDS, PROGRAM, landmark_rows, read_landmarks
from mcss.experiments.pose_tables import signal_pairs
from mcss.experiments.reproduce import (
    PART_NAMES,
    PARTS,
    PaperPart,
    ReproducePlan,
    Wanted,
    checked,
    estimate,
    reproduce,
    wanted_parts,
)
from mcss.experiments.rows import CellRow, DrawnRow, PoseRow
from mcss.experiments.study import Budget, Study
from mcss.experiments.tables import PartName
from mcss.experiments.tuning import earlier_trials
from mcss.methods.mcss import MCSS
from mcss.methods.supervised import Supervised
from mcss.models.novel_view_network import NovelViewNetwork
from mcss.skeletons import JOINTS
from methods_for_tests import METHODS_BY_NAME, made, tiny_recipe


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(studies, "recipe", tiny_recipe)
    looked = EvaluationSettings(max_instants=12)
    monkeypatch.setattr(module, "BUDGETS", {"small": Budget(steps=2, evaluation=looked)})


@pytest.fixture(scope="module")
def two_captures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Capture]:
    """A capture with one training subject and two test subjects, and another capture."""
    place = tmp_path_factory.mktemp("captures")
    return made(place / "one", ("S2", "S3")), made(place / "other", ("S1", "S3"))


def parts_named(study: Study, *names: Wanted) -> list[PaperPart]:
    return wanted_parts(names, study)[0]


@pytest.mark.slow
def test_all_parts_are_measured_written_and_continued(
    two_captures: tuple[Capture, Capture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, other = two_captures

    def lacking(name: str, *_: object) -> None:
        if name == "resnet34":
            raise WeightsError("no hub here.")

    monkeypatch.setattr("mcss.experiments.needs.build_backbone", lacking)
    monkeypatch.setattr("mcss.experiments.estimates.step_seconds", lambda _: 1.0)  # tested by itself
    plan = ReproducePlan(seeds=1, trials=0, other=other.uri)
    study = plan.study(capture.uri, tmp_path)
    assert (study.labels, study.seeds) == ("S1", (0,))
    parts, notes = wanted_parts(["all"], study)
    assert (tuple(parts), notes) == (PARTS, [])
    assert get_args(PartName) == PART_NAMES
    lacks: list[str] = []
    parts, study, trials = checked(parts, study, 0, lacks.append)
    assert (len(parts), trials, lacks) == (len(PARTS), 0, ["Not available: MCSS: no hub here."])
    left = estimate(parts, study, 0)
    assert {one.system.split(",")[0] for one in left} == set(METHODS_BY_NAME)
    told: list[str] = []
    found = reproduce(parts, study, 0, "mcss reproduce all", told.append)
    assert [part.name for part in found] == list(PART_NAMES)
    assert len(told) == len(PARTS)
    assert estimate(parts, study, 0) == []

    table1 = json.loads((tmp_path / "table1.json").read_text())
    systems = [(row["system"], row["variant"], row["frame"]) for row in table1["rows"] if row["labels"] == "S1"]
    assert systems == [
        ("mean_pose", "", "canonical"), ("mean_pose", "in camera space", "camera"),
        ("mcss", "", "canonical"), ("supervised", "", "canonical"),
        ("rhodin_cvpr18", "", "camera"), ("rhodin_eccv18", "", "camera"), ("chen_cvpr19", "", "camera"),
        ("mcss", "loss and heads as printed", "canonical"),
        ("rhodin_cvpr18", "backbone first trained on 2D joints", "camera"),
    ]  # fmt: skip
    assert all(row["n_mpjpe"] > 0 and row["pa_mpjpe"] > 0 for row in table1["rows"])
    starred = [row["uses"]["points"] for row in table1["rows"] if row["labels"] == "S1"]
    assert starred == [False, False, False, False, False, False, True, False, True]
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
    assert table2[2]["missing"] == "not available: no hub here."
    assert about2["notes"][-1] == "Not available: MCSS, canonical pose, resnet34 (S1): no hub here."
    assert about2["table"][3][2] == "not available, see below"
    assert table2[0]["cell"] == table1["rows"][2]["cell"], "cells are shared"
    table3 = json.loads((tmp_path / "table3.json").read_text())["rows"]
    assert [row["variant"] for row in table3[:3]] == [
        "labels of views 1, 2, 3, 4", "labels of views 1, 2, 3", "labels of views 1, 2",
    ]  # fmt: skip
    assert table3[0]["cell"] == table2[0]["cell"]
    sweep = json.loads((tmp_path / "fig3.json").read_text())["rows"]
    assert [row["labels"] for row in sweep[::4]] == ["S1:0.05", "S1:0.1", "S1:0.5", "S1", "all"]
    fig5 = json.loads((tmp_path / "fig5.json").read_text())["rows"]
    assert {row["case"] for row in fig5} == {"all_subjects", "cross_subject"}
    assert all(row["above_oracle"] == pytest.approx(row["mean_pa_mpjpe"] - row["oracle"]) for row in fig5)
    moved = json.loads((tmp_path / "generalisation.json").read_text())["rows"]
    assert {row["variant"] for row in moved} == {"as it came", "fine-tuned without labels"}
    assert {row["cell"] for row in moved} > {
        row["cell"] for row in json.loads((tmp_path / "table4.json").read_text())["rows"]
    }
    assert all(-1 <= row["rho"] <= 1 for row in json.loads((tmp_path / "fig6.json").read_text())["rows"])
    beyond = json.loads((tmp_path / "beyond.json").read_text())
    assert [row["system"] for row in beyond["rows"]] == [
        f"{system}{reads}"
        for reads in ("", "+fitted", "+neighbours", "+unmirrored", "+nearest")
        for system in ("mcss", "supervised")
    ]
    assert len({row["n_mpjpe"] for row in beyond["rows"]}) == len(beyond["rows"]), "each reads poses off in its own way"
    assert [row[0] for row in beyond["table"][1:4]] == [
        "MCSS", "Supervised baseline", "MCSS, poses of neighbours, fitted embedding",
    ]  # fmt: skip

    longer = json.loads((tmp_path / "longer.json").read_text())["rows"]
    systems = [("mcss", "S1"), ("supervised", "S1"), ("supervised", "all")]
    assert [(row["system"], row["labels"], row["variant"]) for row in longer] == [
        *((*each, "") for each in systems), *((*each, "4 × the steps") for each in systems),
        ("mcss+fitted", "S1", ""), ("mcss+fitted", "S1", "4 × the steps"),
    ]  # fmt: skip
    assert [row["steps"] for row in longer[:2]] == [2, 2]
    assert [row["steps"] for row in longer[3:6]] == [4 * row["steps"] for row in longer[:3]]
    assert longer[3]["n_mpjpe"] != longer[0]["n_mpjpe"]

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
    again = reproduce(parts_named(study, "table1", "fig5"), study, 0, "mcss reproduce all")
    assert [part.rows for part in again] == [part.rows for part in found if part.name in ("table1", "fig5")]


def test_tables_can_be_written_before_all_is_trained(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    plan = ReproducePlan(seeds=2, trials=0, train=False)
    study = plan.study(two_captures[0].uri, tmp_path)
    study.train_cells([study.cell(Supervised, seed=1)])
    told: list[str] = []
    found = reproduce(
        parts_named(study, "table1", "table3", "retrieval"), study, 0, "mcss reproduce --no-train", told.append
    )
    assert [part.name for part in found] == ["table1", "table3"]
    assert told[-1].startswith("retrieval is left out: mcss-S1-seed0-")
    lines = {(line[0], line[1]): line for line in found[0].table}
    assert lines["MCSS", "S1"] == ["MCSS", "S1", "not trained yet", "–", "0", "–", "–", "–"]
    assert lines["Supervised baseline", "S1"][2:5] == ["3D labels", "canonical", "1"]
    assert isinstance(found[0].rows[5], CellRow)
    assert found[0].rows[5].seed == 1


def test_machines_share_the_runs_and_one_of_them_writes(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    uri, trained = two_captures[0].uri, set[str]()
    for share, count in (("0/2", 3), ("1/2", 3)):
        study = ReproducePlan(seeds=1, trials=0, share=share).study(uri, tmp_path)
        told: list[str] = []
        assert reproduce(parts_named(study, "table3"), study, 0, "mcss reproduce", told.append) == []
        assert told == ["This share is trained. When all are, the same command without --share writes the results."]
        now = {path.name for path in study.cells.iterdir()}
        assert len(now - trained) == count
        trained |= now
    assert not (tmp_path / "table3.json").exists()
    (part,) = reproduce(parts_named(study, "table3"), replace(study, share=None, train=False), 0, "mcss reproduce")
    assert {row.cell for row in part.rows if isinstance(row, CellRow)} == trained
    with pytest.raises(ValueError, match=r"share: expected I/N with I from 0 to N - 1, such as 0/4, got '4/4'"):
        ReproducePlan(share="4/4")
    with pytest.raises(ValueError, match=r"share: with --no-train there is nothing to share"):
        ReproducePlan(share="0/2", train=False)


def test_a_signal_is_taken_away_and_nothing_else(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1, trials=0).study(two_captures[0].uri, tmp_path)
    pairs = {cell.system: lacking for cell, lacking in signal_pairs(study)}
    assert pairs["mcss"].system == "supervised"
    cvpr18 = pairs["rhodin_cvpr18"].settings.method
    assert cvpr18 == replace(METHODS_BY_NAME["rhodin_cvpr18"], consistency_weight=0.0, drift_weight=0.0)
    for system in ("rhodin_eccv18", "chen_cvpr19"):
        whole, alone = (one.representation for one in (METHODS_BY_NAME[system], pairs[system].settings.method))
        assert alone == replace(whole, views=1, instants=whole.instants * whole.views)
    for lacking in pairs.values():
        told = lacking.information
        assert (told.labels, told.views, told.rotations) == (True, False, False)
    assert METHODS_BY_NAME["supervised"].without_views() is None


def test_signals_are_measured_with_and_without(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1, trials=0).study(two_captures[0].uri, tmp_path)
    (part,) = reproduce(parts_named(study, "signals"), study, 0, "mcss reproduce signals")
    rows = [row for row in part.rows if isinstance(row, PoseRow)]
    assert [row.variant for row in rows[::2]] == [""] * 4
    assert [row.variant for row in rows[1::2]] == [
        "MCSS without L_cnstr",
        "views need not agree",
        "each view drawn from itself",
        "each view drawn from itself",
    ]
    for own, other, note in zip(rows[::2], rows[1::2], part.notes[1:], strict=True):
        changes = [100 * (getattr(own, name) / getattr(other, name) - 1) for name in ("n_mpjpe", "pa_mpjpe")]
        assert note.endswith("N-MPJPE changes by {:+.1f} %, PA-MPJPE by {:+.1f} %.".format(*changes))


def test_what_is_drawn_is_held_against_the_empty_scene(
    two_captures: tuple[Capture, Capture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = ReproducePlan(seeds=1, trials=0).study(two_captures[0].uri, tmp_path)
    parts = parts_named(study, "drawn")
    (part,) = reproduce(parts, study, 0, "mcss reproduce drawn")
    rows = [row for row in part.rows if isinstance(row, DrawnRow)]
    assert [(row.split, row.subject) for row in rows] == [("train", "S1"), ("test", "S2"), ("test", "S3")]
    assert all(0 < row.other_view != row.own_view > 0 for row in rows)
    assert [row[:2] for row in part.table[1:]] == [["learned from", "1"], ["others", "1"]]
    assert (tmp_path / "drawn.png").exists()
    assert (tmp_path / "drawn_loss.svg").exists()

    def nobody(network: NovelViewNetwork, images: Tensor, backgrounds: Tensor, **_: object) -> Tensor:
        assert len(images) == len(backgrounds)
        return backgrounds

    monkeypatch.setattr(NovelViewNetwork, "forward", nobody)
    (part,) = reproduce(parts, study, 0, "mcss reproduce drawn")
    assert all((row.other_view, row.own_view) == (1, 1) for row in part.rows if isinstance(row, DrawnRow))


def test_impossible_parts_are_refused_or_left_out(two_captures: tuple[Capture, Capture], tmp_path: Path) -> None:
    study = ReproducePlan(seeds=1).study(two_captures[0].uri, tmp_path)
    parts, notes = wanted_parts(["all"], study)
    assert "table4" not in [part.name for part in parts]
    assert notes[0] == "table4 is left out: it needs a second capture (--other)."
    long = replace(study, budget=replace(study.budget, epochs=1))
    parts, notes = wanted_parts(["all"], long)
    assert "longer" not in [part.name for part in parts]
    assert notes[-1] == "longer is left out of this budget; name it to train it."
    assert [part.name for part in wanted_parts(["longer"], long)[0]] == ["longer"]
    with pytest.raises(ValueError, match=r"table4: retrieval on another capture needs one; give it as --other"):
        wanted_parts(["table4"], study)
    with pytest.raises(ValueError, match=r"reproduce: name one or more of table1, signals, fig1b, fig3"):
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
    assert found.found.sum() * 2 == found.scored.sum()

    plan = ReproducePlan(seeds=1, trials=0, landmarks=path, program="Another")
    study = plan.study(capture.uri, tmp_path)
    ours = study.cell(MCSS)
    study.train_cells([ours])
    theirs, own = landmark_rows(study, ours)
    assert (theirs.system, theirs.title, theirs.milliseconds) == ("Another", "Another", None)
    assert own.milliseconds is not None
    assert own.milliseconds > 0
    assert theirs.variant == "6 joints, the 50 % of images in which Another found somebody"
    assert theirs.pa_mpjpe is not None
    assert theirs.pa_mpjpe < 0.1
    assert own.pa_mpjpe is not None
    assert own.pa_mpjpe > 1
    path.write_text(",".join(COLUMNS) + "\nS2,Walking 1,0,1,LHip,1,2,3\n")
    with pytest.raises(
        ValueError, match=r"landmarks: .* expected at least 4 joints that every image with a person has, got LHip"
    ):
        read_landmarks(path, capture, "test", EvaluationSettings())
    path.write_text(",".join(COLUMNS) + "\nS7,Walking 1,0,1,LHip,1,2,3\n")
    with pytest.raises(ValueError, match=r"landmarks of none of the 112 evaluated images"):
        read_landmarks(path, capture, "test", EvaluationSettings())


def test_rows_of_another_program_outlive_its_file_and_the_weights(
    two_captures: tuple[Capture, Capture], tmp_path: Path
) -> None:
    capture = two_captures[0]
    instants = capture.instants("test")
    names = ("LHip", "RHip", "LKnee", "RKnee")
    line = {"subject": instants.subjects[instants.subject[0]], "sequence": instants.sequences[instants.sequence[0]]}
    line |= {"frame": int(instants.frame[0]), "view": instants.views[0]}
    table = pa.Table.from_pylist([{**line, "joint": n, "x": i, "y": i**2, "z": 1.0} for i, n in enumerate(names)])
    path = tmp_path / "landmarks.parquet"
    metadata = {PROGRAM: "A program 1.0", MILLISECONDS: "25.2"}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
    with_file = ReproducePlan(seeds=1, trials=0, landmarks=path).study(capture.uri, tmp_path)
    ours = with_file.cell(MCSS)
    with_file.train_cells([ours])
    theirs, own = rows = landmark_rows(with_file, ours)
    assert theirs.title == "A program 1.0"
    assert theirs.variant == "4 joints, the 2 % of images in which A program 1.0 found somebody, 25 ms each"
    assert own.title == "MCSS"

    (with_file.cells / ours.name / "model.safetensors").unlink()
    for predictions in (with_file.cells / ours.name).glob("predictions_*"):
        predictions.unlink()
    assert landmark_rows(with_file, ours) == rows
    path.unlink()
    without_file = replace(with_file, landmarks=None)
    assert landmark_rows(without_file, ours) == rows
    budget = Budget(2, evaluation=EvaluationSettings(max_instants=3))
    assert landmark_rows(replace(without_file, budget=budget), ours) == [], "they are of other images"
    with pytest.raises(ValueError, match=r"landmarks: there is no file .*landmarks\.parquet"):
        landmark_rows(with_file, ours)
    kept = json.loads((with_file.cells / ours.name / KEPT).read_text())
    assert [row["system"] for row in kept["rows"]] == ["A program 1.0", "mcss"]


def test_trials_of_other_methods_are_kept_and_damage_is_named(tmp_path: Path) -> None:
    assert earlier_trials(tmp_path) == {}
    (tmp_path / "tuning.json").write_text('{"rhodin_cvpr18": [{"rate": 0.001}]}')
    assert earlier_trials(tmp_path) == {"rhodin_cvpr18": [{"rate": 0.001}]}
    (tmp_path / "tuning.json").write_text('{"rhodin')
    with pytest.raises(MCSSError, match=r"tuning\.json: cannot be read .* Delete it: trials are kept in the cells"):
        earlier_trials(tmp_path)
