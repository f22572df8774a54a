"""Make the contact sheet of the docs: every subject in all views, at one instant of each of some actions.

mcss synthetic build captures/synthetic
python scripts/make_contact_sheet.py captures/synthetic docs/images/synthetic_contact_sheet.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from mcss.captures import Capture

ACTIONS = (
    "Walking", "Reaching", "Sitting", "Kicking", "Pointing", "Running", "Dancing", "Phoning",
    "Stretching", "Jumping", "Climbing", "Punching", "Crawling", "Spinning", "Waiting", "Getting up",
)  # fmt: skip


def main() -> None:
    """Lay out a row per subject, with two actions each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    capture = Capture.open(options.capture)
    instants = capture.instants()
    rows = []
    for subject in range(len(instants.subjects)):
        chosen = []
        for action in (ACTIONS[(2 * subject) % len(ACTIONS)], ACTIONS[(2 * subject + 1) % len(ACTIONS)]):
            of_action = instants.action == instants.actions.index(action)
            candidates = np.flatnonzero((instants.subject == subject) & of_action)
            chosen.append(candidates[len(candidates) // 3])
        pictures = capture.decode(instants.rows[chosen].reshape(-1), size=128)
        rows.append(np.concatenate(list(pictures), axis=1))
    sheet = np.concatenate(rows, axis=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.out), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise OSError(f"{options.out} could not be written")


if __name__ == "__main__":
    main()
