"""The track sheet: an image of everybody who was tracked through a recording, so that the user can choose one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from mcss.errors import SourceError
from mcss.files import replacing
from mcss.images import Image, encode_jpeg
from mcss.video.target import Target

Pixels = UInt8[np.ndarray, "_ _ 3"]

ACROSS = 5
"""Number of images of each view."""

MAX_HEIGHT, MAX_WIDTH = 240, 320
"""Largest size of an image on the sheet in pixels."""

QUALITY = 88
"""JPEG quality of the sheet."""

_PAPER, _INK = (246, 245, 242), (40, 44, 52)
_CHOSEN = (30, 200, 80)
_OTHERS = ((240, 150, 20), (70, 130, 240), (220, 60, 170), (20, 190, 200), (160, 110, 230))
_MISSED = (230, 30, 30)
_LINE = 18


def report_targets(targets: Sequence[Target], name: str, sheet: Path | None, note: Callable[[str], None]) -> None:
    """Draw the track sheet of a recording, and report views in which another person might be meant.

    Args:
        targets: The person chosen in each view.
        name: The recording's name.
        sheet: File of the track sheet; None draws none.
        note: Receives a note for each view in which another person might be meant.

    Raises:
        SourceError: There is nobody where the user pointed.
    """
    see_sheet = "" if sheet is None else f"; see {sheet}"
    if targets and sheet is not None:
        write_track_sheet(sheet, name, targets)
    problems = [target.missed_click() for target in targets if target.chosen is None]
    if problems:
        raise SourceError("\n".join(problems) + see_sheet)
    for target in targets:
        ambiguity = target.ambiguity()
        if ambiguity is not None:
            note(ambiguity + see_sheet)


def write_track_sheet(path: Path, name: str, targets: Sequence[Target]) -> None:
    """Write the sheet of a recording as JPEG: a row of images per view, people numbered, the chosen one in green."""
    rows = [_heading(name)]
    for target in targets:
        rows += [_row(target), *_legend(target)]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([_padded(row, width) for row in rows], axis=0)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_jpeg(sheet, QUALITY))


def _row(target: Target) -> Pixels:
    indices = _shown_images(target)
    return np.concatenate([_drawn(target, index, target.people.kept_images[index]) for index in indices], axis=1)


def _shown_images(target: Target) -> list[int]:
    """Return the indices of the images to show: in each fifth of the time, the one with the most people."""
    kept = sorted(target.people.kept_images)
    tracks = [target.people.tracks[i] for i in target.shown]

    def people_in(index: int) -> int:
        return sum(track.seen_at(index) for track in tracks)

    parts = [part.tolist() for part in np.array_split(np.array(kept), min(ACROSS, len(kept)))]
    return [max(part, key=people_in) for part in parts]


def _drawn(target: Target, index: int, image: Image) -> Pixels:
    """Draw everybody's box and number, and the click, into a small copy of an image."""
    height, width = image.shape[:2]
    scale = min(MAX_HEIGHT / height, MAX_WIDTH / width)
    cell = np.asarray(
        cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA), np.uint8
    )
    for number in sorted(target.shown, key=lambda i: i == target.chosen):
        track = target.people.tracks[number]
        if not track.seen_at(index):
            continue
        x0, y0, x1, y1 = (round(float(v) * scale) for v in track.boxes[index - track.first])
        colour = _colour(target, number)
        cv2.rectangle(cell, (x0, y0), (x1 - 1, y1 - 1), colour, 3 if number == target.chosen else 2)
        label = f"#{number + 1}"
        (w, h), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x, y = min(max(x0, 0), cell.shape[1] - w - 4), max(y0, h + 6)
        cv2.rectangle(cell, (x, y - h - 6), (x + w + 4, y), colour, -1)
        cv2.putText(cell, label, (x + 2, y - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    if target.click is not None and index == _image_nearest_to_click(target):
        scale_x, scale_y = cell.shape[1] / target.video.width, cell.shape[0] / target.video.height
        point = (round(target.click.x * scale_x), round(target.click.y * scale_y))
        cv2.drawMarker(cell, point, (255, 255, 255), cv2.MARKER_CROSS, 15, 4)
        cv2.drawMarker(cell, point, _MISSED, cv2.MARKER_CROSS, 13, 2)
    _write(cell, f"{target.image_numbers[index]}", 4, cell.shape[0] - 6, (255, 255, 255))
    return cell


def _image_nearest_to_click(target: Target) -> int:
    """Return the index of the shown image that is nearest to the click's."""
    assert target.click is not None
    clicked = target.click.image_number(target.video)
    return min(_shown_images(target), key=lambda index: abs(int(target.image_numbers[index]) - clicked))


def _legend(target: Target) -> list[Pixels]:
    lines = []
    for number in target.shown:
        share = target.people.tracks[number].seen.sum() / target.people.count
        reason = "at the click" if target.click else "seen longest and largest"
        use = f"used ({reason})" if number == target.chosen else f"--click {target.click_on(number)}"
        text = f"{target.video.name}  #{number + 1}  in {share:.0%} of {target.people.count} images  {use}"
        lines.append(_text(text, _colour(target, number)))
    if target.chosen is None:
        lines.append(_text(f"{target.video.name}: nobody is found at {target.click}", _MISSED))
    return lines


def _colour(target: Target, number: int) -> tuple[int, int, int]:
    return _CHOSEN if number == target.chosen else _OTHERS[number % len(_OTHERS)]


def _heading(name: str) -> Pixels:
    return _text(f"{name}: everybody who was found; the numbers below are image numbers", _INK)


def _text(text: str, colour: tuple[int, int, int]) -> Pixels:
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
    strip = np.full((_LINE, width + 24, 3), _PAPER, np.uint8)
    cv2.rectangle(strip, (4, 4), (13, 13), colour, -1)
    _write(strip, text, 18, 13, _INK)
    return strip


def _write(cell: Pixels, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Write text into an image; OpenCV draws only ASCII."""
    text = text.encode("ascii", "replace").decode()
    if colour != _INK:
        cv2.putText(cell, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 3, cv2.LINE_AA)
    cv2.putText(cell, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def _padded(row: Pixels, width: int) -> Pixels:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER[0])
