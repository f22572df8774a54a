"""Make the animation at the top of the README: an image, the same moment in the other cameras, the pose turning in 3D.

    mcss synthetic build captures/animation --instants 256
    python scripts/make_animation.py captures/animation docs/images/search.webp

Everybody in it is rendered. The queries are of the last test person, and the images beside them are what the shipped
weights find: of each other camera the image whose embedding is nearest to the query's, in all their sequences. Moments
are shown for which all of them are right, of different actions; how often that is so, no animation can say (README,
docs/search.md).
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.models.model import load
from mcss.search.search import APART
from mcss.skeletons import JOINTS, PARENTS
from mcss.viz.skeleton import bone_colour

SIDE, GAP, TOP = 140, 8, 22
"""Pixels: the side of an image, the space between images, and the height of the captions."""

PAPER, INK, SOFT, GOOD = "#f6f5f2", "#1b1e23", "#626a75", "#0d7f5b"
TURN_FRAMES, MILLISECONDS = 18, 110
TILT = math.radians(10)


def of_last_person(capture: Capture) -> Instants:
    """The instants of the last person of the test split."""
    instants = capture.instants("test")
    return instants.take(instants.subject == instants.subject.max())


def choose(capture: Capture, count: int) -> list[tuple[int, int, Int64[np.ndarray, " views"], np.ndarray]]:
    """Choose moments: instant, view of the query, the instant that is found in each view, and the predicted pose."""
    instants, model = of_last_person(capture), load()
    views = len(instants.views)
    poses = model.predict_rows(capture, instants.rows.ravel())
    embedding = torch.from_numpy(poses.embedding).reshape(len(instants), views, -1)
    predicted = poses.pose.reshape(len(instants), views, len(JOINTS), 3)
    chosen: list[tuple[int, int, Int64[np.ndarray, " views"], np.ndarray]] = []
    seen: set[int] = set()
    for instant in np.random.default_rng(1).permutation(len(instants)).tolist():
        view = len(chosen) % views
        distance = torch.cdist(embedding[instant, view][None], embedding.transpose(0, 1)).squeeze(1)
        found = distance.argmin(dim=1).numpy()
        found[view] = instant
        same = instants.sequence[found] == instants.sequence[instant]
        right = same & (np.abs(instants.time[found] - instants.time[instant]) < APART)
        if right.all() and int(instants.action[instant]) not in seen:
            seen.add(int(instants.action[instant]))
            chosen.append((instant, view, found, predicted[instant, view]))
            if len(chosen) == count:
                return chosen
    raise SystemExit(f"only {len(chosen)} moments are found in all cameras; build a larger capture")


def canvas(views: int) -> Image.Image:
    """An empty picture with captions: the query, the other cameras, the skeleton."""
    width = (views + 1) * (SIDE + GAP) + 3 * GAP
    picture = Image.new("RGB", (width, TOP + SIDE + GAP), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for place, text in ((0, "an image"), (1, "found: the same moment, other cameras"), (views, "its pose in 3D")):
        pen.text((left_of(place, views), 3), text, fill=INK, font=font)
    return picture


def left_of(place: int, views: int) -> int:
    """The left edge of an image; the query, the other cameras and the skeleton stand a little apart."""
    return GAP + place * (SIDE + GAP) + (GAP if place else 0) + (GAP if place == views else 0)


def framed(pixels: UInt8[np.ndarray, "side side 3"], colour: str | None) -> Image.Image:
    """An image at the size of the picture, with a frame."""
    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if colour is not None:
        ImageDraw.Draw(image).rectangle((0, 0, SIDE - 1, SIDE - 1), outline=colour, width=3)
    return image


def skeleton(pose: Float[np.ndarray, "17 3"], turned: float) -> Image.Image:
    """The pose, turned about the vertical, drawn at four times the size and scaled down."""
    large = SIDE * 4
    image = Image.new("RGB", (large, large), "#ffffff")
    pen = ImageDraw.Draw(image)
    x, y, z = (pose - (pose.min(axis=0) + pose.max(axis=0)) / 2).T
    across, depth = math.cos(turned) * x - math.sin(turned) * y, math.sin(turned) * x + math.cos(turned) * y
    up = math.cos(TILT) * z + math.sin(TILT) * depth
    place = large / 2 + np.stack([across, -up], axis=1) * (large / 2100)
    for joint in sorted(range(1, len(JOINTS)), key=lambda j: -(depth[j] + depth[PARENTS[j]])):
        ends = [tuple(place[PARENTS[joint]]), tuple(place[joint])]
        for colour, width in (("#ffffff", 26), (bone_colour(joint), 16)):
            pen.line(ends, fill=colour, width=width)
            for px, py in ends if width == 16 else ():
                pen.ellipse((px - 8, py - 8, px + 8, py + 8), fill=colour)
    hx, hy = place[JOINTS.index("Head")]
    pen.ellipse((hx - 22, hy - 22, hx + 22, hy + 22), fill=bone_colour(0))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def scene(
    capture: Capture, instant: int, view: int, found: Int64[np.ndarray, " views"], pose: np.ndarray
) -> list[tuple[Image.Image, int]]:
    """The pictures of one moment, each with its milliseconds."""
    instants = of_last_person(capture)
    views = len(instants.views)
    rows = instants.rows[found, np.arange(views)]
    pixels = capture.decode(rows, capture.info.image_size)
    order = [view, *(v for v in range(views) if v != view)]
    shown, pictures = canvas(views), []
    for place, v in enumerate(order):
        shown.paste(framed(pixels[v], None if place == 0 else GOOD), (left_of(place, views), TOP))
        pictures.append((shown.copy(), 900 if place == 0 else 260))
    for step in range(TURN_FRAMES):
        turned = shown.copy()
        turned.paste(skeleton(pose, 0.4 + 2 * math.pi * step / TURN_FRAMES), (left_of(views, views), TOP))
        pictures.append((turned, MILLISECONDS))
    return pictures


def main() -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("out", type=Path, help="a .webp or .gif")
    parser.add_argument("--moments", type=int, default=4)
    options = parser.parse_args()
    capture = Capture.open(options.capture)
    pictures = [p for moment in choose(capture, options.moments) for p in scene(capture, *moment)]
    images, durations = zip(*pictures, strict=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(options.out, save_all=True, append_images=images[1:], duration=list(durations), loop=0, quality=80)
    print(f"{options.out}: {len(images)} pictures, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
