import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mcss.data.capture import Capture
from mcss.data.keypoints import keypoints_of, skeleton_maps
from mcss.data.loading.augmentation import AugmentationSettings
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.methods.chen_cvpr19 import ChenCVPR19, SkeletonMapSynthesis, map_error, representation_losses
from mcss.methods.points2d import Points2D, mean_of_known, point_error
from mcss.methods.registry import load_estimator, method_named
from mcss.methods.supervised import Supervised
from mcss.models.pose_network import NetworkConfig, NetworkOutput
from mcss.models.prediction import NetworkPredictor
from mcss.models.skeleton_map_network import SkeletonMapConfig, SkeletonMapNetwork, SkeletonMapOutput
from mcss.training.loop import train
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import OptimiserSettings, TrainSettings, recipe
from runs_for_tests import (
    NO_AUGMENTATION,
    check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit,
    random_rotations,
)

MAPS = SkeletonMapConfig(cloud_points=8, map_size=8, bone_width=0.4, width=32, hidden=32)
NETWORK = NetworkConfig(backbone="resnet18", batchnorm_affine=True, image_size=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


def settings_for(capture: Capture, **changes: object) -> TrainSettings:
    representation = SkeletonMapSynthesis(instants=4, views=3, min_gap=0.2, maps=MAPS)
    settings = TrainSettings(
        capture=capture.uri,
        method=ChenCVPR19(representation, representation_length=0.5, pose_images=6),
        network=NETWORK,
        weights="random",
        augmentation=NO_AUGMENTATION,
        optimiser=OptimiserSettings(steps=8, schedule="cosine", average=0.9),
        validate_every=100,
        validation_instants=4,
        log_every=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def test_errors_equal_a_slow_version_ignore_unknown_joints_and_have_the_right_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(3, 16, 2, generator=generator, dtype=torch.float64)
    points = torch.randn(3, 17, 2, generator=generator, dtype=torch.float64)
    points[1, 5] = torch.nan
    points[2] = torch.nan
    found = point_error(predicted, points)
    for n in range(2):
        known = [j for j in range(1, 17) if points[n, j].isfinite().all()]
        slow = sum(float((predicted[n, j - 1, c] - points[n, j, c]).abs()) for j in known for c in range(2))
        assert found[n].item() == pytest.approx(slow / (2 * len(known)))
    assert found[2] == 0
    assert mean_of_known(found, points).item() == pytest.approx(float(found[:2].mean()))
    assert torch.autograd.gradcheck(lambda p: point_error(p, points), (predicted.requires_grad_(),))

    drawn, true = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    known = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert map_error(drawn, true, known)[0].item() == pytest.approx(float((drawn - true)[0, :2].square().mean()))
    assert map_error(drawn, true, known)[1] == 0
    assert torch.autograd.gradcheck(lambda d: map_error(d, true, known), (drawn.requires_grad_(),))


def test_what_is_perfect_costs_nothing_and_no_small_or_constant_cloud_buys_consistency() -> None:
    network = SkeletonMapNetwork(NETWORK, MAPS).eval()
    points = torch.randn(4, 17, 2, generator=torch.Generator().manual_seed(0))
    points[:, 0] = 0
    cloud = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(1))
    true = skeleton_maps(points, 8, width=0.4)
    settings = SkeletonMapSynthesis(maps=MAPS, consistency_weight=2.0)
    perfect = SkeletonMapOutput(points[:, 1:], cloud, cloud, true)
    assert representation_losses(settings, network, perfect, points).total.item() == 0
    other = perfect._replace(turned=cloud.flip(0), drawn=torch.zeros_like(true))
    found = representation_losses(settings, network, other, points)
    small = representation_losses(settings, network, other._replace(cloud=cloud / 9, turned=cloud.flip(0) / 9), points)
    shifted = representation_losses(
        settings, network, other._replace(cloud=cloud + 9, turned=cloud.flip(0) + 9), points
    )
    assert found.maps.item() == pytest.approx(1)
    torch.testing.assert_close(shifted.consistency, found.consistency, rtol=1e-4, atol=0)
    torch.testing.assert_close(small.consistency, found.consistency)
    torch.testing.assert_close(found.total, found.points + found.maps + 2 * found.consistency)


def test_the_maps_teach_the_detector_nothing() -> None:
    network = SkeletonMapNetwork(NETWORK, MAPS)
    output = network(torch.randn(4, 3, 32, 32), 0, (2, 2), random_rotations(4).float())
    assert isinstance(output, SkeletonMapOutput)
    output.drawn.square().mean().backward()
    learned = {name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert learned == {"encoder", "decoder_start", "decoder"}


def test_both_losses_fall_and_the_result_is_evaluated_in_camera_space(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(tiny_capture, optimiser=OptimiserSettings(steps=40, lr=3e-3))
    train(settings, tmp_path / "run")
    first, second = (
        [line for line in read_metrics(folder / "metrics.jsonl") if "total" in line]
        for folder in (tmp_path / "run" / "first", tmp_path / "run")
    )
    for name, factor in (("points", 0.8), ("maps", 0.9), ("consistency", 0.6)):
        assert np.mean([x[name] for x in first[-5:]]) < factor * np.mean([x[name] for x in first[:3]]), name
    assert np.mean([x["pose"] for x in second[-5:]]) < 0.9 * np.mean([x["pose"] for x in second[:3]])

    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "run" / "first", tmp_path / "run"))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"pose_head", "pose_mean", "pose_std"}

    network = load_estimator(tmp_path / "run")
    assert isinstance(network, SkeletonMapNetwork)
    assert network.maps == MAPS
    found = evaluate(NetworkPredictor(network, tiny_capture), tiny_capture, "test", EvaluationSettings(max_instants=6))
    assert found.pose is not None
    assert found.pose.frame == "camera"
    config = json.loads((tmp_path / "run" / "first" / "config.json").read_text())
    assert (config["method_name"], config["labels"]) == ("chen_cvpr19_representation", "none")


def test_a_run_stopped_in_either_stage_resumes_bit_for_bit(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tiny_capture)
    check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit(settings, tmp_path, monkeypatch)


def test_a_backbone_that_learned_2d_joints_starts_another_run(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(
        tiny_capture, labels="none", method=Points2D(instants=6, views=2, min_gap=0.2),
        network=replace(NETWORK, dim=64, embedding_norm=True, scaled_embedding=True),
        optimiser=OptimiserSettings(steps=160, lr=2e-3),
    )  # fmt: skip
    train(settings, tmp_path / "points")
    lines = [line["points"] for line in read_metrics(tmp_path / "points" / "metrics.jsonl") if "total" in line]
    assert np.mean(lines[-5:]) < 0.7 * np.mean(lines[:3])

    # The x and y that it predicts are nearer to the points than the points' mean is.
    instants = tiny_capture.instants("train")
    true = torch.from_numpy(keypoints_of(tiny_capture, instants, "labels", "a test")[:, 0])
    network = load_estimator(tmp_path / "points")
    images = torch.from_numpy(tiny_capture.decode(instants.rows[:, 0], 32)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        output = network((images - 116) / 58)
    assert isinstance(output, NetworkOutput)
    seen = output.coordinates.reshape(-1, 16, 3)[..., :2]
    trained = torch.from_numpy(keypoints_of(tiny_capture, tiny_capture.instants("train"), "labels", "a test"))
    mean = trained.flatten(0, 1).mean(0)[1:].expand_as(seen)
    assert point_error(seen, true).median() < point_error(mean, true).median()

    other = replace(
        settings, labels="S1", method=Supervised(pose_images=4), weights=str(tmp_path / "points"),
        optimiser=OptimiserSettings(steps=1, lr=1e-9),
    )  # fmt: skip
    train(other, tmp_path / "other")
    before, after = (load_file(tmp_path / run / "model.safetensors") for run in ("points", "other"))
    weights = [key for key in before if key.startswith("backbone") and key.endswith("weight")]
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in weights)
    (tmp_path / "tmp").mkdir()
    with pytest.raises(ValueError, match=r"--weights .*tmp: expected a finished run"):
        train(replace(other, weights=str(tmp_path / "tmp")), tmp_path / "third")
    plain = replace(other, network=replace(other.network, batchnorm_affine=False))
    with pytest.raises(ValueError, match=r"points: these are not the weights of resnet18: .* 40 unknown"):
        train(plain, tmp_path / "fourth")


def test_a_method_says_what_it_learns_from() -> None:
    def told(name: str) -> set[str]:
        return {k for k, v in vars(recipe("fast", method_named(name), "c").method.information).items() if v}

    assert told("supervised") == {"labels"}
    assert told("mcss") == {"labels", "views"}
    assert told("rhodin_cvpr18") == {"labels", "views", "rotations"}
    assert told("rhodin_eccv18") == {"labels", "views", "rotations", "backgrounds"}
    assert told("chen_cvpr19") == {"labels", "views", "rotations", "points"}
    assert told("points2d") == {"points"}


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"map_size: expected a power of two, 8 or more, got 30"):
        SkeletonMapConfig(map_size=30)
    with pytest.raises(ValueError, match=r"bone_width: expected a width above 0, got 0"):
        SkeletonMapConfig(bone_width=0.0)
    with pytest.raises(ValueError, match=r"consistency_weight: expected 0 or more, got nan"):
        SkeletonMapSynthesis(consistency_weight=float("nan"))
    with pytest.raises(ValueError, match=r"representation_length: expected more than 0, got -1.0"):
        ChenCVPR19(representation_length=-1.0)
    with pytest.raises(
        ValueError, match=r"rotation, mirror: expected 0 for both, got 8 and 0; 2D joints are not rotated"
    ):
        TrainSettings("c", method=Points2D(), augmentation=AugmentationSettings())
