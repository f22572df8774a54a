"""Cached feature maps: damage is found when they are opened, and only what was damaged is computed again."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mcss.data.capture import Capture
from mcss.models.backbones import Backbone, build_backbone
from mcss.training import feature_cache
from mcss.training.feature_cache import FrozenStages, cache_stages


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
    assert not list(tmp_path.iterdir())
