import multiprocessing
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import mcss.data.loading.pixels as pixels_module
from mcss.data.capture import Capture
from mcss.data.loading.pixels import (
    DecodedPixels,
    StreamedPixels,
    image_memory,
    limited_memory,
    pixels_of,
    shared_images,
)


class Talking:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, done: int = 0):  # type: ignore[no-untyped-def]
        yield self

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_images_that_fit_are_decoded_once_and_others_for_every_batch_with_a_line_that_says_so(
    tiny_capture: Capture,
) -> None:
    rows, told = tiny_capture.instants().rows, Talking()
    with limited_memory(0.008):  # 576 images of 64 × 64 × 3 bytes are 7.1 MB
        kept = pixels_of(tiny_capture, rows, progress=told)
    assert isinstance(kept, DecodedPixels)
    assert told.lines == []
    del kept
    with limited_memory(0.007):
        streamed = pixels_of(tiny_capture, rows, progress=told)
        small = pixels_of(tiny_capture, rows, 32, progress=told)
    assert isinstance(streamed, StreamedPixels)
    assert isinstance(small, DecodedPixels)
    assert told.lines == [
        "576 images of 64×64 pixels need 0.0 GB of memory and may take 0.0 (--memory-gb), so every step decodes its "
        "own."
    ]


def test_both_ways_give_the_same_images(tiny_capture: Capture) -> None:
    rows = np.array([5, 3, 200, 3])
    with limited_memory(0.0):
        streamed = pixels_of(tiny_capture, rows, 48)
    kept = pixels_of(tiny_capture, rows, 48)
    assert torch.equal(streamed.take(rows), kept.take(rows))


def test_what_is_kept_already_counts_against_the_limit(tiny_capture: Capture) -> None:
    rows = tiny_capture.instants().rows
    with limited_memory(0.01):
        before = image_memory()
        kept = pixels_of(tiny_capture, rows)
        assert before - image_memory() == 576 * 64 * 64 * 3
        assert isinstance(pixels_of(tiny_capture, rows), StreamedPixels)
        del kept
        assert image_memory() == before


def test_without_a_limit_half_of_the_free_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "available_memory", lambda: 3_000_000)
    assert image_memory() == 1_500_000
    with limited_memory(2.5):
        assert image_memory() == 2_500_000_000
    with pytest.raises(ValueError, match=r"memory_gb: expected 0 \(decode images anew .*\) or more, got -1"):
        limited_memory(-1.0).__enter__()


def _sum_in_another_process(uri: str) -> tuple[int, bool]:
    capture = Capture.open(uri)
    decode = Capture.decode
    decoded: list[int] = []
    Capture.decode = lambda self, *given: decoded.append(1) or decode(self, *given)  # type: ignore[assignment, method-assign, func-returns-value]
    pixels = DecodedPixels.decode(capture, capture.instants().rows)
    return int(pixels.pixels.long().sum()), bool(decoded)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks of this kind")
def test_processes_share_one_copy_that_is_removed_at_the_end(tiny_capture: Capture) -> None:
    own = DecodedPixels.decode(tiny_capture, tiny_capture.instants().rows)
    with shared_images(2), multiprocessing.get_context("spawn").Pool(2) as pool:
        folder = Path(os.environ["MCSS_SHARED_IMAGES"])
        sums = pool.map(_sum_in_another_process, [tiny_capture.uri] * 2, chunksize=1)
        assert [path.stat().st_size for path in folder.glob("*.u8")] == [576 * 64 * 64 * 3]
        here = DecodedPixels.decode(tiny_capture, tiny_capture.instants().rows)
        assert torch.equal(here.pixels, own.pixels)
    assert [total for total, _ in sums] == [int(own.pixels.long().sum())] * 2
    assert sum(decoded for _, decoded in sums) == 1
    assert not folder.exists()
    assert "MCSS_SHARED_IMAGES" not in os.environ


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="other systems look at the free space first")
def test_where_there_is_no_room_to_share_images_they_are_streamed(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setenv("MCSS_SHARED_IMAGES", str(tmp_path))
    told = Talking()
    assert isinstance(pixels_of(tiny_capture, np.arange(3), progress=told), StreamedPixels)
    assert told.lines == [
        f"3 images of 64×64 pixels need 0.0 GB, which {tmp_path} does not have, so every step decodes its own."
    ]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks of this kind")
def test_images_that_a_killed_program_left_are_removed(tmp_path: Path) -> None:
    gone, running = tmp_path / "mcss-images-4194999-x", tmp_path / f"mcss-images-{os.getpid()}-y"
    for folder in (gone, running):
        folder.mkdir()
        (folder / "1.u8").write_bytes(b"pixels")
    pixels_module._remove_leftovers(tmp_path)
    assert not gone.exists()
    assert running.exists()
