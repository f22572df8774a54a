import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import AugmentationSettings
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError, CheckpointError
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.methods.mcss import MCSS
from mcss.methods.rhodin_cvpr18 import InitialTraining, RhodinCVPR18, aligning_rotations, view_disagreement
from mcss.methods.supervised import Supervised
from mcss.models.model_file import load_model
from mcss.models.pose_network import NetworkConfig
from mcss.models.prediction import NetworkPredictor
from mcss.training.loop import train
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import OptimiserSettings, TrainSettings, recipe, stages
from runs_for_tests import check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit, random_rotations


def settings_for(capture: Capture, **changes: object) -> TrainSettings:
    settings = TrainSettings(
        capture=capture.uri,
        method=RhodinCVPR18(instants=4, views=3, min_gap=0.2, pose_images=4),
        network=NetworkConfig(
            backbone="resnet18",
            batchnorm_affine=True,
            embedding_norm=True,
            scaled_embedding=True,
            dim=16,
            image_size=32,
        ),
        weights="random",
        augmentation=AugmentationSettings(rotation=0.0),
        optimiser=OptimiserSettings(steps=8, schedule="cosine", average=0.9),
        validate_every=100,
        validation_instants=4,
        log_every=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


def random_poses(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 16, 3, generator=generator, dtype=torch.float64)


def slow_disagreement(poses: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Compute the disagreement joint by joint: x_common = Rᵀ x_camera."""
    instants, views, joints, _ = poses.shape
    found = np.zeros((instants, views))
    for i in range(instants):
        common = [[rotations[i, v].T @ poses[i, v, j] for j in range(joints)] for v in range(views)]
        for j in range(joints):
            middle = sum(common[v][j] for v in range(views)) / views
            for v in range(views):
                found[i, v] += float(((common[v][j] - middle) ** 2).sum())
    return found


def test_disagreement_equals_a_slow_version_of_its_definition() -> None:
    poses, rotations = random_poses(3, 4), random_rotations(3, 4)
    expected = slow_disagreement(poses.numpy(), rotations.numpy())
    np.testing.assert_allclose(view_disagreement(poses, rotations).numpy(), expected, rtol=1e-12)


def test_views_of_one_pose_agree_and_the_common_frame_does_not_matter() -> None:
    rotations, body = random_rotations(3, 4), random_poses(3, 1)
    seen = body @ rotations.mT  # x_camera = R x_world
    assert view_disagreement(seen, rotations).max() < 1e-20
    poses, turn = random_poses(3, 4, seed=1), random_rotations(seed=2)
    torch.testing.assert_close(view_disagreement(poses, rotations), view_disagreement(poses, rotations @ turn))


def test_procrustes_finds_the_cameras_of_one_pose_and_is_never_beaten() -> None:
    rotations, body = random_rotations(5, 3), random_poses(5, 1)
    seen = body @ rotations.mT
    found = aligning_rotations(seen)
    torch.testing.assert_close(found, rotations @ rotations[:, :1].mT)
    assert view_disagreement(seen, found).max() < 1e-20
    poses = random_poses(5, 2, seed=3)  # without a common body: the best of many rotations, and no reflection
    found = aligning_rotations(poses)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(5, 2, dtype=torch.float64))
    best = view_disagreement(poses, found)
    for seed in range(50):
        tried = torch.cat([torch.eye(3, dtype=torch.float64).expand(5, 1, 3, 3), random_rotations(5, 1, seed=seed)], 1)
        assert (view_disagreement(poses, tried) >= best - 1e-9).all()


def test_gradcheck_of_the_disagreement() -> None:
    poses, rotations = random_poses(2, 3).requires_grad_(), random_rotations(2, 3)
    assert torch.autograd.gradcheck(lambda p: view_disagreement(p, rotations), (poses,))
    solved = aligning_rotations(poses)
    assert not solved.requires_grad


def test_training_brings_the_views_together_and_leaves_the_initial_network_in_its_folder(
    tiny_capture: Capture, tmp_path: Path
) -> None:
    method = RhodinCVPR18(instants=6, views=4, min_gap=0.2, pose_images=8)
    settings = settings_for(
        tiny_capture, method=method, labels="S1:0.2", optimiser=OptimiserSettings(steps=40, lr=2e-3)
    )
    train(settings, tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "total" in line]
    assert len(lines) == 20
    assert np.mean([x["consistency"] for x in lines[-5:]]) < 0.8 * np.mean([x["consistency"] for x in lines[:3]])
    assert lines[-1]["drift"] > 0
    first = [line for line in read_metrics(tmp_path / "run" / "first" / "metrics.jsonl") if "total" in line]
    assert len(first) == 20
    assert first[-1]["total"] < first[0]["total"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method_name"] == "rhodin_cvpr18"
    network = load_model(tmp_path / "run")
    assert network.frame == "camera"
    found = evaluate(NetworkPredictor(network, tiny_capture), tiny_capture, "test", EvaluationSettings(max_instants=6))
    assert found.pose is not None
    assert found.pose.frame == "camera"
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_first_step_has_not_drifted(tiny_capture: Capture, tmp_path: Path) -> None:
    """Both networks see the same images; only BatchNorm's batch statistics and dropout make them differ."""
    settings = settings_for(tiny_capture, frozen_statistics=True, optimiser=OptimiserSettings(steps=4))
    settings = replace(settings, network=replace(settings.network, embedding_norm=False))
    train(settings, tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "total" in line]
    assert lines[0]["drift"] == pytest.approx(0, abs=1e-6)
    assert lines[1]["drift"] > 1e-6


def test_a_run_stopped_in_either_stage_resumes_bit_for_bit(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = RhodinCVPR18(rotations="procrustes", instants=4, views=3, min_gap=0.2, pose_images=4)
    settings = settings_for(tiny_capture, method=method)
    check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit(settings, tmp_path, monkeypatch)


def test_an_initial_network_can_be_given(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(tiny_capture)
    train(settings, tmp_path / "whole")
    first = str(tmp_path / "whole" / "first")
    train(replace(settings, init=first, optimiser=replace(settings.optimiser, steps=4)), tmp_path / "second")
    whole, second = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "second"))
    assert all(torch.equal(whole[key], second[key]) for key in whole)
    canonical = replace(settings, init=first, method=Supervised(pose_images=4))
    message = r"--init .*first: expected a PoseNetwork whose poses are canonical, .*supervised .* poses are camera"
    with pytest.raises(CheckpointError, match=message):
        train(canonical, tmp_path / "third")


def test_the_stages_share_the_steps() -> None:
    settings = recipe("fast", RhodinCVPR18, "c")
    first, second = stages(settings)
    assert first is not None
    assert isinstance(first.method, InitialTraining)
    assert first.optimiser.steps + second.optimiser.steps == settings.optimiser.steps
    with pytest.raises(ValueError, match=r"steps: expected 2 or more for the two stages of rhodin_cvpr18, got 1"):
        stages(replace(settings, optimiser=replace(settings.optimiser, steps=1)))


def test_the_recipe_is_that_of_mcss_but_for_the_loss_and_turned_images() -> None:
    ours, theirs = recipe("fast", MCSS, "c"), recipe("fast", RhodinCVPR18, "c")
    assert theirs.augmentation == replace(ours.augmentation, rotation=0.0)
    assert replace(theirs, method=ours.method, augmentation=ours.augmentation) == ours


def capture_without(part: str, place: Path) -> Capture:
    """S1 and S2 of the stick figures, without the cameras of S2 or of all, or with a matrix that is no rotation."""
    info = replace(INFO, splits={"train": INFO.splits["train"]})
    writer = CaptureWriter.open(place, info=info)
    for subject in range(2):
        frames = stick_part(subject, 0)
        if part == "all cameras" or (part == "unlabelled cameras" and subject == 1):
            frames = [dataclasses.replace(frame, camera=None) for frame in frames]
        if part == "rotation":
            assert frames[0].camera is not None
            bent = dataclasses.replace(frames[0].camera, rotation=2 * frames[0].camera.rotation)
            frames = [dataclasses.replace(frame, camera=bent) for frame in frames]
        writer.append(frames)
    return writer.finish()


def test_a_capture_without_cameras_is_refused_with_a_way_out(tmp_path: Path) -> None:
    capture = capture_without("all cameras", tmp_path / "capture")
    message = r"rhodin_cvpr18 needs camera rotations, and 192 of 192 images.*S1/Walking 1 frame 0 view 1.*mcss"
    with pytest.raises(CaptureError, match=message):
        train(settings_for(capture), tmp_path / "run")


def test_procrustes_does_without_the_cameras_of_unlabelled_people(tmp_path: Path) -> None:
    capture = capture_without("unlabelled cameras", tmp_path / "capture")
    settings = settings_for(capture, optimiser=OptimiserSettings(steps=2))
    with pytest.raises(CaptureError, match=r"rhodin_cvpr18 needs camera rotations, and 96 of 192 .*S2/Walking 1"):
        train(settings, tmp_path / "cameras")
    assert isinstance(settings.method, RhodinCVPR18)
    train(replace(settings, method=replace(settings.method, rotations="procrustes")), tmp_path / "procrustes")


def test_a_matrix_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    capture = capture_without("rotation", tmp_path / "capture")
    with pytest.raises(CaptureError, match=r"S1/Walking 1 frame 0 view 1 .* a matrix that is not a rotation"):
        train(settings_for(capture), tmp_path / "run")


def test_settings_that_make_no_sense_are_refused(tiny_capture: Capture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels: rhodin_cvpr18 cannot learn without labels.*train mcss"):
        train(settings_for(tiny_capture, labels="none"), tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"rotation, mirror: expected 0 for both, got 8 and 0; .* rhodin_cvpr18 predicts"
    ):
        settings_for(tiny_capture, augmentation=AugmentationSettings())
    with pytest.raises(ValueError, match=r"initial_share: expected a share between 0 and 1, got 1.0"):
        RhodinCVPR18(initial_share=1.0)
    with pytest.raises(ValueError, match=r"drift_weight: expected 0 or more, got nan"):
        RhodinCVPR18(drift_weight=math.nan)
