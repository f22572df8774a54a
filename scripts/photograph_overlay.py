"""Write some frames of an overlay video of `mcss predict`, side by side, for the documentation.

    python scripts/photograph_overlay.py captures/footage/subject/balancing/cam01.mp4 docs/images/overlay_real.jpg

The video is predicted with the weights shipped with the package, as `mcss predict VIDEO -o FOLDER` does.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from mcss.cli import main as mcss
from mcss.images import encode_jpeg
from mcss.video.reading.decoding import decoded_count, images_at

SHOWN = 4
"""Number of frames, evenly spread."""

HEIGHT = 400
"""Height of each frame in pixels."""


def main() -> None:
    """Predict the video, select frames, and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mcss(["predict", str(options.video), "-o", folder, "--formats", "json"])
        overlay = Path(folder) / f"{options.video.stem}_overlay.mp4"
        count = decoded_count(overlay)
        numbers = np.linspace(0, count - 1, SHOWN + 2).round().astype(np.int64)[1:-1]
        row = np.concatenate(list(images_at(overlay, numbers)), axis=1)
    width = round(row.shape[1] * HEIGHT / row.shape[0])
    smaller = cv2.resize(row, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    options.out.write_bytes(encode_jpeg(np.asarray(smaller, np.uint8), 85))


if __name__ == "__main__":
    main()
