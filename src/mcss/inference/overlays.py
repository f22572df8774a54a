"""Draw predicted skeletons over images and videos, with a front view of the pose beside them."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.files import replacing
from mcss.images import Image, read_image, write_image
from mcss.inference.pose_sequence import PoseSequence
from mcss.video.reading.container import load_av
from mcss.video.reading.decoding import images
from mcss.video.reading.display import BT709, STUDIO_RANGE
from mcss.viz.skeleton import draw_skeleton, front_view

HEIGHT = 720
"""Largest height of an overlay in pixels."""

FAINT = 0.35
"""Opacity of a skeleton in an image whose heading is uncertain: it may face the other way."""

_PAPER, _INK = (246, 245, 242), (40, 44, 52)
_REACH_MM = 1150.0
"""Distance from the middle of the drawn skeleton to the border of its panel."""


def pose_panel(pose: Float[np.ndarray, "17 3"], size: int, lines: list[str]) -> UInt8[np.ndarray, "size size 3"]:
    """Draw a pose (mm, +Z up, seen from its -Y) on a light background, with some lines of text."""
    image = np.full((size, size, 3), _PAPER, np.uint8)
    flat, _ = front_view(pose.astype(float) - (pose.min(axis=0) + pose.max(axis=0)) / 2)
    draw_skeleton(image, 0.5 + flat / (2 * _REACH_MM))
    for number, text in enumerate(lines):
        corner = (8, 18 + 18 * number)
        cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return image


def overlay(image: Image, sequence: PoseSequence, i: int, height: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """Draw the skeleton of image `i` of a sequence over it, and the pose from the front beside it."""
    scale = height / image.shape[0]
    width = max(2, round(image.shape[1] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left = np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)
    x0, y0, x1, y1 = (round(float(value) * scale) for value in sequence.poses.crop_boxes[i])
    colour = (255, 255, 255) if sequence.found[i] else (160, 160, 160)
    cv2.rectangle(left, (x0, y0), (x1, y1), colour, 1, cv2.LINE_AA)
    for box in sequence.others:
        x, y, w, h = (round(value * scale) for value in box)
        cv2.rectangle(left, (x, y), (x + w, y + h), (160, 160, 160), 1, cv2.LINE_AA)
    orientation = sequence.poses.orientation
    if orientation is not None:
        joints = sequence.poses.take(np.array([i])).in_image()[0] * scale
        _draw_in_image(left, joints, 1.0 if orientation.sure[i] else FAINT)
    side = min(height, 480)
    right = np.full((height, side, 3), _PAPER, np.uint8)
    top = (height - side) // 2
    right[top : top + side] = pose_panel(sequence.poses.pose[i], side, _panel_text(sequence, i))
    both = np.concatenate([left, right], axis=1)
    return np.ascontiguousarray(both[: height // 2 * 2, : both.shape[1] // 2 * 2])  # codecs require even sides


def _panel_text(sequence: PoseSequence, i: int) -> list[str]:
    lines = [f"{sequence.time[i]:.2f} s"] if len(sequence) > 1 else []
    if sequence.poses.error is not None:
        lines.append(f"expected error {sequence.poses.error[i]:.0f} mm")
    if (orientation := sequence.poses.orientation) is not None:
        heading = f"turned {orientation.heading[i]:+.0f} deg from the camera"
        lines.append(heading if orientation.sure[i] else "heading uncertain")
    if not sequence.found[i]:
        lines.append("person not found: " + ("crop interpolated" if len(sequence) > 1 else "whole image used"))
    return lines


def _draw_in_image(image: Image, joints: Float[np.ndarray, "17 2"], opacity: float) -> None:
    """Draw joints, given in pixels, into an image that need not be square."""
    # `draw_skeleton` takes fractions of a square image, so it draws into a copy of the square around the person.
    low = np.floor(np.minimum(joints.min(axis=0), image.shape[1::-1])).astype(int) - 4
    side = int(np.ceil((joints - low).max())) + 8
    x0, y0 = np.clip(low, 0, None)
    x1, y1 = min(low[0] + side, image.shape[1]), min(low[1] + side, image.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    square = np.zeros((side, side, 3), np.uint8)
    inner = np.s_[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
    square[inner] = image[y0:y1, x0:x1]
    _draw_skeleton(square, (joints - low) / side, opacity)
    image[y0:y1, x0:x1] = square[inner]


def _draw_skeleton(image: UInt8[np.ndarray, "side side 3"], at: Float[np.ndarray, "17 2"], opacity: float) -> None:
    """Draw joints, given as fractions of the side, with less than full opacity where they are uncertain."""
    drawn = image.copy()
    draw_skeleton(drawn, at)
    cv2.addWeighted(drawn, opacity, image, 1 - opacity, 0, dst=image)


def write_overlay(sequence: PoseSequence, source: Path, path: Path) -> None:
    """Write an image or video with the skeletons drawn over it.

    Args:
        sequence: The poses predicted from it.
        source: The image or video.
        path: The output: .jpg for an image, .mp4 for a video.
    """
    if path.suffix == ".jpg":
        image = read_image(source)
        write_image(path, overlay(image, sequence, 0, min(HEIGHT, max(image.shape[0], 240))))
        return

    def overlays() -> Iterator[Image]:
        height = 0
        for i, image in enumerate(images(source)):
            if i == len(sequence):
                return
            height = height or min(HEIGHT, image.shape[0]) // 2 * 2
            yield overlay(image, sequence, i, height)

    write_video(path, overlays(), sequence.time)


def write_sequence_overlay(
    sequence: PoseSequence, capture: Capture, instants: Instants, path: Path, size: int = 240
) -> None:
    """Write a video of a fused sequence: the crops of all views with skeletons over them, and the fused pose.

    The cell of a view stays empty where an instant lacks it.
    """
    names = [view for view in sequence.views if view in instants.views]
    empty = np.full((size, size, 3), _PAPER, np.uint8)

    def overlays() -> Iterator[Image]:
        for i in range(len(sequence)):
            cells = []
            for name in names:
                row = instants.rows[i : i + 1, instants.views.index(name)]
                if row[0] < 0:
                    cells.append(empty)
                    continue
                crop = np.ascontiguousarray(capture.decode(row, size)[0])
                view = sequence.views[name].take(np.array([i]))
                if view.orientation is not None:
                    # The fused pose, at the position and with the heading that this view predicts.
                    joints = view.orientation.in_crop(sequence.poses.pose[i : i + 1])[0]
                    _draw_skeleton(crop, joints, 1.0 if view.orientation.sure[0] else FAINT)
                cells.append(crop)
            cells.append(pose_panel(sequence.poses.pose[i], size, _panel_text(sequence, i)))
            yield np.concatenate(cells, axis=1)

    write_video(path, overlays(), sequence.time)


def write_video(path: Path, shown: Iterator[Image], times: Float[np.ndarray, " n"]) -> None:
    """Write images, all of one size with even sides, as an H.264 video; each is shown at its time in seconds.

    The file states its colours (BT.709), which players and `mcss.video.reading.display` else guess from its size.
    """
    av = load_av()
    ticks = Fraction(1, 90000)
    rate = Fraction(1 / float(np.median(np.diff(times)))).limit_denominator(1001) if len(times) > 1 else Fraction(1)
    with replacing(path) as temporary, av.open(str(temporary.absolute()), "w", format="mp4") as container:
        stream = None
        for image, time in zip(shown, times, strict=False):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = ticks
                stream.codec_context.colorspace, stream.codec_context.color_range = BT709, STUDIO_RANGE
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=BT709, dst_color_range=STUDIO_RANGE
            )
            frame.pts, frame.time_base = round(float(time) / ticks), ticks
            for packet in stream.encode(frame):
                container.mux(packet)
        if stream is not None:
            for packet in stream.encode(None):
                container.mux(packet)
