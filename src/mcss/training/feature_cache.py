"""Feature maps of the frozen stages of a backbone, computed once and kept on disk.

Where the first stages of F are frozen (as in Rhodin et al., ECCV 2018), they compute the same for an image at every
step. Their output is computed for a fixed number of random augmentations of each image and memory-mapped; training then
starts at the first trainable stage, several times as fast.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.loading.augmentation import AugmentationSettings, augment, normalise, source_size
from mcss.data.loading.sampling import generator
from mcss.files import FULL, default_cache, one_at_a_time, reserve, write_json
from mcss.models.backbones import Backbone
from mcss.models.prediction import images_at_a_time
from mcss.processes import keep_freed_memory
from mcss.progress import NO_PROGRESS, Progress

_CHUNK = 64
_FORMAT = 4


@dataclass(frozen=True)
class FrozenStages:
    """Which feature maps are computed of every image."""

    stages: int
    """Backbone stages to go through."""
    size: int
    """Side of the images fed to the backbone."""
    augmentation: AugmentationSettings | None = None
    """None for unchanged images."""
    variants: int = 1
    """Random augmentations of each image; where the augmentation mirrors, the second half of them is mirrored."""

    def is_mirrored(self, variant: int) -> bool:
        """Whether a variant shows the images mirrored."""
        return variant >= self.plain

    @property
    def plain(self) -> int:
        """How many variants are not mirrored; they come first."""
        mirrors = self.augmentation is not None and self.augmentation.mirror > 0
        return self.variants - self.variants // 2 if mirrors else self.variants


@dataclass(frozen=True, eq=False)
class CachedStages:
    """Feature maps of a capture's images, several variants of each, as float16 in a memory-mapped file."""

    maps: np.memmap
    """(images, variants, side, side, channels)"""
    index_of: Int64[np.ndarray, " rows"]
    """Index in `maps` of each row of the capture; -1 for those that are not there."""
    first_stage: int
    """The backbone stage that these maps are fed to."""
    plain: int
    """How many variants are not mirrored; they come first."""

    def images(
        self, rows: Int[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n channels side side"]:
        """Return a random variant of each row, channels_last; a mirrored one of those under `mirror`."""
        if mirror.any():
            variant = rng.integers(np.where(mirror, self.plain, 0), np.where(mirror, self.maps.shape[1], self.plain))
        else:
            variant = rng.integers(self.plain, size=len(rows))
        return torch.from_numpy(self.maps[self.index_of[rows], variant].astype(np.float32)).permute(0, 3, 1, 2)


def cache_stages(
    backbone: Backbone,
    frozen: FrozenStages,
    capture: Capture,
    rows: Int[np.ndarray, "..."],
    folder: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> CachedStages:
    """Compute feature maps of the first stages of `backbone`, or map those that were computed before.

    The computation can be stopped at any moment and resumes where it was; its result depends on the capture, the
    backbone's weights and the arguments alone, so that several runs share it. Maps that were computed before are held
    against their checksums, and those that have been damaged are computed again.

    Args:
        backbone: A backbone in evaluation mode, its BatchNorm statistics fixed.
        frozen: Which maps to compute.
        capture: Where the images are.
        rows: Row numbers such as `Instants.rows`, in an order that the capture's contents determine; -1 (a missing
            view) is skipped.
        folder: Where the maps are kept; `default_cache` by default.
        progress: Notified of every image.
    """
    assert not backbone.training
    keep_freed_memory()
    given, rows = rows.astype(np.int64), np.unique(rows[rows >= 0])
    side, channels = _shape(backbone, frozen)
    key = {
        "format": _FORMAT,
        "capture": capture.fingerprint,
        # In the given order: a fingerprint does not depend on the order in which a capture's parts were written, and
        # the rows of instants say where each of them lies. Another build of a capture has the same rows for other
        # images.
        "rows": hashlib.sha256(given.tobytes()).hexdigest(),
        "weights": _digest(backbone, frozen.stages),
        "size": frozen.size,
        "variants": frozen.variants,
        "augmentation": None if frozen.augmentation is None else asdict(frozen.augmentation),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    folder = folder or default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    data, shape = folder / f"{name}.f16", (len(rows), frozen.variants, side, side, channels)
    with one_at_a_time(folder / f"{name}.lock"):  # or two would fill one file, and the first to end read it half full
        _fill(data, shape, key, backbone, frozen, capture, rows, progress)
    index_of = np.full(len(capture), -1, np.int64)
    index_of[rows] = np.arange(len(rows))
    return CachedStages(np.memmap(data, np.float16, "r", shape=shape), index_of, frozen.stages, frozen.plain)


def _fill(
    data: Path,
    shape: tuple[int, int, int, int, int],
    key: dict[str, Any],
    backbone: Backbone,
    frozen: FrozenStages,
    capture: Capture,
    rows: Int64[np.ndarray, " n"],
    progress: Progress,
) -> None:
    """Compute what is missing of the maps of some rows in the file `data`, and what is damaged anew."""
    state = data.with_suffix(".json")
    is_whole = data.exists() and data.stat().st_size == _bytes(shape)
    starts = range(0, len(rows), _CHUNK)
    none: list[int | None] = [None] * len(starts)
    sums = _read_sums(state, key, len(starts)) if is_whole else none
    if not is_whole:
        _reserve(data, shape)
    maps = np.memmap(data, np.float16, "r+", shape=shape)

    def fill(start: int) -> int:
        """Compute the maps of one chunk."""
        chunk = rows[start : start + _CHUNK]
        for variant, computed in enumerate(_chunk_maps(backbone, frozen, capture, chunk, start)):
            maps[start : start + len(chunk), variant] = computed
        return start

    def checksum(start: int) -> int:
        return zlib.crc32(maps[start : start + _CHUNK].data)

    threads = torch.get_num_threads()
    # A chunk a thread is twice as fast as all threads on one chunk: a backbone's layers are too small to share out.
    with ThreadPoolExecutor(threads, "stages", torch.set_num_threads, (1,)) as pool:
        try:
            present = [start for start, known in zip(starts, sums, strict=True) if known is not None]
            with progress.task("Checking cached stages", len(present)) as task:
                for start, found in zip(present, pool.map(checksum, present), strict=True):
                    if found != sums[start // _CHUNK]:
                        sums[start // _CHUNK] = None
                    task.advance()
            missing = [start for start, known in zip(starts, sums, strict=True) if known is None]
            if missing:
                images = {start: min(_CHUNK, len(rows) - start) for start in starts}
                done = len(rows) - sum(images[start] for start in missing)
                with progress.task(
                    "Caching frozen stages", len(rows) * frozen.variants, done * frozen.variants
                ) as task:
                    for start in pool.map(fill, missing):
                        maps.flush()
                        sums[start // _CHUNK] = checksum(start)
                        write_json(state, {"of": key, "sums": sums})
                        task.advance(images[start] * frozen.variants)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(threads)  # a thread's setting applies in part to all threads


def _chunk_maps(
    backbone: Backbone, frozen: FrozenStages, capture: Capture, rows: Int[np.ndarray, " n"], start: int
) -> Iterator[Float16[np.ndarray, "n side side channels"]]:
    """Yield the maps of each variant of some rows; `start` is the position of the first among all rows."""
    settings, device = frozen.augmentation, next(backbone.parameters()).device
    kept = frozen.size if settings is None else source_size(capture.info.image_size, frozen.size)
    pixels = torch.from_numpy(capture.decode(rows, kept, threads=1)).permute(0, 3, 1, 2)
    for variant in range(frozen.variants):
        rng = generator(variant, "cached stages", start)
        if settings is None:
            images = normalise(pixels)
        else:
            images = augment(pixels, settings, rng, frozen.size, np.full(len(pixels), frozen.is_mirrored(variant)))
        with torch.inference_mode():
            few = images_at_a_time(frozen.size, device)
            parts = [backbone(part.to(device), 0, frozen.stages).half().cpu() for part in torch.split(images, few)]
        maps = torch.cat(parts)
        yield maps.permute(0, 2, 3, 1).numpy()


def _shape(backbone: Backbone, frozen: FrozenStages) -> tuple[int, int]:
    """Return side and channels of the maps."""
    image = torch.zeros(1, 3, frozen.size, frozen.size, device=next(backbone.parameters()).device)
    with torch.inference_mode():
        shape = backbone(image, 0, frozen.stages).shape
    return int(shape[-1]), int(shape[1])


def _digest(backbone: Backbone, stages: int) -> str:
    digest = hashlib.sha256()
    for key, value in backbone.stages[:stages].state_dict().items():
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * 2


def _read_sums(path: Path, key: dict[str, Any], count: int) -> list[int | None]:
    """Read the checksum of each chunk; None for those that are not computed yet, and for all if the file is damaged."""
    try:
        state = json.loads(path.read_bytes())
        sums = state["sums"] if state["of"] == key else []
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        sums = []
    valid = isinstance(sums, list) and len(sums) == count and all(type(one) is int or one is None for one in sums)
    return sums if valid else [None] * count


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Allocate all of the disk space at once, so that a full disk is an error before the work and not within it."""
    size = _bytes(shape)
    try:
        path.unlink(missing_ok=True)  # another run may be reading it
        reserve(path, size)
    except OSError as error:
        if error.errno in FULL:
            what = f"{size / 1e6:,.0f} MB for the maps of the frozen stages do not fit on the disk of {path.parent}"
            way_out = "Make room, set MCSS_CACHE to another folder, or use fewer --variants"
        else:
            what = f"the maps of the frozen stages cannot be kept in {path.parent}"
            way_out = "Gain access, or set MCSS_CACHE to another folder"
        raise OSError(error.errno, f"cache: {what} ({error.strerror}). {way_out}") from error
