from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.io import ImageReadMode

import mcss.data.loading.decoding as decoding
from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import AugmentationSettings
from mcss.data.loading.batches import AugmentedPixels
from mcss.data.loading.decoding import GPUDecoder, ProcessorDecoder, decoder_for
from mcss.data.loading.device_augmentation import UnchangedImages
from mcss.data.loading.pixels import DecodedPixels, StreamedPixels
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.images import decode_jpeg

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def on_the_processor(jpegs: list[torch.Tensor], mode: ImageReadMode, device: torch.device) -> list[torch.Tensor]:
    """What nvJPEG does, on a machine without a GPU: colours are a level off."""
    assert (mode, device.type) == (ImageReadMode.RGB, "cuda")
    images = [torch.from_numpy(decode_jpeg(jpeg.numpy().tobytes())).permute(2, 0, 1) for jpeg in jpegs]
    return [image.clamp(max=254) + 1 for image in images]


@pytest.fixture
def few_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "processors", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torchvision.io, "decode_jpeg", on_the_processor)


def test_a_gpu_decodes_where_few_processors_serve_it_and_its_images_are_the_same(
    tiny_capture: Capture, few_processors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoder_for(tiny_capture, 64, CUDA) == GPUDecoder(CUDA)
    assert decoder_for(tiny_capture, 64, CPU) == ProcessorDecoder()
    assert decoder_for(tiny_capture, 48, CUDA) == ProcessorDecoder(), "nvJPEG keeps the size of images"
    monkeypatch.setattr(decoding, "processors", lambda: 4)
    assert decoder_for(tiny_capture, 64, CUDA) == ProcessorDecoder()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert decoder_for(tiny_capture, 64, CUDA) == GPUDecoder(CUDA), "both cards share them"


def test_a_gpu_that_cannot_decode_or_gives_other_images_is_not_asked(
    tiny_capture: Capture, few_processors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dark(*given: object) -> list[torch.Tensor]:
        return [image // 2 for image in on_the_processor(*given)]  # type: ignore[arg-type]

    def lacking(*_: object) -> list[torch.Tensor]:
        raise RuntimeError("torchvision was compiled without nvJPEG support")

    for decode in (dark, lacking):
        monkeypatch.setattr(torchvision.io, "decode_jpeg", decode)
        assert decoder_for(tiny_capture, 64, CUDA) == ProcessorDecoder()


def test_images_of_a_gpu_are_augmented_as_those_of_the_processors(
    tiny_capture: Capture, few_processors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, mirror = np.array([5, 3, 200]), np.zeros(3, bool)
    here = StreamedPixels(tiny_capture)
    there = StreamedPixels(tiny_capture, decoder=GPUDecoder(CUDA))
    for settings in (AugmentationSettings(), AugmentationSettings(low_resolution=0.9, compression=0.9)):
        for on_device in (True, False):
            made = [
                AugmentedPixels(pixels, settings, 32, on_device=on_device).images(
                    rows, np.random.default_rng(0), mirror
                )
                for pixels in (here, there)
            ]
            one, other = (each.pixels if isinstance(each, UnchangedImages) else each for each in made)
            limit = 2.0 if on_device else 0.1  # levels of 256, or what networks take
            assert one.shape == other.shape
            assert (one.float() - other.float()).abs().mean() < limit
    kept = DecodedPixels.decode(tiny_capture, rows, decoder=GPUDecoder(CUDA))
    assert torch.equal(kept.take(rows), there.take(rows))


def test_an_image_that_a_gpu_refuses_is_left_to_the_processors_as_is_its_error(
    tmp_path: Path, few_processors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    part = stick_part(0, 0, instants=3)
    writer.append(part)
    capture = writer.finish()
    asked = []

    def there(images: torch.Tensor, device: torch.device) -> torch.Tensor:
        asked.append(device)
        return images

    def refusing(*_: object) -> list[torch.Tensor]:
        raise RuntimeError("nvjpegDecode failed: 3")

    monkeypatch.setattr(torchvision.io, "decode_jpeg", refusing)
    monkeypatch.setattr(torch.Tensor, "to", there)
    rows = np.arange(3)
    assert torch.equal(GPUDecoder(CUDA).decode(capture, rows, 64), ProcessorDecoder().decode(capture, rows, 64))
    assert asked == [CUDA]
    monkeypatch.setattr(Capture, "images", lambda *_: [b"no JPEG"] * 3)
    with pytest.raises(CaptureError, match="the image of S1/Walking 1"):
        GPUDecoder(CUDA).decode(capture, rows, 64)

    def full(*_: object) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torchvision.io, "decode_jpeg", full)
    with pytest.raises(torch.OutOfMemoryError):
        GPUDecoder(CUDA).decode(capture, rows, 64)
