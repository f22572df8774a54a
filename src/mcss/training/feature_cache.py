"""What the frozen stages of a backbone make of the images, computed once and kept on disk.

Where the first stages of F stay as they are (as in Rhodin et al., ECCV 2018), an image's way through them is the
same at every step. It is computed for a fixed number of random augmentations of each image and mapped into memory;
training then starts at the first trainable stage, several times as fast.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from mcss.data.augmentation import AugmentationSettings, augment, normalise, source_size
from mcss.data.capture import Capture
from mcss.data.sampling import generator
from mcss.files import write_json
from mcss.models.backbones import Backbone
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.memory import keep_freed_memory

_CHUNK = 64
_FORMAT = 2


def default_cache() -> Path:
    """``$MCSS_CACHE``, or ``mcss`` in the user's cache folder."""
    if own := os.environ.get("MCSS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mcss"


@dataclass(frozen=True, eq=False)
class CachedStages:
    """Feature maps of a capture's images, several variants of each, as float16 in a file that is mapped."""

    maps: np.memmap
    """(images, variants, side, side, channels)"""
    place: Int64[np.ndarray, " rows"]
    """Where each row of the capture stands in `maps`; -1 if it is not there."""
    first_stage: int
    """The stage of the backbone that these maps are fed to."""

    def images(
        self, rows: Int[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n channels side side"]:
        """A random variant of each row, channels_last."""
        assert not mirror.any(), "TrainSettings refuses mirroring with cached stages"
        variant = rng.integers(self.maps.shape[1], size=len(rows))
        return torch.from_numpy(self.maps[self.place[rows], variant].astype(np.float32)).permute(0, 3, 1, 2)


def cache_stages(
    backbone: Backbone,
    stages: int,
    capture: Capture,
    rows: Int[np.ndarray, "..."],
    size: int,
    augmentation: AugmentationSettings | None,
    variants: int,
    folder: Path,
    progress: Progress = NO_PROGRESS,
) -> CachedStages:
    """Feature maps after the first `stages` of `backbone`, from `folder` if they were computed before.

    The computation can be stopped at any moment and goes on where it was; its result depends on the capture, the
    backbone's weights and the settings alone, so that several runs share it.

    Args:
        backbone: In evaluation mode, its BatchNorm statistics fixed.
        stages: How many of its stages to go through.
        capture: Where the images are.
        rows: Row numbers such as `Instants.rows`, in an order that the capture's contents give; -1 (a missing view) is
            passed over.
        size: Side of the images fed to the backbone.
        augmentation: Of every variant; None for the images as they are.
        variants: Random augmentations of each image.
        folder: Where the maps are kept, see `default_cache`.
        progress: Told of every image.
    """
    assert not backbone.training
    keep_freed_memory()
    asked, rows = rows.astype(np.int64), np.unique(rows[rows >= 0])
    side, channels = _shape(backbone, stages, size)
    about = {
        "format": _FORMAT,
        "capture": capture.fingerprint,
        # As they were asked for: a fingerprint does not know in what order a capture's parts were written, and the rows
        # of instants tell where each of them lies. Another build of a capture has the same rows for other images.
        "rows": hashlib.sha256(asked.tobytes()).hexdigest(),
        "weights": _digest(backbone, stages),
        "size": size,
        "variants": variants,
        "augmentation": None if augmentation is None else asdict(augmentation),
    }
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    data, state = folder / f"{name}.f16", folder / f"{name}.json"
    shape = (len(rows), variants, side, side, channels)
    done = json.loads(state.read_text())["done"] if state.exists() and data.exists() else 0
    _reserve(data, shape)
    maps = np.memmap(data, np.float16, "r+", shape=shape)
    device = next(backbone.parameters()).device

    def fill(start: int) -> int:
        """Compute the maps of one chunk; returns where the next begins."""
        chunk = rows[start : start + _CHUNK]
        kept = size if augmentation is None else source_size(capture.info.image_size, size)
        pixels = torch.from_numpy(capture.decode(chunk, kept, threads=1)).permute(0, 3, 1, 2)
        for variant in range(variants):
            rng = generator(variant, "cached stages", start)
            images = normalise(pixels) if augmentation is None else augment(pixels, augmentation, rng, size)
            with torch.inference_mode():
                found = backbone(images.to(device), 0, stages).half().cpu()
            maps[start : start + len(chunk), variant] = found.permute(0, 2, 3, 1).numpy()
        return start + len(chunk)

    if done < len(rows):
        threads = torch.get_num_threads()
        # A chunk a thread is twice as fast as all threads on one chunk: a backbone's layers are too small to share out.
        with (
            progress.task("Caching frozen stages", len(rows) * variants, done * variants) as task,
            ThreadPoolExecutor(threads, "stages", torch.set_num_threads, (1,)) as pool,
        ):
            try:
                for stop in pool.map(fill, range(done, len(rows), _CHUNK)):
                    maps.flush()
                    write_json(state, {**about, "done": stop})
                    task.advance((stop - done) * variants)
                    done = stop
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                torch.set_num_threads(threads)  # what a thread sets is in part set for all
    place = np.full(len(capture), -1, np.int64)
    place[rows] = np.arange(len(rows))
    return CachedStages(np.memmap(data, np.float16, "r", shape=shape), place, stages)


def _shape(backbone: Backbone, stages: int, size: int) -> tuple[int, int]:
    with torch.inference_mode():
        found = backbone(torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device), 0, stages)
    return int(found.shape[-1]), int(found.shape[1])


def _digest(backbone: Backbone, stages: int) -> str:
    digest = hashlib.sha256()
    for key, value in backbone.stages[:stages].state_dict().items():
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Take the whole of the disk space at once, so that a full disk is met before the work and not within it."""
    size = int(np.prod(shape)) * 2
    if path.exists() and path.stat().st_size == size:
        return
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS, Windows
                file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"cache: {size / 1e9:.1f} GB for the maps of the frozen stages do not fit on the disk of {path.parent} "
            f"({error.strerror}). Make room, set MCSS_CACHE to another folder, or use fewer --variants",
        ) from error
