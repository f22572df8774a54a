import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcss.images import read_image


def oriented_png(path: Path, pixels: np.ndarray, orientation: int, order: str) -> Path:
    """Write RGBA pixels as a PNG whose EXIF chunk states an orientation, in one of TIFF's byte orders."""
    data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    head = b"II*\0" if order == "<" else b"MM\0*"
    exif = head + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    end = data.index(b"IDAT") - 4
    path.write_bytes(data[:end] + chunk + data[end:])
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_transparent_image_is_turned_and_laid_on_grey(tmp_path: Path, orientation: int, order: str) -> None:
    pixels = np.full((6, 9, 4), 255, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(9) * 20, np.arange(6)[:, None] * 30
    pixels[:2, :3, 3] = 0
    path = oriented_png(tmp_path / "i.png", pixels, orientation, order)
    found = read_image(path)
    opaque = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # turned, without transparency
    assert found.shape == opaque.shape == ((6, 9, 3) if orientation < 5 else (9, 6, 3))
    hidden = (found != opaque).any(axis=2)
    assert hidden.sum() == 6
    assert (found[hidden] == 128).all()
