"""Images and videos with the predicted skeleton over the person, and from the front beside it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mcss.data.capture import Capture
from mcss.data.contact_sheet import draw_skeleton
from mcss.data.instants import Instants
from mcss.files import replacing
from mcss.images import Image, read_image, write_image
from mcss.inference.pose_sequence import Take
from mcss.video.decoding import images, load_av
from mcss.viz.figures import front_view

HEIGHT = 720
"""Most pixels that an overlay is high."""

_PAPER, _INK = (246, 245, 242), (40, 44, 52)
_REACH_MM = 1150.0
"""From the middle of the drawn skeleton to the border of its panel."""


def panel(pose: Float[np.ndarray, "17 3"], size: int, lines: list[str]) -> UInt8[np.ndarray, "size size 3"]:
    """A pose (mm, +Z up, seen from its -Y) on paper, with some lines of text."""
    image = np.full((size, size, 3), _PAPER, np.uint8)
    flat, _ = front_view(pose.astype(float) - (pose.min(axis=0) + pose.max(axis=0)) / 2)
    draw_skeleton(image, 0.5 + flat / (2 * _REACH_MM))
    for number, text in enumerate(lines):
        place = (8, 18 + 18 * number)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return image


def drawn(image: Image, take: Take, i: int, height: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """One image of a take with its skeleton over it and beside it."""
    scale = height / image.shape[0]
    width = max(2, round(image.shape[1] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left = np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
    x0, y0, x1, y1 = (round(float(value) * scale) for value in take.poses.crop_boxes[i])
    cv2.rectangle(left, (x0, y0), (x1, y1), (255, 255, 255) if take.found[i] else (160, 160, 160), 1, cv2.LINE_AA)
    one = np.array([i])
    if take.poses.orientation is not None:
        _draw_over(left, take.poses.take(one).in_image()[0] * scale)
    side = min(height, 480)
    right = np.full((height, side, 3), _PAPER, np.uint8)
    top = (height - side) // 2
    right[top : top + side] = panel(take.poses.pose[i], side, _said(take, i))
    both = np.concatenate([left, right], axis=1)
    return np.ascontiguousarray(both[: height // 2 * 2, : both.shape[1] // 2 * 2])  # codecs want even sides


def _said(take: Take, i: int) -> list[str]:
    lines = [f"{take.time[i]:.2f} s"] if len(take) > 1 else []
    if take.poses.error is not None:
        lines.append(f"expected error {take.poses.error[i]:.0f} mm")
    if take.poses.heading is not None:
        lines.append(f"turned {take.poses.heading[i]:+.0f} deg from the camera")
    if not take.found[i]:
        lines.append("person not seen: crop interpolated")
    return lines


def _draw_over(image: Image, joints: Float[np.ndarray, "17 2"]) -> None:
    """Draw joints (pixels) into an image that need not be square."""
    # `draw_skeleton` takes shares of a square image: it is given the square part around the person.
    low = np.floor(np.minimum(joints.min(axis=0), image.shape[1::-1])).astype(int) - 4
    side = int(np.ceil((joints - low).max())) + 8
    x0, y0 = np.clip(low, 0, None)
    x1, y1 = min(low[0] + side, image.shape[1]), min(low[1] + side, image.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    square = np.zeros((side, side, 3), np.uint8)
    inner = np.s_[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
    square[inner] = image[y0:y1, x0:x1]
    draw_skeleton(square, (joints - low) / side)
    image[y0:y1, x0:x1] = square[inner]


def write_overlay(take: Take, source: Path, path: Path) -> None:
    """Write the image or video `source`, of which a take was made, with the skeletons.

    Args:
        take: The take.
        source: The file.
        path: .jpg for an image, .mp4 for a video.
    """
    if path.suffix == ".jpg":
        image = read_image(source)
        write_image(path, drawn(image, take, 0, min(HEIGHT, max(image.shape[0], 240))))
        return

    def frames() -> Iterator[Image]:
        height = 0
        for i, image in enumerate(images(source)):
            if i == len(take):
                return
            height = height or min(HEIGHT, image.shape[0]) // 2 * 2
            yield drawn(image, take, i, height)

    write_video(path, frames(), take.time)


def write_sequence_overlay(take: Take, capture: Capture, instants: Instants, path: Path, size: int = 240) -> None:
    """Write a video of a fused take: the crops of all views with the skeletons over them, the fused pose beside."""
    names = [view for view in take.views if view in instants.views]

    def frames() -> Iterator[Image]:
        for i in range(len(take)):
            cells = []
            for name in names:
                row = instants.rows[i : i + 1, instants.views.index(name)]
                crop = np.ascontiguousarray(capture.decode(row, size)[0])
                poses = take.views[name].take(np.array([i]))
                if poses.orientation is not None:
                    # The view's own place and heading, with the pose that all views agree on.
                    draw_skeleton(crop, poses.orientation.in_crop(take.poses.pose[i : i + 1])[0])
                cells.append(crop)
            cells.append(panel(take.poses.pose[i], size, _said(take, i)))
            yield np.concatenate(cells, axis=1)

    write_video(path, frames(), take.time)


def write_video(path: Path, frames: Iterator[Image], times: Float[np.ndarray, " n"]) -> None:
    """Write images of even sides and one size as an H.264 video, each shown at its time in seconds."""
    av = load_av()
    ticks = Fraction(1, 90000)
    rate = Fraction(1 / float(np.median(np.diff(times)))).limit_denominator(1001) if len(times) > 1 else Fraction(1)
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for image, time in zip(frames, times, strict=False):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = ticks
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(float(time) / ticks), ticks
            for packet in stream.encode(frame):
                container.mux(packet)
        if stream is not None:
            for packet in stream.encode(None):
                container.mux(packet)
