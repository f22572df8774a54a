"""Contact sheets: a row of images for each instant, with the labelled skeleton where it is known."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.schema import Selector
from mcss.errors import CaptureError
from mcss.skeletons import canonical_pose
from mcss.viz.skeleton import draw_skeleton, front_view

_PAPER, _INK = (246, 245, 242), (40, 44, 52)

_LINE = 16
"""Height of a line of text in pixels."""


def chosen_instants(
    capture: Capture,
    *,
    subjects: Sequence[str] = (),
    actions: Sequence[str] = (),
    split: str | None = None,
) -> Instants:
    """The instants of a split that show some subjects and actions; an empty choice, or no split, stands for all.

    Raises:
        CaptureError: There is no such subject, action or split, or no instant that fits all of the conditions.
    """
    instants = capture.instants(split)
    for what, names, known in (
        ("subject", subjects, instants.present_subjects()),
        ("action", actions, tuple(instants.actions[i] for i in np.unique(instants.action))),
    ):
        for name in names:
            if name not in known:
                raise CaptureError(f"{what}: there is no {name!r} here; there are {', '.join(known)}")
    kept = instants.selected([Selector(subjects=tuple(subjects) or None)])
    if actions:
        kept &= np.isin(instants.action, [instants.actions.index(name) for name in actions])
    if not kept.any():
        raise CaptureError(
            f"subjects {', '.join(subjects)} never do {', '.join(actions)} here; choose fewer conditions"
        )
    return instants.take(kept)


def spread_instants(instants: Instants, count: int) -> Int64[np.ndarray, " picked"]:
    """Pick `count` instants, equally many of each subject, spread over the subject's time.

    Each subject's instants are picked at different points of that time, so that a sheet does not repeat an action.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"instants: expected 1 or more to show, got {count}.")
    present = np.unique(instants.subject)
    shares = [count // len(present) + (i < count % len(present)) for i in range(len(present))]
    picked: list[int] = []
    for number, (subject, share) in enumerate(zip(present, shares, strict=True)):
        of_subject = np.flatnonzero(instants.subject == subject)
        start = 0.5 if len(present) == 1 else (0.5 + number * 0.618) % 1
        positions = [math.floor((i + start) / share * len(of_subject)) for i in range(share)]
        picked += [int(of_subject[position]) for position in dict.fromkeys(positions)]
    return np.array(picked, np.int64)


def contact_sheet(
    capture: Capture, instants: Instants, *, size: int = 128, across: int = 1, plain: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a sheet of RGB pixels: rows are instants, columns are views.

    Labelled joints are drawn into the images of views whose camera is known, and the canonical pose, seen from the
    front, ends the row of an instant that has one. Orange is the person's left, blue the right.

    Args:
        capture: The capture that holds the images.
        instants: The instants to show, in this order.
        size: Side of an image in pixels.
        across: Number of instants beside each other.
        plain: Whether to show images alone, without skeletons and text.

    Raises:
        ValueError: The size is out of range, or there is nothing to show.
    """
    if not 16 <= size <= 1024 or not 1 <= across <= 64:
        raise ValueError(f"size, across: expected 16..1024 pixels and 1..64 instants, got {size} and {across}.")
    if not len(instants):
        raise ValueError("instants: expected at least one to show, got none.")
    posed = np.isfinite(instants.pose).all(axis=(1, 2))
    cells = np.full((len(instants), len(instants.views) + (posed.any() and not plain), size, size, 3), 255, np.uint8)
    cells[:, :, :] = _PAPER
    for view in range(len(instants.views)):
        present = np.flatnonzero(instants.rows[:, view] >= 0)
        rows = instants.rows[present, view]
        cells[present, view] = capture.decode(rows, size)
        if not plain:
            for i, joints in zip(present, capture.joints_in_crops(rows, instants.pose[present]), strict=True):
                draw_skeleton(cells[i, view], joints)
    if not plain:
        for i in np.flatnonzero(posed):
            cells[i, -1] = drawn_pose(instants.pose[i], size)
    blocks = [np.concatenate(list(row), axis=1) for row in cells]
    if not plain:
        blocks = [captioned(block, _caption(capture, instants, i)) for i, block in enumerate(blocks)]
        views = [*instants.views, *(["3D"] if posed.any() else [])]
    while len(blocks) % across:
        blocks.append(np.full_like(blocks[0], _PAPER))
    lines = [np.concatenate(blocks[start : start + across], axis=1) for start in range(0, len(blocks), across)]
    if not plain:
        lines.insert(0, _headings(views * across, size))
    return np.concatenate(lines, axis=0)


def captioned(block: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "h2 w 3"]:
    """Add a line of text below some pixels."""
    strip = np.full((_LINE, block.shape[1], 3), _PAPER, np.uint8)
    _write(strip, text, left=3, width=block.shape[1] - 6)
    return np.concatenate([block, strip], axis=0)


def drawn_pose(pose: Float[np.ndarray, "17 3"], size: int) -> UInt8[np.ndarray, "side side 3"]:
    """Draw the canonical form of a pose in mm, seen from the front."""
    image = np.full((size, size, 3), _PAPER, np.uint8)
    canonical = canonical_pose(torch.from_numpy(pose)).numpy()
    flat, _ = front_view(canonical - (canonical.min(axis=0) + canonical.max(axis=0)) / 2)
    draw_skeleton(image, 0.5 + flat / 2200)
    return image


def _caption(capture: Capture, instants: Instants, i: int) -> str:
    """Say which moment an instant is, and which image of each video where they are numbered apart."""
    subject, sequence = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
    text = f"{subject} / {sequence}, frame {instants.frame[i]}, {instants.time[i]:.2f} s"
    numbers = capture.image_numbers(instants.rows[i][instants.rows[i] >= 0])
    return text if (numbers == instants.frame[i]).all() else f"{text} (images {', '.join(map(str, numbers))})"


def _headings(names: Sequence[str], size: int) -> UInt8[np.ndarray, "h w 3"]:
    strip = np.full((_LINE, size * len(names), 3), _PAPER, np.uint8)
    for number, name in enumerate(names):
        _write(strip, name, left=number * size + 3, width=size - 6)
    return strip


def _write(strip: UInt8[np.ndarray, "h w 3"], text: str, left: int, width: int) -> None:
    """Write text from `left` on, as large as fits into `width` pixels; OpenCV's letters are ASCII only."""
    text = text.encode("ascii", "replace").decode()
    scale = 0.4
    needed = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
    scale = max(0.2, min(scale, scale * width / max(needed, 1)))
    cv2.putText(strip, text, (left, _LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
