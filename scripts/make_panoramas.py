"""Make the panoramas that ship with mcss from the npm package that they come from.

    npm pack @pmndrs/assets@1.7.0 && tar xf pmndrs-assets-1.7.0.tgz
    python -m pip install OpenEXR
    python scripts/make_panoramas.py package/hdri

The package (CC0) holds 512×256 OpenEXR images as base64 in JavaScript files. Each becomes a JPEG of some 40 KB in
``src/mcss/sources/synthetic/assets``, with equalised exposure, repaired overflows around suns, and light encoded by
`stage.encode_light`.
"""

import argparse
import base64
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np

from mcss.images import encode_jpeg
from mcss.sources.synthetic.stage import ASSETS, MAX_LIGHT, PANORAMAS, encode_light


def read_exr(script: Path) -> np.ndarray:
    """Read the image inside one of the package's JavaScript files as linear RGB."""
    import OpenEXR

    found = re.search(r"base64,([A-Za-z0-9+/=]+)", script.read_text())
    if found is None:
        raise ValueError(f"{script}: expected a base64 image, came none; is it @pmndrs/assets 1.7.0?")
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(found[1]))
        file.flush()
        pixels = OpenEXR.File(file.name).channels()["RGB"].pixels
    return pixels[..., :3].astype(np.float32)


def mended(light: np.ndarray) -> np.ndarray:
    """Repair the overflows around a sun, and make the image as bright as all other panoramas."""
    broken = ((light < -0.5) | (light > 200) | ~np.isfinite(light)).any(axis=-1)
    light = np.nan_to_num(light).clip(0, 200)
    light[cv2.dilate(broken.astype(np.uint8), np.ones((3, 3))) > 0] = 40.0
    brightness = light.mean(axis=-1)
    light *= 0.35 / (np.median(brightness) + 0.3 * brightness.clip(0, 4).mean())
    return light.clip(0, MAX_LIGHT)


def main() -> None:
    """Convert all panoramas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="package/hdri of the unpacked npm package")
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in PANORAMAS:
        coded = encode_light(mended(read_exr(options.folder / f"{name}.exr.js")))
        (options.out / f"panorama_{name}.jpg").write_bytes(encode_jpeg(coded, 93, colour_in_full=True))


if __name__ == "__main__":
    main()
