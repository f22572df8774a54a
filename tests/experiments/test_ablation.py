import json
from dataclasses import replace
from pathlib import Path

import pytest

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance
from mcss.experiments import ablation as ablations
from mcss.experiments.ablation import VARIANTS, Ablation, AblationPlan, AblationRow, run_ablation
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.models.pose_network import NetworkConfig
from mcss.training.settings import TrainSettings, recipe


def tiny_recipe(name: str, method: type[Method], capture: str) -> TrainSettings:
    network = NetworkConfig(dim=16, image_size=32, embedding_norm=True)
    return TrainSettings(
        capture, network=network, weights="random", validation_instants=4,
        method=MCSS(metric_loss="infonce", instants=4, min_gap=0.2, pose_images=4),
    )  # fmt: skip


def test_every_variant_changes_the_recipe_in_a_way_of_its_own() -> None:
    base = recipe("fast", MCSS, "capture")
    changed = [change(base) for change in VARIANTS.values()]
    assert changed[0] == base
    assert all(one != other for at, one in enumerate(changed) for other in changed[:at])


def test_an_ablation_is_measured_and_continued(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"whole": VARIANTS["recipe `fast`"], "plain": VARIANTS["no BatchNorm before the L2-norm"]}
    monkeypatch.setattr(ablations, "recipe", tiny_recipe)
    monkeypatch.setattr(ablations, "VARIANTS", two)
    plan = AblationPlan(steps=2, seeds=2, processes=1)
    found = run_ablation(tiny_capture.uri, tmp_path, plan)
    assert [row.variant for row in found.rows] == ["whole", "plain"]
    assert all(len(row.n_mpjpe) == 2 and row.n_mpjpe[0] > 0 for row in found.rows)
    assert json.loads((tmp_path / "ablation.json").read_text()) == found.to_json()
    assert "| plain | 2 |" in (tmp_path / "ablation.md").read_text()
    runs = {path.parent for path in tmp_path.glob("mcss-S1-seed*/model.safetensors")}
    assert len(runs) == 4
    for run in runs:
        (run / "model.safetensors").unlink()  # as in a clone: figures are kept, weights are not
    assert run_ablation(tiny_capture.uri, tmp_path, plan).rows == found.rows
    assert not list(tmp_path.glob("*/model.safetensors"))
    run_ablation(tiny_capture.uri, tmp_path, replace(plan, steps=3))  # other settings are other runs
    assert {path.parent for path in tmp_path.glob("*/config.json")} > runs


def test_a_capture_without_validation_is_refused(tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "recipe", lambda *names: replace(tiny_recipe(*names), validation="elsewhere"))
    with pytest.raises(ValueError, match=r"measured on the split 'elsewhere', which this capture does not have"):
        run_ablation(tiny_capture.uri, Path("unused"), AblationPlan())


def test_the_table_shows_mean_and_spread() -> None:
    made = Provenance("mcss ablation", "0123456789abcdef", "c", True, "2026-01-02", "machine", {}, {"steps": "5"})
    row = AblationRow("v", n_mpjpe=[100.0, 110.0], pa_mpjpe=[80.0, 80.0], hit_at_1=[0.25, 0.75])
    text = Ablation([row], made).to_markdown()
    assert "| v | 2 | 105.0 ± 7.1 | 80.0 ± 0.0 | 0.50 ± 0.35 |" in text
    assert "`0123456789ab`" in text
