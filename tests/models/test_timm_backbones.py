"""Networks of timm as backbones, with random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm import create_model
from timm.layers import LayerScale
from torch import Tensor, nn

from mcss.data.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mcss.errors import WeightsError
from mcss.models.backbones import build_backbone
from mcss.models.pose_network import NetworkConfig, PoseNetwork

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def as_the_package_gives_them(images: Tensor) -> Tensor:
    return (images - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


@torch.no_grad()
def last_map_of(net: Any, images: Tensor) -> Tensor:
    """What the library itself computes before pooling, from images as the network's own configuration wants them."""
    mean, std = (torch.tensor(net.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    maps: Tensor = net.eval().forward_features((images - mean) / std)
    if maps.ndim == 3:
        rows = [[maps[:, net.num_prefix_tokens + 4 * y + x] for x in range(4)] for y in range(4)]
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return maps


CASES = {"mobilenetv3_small_050": 7, "convnext_atto": 5, "vit_tiny_patch16_224": 5, "hrnet_w18_small": 1}
"""The number of stages; the last one is not a chain of its parts."""


@pytest.mark.parametrize("name", CASES)
def test_a_network_of_timm_computes_what_timm_computes_from_a_file_under_its_own_names(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = create_model(name)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "weights.safetensors")
    backbone = build_backbone(f"timm/{name}", str(tmp_path / "weights.safetensors"), True, image_size=64).eval()
    if hasattr(net, "set_input_size"):
        net.set_input_size(img_size=(64, 64))
    with torch.no_grad():
        maps = backbone(as_the_package_gives_them(IMAGES))
    torch.testing.assert_close(maps, last_map_of(net, IMAGES), rtol=1e-3, atol=1e-4)
    assert (len(backbone.stages), backbone.channels) == (CASES[name], maps.shape[1])
    assert not any("classifier" in key or "head" in key for key in backbone.state_dict())


def test_tokens_that_are_no_patches_travel_between_the_stages_and_are_dropped_at_the_end() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("timm/vit_small_patch14_reg4_dinov2", "random", True, image_size=70).eval()
    for module in backbone.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)  # it begins at 1e-5, so that the blocks change next to nothing
    images = torch.rand(1, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = backbone(images, 0, 2)
        last = backbone(first, 2)
        first[:, ::2, -1, :5] += 1  # the class token and four registers
        other = backbone(first, 2)
        first[:, :, -1, 5:] += 1
        first[:, :, :-1, -1] += 1  # only there to make the map square
        same = backbone(first, 2)
    assert first.shape == (1, 384, 6, 6)
    assert last.shape == (1, 384, 5, 5)
    assert (last - other).abs().max() > 1e-3
    torch.testing.assert_close(other, same)


def test_transformers_with_turned_queries_are_split_as_well() -> None:
    backbone = build_backbone("timm/eva02_tiny_patch14_224", "random", True, image_size=56)
    assert len(backbone.stages) == 5


def test_a_pose_network_stands_on_a_transformer_and_only_its_later_stages_learn() -> None:
    torch.manual_seed(0)
    network = PoseNetwork(NetworkConfig("timm/vit_tiny_patch16_224", image_size=64, dim=8))
    network.backbone.stages[:3].requires_grad_(False)
    with torch.no_grad():
        maps = network.backbone(torch.zeros(2, 3, 64, 64), 0, 3)
    network(maps, 3).coordinates.sum().backward()
    learned = {
        key.split(".")[2]
        for key, value in network.backbone.named_parameters(prefix="backbone")
        if value.grad is not None
    }
    assert learned == {"3", "4"}
    assert network.map_shape(5) == (192, 4)


def test_names_that_are_none_suggest_near_ones() -> None:
    with pytest.raises(WeightsError, match=r"no network 'convnext_ato'\. Did you mean timm/convnext_atto"):
        build_backbone("timm/convnext_ato", "random", True)
    with pytest.raises(
        WeightsError, match=r"or timm/NAME for any network of timm, got 'resnet19'; did you mean resnet18\?"
    ):
        NetworkConfig("resnet19")


def test_images_must_fit_the_patches() -> None:
    with pytest.raises(
        WeightsError, match=r"its patches have 16 pixels, so --image-size must .* got 100; choose 96 or 112"
    ):
        build_backbone("timm/vit_tiny_patch16_224", "random", True, image_size=100)
    with pytest.raises(WeightsError, match=r"no feature map for images of 64 × 64 pixels .* another --image-size"):
        build_backbone("timm/mixer_s32_224", "random", True, image_size=64)
