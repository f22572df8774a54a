"""Any network of timm as a chain of stages: convolutional networks, and transformers whose patches become a map.

A network is split where its parts lie one after the other: a stem, and the groups that timm calls stages, blocks or
layers. Where these do not compute what the whole network computes, the network is a single stage. Between the stages of
a vision transformer its class and register tokens travel in one more row and column of the map, and at the end they are
dropped.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.data.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mcss.errors import WeightsError

PREFIX = "timm/"
"""What the name of a backbone begins with if it is a network of timm."""

_GROUPS = 4
"""Stages into which a long chain of blocks is grouped."""

_MOST_STAGES = 8
"""A body with more parts than this is grouped."""

_BODY = re.compile(r"(layer|stage|block|s)_?\d+")
_BODIES = {"stages", "blocks", "layers", "features"}
_HEAD = {"global_pool", "attn_pool", "head", "head_drop", "head_norm", "fc", "fc_norm", "classifier"}


def create_timm_network(name: str, pretrained: bool) -> nn.Module:
    """Create a network of timm by name, at its usual image size and with its classifier.

    Args:
        name: The name, after `PREFIX`.
        pretrained: With the weights of timm's hub; otherwise random ones.

    Raises:
        WeightsError: timm has no network of that name.
    """
    from timm import create_model, list_models
    from timm.models import is_model

    architecture = name.removeprefix(PREFIX)
    if not is_model(architecture):
        near = get_close_matches(architecture, list_models(), n=3) or ["resnet50", "vit_small_patch14_dinov2"]
        raise WeightsError(
            f"backbone: timm has no network {architecture!r}. Did you mean {' or '.join(PREFIX + n for n in near)}? "
            "`timm.list_models()` lists all."
        )
    net: nn.Module = create_model(architecture, pretrained=pretrained)
    return net


def timm_stages(net: nn.Module, name: str, image_size: int) -> tuple[list[nn.Module], int]:
    """Split a network of timm into stages; returns them and the channels of the last map.

    Args:
        net: The network; it is taken apart.
        name: The backbone's name, for messages.
        image_size: Side of the images in pixels.

    Raises:
        WeightsError: The network does not take images of this size, or gives no map.
    """
    _set_image_size(net, name, image_size)
    training = net.training
    net.eval()
    images = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    whole = _Whole(net)
    try:
        with torch.no_grad():
            expected = whole(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise WeightsError(
            f"{name}: it gives no feature map for images of {image_size} × {image_size} pixels ({reason}). Choose "
            "another --image-size, or another --backbone."
        ) from error
    net.train(training)
    chain = _chain(net)
    if chain is None or not _computes(chain, images, expected):
        chain = [whole]
        _without_head(net)
    elif isinstance(chain[0], _Patches):
        _without_head(net, "blocks", "norm", "rope")
    stem = _Renormalised(net)
    if not stem.as_it_is:
        chain[0] = nn.Sequential(stem, chain[0])
    return chain, int(expected.shape[1])


def _set_image_size(net: Any, name: str, image_size: int) -> None:
    """Resample position embeddings and windows to the image size, where the network has such."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if patch is not None and image_size % patch[0]:
        below = image_size // patch[0] * patch[0]
        fitting = " or ".join(str(size) for size in (below, below + patch[0]) if size)
        raise WeightsError(
            f"{name}: its patches have {patch[0]} pixels, so --image-size must be a multiple of that, got "
            f"{image_size}; choose {fitting}."
        )
    if hasattr(net, "set_input_size"):
        net.set_input_size(img_size=(image_size, image_size))


@torch.no_grad()
def _computes(chain: list[nn.Module], images: Tensor, expected: Tensor) -> bool:
    """Whether a chain of stages computes what it should, with a map between any two of them."""
    training = [stage.training for stage in chain]
    maps = images
    try:
        for stage in chain:
            maps = stage.eval()(maps)
            if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
                return False
    except Exception:  # parts that do not lie one after the other fail in whatever way
        return False
    finally:
        for stage, mode in zip(chain, training, strict=True):
            stage.train(mode)
    return maps.shape == expected.shape and torch.allclose(maps, expected, rtol=1e-3, atol=1e-4)


def _chain(net: nn.Module) -> list[nn.Module] | None:
    """The stages of a network in order, or None for one whose parts are not known to lie one after the other."""
    if hasattr(net, "num_prefix_tokens") and hasattr(net, "_pos_embed") and not getattr(net, "rope_mixed", False):
        return _token_stages(net)
    stem: list[nn.Module] = []
    body: list[nn.Module] = []
    end: list[nn.Module] = []
    for name, child in net.named_children():
        if name in _HEAD:
            break
        if name in _BODIES and isinstance(child, nn.Sequential | nn.ModuleList):
            body += child.children()
        elif _BODY.fullmatch(name):
            body.append(child)
        else:
            (end if body else stem).append(child)
    if not body:
        return None
    stages = [nn.Sequential(*stem), *_grouped(body)] if stem else list(_grouped(body))
    stages[-1] = nn.Sequential(stages[-1], *end) if end else stages[-1]
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        return [_ChannelsLast(stage, first=number == 0) for number, stage in enumerate(stages)]
    return stages


def _grouped(parts: list[nn.Module]) -> Iterator[nn.Module]:
    if len(parts) <= _MOST_STAGES:
        yield from parts
        return
    for number in range(_GROUPS):
        first, stop = (len(parts) * n // _GROUPS for n in (number, number + 1))
        yield nn.Sequential(*parts[first:stop])


class _Whole(nn.Module):
    """A whole network without its head, as one stage."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch _ _ _"]:
        """The last map."""
        maps: Tensor = self.net.forward_features(images)
        if maps.ndim == 3:
            tokens = maps[:, getattr(self.net, "num_prefix_tokens", 0) :]
            side = round(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        return maps.permute(0, 3, 1, 2) if getattr(self.net, "output_fmt", "NCHW") == "NHWC" else maps


class _ChannelsLast(nn.Module):
    """A stage of a network whose maps have their channels last."""

    def __init__(self, stage: nn.Module, first: bool) -> None:
        super().__init__()
        self.stage = stage
        self.first = first

    def forward(self, maps: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """The map of the next stage, channels first."""
        out: Tensor = self.stage(maps if self.first else maps.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


def _token_stages(net: Any) -> list[nn.Module]:
    """A vision transformer as its patch embedding and groups of blocks."""
    prefix, rope = int(net.num_prefix_tokens), getattr(net, "rope", None)
    groups = list(_grouped(list(net.blocks)))
    stages: list[nn.Module] = [_Blocks(group, rope, prefix) for group in groups[:-1]]
    return [_Patches(net, prefix), *stages, _Blocks(groups[-1], rope, prefix, net.norm)]


class _Patches(nn.Module):
    """What a vision transformer does before its blocks: patches, positions, and prefix tokens."""

    def __init__(self, net: Any, prefix: int) -> None:
        super().__init__()
        self.net: Any = net
        self.prefix = prefix

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch _ _ _"]:
        """The map before the first block."""
        tokens = self.net._pos_embed(self.net.patch_embed(images))
        tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        for name in ("patch_drop", "norm_pre"):
            if (part := getattr(self.net, name, None)) is not None:
                tokens = part(tokens)
        return _as_map(tokens, self.prefix)


class _Blocks(nn.Module):
    """Some blocks of a transformer on a map with prefix tokens; the last ones also end it."""

    def __init__(self, blocks: nn.Module, rope: Any, prefix: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = blocks if isinstance(blocks, nn.Sequential) else nn.Sequential(blocks)
        self.rope = rope
        self.norm = norm
        self.prefix = prefix

    def forward(self, maps: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch channels _ _"]:
        """The map after the blocks; after the last ones without the prefix tokens."""
        tokens, side = _as_tokens(maps, self.prefix)
        where: dict[str, Tensor] = {}
        if self.rope is not None:  # positions turn queries and keys in every block
            fixed = hasattr(self.rope, "feat_shape")
            where["rope"] = self.rope.get_embed() if fixed else self.rope.get_embed(shape=(side, side))
        for block in self.blocks:
            tokens = block(tokens, **where)
        if self.norm is None:
            return _as_map(tokens, self.prefix)
        return _as_map(self.norm(tokens)[:, self.prefix :], 0)


def _as_map(tokens: Float[Tensor, "batch _ channels"], prefix: int) -> Float[Tensor, "batch channels side side"]:
    """Tokens as a map: patches in their places, prefix tokens in one more row, with one more column to be square."""
    patches = tokens[:, prefix:].transpose(1, 2)
    side = round(patches.shape[2] ** 0.5)
    maps = patches.reshape(*patches.shape[:2], side, side)
    if not prefix:
        return maps
    row = nn.functional.pad(tokens[:, :prefix].transpose(1, 2), (0, side + 1 - prefix))[:, :, None]
    return torch.cat([nn.functional.pad(maps, (0, 1)), row], dim=2)


def _as_tokens(maps: Float[Tensor, "batch channels side side"], prefix: int) -> tuple[Tensor, int]:
    """The tokens of a map, and the side of the map of patches."""
    side = maps.shape[-1] - (1 if prefix else 0)
    patches = maps[:, :, :side, :side].flatten(2).transpose(1, 2)
    if not prefix:
        return patches, side
    return torch.cat([maps[:, :, side, :prefix].transpose(1, 2), patches], dim=1), side


class _Renormalised(nn.Module):
    """Images normalised as the network expects it, from the package's normalisation."""

    factor: Tensor
    shift: Tensor

    def __init__(self, net: Any) -> None:
        super().__init__()
        config = getattr(net, "pretrained_cfg", None) or {}
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        own_mean = torch.tensor(config.get("mean") or IMAGENET_MEAN)
        own_std = torch.tensor(config.get("std") or IMAGENET_STD)
        self.register_buffer("factor", (std / own_std).reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).reshape(3, 1, 1), persistent=False)

    @property
    def as_it_is(self) -> bool:
        """Whether the network expects the package's normalisation."""
        return bool(
            torch.allclose(self.factor, torch.ones(1)) and torch.allclose(self.shift, torch.zeros(1), atol=1e-6)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """The images as the network expects them."""
        return images * self.factor + self.shift


def _without_head(net: Any, *names: str) -> None:
    """Remove the classifier, and parts that have become stages, from a network of which the rest is used."""
    for name in (*_HEAD, *names):
        if isinstance(getattr(net, name, None), nn.Module):
            setattr(net, name, nn.Identity())
