"""An image of everybody who was followed through a recording, so that the user can point at somebody else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from mcss.errors import SourceError
from mcss.files import replacing
from mcss.images import Image, encode_jpeg
from mcss.video.target import Followed

Pixels = UInt8[np.ndarray, "_ _ 3"]

ACROSS = 5
"""Images of each view."""

HEIGHT = 240
"""Of an image on the sheet, pixels; wide ones are no wider than 320."""

_PAPER, _INK = (246, 245, 242), (40, 44, 52)
_CHOSEN = (30, 200, 80)
_OTHERS = ((240, 150, 20), (70, 130, 240), (220, 60, 170), (20, 190, 200), (160, 110, 230))
_LINE = 18


def chosen_people(views: Sequence[Followed], name: str, sheet: Path | None, note: Callable[[str], None]) -> None:
    """Draw who was found in a recording, and say where somebody else may be meant.

    Args:
        views: Who is followed in each view.
        name: Of the recording.
        sheet: Where to draw; None leaves it out.
        note: Told where somebody else may be meant.

    Raises:
        SourceError: There is nobody where the user pointed.
    """
    look = "" if sheet is None else f"; look at {sheet}"
    if views and sheet is not None:
        write_track_sheet(sheet, name, views)
    problems = [view.problem() for view in views if view.chosen is None]
    if problems:
        raise SourceError("\n".join(problems) + look)
    for view in views:
        doubt = view.doubt()
        if doubt is not None:
            note(doubt + look)


def write_track_sheet(path: Path, name: str, views: Sequence[Followed]) -> None:
    """Write the sheet of a recording as JPEG: a row of images per view, people numbered, the chosen one in green."""
    rows = [_heading(name)]
    for view in views:
        rows += [_row(view), *_legend(view)]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([_padded(row, width) for row in rows], axis=0)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_jpeg(sheet, 88))


def _row(view: Followed) -> Pixels:
    shots = _telling(view)
    cells = [_drawn(view, at, view.watched.shots[at]) for at in shots]
    return np.concatenate(cells, axis=1)


def _telling(view: Followed) -> list[int]:
    """The images to show: in each fifth of the time the one with the most people."""
    numbers = sorted(view.watched.shots)
    tracks = [view.watched.tracks[i] for i in view.shown]

    def people(at: int) -> int:
        return sum(t.first <= at < t.stop and bool(t.seen[at - t.first]) for t in tracks)

    parts = [part.tolist() for part in np.array_split(np.array(numbers), min(ACROSS, len(numbers)))]
    return [max(part, key=people) for part in parts]


def _drawn(view: Followed, at: int, image: Image) -> Pixels:
    height, width = image.shape[:2]
    scale = min(HEIGHT / height, 320 / width)
    cell = np.asarray(
        cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA), np.uint8
    )
    for number in sorted(view.shown, key=lambda i: i == view.chosen):
        track = view.watched.tracks[number]
        if not (track.first <= at < track.stop and track.seen[at - track.first]):
            continue
        x0, y0, x1, y1 = (round(float(v) * scale) for v in track.boxes[at - track.first])
        colour = _colour(view, number)
        cv2.rectangle(cell, (x0, y0), (x1 - 1, y1 - 1), colour, 3 if number == view.chosen else 2)
        label = f"#{number + 1}"
        (w, h), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x, y = min(max(x0, 0), cell.shape[1] - w - 4), max(y0, h + 6)
        cv2.rectangle(cell, (x, y - h - 6), (x + w + 4, y), colour, -1)
        cv2.putText(cell, label, (x + 2, y - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    if view.click is not None and at == _nearest(view):
        scale_x, scale_y = cell.shape[1] / view.view.width, cell.shape[0] / view.view.height
        place = (round(view.click.x * scale_x), round(view.click.y * scale_y))
        cv2.drawMarker(cell, place, (255, 255, 255), cv2.MARKER_CROSS, 15, 4)
        cv2.drawMarker(cell, place, (230, 30, 30), cv2.MARKER_CROSS, 13, 2)
    _write(cell, f"{view.taken[at]}", 4, cell.shape[0] - 6, (255, 255, 255))
    return cell


def _nearest(view: Followed) -> int:
    """The shown image that is nearest to the click's."""
    assert view.click is not None
    wanted = view.click.image(view.view)
    return min(_telling(view), key=lambda at: abs(int(view.taken[at]) - wanted))


def _legend(view: Followed) -> list[Pixels]:
    lines = []
    for number in view.shown:
        share = view.watched.tracks[number].seen.sum() / view.watched.count
        how = "at the click" if view.click else "seen longest and largest"
        chosen = f"followed ({how})" if number == view.chosen else f"--click {view.click_on(number)}"
        text = f"{view.view.name}  #{number + 1}  in {share:.0%} of {view.watched.count} images  {chosen}"
        lines.append(_text(text, _colour(view, number)))
    if view.chosen is None:
        lines.append(_text(f"{view.view.name}: nobody is found at {view.click}", (230, 30, 30)))
    return lines


def _colour(view: Followed, number: int) -> tuple[int, int, int]:
    return _CHOSEN if number == view.chosen else _OTHERS[number % len(_OTHERS)]


def _heading(name: str) -> Pixels:
    return _text(f"{name}: who was found; numbers below are those of images", _INK)


def _text(text: str, colour: tuple[int, int, int]) -> Pixels:
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
    strip = np.full((_LINE, width + 24, 3), _PAPER, np.uint8)
    cv2.rectangle(strip, (4, 4), (13, 13), colour, -1)
    _write(strip, text, 18, 13, _INK)
    return strip


def _write(cell: Pixels, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Text; OpenCV's letters are ASCII only."""
    text = text.encode("ascii", "replace").decode()
    if colour != _INK:
        cv2.putText(cell, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 3, cv2.LINE_AA)
    cv2.putText(cell, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def _padded(row: Pixels, width: int) -> Pixels:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER[0])
