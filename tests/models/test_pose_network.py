from typing import NamedTuple

import pytest
import torch
from torch import nn

from mcss.models.pose_network import NetworkConfig, PoseNetwork


def small(**settings: object) -> PoseNetwork:
    """EfficientNet-Lite0 for 64 px images."""
    torch.manual_seed(0)
    return PoseNetwork(NetworkConfig(backbone="tf_efficientnet_lite0", image_size=64, **settings)).eval()  # type: ignore[arg-type]


def canonical_poses(count: int) -> torch.Tensor:
    poses = torch.randn(count, 17, 3, generator=torch.Generator().manual_seed(1)) * 250
    poses[:, 0] = 0
    poses[:, 4, 1] = 0  # the left hip's Y in the canonical pose
    return poses


@pytest.mark.parametrize("size", [224, 256])
def test_the_papers_network_has_the_papers_shapes(size: int) -> None:
    network = PoseNetwork(NetworkConfig(image_size=size)).eval()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert network.features(images).shape == (1, 512, 4, 4)
        output = network(images)
    assert network.embedding_head.weight.shape == (128, 8192)
    assert isinstance(network.pose_head, nn.Linear)
    assert network.pose_head.weight.shape == (48, 128)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(1))
    assert output.coordinates.shape == (1, 48)
    torch.testing.assert_close(output.coordinates, network.pose_head(output.embedding))


def test_no_batchnorm_of_the_papers_network_has_parameters_but_all_keep_statistics() -> None:
    norms = [m for m in PoseNetwork(NetworkConfig(image_size=64)).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all(norm.weight is None and norm.bias is None and norm.running_mean is not None for norm in norms)


def test_any_size_of_image_embedding_and_backbone_works() -> None:
    for size, dim in ((32, 2), (97, 16), (128, 128)):
        network = PoseNetwork(NetworkConfig("tf_efficientnet_lite0", image_size=size, dim=dim)).eval()
        with torch.no_grad():
            assert network(torch.randn(2, 3, size, size)).embedding.shape == (2, dim)


def test_stages_computed_beforehand_give_the_same_answer() -> None:
    network = small()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole = network(images)
        for first in (1, 4, 6):
            part = network(network.backbone(images, 0, first), first)
            torch.testing.assert_close(part, whole)


def test_batchnorm_before_the_norm_takes_off_what_all_images_share() -> None:
    """Even feature maps that hardly differ, like those of an untrained backbone, give embeddings that lie apart."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 320, 2, 2, generator=generator) + 0.01 * torch.randn(8, 320, 2, 2, generator=generator)
    plain, normed = small().train(), small(embedding_norm=True).train()
    with torch.no_grad():
        without, with_norm = (net(maps, first=len(net.backbone.stages)).embedding for net in (plain, normed))
    assert torch.pdist(without).max() < 0.1
    assert torch.pdist(with_norm).min() > 0.5


def test_the_scaled_embedding_reaches_only_the_pose_head() -> None:
    plain, scaled = small(), small(scaled_embedding=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(images).embedding, scaled(images).embedding)
        expected = scaled.pose_head(plain(images).embedding * 128**0.5)
        torch.testing.assert_close(scaled(images).coordinates, expected)


def test_dropout_and_hidden_layer_are_there_when_asked_for() -> None:
    network = small(dropout=0.5, head_hidden=32)
    assert isinstance(network.pose_head, nn.Sequential)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(images))
        network.dropout.train()
        assert not torch.equal(network(images).embedding, network(images).embedding)


def test_poses_are_normalised_by_the_labelled_ones_and_come_back_in_mm() -> None:
    network, poses = small(), canonical_poses(50)
    network.set_pose_statistics(poses)
    normalised = network.normalised(poses)
    varying = normalised.std(dim=0, correction=0) > 0
    assert int(varying.sum()) == 47
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(48), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=0, correction=0)[varying], torch.ones(47))
    torch.testing.assert_close(network.denormalised(normalised), poses, atol=1e-3, rtol=0)
    mean = network.denormalised(torch.zeros(1, 48))[0]
    torch.testing.assert_close(mean, poses.mean(dim=0), atol=1e-3, rtol=0)
    assert mean[0].tolist() == [0, 0, 0]


def test_gradients_reach_every_parameter() -> None:
    network = small(embedding_norm=True, scaled_embedding=True, batchnorm_affine=True).train()
    output = network(torch.randn(4, 3, 64, 64))
    (output.embedding[:, :64].sum() + output.coordinates.square().sum()).backward()
    # A bias before a BatchNorm has no effect, so its gradient is almost zero.
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without in ([], ["embedding_head.bias"])


@pytest.mark.parametrize(("setting", "message"), [({"dim": 1}, "dim: expected 2"), ({"image_size": 31}, "image_size")])
def test_settings_that_make_no_network_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**setting)  # type: ignore[arg-type]


class Maps(NamedTuple):
    """A batch of images."""

    images: torch.Tensor
    first_stage: int = 0


def test_standardising_changes_what_the_hidden_layer_reads_and_not_what_the_network_says() -> None:
    network = small(embedding_hidden=8, dim=16)
    batches = [Maps(torch.randn(6, 3, 64, 64) + shift) for shift in range(3)]
    for _ in range(2):  # the second time, features have been standardised before
        with torch.no_grad():
            before = network(batches[0].images)
        network.standardise(batches)
        with torch.no_grad():
            after = network(batches[0].images)
            features = torch.cat([network.features(each.images).flatten(1) for each in batches])
            read = network.embedding_head[0](features)  # type: ignore[index]
        torch.testing.assert_close(after.embedding, before.embedding, atol=1e-4, rtol=0)
        torch.testing.assert_close(read.mean(dim=0), torch.zeros(read.shape[1]), atol=1e-4, rtol=0)
        variance = features.var(dim=0)
        expected = (variance / (variance + 0.5**2 * variance.mean())).sqrt()
        torch.testing.assert_close(read.std(dim=0), expected, atol=1e-4, rtol=1e-3)
        batches = [Maps(each.images * 2) for each in batches]
