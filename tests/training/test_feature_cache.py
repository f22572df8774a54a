"""Cached feature maps: damage is found when they are opened, and only what was damaged is computed again."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mcss.data.capture import Capture
from mcss.data.loading.augmentation import NO_CHANGES, augment
from mcss.methods.mcss import MCSS
from mcss.models.backbones import Backbone, build_backbone
from mcss.training import feature_cache
from mcss.training.feature_cache import FrozenStages, cache_stages
from mcss.training.settings import TrainSettings


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return build_backbone("resnet18", "random", batchnorm_affine=True).eval()


def maps_of(backbone: Backbone, capture: Capture, folder: Path) -> np.ndarray:
    rows = capture.instants("test").rows
    return np.array(cache_stages(backbone, FrozenStages(2, 32), capture, rows, folder).maps)


def files(folder: Path) -> tuple[Path, Path]:
    (data,), (state,) = folder.glob("*.f16"), folder.glob("*.json")
    return data, state


@pytest.mark.parametrize(
    "damage", ["cut", "longer", "zeroed", "state cut", "state deep", "state of others", "no state"]
)
def test_a_damaged_cache_is_found_and_mended(
    damage: str, backbone: Backbone, tiny_capture: Capture, tmp_path: Path
) -> None:
    expected = maps_of(backbone, tiny_capture, tmp_path)
    data, state = files(tmp_path)
    whole = data.read_bytes()
    match damage:
        case "cut":
            data.write_bytes(whole[:-1])
        case "longer":
            data.write_bytes(whole + b"x")
        case "zeroed":
            data.write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
        case "state cut":
            state.write_bytes(state.read_bytes()[:-20])
        case "state deep":
            state.write_text("[" * 100_000)
        case "state of others":
            state.write_text(json.dumps({"of": {}, "sums": [0] * 100}))
        case "no state":
            state.unlink()
    np.testing.assert_array_equal(maps_of(backbone, tiny_capture, tmp_path), expected)
    assert data.read_bytes() == whole


def test_only_the_damaged_part_is_computed_again(
    backbone: Backbone, tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "_CHUNK", 8)
    expected = maps_of(backbone, tiny_capture, tmp_path)
    begun: list[int] = []
    compute = feature_cache._chunk_maps
    monkeypatch.setattr(feature_cache, "_chunk_maps", lambda *args: begun.append(args[-1]) or compute(*args))
    maps_of(backbone, tiny_capture, tmp_path)
    assert begun == []
    data, _ = files(tmp_path)
    chunk = expected[:8].nbytes
    with data.open("r+b") as file:
        file.seek(2 * chunk + 5)
        file.write(b"damage")
    np.testing.assert_array_equal(maps_of(backbone, tiny_capture, tmp_path), expected)
    assert begun == [16]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"cache: \d+ MB for the maps of the frozen stages do not fit on the disk of .* Make room"),
        (errno.EROFS, r"cache: the maps of the frozen stages cannot be kept in .* Gain access, or set MCSS_CACHE"),
    ],
)
def test_what_keeps_the_cache_from_being_written_is_named(
    number: int, message: str, backbone: Backbone, tiny_capture: Capture, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    with pytest.raises(OSError, match=message):
        maps_of(backbone, tiny_capture, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_the_second_half_of_the_variants_is_mirrored_and_drawn_for_mirrored_instants(
    backbone: Backbone, tiny_capture: Capture, tmp_path: Path
) -> None:
    rows = tiny_capture.instants("test").rows[:3, 0]
    frozen = FrozenStages(1, 32, replace(NO_CHANGES, mirror=0.5), variants=3)
    cached = cache_stages(backbone, frozen, tiny_capture, rows, tmp_path)
    assert cached.plain == 2
    pixels = torch.from_numpy(tiny_capture.decode(rows, 48)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        plain, mirrored = (
            backbone(augment(pixels, NO_CHANGES, np.random.default_rng(0), 32, np.full(3, flip)), 0, 1).half().float()
            for flip in (False, True)
        )
    assert not torch.equal(plain, mirrored)
    for seed in range(4):
        drawn = cached.images(rows, np.random.default_rng(seed), np.array([False, True, True]))
        torch.testing.assert_close(drawn, torch.stack([plain[0], mirrored[1], mirrored[2]]), atol=1e-3, rtol=0)


def test_a_single_variant_cannot_be_mirrored_and_plain(tiny_capture: Capture) -> None:
    changes = replace(NO_CHANGES, mirror=0.5)
    with pytest.raises(ValueError, match=r"variants: expected 0, or 2 or more, with mirror = 0\.5, got 1"):
        TrainSettings(tiny_capture.uri, MCSS(), augmentation=changes, frozen_stages=1, variants=1)
