from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mcss.data.capture import Capture
from mcss.data.loading.batches import Batch
from mcss.labelling.teacher import LandmarkTeacher
from mcss.losses import pose_l1
from mcss.methods.mcss import MCSS, losses, taught_poses
from mcss.models.model_file import load_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.skeletons import JOINTS
from mcss.training.loop import train
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import OptimiserSettings, TrainSettings

NETWORK = NetworkConfig(backbone="resnet18", batchnorm_affine=True, embedding_hidden=24, dim=16, image_size=32)
METHOD = MCSS(metric_loss="infonce", instants=3, views=2, min_gap=0.2, pose_images=4)


def settings_for(capture: Capture, method: MCSS, **changes: object) -> TrainSettings:
    settings = TrainSettings(
        capture=capture.uri,
        method=method,
        network=NETWORK,
        weights="random",
        optimiser=OptimiserSettings(steps=3, average=0.9),
        validation=None,
        log_every=1,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


class Fixed(nn.Module):
    """A teacher whose poses are given."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given

    def poses(self, images: Tensor, first: int = 0) -> Tensor:
        return self.given[: len(images)]


def batch_of(unlabelled: tuple[int, int], poses: Tensor) -> Batch:
    images = torch.randn(unlabelled[0] * unlabelled[1] + len(poses), 3, 32, 32)
    return Batch(images=images, metric_shape=unlabelled, poses=poses, first_stage=0)


def test_every_view_is_taught_the_mean_of_the_views_of_its_instant() -> None:
    given = torch.zeros(4, 17, 3)
    given[0, 1:], given[1, 1:], given[2:, 1:] = 10.0, 20.0, 50.0
    taught = taught_poses(replace(METHOD, teacher="initial"), Fixed(given), batch_of((2, 2), torch.zeros(1, 17, 3)))
    torch.testing.assert_close(taught.poses[:, 1, 0], torch.tensor([15.0, 15.0, 50.0, 50.0]))
    assert taught.trusted.tolist() == [True] * 4


def test_landmarks_are_targets_image_by_image_where_they_agree_with_the_label() -> None:
    given = torch.zeros(4, 17, 3)
    given[:, 1:, 0] = torch.tensor([10.0, 500.0, 100.0, 300.0])[:, None]
    taught = taught_poses(replace(METHOD, teacher="landmarks"), Fixed(given), batch_of((1, 2), torch.zeros(2, 17, 3)))
    assert torch.equal(taught.poses, given)
    assert taught.trusted.tolist() == [True, True, True, False]  # 300 mm is more than 160 from its label


def test_the_distance_to_the_teacher_is_part_of_the_loss() -> None:
    torch.manual_seed(0)
    network = PoseNetwork(NETWORK).eval()
    batch = batch_of((2, 2), torch.zeros(1, 17, 3))
    output = network(batch.images)
    method = replace(METHOD, teacher="initial", teacher_weight=3.0)
    taught = taught_poses(method, Fixed(torch.ones(4, 17, 3)), batch)
    with_teacher, without = losses(method, network, output, batch, taught), losses(method, network, output, batch)
    expected = pose_l1(output.coordinates[:4], network.normalised(taught.poses)).mean()
    torch.testing.assert_close(with_teacher.total - without.total, 3 * expected)
    assert without.taught is None


def test_training_with_a_teacher_logs_the_distance_to_it(tiny_capture: Capture, tmp_path: Path) -> None:
    first = train(settings_for(tiny_capture, replace(METHOD, teacher="average")), tmp_path / "first")
    later = replace(METHOD, teacher="initial")
    second = train(settings_for(tiny_capture, later, labels="none", init=str(first)), tmp_path / "second")
    for run in (first, second):
        assert all(line["taught"] > 0 for line in read_metrics(run / "metrics.jsonl"))
    assert torch.equal(load_model(first).pose_std, load_model(second).pose_std)


def test_a_network_that_goes_on_keeps_the_statistics_that_its_pose_head_was_trained_with(
    tiny_capture: Capture, tmp_path: Path
) -> None:
    first = train(settings_for(tiny_capture, METHOD, labels="S1"), tmp_path / "first")
    second = train(settings_for(tiny_capture, METHOD, labels="S2", init=str(first)), tmp_path / "second")
    assert torch.equal(load_model(first).pose_mean, load_model(second).pose_mean)


def test_captures_beside_are_trained_on_with_their_labels(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = settings_for(tiny_capture, METHOD, labels="none", beside=(tiny_capture.uri,), beside_share=0.5)
    run = train(settings, tmp_path / "run")
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["images"] for line in lines] == [10, 20, 30]
    assert all(line["pose"] > 0 for line in lines)
    assert load_model(run).has_pose_statistics


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (replace(METHOD, teacher="initial"), {}, "name it with --init"),
        (replace(METHOD, teacher="landmarks"), {}, "need --backbone blazepose at --image-size 256, got resnet18 at 32"),
    ],
)
def test_a_teacher_that_is_not_there_is_refused(
    tiny_capture: Capture, tmp_path: Path, method: MCSS, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(settings_for(tiny_capture, method, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_average_that_is_not_kept_cannot_teach(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match="expected a moving average of the weights"):
        settings_for(tiny_capture, replace(METHOD, teacher="average"), optimiser=OptimiserSettings(steps=3))


def test_the_landmark_teacher_says_the_same_of_images_and_of_maps_of_their_first_stages() -> None:
    teacher = LandmarkTeacher().eval()
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = teacher.poses(images)
        resumed = teacher.poses(teacher.backbone(images, 0, 4), 4)
    torch.testing.assert_close(whole, resumed, atol=0.1, rtol=0)
    assert whole.shape == (2, 17, 3)
    assert whole[:, 0].abs().max() == 0
    assert whole[:, JOINTS.index("LHip"), 0].min() > 0  # canonical: the left hip is at +X
