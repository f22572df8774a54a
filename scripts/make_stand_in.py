"""Make a capture of the size and shape of Human3.6M from a few images, to try what only the real one's size shows.

    mcss synthetic build captures/few --size 256 --subjects 7 --instants 128 --takes 1 --outfits 1 --no-new-motion
    python scripts/make_stand_in.py captures/few captures/stand_in
    python scripts/make_stand_in.py captures/few captures/tiny --share 0.002

Subjects S1, S5, S6, S7, S8 for training and S9, S11 for testing, thirty sequences of each, four views, poses, cameras,
frame numbers and JPEGs of 256 pixels as `mcss import human36m` makes them: 312,000 training images of every 5th frame
and 8,640 test images of every 64th. The images are those of the given capture, moved, lightened and encoded anew a
number of times and then repeated, and their poses are jittered. The errors of a network trained on it mean nothing.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from mcss.data.cameras import Camera
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.data.writer import CaptureWriter
from mcss.images import decode_jpeg, encode_jpeg
from mcss.progress import RichProgress

TRAIN, TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog", "WalkTogether",
)  # fmt: skip
VIEWS = ("54138969", "55011271", "58860488", "60457274")
RATE, STEP = 50.0, {**dict.fromkeys(TRAIN, 5), **dict.fromkeys(TEST, 64)}
INSTANTS = {**dict.fromkeys(TRAIN, 520), **dict.fromkeys(TEST, 36)}
"""Instants of each of the thirty sequences of a subject."""

SIZE = 256
VARIANTS = 4
"""Different versions of every image of the given capture."""


def changed_jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """Return an image moved by a few pixels and a little lighter or darker, as JPEG."""
    move = np.array([[1.0, 0, rng.uniform(-8, 8)], [0, 1.0, rng.uniform(-8, 8)]])
    moved = cv2.warpAffine(image, move, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    return encode_jpeg((moved * rng.uniform(0.85, 1.15)).clip(0, 255).astype(np.uint8), 90)


def people(source: Capture) -> list[Instants]:
    """Return the complete instants of each person of the given capture."""
    instants = source.instants()
    complete = instants.take((instants.rows >= 0).all(axis=1) & instants.heading_valid)
    if complete.rows.shape[1] < len(VIEWS):
        raise SystemExit(f"{source.uri}: expected {len(VIEWS)} views or more, got {complete.rows.shape[1]}")
    return [complete.take(complete.subject == index) for index in np.unique(complete.subject)]


def make(source: Capture, out: str, share: float, backgrounds: bool) -> Capture:
    """Write the capture; a stopped call continues."""
    info = CaptureInfo(
        importer="stand-in for human36m",
        licence="CC0-1.0",
        image_size=SIZE,
        splits={"train": (Selector(subjects=TRAIN),), "test": (Selector(subjects=TEST),)},
        settings={"source": source.fingerprint, "share": share},
    )
    writer, everybody = CaptureWriter.open(out, info=info), people(source)
    parts = list(itertools.product(TRAIN + TEST, ACTIONS, ("", " 1")))
    with RichProgress().task("Writing sequences", len(parts)) as task:
        for number, subject in enumerate(TRAIN + TEST):
            actor = everybody[number % len(everybody)]
            rng = np.random.default_rng(number)
            rows = actor.rows[:, : len(VIEWS)]
            pixels = [[decode_jpeg(image) for image in source.images(row)] for row in rows]
            images = [
                [[changed_jpeg(cv2.resize(image, (SIZE, SIZE)), rng) for image in views] for _ in range(VARIANTS)]
                for views in pixels
            ]
            cameras, boxes = source.cameras(rows.reshape(-1)), source.boxes(rows.reshape(-1))
            for action, take in itertools.product(ACTIONS, ("", " 1")):
                task.advance()
                if (subject, action + take) in writer.done():
                    continue
                frames = []
                # Neighbouring instants show neighbouring poses, as in footage.
                start, count = int(rng.integers(len(rows))), max(1, round(share * INSTANTS[subject]))
                for index in range(count):
                    shown, variant = (start + index) % len(rows), int(rng.integers(VARIANTS))
                    pose = (actor.pose[shown] + rng.normal(0, 5, (17, 3))).astype(np.float32)
                    for view, name in enumerate(VIEWS):
                        flat = shown * len(VIEWS) + view
                        frame = STEP[subject] * index
                        camera = Camera(cameras.rotation[flat], cameras.translation[flat], cameras.intrinsics[flat])
                        box, image = tuple(map(float, boxes[flat])), images[shown][variant][view]
                        labels = (subject, action + take, action)
                        frames.append(Frame(*labels, frame, frame / RATE, name, image, box, pose, camera))
                writer.append(frames)
                if backgrounds:
                    scenes = {name: source.background(actor.views[view]) for view, name in enumerate(VIEWS)}
                    known = {name: scene for name, scene in scenes.items() if scene is not None}
                    writer.add_backgrounds(known, f"{subject}/{action}{take}")
    return writer.finish(RichProgress())


def main() -> None:
    """Write the capture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a capture of at least four views, such as a synthetic one of 256 pixels")
    parser.add_argument("out", help="folder of the new capture")
    parser.add_argument("--share", type=float, default=1.0, help="share of the instants of each sequence")
    parser.add_argument("--no-backgrounds", action="store_true", help="leave out the images of the empty scene")
    given = parser.parse_args()
    capture = make(Capture.open(given.source), given.out, given.share, not given.no_backgrounds)
    size = sum(path.stat().st_size for path in Path(given.out).rglob("*") if path.is_file())
    for split in capture.splits:
        print(f"{split}: {int((capture.instants(split).rows >= 0).sum()):,} images")
    print(f"{given.out}: {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
