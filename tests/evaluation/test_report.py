import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance
from mcss.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions
from mcss.evaluation.examples import pick_rows, pose_examples, retrieval_examples
from mcss.evaluation.predictions import EvaluationSettings, MeanPose, SplitPrediction, predict_split, target_poses
from mcss.evaluation.report import ReportData, comparison_report, history_of, run_report
from mcss.evaluation.results import SystemResult
from mcss.models.prediction import Prediction
from mcss.skeletons import JOINTS
from mcss.viz.plots import Line, line_plot, mean_line
from mcss.viz.skeleton import skeleton_svg
from mcss.viz.style import INK, LEFT, RIGHT

HOSTILE = "<script>alert('x')</script>&\"$\\frac"


def predicted(capture: Capture, noise: float, seed: int = 0, split: str = "train") -> SplitPrediction:
    """Predict the truth with noise, and embed the noisy pose itself."""
    instants = capture.instants()
    targets = target_poses(instants)
    instant = {int(row): i for i, rows in enumerate(instants.rows) for row in rows}
    generator = torch.Generator().manual_seed(seed)

    def predict(rows: np.ndarray) -> Prediction:
        pose = targets[[instant[int(row)] for row in rows]]
        pose = pose + torch.randn(pose.shape, generator=generator) * noise
        pose = pose - pose[:, :1]
        return Prediction(pose, pose[:, 1:].flatten(1) / 1000)

    return predict_split(predict, capture, split)


def result(capture: Capture, system: str, noise: float, seed: int | None = 0, labels: str = "S1") -> SystemResult:
    evaluation = evaluate_predictions(
        predicted(capture, noise, seed or 0), capture.fingerprint, "train", EvaluationSettings(max_queries=40)
    )
    history = [
        {"step": s, "images": 88 * s, "minutes": s / 60, "pose": 1 / s, "validation_n_mpjpe": 100 + noise / s}
        for s in range(1, 9)
    ]
    return SystemResult(system, labels, seed, evaluation, history)


def provenance(**changes: Any) -> Provenance:
    made = Provenance(
        command="mcss evaluate runs/one --split test",
        capture="0123abcd",
        capture_name="tiny capture",
        synthetic=True,
        date="2026-01-02",
        machine="two cores",
        versions={"torch": "9.9"},
        settings={"Budget": "12 minutes"},
    )
    return dataclasses.replace(made, **changes)


def figures_of(evaluation: Evaluation) -> Iterator[str]:
    """Return every figure of an evaluation as the page prints it."""

    def walk(value: Any, name: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, key)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                yield from walk(inner, name)
        elif isinstance(value, float):
            shares = name in ("pck", "auc") or "hit" in name or "chance" in name
            yield f"{100 * value:.1f} %" if shares else f"{value:.1f}"

    plain = evaluation.to_json()
    for scores in plain["pose"]["actions"].values():  # the page has the three errors per action
        for name in set(scores) - {"mpjpe", "n_mpjpe", "pa_mpjpe"}:
            del scores[name]
    for name in ("mpjpe_17", "n_mpjpe_17", "pa_mpjpe_17", "pck", "auc", "angle"):
        del plain["pose"]["over_actions"][name]
    yield from walk(plain["pose"])
    yield from walk(plain["retrieval"])


def cells(page: str) -> set[str]:
    return {re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)}


def test_the_page_of_a_run_holds_every_figure_of_its_evaluation(tiny_capture: Capture) -> None:
    run = result(tiny_capture, "mcss", 30)
    beside = SystemResult(
        "mean_pose", "S1", None, evaluate(MeanPose.of(tiny_capture.instants("train")), tiny_capture, "train")
    )
    page = run_report(run, provenance(), beside=[beside])
    shown = {cell.removesuffix("°") for cell in cells(page)}
    missing = [figure for figure in figures_of(run.evaluation) if figure not in shown]
    assert not missing
    assert beside.evaluation.pose is not None
    assert f"{beside.evaluation.pose.over_poses.n_mpjpe:.1f}" in shown
    for text in ("runs/one", "0123abcd", "two cores", "torch 9.9", "12 minutes", "2026-01-02"):
        assert text in page


def test_several_seeds_become_mean_and_standard_deviation(tiny_capture: Capture) -> None:
    runs = [result(tiny_capture, "supervised", 60 + 5 * seed, seed) for seed in range(3)]
    runs += [result(tiny_capture, "mcss", 30, 0)]
    page = comparison_report(runs, provenance())
    values = [r.evaluation.pose.over_poses.n_mpjpe for r in runs[:3] if r.evaluation.pose]
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in cells(page)
    ours = runs[3].evaluation.pose
    assert ours is not None
    assert f"{ours.over_poses.n_mpjpe / np.mean(values):.2f} ×" in page
    assert "3 seeds" in page


def test_different_labels_of_a_system_are_rows_of_their_own(tiny_capture: Capture) -> None:
    runs = [result(tiny_capture, "supervised", 60, 0, "S1"), result(tiny_capture, "supervised", 20, 0, "all")]
    page = comparison_report(runs, provenance())
    for run in runs:
        assert run.evaluation.pose is not None
        assert f"{run.evaluation.pose.over_poses.mpjpe:.1f}" in cells(page)
    assert "±" not in "".join(cells(page)).replace("±0 frames", "")


def test_the_notes_on_comparability_and_the_papers_marked_numbers_are_there(tiny_capture: Capture) -> None:
    run = dataclasses.replace(result(tiny_capture, "mcss", 30), history=())
    paper = [["system (paper)", "labels", "N-MPJPE"], ["MCSS", "S1", "111.94"], ["Rhodin ECCV'18", "S1", "122.60"]]
    page = run_report(run, provenance(), paper=paper)
    assert "only PA-MPJPE can be compared with methods that are scored in camera space" in page
    assert "These are not Human3.6M numbers" in page
    assert "These are not Human3.6M numbers" not in run_report(run, provenance(synthetic=False))
    assert "not measured here" in page
    assert {"MCSS", "111.94", "122.60"} <= cells(page)
    assert "not measured here" not in run_report(run, provenance())


def test_a_curve_of_one_point_is_no_plot(tiny_capture: Capture) -> None:
    run = result(tiny_capture, "mcss", 30)
    once = [{k: v for k, v in p.items() if p["step"] == 8 or k != "validation_n_mpjpe"} for p in run.history]
    short = dataclasses.replace(run, history=once)
    assert "Validation N-MPJPE, mm" in run_report(run, provenance())
    page = run_report(short, provenance())
    assert "Validation N-MPJPE, mm" not in page
    assert "Pose loss" in page


def test_hostile_names_are_escaped_everywhere(tiny_capture: Capture) -> None:
    run = result(tiny_capture, HOSTILE, 30, labels=HOSTILE)
    assert run.evaluation.pose is not None
    pose = dataclasses.replace(
        run.evaluation.pose,
        actions={HOSTILE: run.evaluation.pose.over_poses},
        action_images={HOSTILE: 5},
    )
    run = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, pose=pose, split=HOSTILE))
    predictions = predicted(tiny_capture, 30)
    names = tuple(HOSTILE for _ in predictions.instants.subjects)
    predictions = dataclasses.replace(predictions, instants=dataclasses.replace(predictions.instants, subjects=names))
    rows = pick_rows(predictions, 2)
    made = provenance(
        command=HOSTILE, capture=HOSTILE, machine=HOSTILE, versions={HOSTILE: HOSTILE}, settings={HOSTILE: HOSTILE}
    )
    page = comparison_report(
        [run],
        made,
        title=HOSTILE,
        poses=pose_examples(tiny_capture, {HOSTILE: predictions}, rows),
        retrieved=retrieval_examples(tiny_capture, {HOSTILE: predictions}, rows),
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20


def test_the_page_loads_nothing_from_the_internet(tiny_capture: Capture) -> None:
    predictions = predicted(tiny_capture, 30)
    rows = pick_rows(predictions, 3)
    page = comparison_report(
        [result(tiny_capture, "mcss", 30), result(tiny_capture, "supervised", 60)],
        provenance(),
        poses=pose_examples(tiny_capture, {"mcss": predictions}, rows),
        retrieved=retrieval_examples(tiny_capture, {"mcss": predictions}, rows, cross_subject=True),
    )
    addresses = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)|url\(([^)]*)\)|@import", page)
    assert addresses
    assert all(a.startswith(("data:image/jpeg;base64,", "#")) for pair in addresses for a in pair if a)
    assert "<link" not in page
    assert page.count("data:image/jpeg;base64,") == 3 + 3 + 3 * 5


def test_systems_without_poses_or_embeddings_and_unlabelled_captures_still_make_a_page(tiny_capture: Capture) -> None:
    run = result(tiny_capture, "mcss", 30)
    blank = dataclasses.replace(run.evaluation, pose=None)
    assert blank.retrieval is not None
    unlabelled = dataclasses.replace(
        blank, retrieval=dataclasses.replace(blank.retrieval, all_subjects=None, cross_subject=None)
    )
    blind = dataclasses.replace(run, evaluation=unlabelled, labels="none")
    page = run_report(blind, provenance(), paper=[["system"], ["MCSS (paper)"]])
    assert blank.retrieval.same_instant is not None
    assert f"{100 * blank.retrieval.same_instant.hit_at_1:.1f} %" in cells(page)
    assert 'id="pose"' not in page
    same = blank.retrieval.same_instant
    hit, chance = (f"{100 * share:.1f} %" for share in (same.hit_at_1, same.chance_at_1))
    assert f"found first <b>{hit}</b> of the time, by chance {chance}" in page
    assert "<h1>mcss, trained without 3D labels</h1>" in page
    assert "(paper)" not in page, "the paper's errors have nothing beside them"
    bare = dataclasses.replace(run.evaluation, retrieval=None)
    assert 'id="retrieval"' not in run_report(dataclasses.replace(run, evaluation=bare), provenance())
    with pytest.raises(ValueError, match="results: expected at least one evaluated system, got none"):
        comparison_report([], provenance())


def test_without_labels_green_marks_the_same_moment_and_grey_another(tiny_capture: Capture) -> None:
    predictions = predicted(tiny_capture, 0)
    blind = dataclasses.replace(
        predictions,
        instants=dataclasses.replace(
            predictions.instants,
            pose=np.full_like(predictions.instants.pose, np.nan),
            heading_valid=np.zeros(len(predictions.instants), bool),
        ),
    )
    evaluation = evaluate_predictions(blind, tiny_capture.fingerprint, "train", EvaluationSettings(max_queries=40))
    assert evaluation.pose is None
    rows = pick_rows(blind, 3)
    found = retrieval_examples(tiny_capture, {"mcss": blind}, rows)
    poses = pose_examples(tiny_capture, {"mcss": blind}, rows)
    page = run_report(SystemResult("mcss", "none", 0, evaluation), provenance(), poses=poses, retrieved=found)
    marks = [n.same_instant for example in found for n in example.neighbours["mcss"]]
    assert page.count('<figure class="right">') == sum(marks) > 0
    assert page.count('<figure class="other">') == len(marks) - sum(marks) > 0
    assert "orange frame" not in page
    assert page.count('<svg class="skeleton"') == 3
    assert "the shadow behind a prediction" not in page


def test_bold_marks_the_best_of_a_column_and_not_the_column(tiny_capture: Capture) -> None:
    runs = [result(tiny_capture, "mcss", 60), result(tiny_capture, "supervised", 20)]
    page = comparison_report(runs, provenance())
    table = re.search(r'<section id="pose">.*?</table>', page, re.DOTALL)
    assert table is not None
    bold = re.findall(r'<td class="[^"]*best">([\d.]+)</td>', table[0])
    scores = runs[1].evaluation.pose
    assert scores is not None
    best = scores.over_poses
    names = ("mpjpe", "n_mpjpe", "pa_mpjpe", "mpjpe_17", "n_mpjpe_17", "pa_mpjpe_17")
    assert bold == [f"{getattr(best, name):.1f}" for name in names], "the more exact system wins every column"
    assert " best" not in run_report(runs[0], provenance()), "there is nothing to win alone"


def test_report_json_has_a_row_per_system_labels_and_seed(tiny_capture: Capture) -> None:
    runs = [result(tiny_capture, "supervised", 60, seed) for seed in (0, 1)]
    rows = json.loads(json.dumps(ReportData(runs, provenance()).to_json(), allow_nan=False))["rows"]
    assert [(row["system"], row["labels"], row["seed"]) for row in rows] == [
        ("supervised", "S1", 0),
        ("supervised", "S1", 1),
    ]
    assert runs[1].evaluation.pose is not None
    assert rows[1]["pa_mpjpe"] == runs[1].evaluation.pose.over_poses.pa_mpjpe
    assert rows[1]["retrieval"]["same_instant"]["hit_at_1"] >= 0


def test_the_same_inputs_give_the_same_page(tiny_capture: Capture) -> None:
    run = result(tiny_capture, "mcss", 30)
    assert run_report(run, provenance()) == run_report(run, provenance())


def test_examples_run_from_good_to_bad_and_tell_the_true_errors(tiny_capture: Capture) -> None:
    predictions = predicted(tiny_capture, 60)
    rows = pick_rows(predictions, 5)
    shown = [example.predicted["mcss"].n_mpjpe for example in pose_examples(tiny_capture, {"mcss": predictions}, rows)]
    assert shown == sorted(shown)
    assert shown[-1] > 1.1 * shown[0]
    for example in retrieval_examples(tiny_capture, {"mcss": predicted(tiny_capture, 0)}, rows):
        near = example.neighbours["mcss"]
        assert [n.same_instant for n in near[:3]] == [True] * 3, "three other views of the instant come first"
        assert all(n.correct and n.pa_mpjpe is not None and n.pa_mpjpe < 1e-2 for n in near[:3])
    for example in retrieval_examples(tiny_capture, {"mcss": predictions}, rows, cross_subject=True):
        query = example.caption.split(" · ")
        for n in example.neighbours["mcss"]:
            assert n.caption.split(" · ")[0] != query[0]
            assert n.caption.split(" · ")[3] != query[3]
    with pytest.raises(ValueError, match=r"rows: no predictions for rows \[99999\]"):
        pose_examples(tiny_capture, {"mcss": predictions}, np.array([99999]))


def test_plots_are_well_formed_and_take_the_colour_of_the_page() -> None:
    line = Line("a < b & $c$", [1, 2, 3], [1.0, math.nan, 2.0], spread=[0.1, 0.1, 0.1])
    svg = line_plot([line, Line("other", [1, 2], [1.9, 2.0])], x_label="x", y_label="y $\\alpha$")
    words = [text.text for text in ET.fromstring(svg).iter() if text.tag.endswith("text")]
    assert {"a < b & $c$", "other", "x", "y $\\alpha$"} <= set(words)
    assert "currentColor" in svg
    assert INK not in svg


def test_the_average_of_runs_stops_where_the_shortest_does() -> None:
    line = mean_line("s", [([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0]), ([0, 2], [2.0, 2.0])], LEFT)
    assert list(line.x) == [0, 1, 2]
    assert list(line.y) == pytest.approx([3.0, 2.5, 2.0])
    assert line.spread is not None
    assert list(line.spread) == pytest.approx([math.sqrt(2), math.sqrt(0.5), 0.0])
    assert not mean_line("s", [([0], [math.nan])], LEFT).x


def test_a_skeleton_has_its_left_on_the_right_of_the_image_and_its_head_up() -> None:
    """The skeleton is drawn as one sees a person who faces one."""
    pose = np.zeros((17, 3), np.float32)
    for joint, name in enumerate(JOINTS):
        pose[joint, 0] = 130 * (name.startswith("L") - name.startswith("R"))
    pose[[JOINTS.index("LFoot"), JOINTS.index("RFoot")], 2] = -800
    pose[JOINTS.index("Spine") : JOINTS.index("Head") + 1, 2] = 250, 500, 600, 750
    root = ET.fromstring(skeleton_svg(pose, pose, label='say "<hi>"'))
    lines = [dict(line.attrib) for line in root if line.tag == "line"]
    place = {line["stroke"]: float(line["x2"]) for line in lines}
    assert place[LEFT] > place[RIGHT]
    head = next(part for part in root if part.tag == "circle")
    assert float(head.attrib["cy"]) < -300
    assert root.attrib["aria-label"] == 'say "<hi>"'


def test_the_lines_of_a_run_become_points_of_curves() -> None:
    lines = [
        {"step": 5, "pose": 0.5, "negative_distance": None, "images": 440, "seconds": 30.0},
        {"step": 5, "validation": {"step": 5, "n_mpjpe": 150.0}, "images": 440, "seconds": 60.0},
    ]
    first, second = history_of(lines)
    assert first == {"step": 5, "pose": 0.5, "images": 440, "seconds": 30.0, "minutes": 0.5}
    assert (second["validation_n_mpjpe"], second["minutes"]) == (150.0, 1.0)
