import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mcss.data.capture import Capture
from mcss.evaluation.predictions import EvaluationSettings, read_predictions
from mcss.experiments import study as studies
from mcss.experiments import tuning
from mcss.experiments.estimates import estimates, run_bytes, step_seconds
from mcss.experiments.runs import (
    FAILED,
    Cell,
    cell_predictions,
    cell_result,
    evaluation_file,
    finished,
    mean_pose_result,
    seconds_of,
    started_from,
    train_cells,
    unfinished,
    weights_digest,
)
from mcss.experiments.study import Budget, Study, Trial
from mcss.experiments.tuning import best_trial, choose_settings, trials_of
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.points2d import Points2D
from mcss.methods.recipe import OptimiserSettings
from mcss.methods.registry import METHODS, compared_methods
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18
from mcss.methods.supervised import Supervised
from mcss.models.model_file import MODEL
from mcss.models.pose_network import NetworkConfig
from mcss.training import parallel
from mcss.training.checkpoints import METRICS
from mcss.training.parallel import Share, visible_gpus
from mcss.training.settings import TrainSettings, recipe
from runs_for_tests import NO_AUGMENTATION

NETWORK = NetworkConfig(dim=16, image_size=32, embedding_norm=True)
LOOKED = EvaluationSettings(max_instants=12)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


def tiny_recipe(name: str, method: type[Method], capture: str) -> TrainSettings:
    """A recipe of two steps that a test can afford."""
    own = recipe("fast", method, capture).method
    if isinstance(own, MCSS):
        own = MCSS(metric_loss="infonce", instants=4, min_gap=0.2, pose_images=4)
    elif isinstance(own, Supervised):
        own = Supervised(pose_images=4)
    return TrainSettings(
        capture, network=NETWORK, weights="random", validation_instants=4, method=own, augmentation=NO_AUGMENTATION
    )


def tiny_cell(capture: Capture, method: type[Method] = Supervised, seed: int = 0, **changes: object) -> Cell:
    settings = tiny_recipe("fast", method, capture.uri)
    settings = replace(settings, seed=seed, optimiser=OptimiserSettings(steps=2), **changes)  # type: ignore[arg-type]
    return Cell(settings, capture.fingerprint)


def test_a_cell_is_identified_by_everything_that_determines_it_and_nothing_else(tiny_capture: Capture) -> None:
    cell = tiny_cell(tiny_capture)
    assert cell.name.startswith("supervised-S1-seed0-")
    same = (
        replace(cell, variant="in words"),
        replace(cell, settings=replace(cell.settings, capture="elsewhere", log_every=3, checkpoint_every=7)),
    )
    assert {one.name for one in same} == {cell.name}
    settings = cell.settings
    other = (
        replace(cell, fingerprint="another"),
        replace(cell, settings=replace(settings, labels="S1:0.5")),
        replace(cell, settings=replace(settings, optimiser=OptimiserSettings(steps=3))),
        replace(cell, settings=replace(settings, method=Supervised(pose_images=5))),
        replace(cell, settings=replace(settings, method=Supervised(pose_images=4, frame="world"))),
        replace(cell, settings=replace(settings, method=MCSS())),
        replace(cell, settings=replace(settings, label_views=("1",))),
    )
    assert len({one.digest for one in (cell, *other)}) == len(other) + 1


def test_a_setting_at_its_default_leaves_the_digest_alone(tiny_capture: Capture) -> None:
    """A setting that is added later must not change the names of existing cells."""
    cell = tiny_cell(tiny_capture)
    plain = Cell(TrainSettings("c", method=MCSS()), "f")
    assert plain.digest == Cell(TrainSettings("c", seed=0, method=MCSS(frame="canonical")), "f").digest
    moved = started_from(cell, plain, Path("here"), whole=True)
    assert moved.digest == started_from(cell, plain, Path("there"), whole=True).digest
    assert moved.digest != cell.digest


def test_a_cell_is_found_by_name_after_settings_were_added() -> None:
    """The name of a cell whose figures docs/results has, of a time when the last weights were kept."""
    settings = replace(recipe("fast", MCSS, "anywhere"), labels="S1", keep="last", validate_every=250)
    cell = Cell(Trial(2e-3, 5.0).applied(settings), "efb56cf6757d08f2c504fe48be0f733b")
    assert cell.name == "mcss-S1-seed0-e4a1f5f6"


def test_cells_are_trained_once_in_order_and_their_results_kept(tiny_capture: Capture, tmp_path: Path) -> None:
    first = tiny_cell(tiny_capture, MCSS)
    after = started_from(tiny_cell(tiny_capture, MCSS, seed=1, labels="none"), first, tmp_path, whole=True)
    cells = [after, first, replace(first, variant="for another table")]
    assert [cell.name for cell in unfinished(cells, tmp_path)] == [first.name, after.name]
    left = estimates(unfinished(cells, tmp_path), cells, tmp_path)
    assert [(one.cells, one.steps, one.known) for one in left] == [(2, 4, False)]
    train_cells(cells, tmp_path, processes=1)
    assert unfinished(cells, tmp_path) == []
    written = sum(path.stat().st_size for path in (tmp_path / first.name).rglob("*") if path.is_file())
    assert run_bytes(first.settings) == pytest.approx(written, rel=0.05)
    assert estimates(unfinished(cells, tmp_path), cells, tmp_path) == []
    assert (seconds_of(first, tmp_path) or 0) > 0
    more = tiny_cell(tiny_capture, MCSS, seed=2)
    assert estimates([more], [*cells, more], tmp_path)[0].known
    before = (tmp_path / first.name / MODEL).stat().st_mtime_ns
    train_cells(cells, tmp_path, processes=1)
    assert (tmp_path / first.name / MODEL).stat().st_mtime_ns == before

    result = cell_result(after, tmp_path, tiny_capture, "test", LOOKED)
    assert (result.system, result.labels, result.seed) == ("mcss", "none", 1)
    (tmp_path / after.name / MODEL).unlink()  # deleted to save space
    assert finished(after, tmp_path)
    assert not finished(after, tmp_path, lambda _: None)
    assert finished(after, tmp_path, lambda cell: evaluation_file(cell, tiny_capture, "test", LOOKED))
    one_view = replace(LOOKED, views=("4",))
    assert not finished(after, tmp_path, lambda cell: evaluation_file(cell, tiny_capture, "test", one_view))
    assert cell_result(after, tmp_path, tiny_capture, "test", LOOKED).evaluation == result.evaluation
    shown = cell_result(first, tmp_path, tiny_capture, "test", one_view).evaluation
    assert (shown.images, shown.instants) == (12, 12)
    assert cell_result(first, tmp_path, tiny_capture, "test", one_view).evaluation == shown
    train_cells([more], tmp_path, processes=1)
    shutil.copyfile(tmp_path / more.name / MODEL, tmp_path / first.name / MODEL)
    again = cell_result(first, tmp_path, tiny_capture, "test", one_view).evaluation
    assert again != shown, "other weights are measured anew"


def test_a_first_stage_that_cells_share_is_trained_once(tiny_capture: Capture, tmp_path: Path) -> None:
    cell = tiny_cell(tiny_capture)
    method = RhodinCVPR18(instants=4, views=2, min_gap=0.2, pose_images=4)
    ways = (method, replace(method, consistency_weight=0.0), replace(method, drift_weight=0.0))
    cells = [replace(cell, settings=replace(cell.settings, method=own)) for own in ways]
    cells.append(replace(cells[0], settings=replace(cells[0].settings, seed=1)))
    train_cells([cells[0], cells[3]], tmp_path, 1)
    damaged = tmp_path / "a-damaged-run" / "first"
    shutil.copytree(tmp_path / cells[0].name / "first", damaged)
    (damaged / "config.json").write_text("{")
    train_cells(cells, tmp_path, 1)
    logs = [(tmp_path / one.name / "first" / METRICS).read_text() for one in cells]
    assert logs[0] == logs[1] == logs[2] != logs[3]  # seconds too: it was not trained again
    train_cells(cells[1:3], tmp_path / "others", 1)  # the second waits for the first
    one, two = ((tmp_path / "others" / cell.name / "first" / METRICS).read_text() for cell in cells[1:3])
    assert one == two
    seeds = [load_file(tmp_path / one.name / "first" / MODEL) for one in (cells[0], cells[3])]
    assert not all(torch.equal(seeds[0][key], seeds[1][key]) for key in seeds[0])


def test_predictions_are_kept_and_recomputed_for_other_settings(tiny_capture: Capture, tmp_path: Path) -> None:
    cell = tiny_cell(tiny_capture, MCSS)
    train_cells([cell], tmp_path, processes=1)
    found = cell_predictions(cell, tmp_path, tiny_capture, "test", LOOKED)
    path = next((tmp_path / cell.name).glob("predictions_test*"))
    weights = str(weights_digest(tmp_path / cell.name))
    key = {"capture": tiny_capture.fingerprint, "settings": repr(LOOKED), "weights": weights}
    again = read_predictions(path, found.instants, key)
    assert again is not None
    for name in ("pose", "embedding", "rotation", "frame"):
        one, other = getattr(found, name), getattr(again, name)
        assert one is other or one == other if not isinstance(one, torch.Tensor) else torch.equal(one, other)
    assert (again.rows == found.rows).all()
    built_again = replace(found.instants, rows=found.instants.rows[::-1].copy())  # parts in another order
    elsewhere = read_predictions(path, built_again, key)
    assert elsewhere is not None
    assert (elsewhere.rows == built_again.rows[found.instant, found.view]).all()
    assert read_predictions(path, found.instants, {**key, "settings": "others"}) is None
    path.write_bytes(path.read_bytes()[:100])
    assert read_predictions(path, found.instants, key) is None
    assert len(cell_predictions(cell, tmp_path, tiny_capture, "test", LOOKED)) == len(found)


def test_every_system_gets_as_many_trials_and_the_best_is_shown(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in compared_methods():
        settings = recipe("fast", method, "c")
        trials = trials_of(settings)
        assert len({Cell(trial.applied(settings), "f").digest for trial in trials}) == 5
        assert trials[0].applied(settings) == settings
    rates = [trial.rate for trial in trials_of(recipe("paper", MCSS, "c"))]
    assert rates == [1e-3, 5e-4, 2e-3, 1e-3, 1e-3], "the recipe's own, half and twice it, whichever recipe it is"
    with pytest.raises(ValueError, match=r"points2d: tables do not compare it, so it has no settings to choose"):
        trials_of(recipe("fast", Points2D, "c"))

    monkeypatch.setattr(studies, "recipe", tiny_recipe)
    study = Study(tiny_capture, tmp_path, tmp_path, Budget(steps=2))
    with pytest.raises(ValueError, match=r"settings are not chosen yet: .* is not trained, and 1 other trials"):
        choose_settings(replace(study, train=False), [Supervised], count=2)
    with pytest.raises(ValueError, match=r"is not trained, and 0 other trials .* again when the other shares"):
        choose_settings(replace(study, share=Share(1, 2)), [Supervised], count=2)
    assert len(list(tmp_path.glob("supervised-*"))) == 1
    chosen, trials = choose_settings(study, [Supervised], count=2)
    assert [measured.trial.rate for measured in trials["supervised"]] == [1e-3, 5e-4]
    assert trials["supervised"][0].to_json().keys() == {"rate", "weight_decay", "errors", "kept"}
    assert [measured.trial for measured in trials["supervised"] if measured.kept] == [
        chosen.budget.chosen["supervised"]
    ]
    cell = chosen.cell(Supervised)
    assert finished(cell, tmp_path)
    assert (tmp_path / cell.name / METRICS).exists()
    decayed = Trial(1e-3, 0.3).applied(tiny_recipe("fast", Supervised, "c")).optimiser
    assert (decayed.lr, decayed.weight_decay) == (1e-3, 0.3)


def test_the_ceiling_sees_as_many_images_as_mcss(tiny_capture: Capture) -> None:
    budget = Budget(steps=1000)
    for method, labels, steps, every in (
        (MCSS, "all", 1000, 100),
        (Supervised, "S1", 1000, 100),
        (Supervised, "S1:0.1", 1000, 100),
        (Supervised, "S1,S2", 6818, 682),  # (32 · 4 + 22) / 22 times
        (Supervised, "all", 6818, 682),
        (RhodinCVPR18, "all", 1000, 100),
    ):
        settings = budget.settings(method, tiny_capture, labels)
        assert (settings.optimiser.steps, settings.validate_every) == (steps, every)


def test_a_trial_of_two_labelled_stages_ends_with_its_second(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = RhodinCVPR18(instants=4, views=2, min_gap=0.2, pose_images=4)
    monkeypatch.setattr(studies, "recipe", lambda *names: replace(tiny_recipe(*names), method=method))
    study = Study(tiny_capture, tmp_path, tmp_path, Budget(steps=2))
    chosen, trials = choose_settings(study, [RhodinCVPR18], count=1)
    assert chosen.budget.chosen["rhodin_cvpr18"] == Trial(1e-3, 1.0)
    (run,) = tmp_path.iterdir()
    for weights in run.rglob("*.safetensors"):
        weights.unlink()
    assert choose_settings(replace(study, train=False), [RhodinCVPR18], count=1)[1] == trials


def test_what_is_better_in_one_run_is_held_against_the_recipe_with_every_seed(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[str] = set()
    errors = {1e-3: [100.0, 102.0, 104.0], 5e-4: [96.0, 105.0, 106.0], 2e-3: [99.0, 0.0, 0.0]}

    def train(cells: list[Cell], *_: Any) -> dict[str, Exception]:
        trained.update(cell.name for cell in cells)
        return {}

    def error(cell: Cell, _: Path) -> dict[str, float]:
        return {"n_mpjpe": errors[cell.settings.optimiser.lr][cell.settings.seed]}

    monkeypatch.setattr(studies, "recipe", tiny_recipe)
    monkeypatch.setattr(tuning, "try_cells", train)
    monkeypatch.setattr(tuning, "validation_of", error)
    monkeypatch.setattr(tuning, "untried", lambda _, cells: [cell for cell in cells if cell.name not in trained])
    study = Study(tiny_capture, tmp_path, tmp_path, Budget(steps=2))
    chosen, trials = choose_settings(study, [Supervised], count=3)
    assert chosen.budget.chosen["supervised"] == Trial(1e-3, 0.0)
    assert [measured.errors for measured in trials["supervised"]] == [(100, 102, 104), (96, 105, 106), (99,)]
    assert len(trained) == 7
    errors[5e-4][2] = 80.0
    chosen, trials = choose_settings(study, [Supervised], count=3)
    assert chosen.budget.chosen["supervised"] == Trial(5e-4, 0.0)
    assert [measured.kept for measured in trials["supervised"]] == [False, True, False]
    so_far = tuning.chosen_so_far(study, [MCSS, Supervised], count=3)
    assert so_far == chosen, "those of MCSS are not trained, and stay out of it"

    trained.clear()
    *others, worst = tuning.trial_cells(study, Supervised, 3)
    trained.update(cell.name for cell in others)
    without = replace(study, train=False)
    with pytest.raises(tuning.TrialsLeftError):
        choose_settings(without, [Supervised], count=3)
    write_json(tmp_path / worst.name / FAILED, {"error": "it diverged on another machine"})
    errors[5e-4][0] = 99.0
    _, trials = choose_settings(without, [Supervised], count=3)
    assert [measured.trial.rate for measured in trials["supervised"]] == [1e-3, 5e-4]


def test_only_what_is_clearly_better_in_one_run_is_tried_again() -> None:
    own, slow, slower = Trial(2e-3, 1.0), Trial(1e-3, 1.0), Trial(5e-4, 1.0)
    assert best_trial([(own, 100.0)]) == own
    assert best_trial([(own, 100.0), (slow, 98.5), (slower, 120.0)]) == own
    assert best_trial([(own, 100.0), (slow, 97.5), (slower, 97.0)]) == slower


def test_settings_cannot_be_chosen_without_a_validation_split(
    tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "recipe", lambda *names: replace(tiny_recipe(*names), validation="elsewhere"))
    with pytest.raises(
        ValueError, match=r"chosen on the split 'elsewhere', which this capture does not have .*--trials 0"
    ):
        choose_settings(Study(tiny_capture, Path("unused"), Path("unused"), Budget(steps=2)), [MCSS])


def test_the_mean_pose_needs_no_training(tiny_capture: Capture) -> None:
    result = mean_pose_result(tiny_capture, "S1", "test", LOOKED)
    assert result.seed is None
    assert result.to_json()["n_mpjpe"] > 0
    assert json.dumps(result.to_json())


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_system_can_be_tried(method: type[Method]) -> None:
    settings = recipe("fast", method, "c")
    settings = replace(settings, network=replace(settings.network, image_size=32))
    assert step_seconds(settings) > 0


def test_runs_in_parallel_take_turns_at_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, expected in (("0, 3", ["0", "3"]), ("GPU-1a", ["GPU-1a"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible_gpus() == expected
    turns = multiprocessing.get_context("spawn").SimpleQueue()
    turns.put("3")
    turns.put("")
    monkeypatch.setattr(parallel, "end_with_parent", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for _ in range(2):
        parallel._prepare_process(1, turns)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
