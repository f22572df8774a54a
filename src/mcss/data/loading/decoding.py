"""Who decodes the images of a capture: the processors, or a GPU where the processors are too few to feed it."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from mcss.data.capture import Capture
from mcss.processes import processors

ENOUGH_PROCESSORS = 4
"""Processors that feed one card; with fewer, the card decodes its images itself. One of them reads and decodes about
2,000 images of 256 pixels a second (docs/human36m.md), and they have other work, too."""

_ALIKE = 2.0
"""Mean difference of two decoders' pixels, in levels of 256, below which they decode the same image: they round
differently."""


@runtime_checkable
class Decoder(Protocol):
    """Reads and decodes images of a capture."""

    @property
    def name(self) -> str:
        """What sets its pixels apart from another's."""

    def decode(self, capture: Capture, rows: Int[np.ndarray, " n"], size: int) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows as RGB in the channels_last memory format, on a device of its own.

        Raises:
            CaptureError: An image is broken; the message names it.
        """


@dataclass(frozen=True)
class ProcessorDecoder:
    """Decodes with OpenCV, several images at a time."""

    threads: int = 2
    name: str = field(default="processors", init=False)

    def decode(self, capture: Capture, rows: Int[np.ndarray, " n"], size: int) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows, scaled to `size` where they have another."""
        return torch.from_numpy(capture.decode(rows, size, self.threads)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class GPUDecoder:
    """Decodes with nvJPEG, whose pixels differ from OpenCV's by a level here and there; images keep their size."""

    device: torch.device
    name: str = field(default="nvjpeg", init=False)

    def decode(self, capture: Capture, rows: Int[np.ndarray, " n"], size: int) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows; those that nvJPEG refuses are left to the processors, as is their error."""
        try:
            return self.decoded(capture, rows)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return ProcessorDecoder(1).decode(capture, rows, size).to(self.device)

    def decoded(self, capture: Capture, rows: Int[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows.

        Raises:
            RuntimeError: nvJPEG is missing or refuses an image.
            ImportError: This torchvision has no decoder; it is deprecated since 0.29.
        """
        from torchvision.io import ImageReadMode, decode_jpeg

        jpegs = [torch.from_numpy(np.frombuffer(jpeg, np.uint8).copy()) for jpeg in capture.images(rows)]
        images = decode_jpeg(jpegs, ImageReadMode.RGB, self.device)
        return torch.stack(images).contiguous(memory_format=torch.channels_last)


def decoder_for(capture: Capture, size: int, device: torch.device) -> Decoder:
    """Return who decodes the images of a run: the GPU where few processors serve it and a trial gives the same images.

    Args:
        capture: Where the images are.
        size: Width and height that are needed.
        device: Where the network is trained.
    """
    if device.type != "cuda" or processors() >= ENOUGH_PROCESSORS * torch.cuda.device_count():
        return ProcessorDecoder()
    return GPUDecoder(device) if decodes_alike(GPUDecoder(device), capture, size) else ProcessorDecoder()


def decodes_alike(decoder: GPUDecoder, capture: Capture, size: int) -> bool:
    """Return whether a GPU decodes a few images of a capture, in the size that is needed, as the processors do."""
    rows = np.arange(min(4, len(capture)))
    try:
        there = decoder.decoded(capture, rows).cpu()
    except (RuntimeError, ImportError):
        return False
    known = ProcessorDecoder(1).decode(capture, rows, size)
    return there.shape == known.shape and float((there.float() - known.float()).abs().mean()) < _ALIKE
