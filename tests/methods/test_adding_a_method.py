"""A new method takes one file and one line in METHODS. This is the file; `registered` is the line."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mcss.training.loop as training
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.batches import Batch
from mcss.data.loading.sampling import MetricSettings
from mcss.experiments.estimates import step_seconds
from mcss.experiments.pose_tables import signals_cells, table1
from mcss.experiments.study import Budget, Study
from mcss.experiments.tuning import trials_of
from mcss.losses import pose_l1
from mcss.methods import registry
from mcss.methods.method import Information, Losses, Method, Sweep, Teacher
from mcss.methods.recipe import Recipe, RecipeName
from mcss.models.pose_network import NetworkConfig, PoseEstimator
from mcss.progress import Progress
from mcss.skeletons import PoseFrame
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import recipe


class SubjectNumbers(NamedTuple):
    """Who the unlabelled images of a step show."""

    subject: Tensor


@dataclass(frozen=True, eq=False)
class AllSubjectNumbers:
    """Who the training images show."""

    instants: Instants

    def of(self, instants: np.ndarray, views: np.ndarray) -> SubjectNumbers:
        """Return the subjects of some images."""
        return SubjectNumbers(torch.from_numpy(self.instants.subject[instants]))


@dataclass(frozen=True)
class AgreeingViews(Method):
    """Labels, and predictions for the views of an instant that must agree."""

    name: ClassVar[str] = "agreeing_views"
    title: ClassVar[str] = "Agreeing views"
    summary: ClassVar[str] = "Canonical poses of all views must agree."

    instants: int = 4
    """Instants in a step."""
    views: int = 2
    """Views of each instant."""
    agreement: float = 0.5
    """Weight of the disagreement."""
    pose_images: int = 4
    """Labelled images in a step."""

    @property
    def frame(self) -> PoseFrame:
        """Poses face a fixed way."""
        return "canonical"

    @property
    def information(self) -> Information:
        """Labels and views."""
        return Information(labels=True, views=self.agreement > 0)

    @property
    def multi_view(self) -> MetricSettings:
        """Every step compares views."""
        return MetricSettings(self.instants, self.views, 0.2)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "AgreeingViews":
        """Return the same settings for every recipe."""
        return cls()

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return a network that a test can afford."""
        network = NetworkConfig("tf_efficientnet_lite0", dim=16, image_size=32)
        return replace(recipe, network=network, frozen_stages=0, variants=0)

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> AllSubjectNumbers:
        """Return who the images show."""
        return AllSubjectNumbers(instants)

    def blank_extra(self, images: int) -> SubjectNumbers:
        """Return one subject for all images."""
        return SubjectNumbers(torch.zeros(images, dtype=torch.int64))

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "AgreementLosses":
        """Return L_pose and the disagreement of the views."""
        assert isinstance(batch.extra, SubjectNumbers)
        assert len(batch.extra.subject.unique()) == 1
        coordinates = model(batch.images, batch.first_stage).coordinates
        views = coordinates[: self.instants * self.views].reshape(self.instants, self.views, -1)
        disagreement = (views - views.mean(dim=1, keepdim=True)).abs().mean()
        pose = pose_l1(coordinates[self.instants * self.views :], network.normalised(batch.poses)).mean()
        return AgreementLosses(pose + self.agreement * disagreement, disagreement.detach())

    @property
    def sweep(self) -> Sweep:
        """Tuning varies the weight."""
        return Sweep.around("agreement", self.agreement)

    def swept(self, value: float) -> "AgreeingViews":
        """Return the method with another weight."""
        return replace(self, agreement=value)

    def without_views(self) -> tuple[Method, str]:
        """Return the method without the disagreement."""
        return replace(self, agreement=0.0), "views need not agree"


@dataclass(frozen=True)
class AgreementLosses(Losses):
    """The losses of one step."""

    disagreement: Tensor


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, AgreeingViews))
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("mcss.cli.training", None)  # which lists the methods
    yield
    sys.modules.pop("mcss.cli.training", None)


def test_it_is_listed_and_explained_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for args, expected in (
        (["train", "--help"], "Canonical poses of all views must agree."),
        (["train", "agreeing-views", "--help"], "Weight of the disagreement. (default: 0.5)"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 0
        assert expected in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_it_trains_is_evaluated_and_resumes_bit_for_bit(tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    train = ["train", "agreeing_views", "--capture", tiny_capture.uri, "--weights", "random", "--steps", "4",
             "--checkpoint-every", "2", "--log-every", "1", "--agreement", "2"]  # fmt: skip
    main([*train, "--out", "whole"])
    lines = [line for line in read_metrics(Path("whole/metrics.jsonl")) if "total" in line]
    assert len(lines) == 4
    assert all(line["disagreement"] > 0 for line in lines)

    saved = training.save_checkpoint

    def stopping(*args: Any) -> None:
        saved(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", stopping)
        with pytest.raises(SystemExit):
            main([*train, "--out", "stopped"])
    assert not Path("stopped/model.safetensors").exists()
    main([*train, "--out", "stopped", "--resume"])
    whole, resumed = (load_file(Path(run, "model.safetensors")) for run in ("whole", "stopped"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)

    main(["evaluate", "whole", "--capture", tiny_capture.uri, "--split", "test", "--json", "found.json"])
    assert json.loads(Path("found.json").read_text())["pose"]["frame"] == "canonical"
    assert "Agreeing views" in Path("whole/test/report.html").read_text()


def test_it_has_a_row_in_table_1_and_in_the_table_of_signals(tiny_capture: Capture, tmp_path: Path) -> None:
    study = Study(tiny_capture, tmp_path, tmp_path / "cells", Budget(steps=2), seeds=(0,), train=False)
    pairs = [cell for cell in signals_cells(study) if cell.system == "agreeing_views"]
    assert [cell.variant for cell in pairs] == ["", "views need not agree"]
    study.train_cells(pairs[:1])
    table = table1(study)
    one, everybody = (row for row in table.rows if row.system == "agreeing_views")
    assert (one.title, one.labels, everybody.labels) == ("Agreeing views", "S1", "all")
    assert one.n_mpjpe is not None
    assert one.n_mpjpe > 0
    assert everybody.n_mpjpe is None
    assert ["Agreeing views", "S1", "3D labels, views"] in [list(line[:3]) for line in table.table]


def test_its_settings_are_tuned_and_its_step_is_timed() -> None:
    settings = recipe("fast", AgreeingViews, "c")
    assert len({trial.applied(settings) for trial in trials_of(settings)}) == 5
    assert step_seconds(settings) > 0
