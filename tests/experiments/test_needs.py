import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from captures_for_tests import INFO, stick_part
from mcss.cli import TerminatedError
from mcss.data.capture import Capture
from mcss.data.schema import Selector
from mcss.data.writer import CaptureWriter
from mcss.errors import WeightsError
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments import needs
from mcss.experiments import study as studies
from mcss.experiments.needs import Needs
from mcss.experiments.pose_tables import table1_cells
from mcss.experiments.reproduce import ReproducePlan, checked, reproduce, wanted_parts
from mcss.experiments.rows import MissingRow
from mcss.experiments.study import Budget, Study, steps_of_an_epoch
from mcss.methods.mcss import MCSS
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.methods.supervised import Supervised
from mcss.models.model_file import MODEL
from mcss.training import parallel
from mcss.training.parallel import Job, train_all
from methods_for_tests import tiny_recipe

LOOKED = EvaluationSettings(max_instants=6)


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(studies, "recipe", tiny_recipe)


@pytest.fixture(scope="module")
def bare_capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """Poses and views, and neither cameras nor backgrounds nor a validation split."""
    splits = {"train": (Selector(subjects=("S1",)),), "test": (Selector(subjects=("S2",)),)}
    writer = CaptureWriter.open(tmp_path_factory.mktemp("bare"), info=replace(INFO, splits=splits))
    for subject in range(2):
        writer.append([replace(frame, camera=None) for frame in stick_part(subject, 0, instants=14)])
    return writer.finish()


def study_of(capture: Capture, folder: Path, **changes: object) -> Study:
    return Study(capture, folder, folder / "cells", Budget(2, evaluation=LOOKED), seeds=(0,), **changes)  # type: ignore[arg-type]


def test_what_a_capture_lacks_is_told_together_before_any_training(bare_capture: Capture, tmp_path: Path) -> None:
    study = study_of(bare_capture, tmp_path)
    told: list[str] = []
    parts, study, trials = checked(wanted_parts(["table1"], study)[0], study, 6, told.append)
    assert ([part.name for part in parts], trials) == (["table1"], 0)
    assert not study.cells.exists()
    assert told[0] == (
        f"Settings are not chosen, the recipe's are kept: {bare_capture.uri} has no split 'validation'. To choose "
        "them, hold a subject out when you import, such as --validation S8."
    )
    text = "\n".join(told[1:])
    for name in ("Rhodin et al., CVPR 2018", "Rhodin et al., ECCV 2018", "Chen et al., CVPR 2019"):
        assert name in text
    assert "needs camera rotations, and" in text
    assert {cell.system for cell in table1_cells(study) if cell.name not in study.unavailable} == {"mcss", "supervised"}


def test_what_cannot_be_had_becomes_a_row_and_the_rest_is_measured(bare_capture: Capture, tmp_path: Path) -> None:
    study = study_of(bare_capture, tmp_path)
    parts, study, _ = checked(wanted_parts(["table1"], study)[0], study, 0, lambda _: None)
    (table,) = reproduce(parts, study, 0, "mcss reproduce table1")
    lines = {(line[0], line[1]): line[2] for line in table.table[1:]}
    assert lines["MCSS", "S1"] == "3D labels, views"
    assert lines["Supervised baseline", "all"] == "3D labels"
    assert lines["Rhodin et al., ECCV 2018", "S1"] == "not available, see below"
    assert lines["Mean pose, in camera space", "S1"] == "not available, see below"
    assert len(lines) == 14
    assert any(note.startswith("Not available: Mean pose, in camera space (S1): the mean pose") for note in table.notes)


def test_a_part_that_the_capture_does_not_allow_is_left_out_with_the_reason(
    bare_capture: Capture, tmp_path: Path
) -> None:
    two = CaptureWriter.open(tmp_path / "two", info=bare_capture.info)
    for subject in range(2):
        two.append([frame for frame in stick_part(subject, 0, instants=14) if frame.view in ("1", "2")])
    study = study_of(two.finish(), tmp_path)
    told: list[str] = []
    parts, _, _ = checked(wanted_parts(["table3", "fig5"], study)[0], study, 0, told.append)
    assert [part.name for part in parts] == ["fig5"]
    assert told[0].startswith("table3 is left out: table3: expected three views or more, got 1, 2")
    with pytest.raises(ValueError, match="table3 is left out"):
        checked(wanted_parts(["table3"], study)[0], study, 0, told.append)


def test_weights_that_cannot_be_read_are_found_before_the_first_run(tiny_capture: Capture, tmp_path: Path) -> None:
    budget = Budget(2, evaluation=LOOKED, weights=str(tmp_path / "absent.pth"))
    cell = budget.cell(MCSS, tiny_capture, "S1")
    assert cell.settings.weights.endswith("absent.pth")
    (problem,) = Needs(LOOKED).problems([cell]).values()
    assert "absent.pth" in problem


def test_weights_that_cannot_be_downloaded_are_asked_for_by_the_option_of_their_row(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, *_: object) -> None:
        raise WeightsError(f"no hub for {name}. Connect to the Internet, or use --backbone another; --weights FILE.")

    monkeypatch.setattr(needs, "build_backbone", offline)
    cell = Budget(2, evaluation=LOOKED).cell(MCSS, tiny_capture, "S1")
    for backbone, option in (("resnet50", "--weights50"), ("tf_efficientnet_lite0", "--weights")):
        network = replace(cell.settings.network, backbone=backbone)
        own = replace(cell, settings=replace(cell.settings, network=network, weights="imagenet"))
        (problem,) = Needs(LOOKED).problems([own]).values()
        assert problem == f"no hub for {backbone}. Connect to the Internet, or give {option} FILE."


def test_a_run_that_fails_does_not_stop_the_others_and_its_row_says_why(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tiny_capture, tmp_path)
    train = parallel.train

    def failing(settings: object, out: Path, **given: object) -> Path:
        if out.name.startswith("mcss-"):
            raise FloatingPointError("step 1: the loss is nan.")
        return train(settings, out, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "train", failing)
    ours, theirs = study.cell(MCSS), study.cell(Supervised)
    study = study.try_cells([ours, theirs])
    assert study.unavailable == {ours.name: "failed: step 1: the loss is nan."}
    row = study.row(ours)
    assert isinstance(row, MissingRow)
    assert row.missing == "not available: failed: step 1: the loss is nan."
    assert (study.cells / theirs.name / MODEL).exists()
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        study.train_cells([ours])


def _jobs(
    capture: Capture,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: Callable[[object, Path, bool], Path],
    names: Sequence[str],
) -> list[Job]:
    """Runs of which each calls `training` instead of being trained."""
    monkeypatch.setattr(parallel, "train", training)
    monkeypatch.setattr(parallel, "_POLL_SECONDS", 0.05)
    settings = study_of(capture, folder).cell(Supervised).settings
    return [Job(settings, folder / name) for name in names]


def _dies_once(settings: object, out: Path, resume: bool) -> Path:
    """Stands for a training whose process is killed: always in one folder, the first time in another's company."""
    out.mkdir(parents=True, exist_ok=True)
    if out.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "done").touch()
    return out


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_process_that_is_killed_costs_its_own_run_alone(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(tiny_capture, tmp_path, monkeypatch, _dies_once, ("one", "deadly", "other", "more", "still more"))
    failures = train_all(jobs, 2)
    assert list(failures) == ["deadly"]
    assert str(failures["deadly"]).startswith(f"{tmp_path / 'deadly'}: the process that trained it was killed")
    assert (tmp_path / "one" / "done").exists()
    assert all((tmp_path / name / "done").exists() for name in ("other", "more", "still more"))


def _takes_long(settings: object, out: Path, resume: bool) -> Path:
    """Stands for a long training."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "begun").touch()
    time.sleep(30)
    (out / "done").touch()
    return out


class _Impatient:
    """Is asked to end as soon as two trainings have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["_Impatient"]:
        yield self

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        if len(list(self.folder.glob("*/begun"))) == 2:
            raise TerminatedError


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_program_that_is_asked_to_end_ends_its_trainings(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(tiny_capture, tmp_path, monkeypatch, _takes_long, ("one", "other", "waiting"))
    with pytest.raises(TerminatedError):
        train_all(jobs, 2, _Impatient(tmp_path))
    assert not list(tmp_path.glob("*/done"))
    assert not (tmp_path / "waiting").exists()


def test_an_epoch_is_counted_over_what_a_method_sees(tiny_capture: Capture) -> None:
    budget = Budget(0, epochs=40)
    # S1 and S2, two sequences each of 24 instants in 4 views: 384 images, of which S1 has 192.
    mcss = budget.settings(MCSS, tiny_capture, "S1")
    assert steps_of_an_epoch(mcss, tiny_capture) == 384 // 8  # 4 instants in 2 views a step
    assert mcss.optimiser.steps == 40 * 48
    assert budget.settings(Supervised, tiny_capture, "S1").optimiser.steps == 40 * 48  # 192 images, 4 a step
    assert budget.settings(Supervised, tiny_capture, "S1:0.5").optimiser.steps == 40 * 24
    assert budget.settings(Supervised, tiny_capture, "all").optimiser.steps == 40 * 96
    eccv18 = budget.settings(RhodinECCV18, tiny_capture, "S1:0.5")
    assert eccv18.optimiser.steps == 40 * 384 // 6  # 3 instants in 2 views, in both stages


def test_the_paper_budget_is_forty_epochs_unless_steps_are_given(tiny_capture: Capture, tmp_path: Path) -> None:
    plan = ReproducePlan(budget="paper", weights="random")
    study = plan.study(tiny_capture.uri, tmp_path)
    assert (study.budget.epochs, study.budget.weights, study.weights50) == (40, "random", "imagenet")
    study = replace(plan, steps=7).study(tiny_capture.uri, tmp_path)
    assert study.cell(MCSS).settings.optimiser.steps == 7
    assert study.cell(MCSS).settings.weights == "random"
