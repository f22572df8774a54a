"""The person's boxes as given by the user: in a CSV file, or around 2D keypoints."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.formats.csv import read_csv_table
from mcss.data.formats.keypoint_files import ViewKeypoints, keypoint_file, read_keypoints
from mcss.errors import SourceError
from mcss.sources.assembly import Note
from mcss.video.recordings import ViewName

COLUMNS = ("subject", "sequence", "view", "frame", "x0", "y0", "x1", "y1")
"""The header of the file. Coordinates are pixels of the upright image; frames count from 0."""

SAME_SHAPE = 0.03
"""Images whose widths and heights have ratios that differ by no more than this share are of one shape."""

MOST_OUTSIDE = 0.2
"""If a larger share of the keypoints lies outside the image, they are not in its pixels."""

_BORDER = 0.05
"""Share of the image's size by which keypoints may lie outside it."""


def read_boxes(
    path: Path,
    sizes: Mapping[ViewName, tuple[int, int, int]],
    numbers: Mapping[ViewName, Sequence[int]] | None = None,
    note: Note = lambda text: None,
) -> dict[ViewName, Float64[np.ndarray, "frames 4"]]:
    """Read the person's box in every frame of the views that the file names; NaN in frames without a row.

    Args:
        path: CSV with the header `COLUMNS` (more columns are ignored); not every frame needs a row. Or a folder of
            2D keypoints as tools write them (``subject/sequence/view.json``), whose extent makes the boxes.
        sizes: Width, height and number of frames of each known view.
        numbers: For views that are folders of images, the numbers in their names: keypoints are known by these.
        note: Receives what is unusual about keypoints.

    Raises:
        SourceError: The file is missing, or it or one of its lines is not as expected.
    """
    if path.is_dir():
        return _boxes_around_keypoints(path, sizes, numbers or {}, note)
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a CSV with the columns {', '.join(COLUMNS)}")
    table = read_csv_table(path)
    missing = [name for name in COLUMNS if name not in table.header]
    if missing:
        raise SourceError(
            f"{path}: the column(s) {', '.join(missing)} are missing; expected the header "
            f"{','.join(COLUMNS)}, got {','.join(table.header) or 'an empty file'}"
        )
    boxes: dict[ViewName, Float64[np.ndarray, "frames 4"]] = {}
    for row in table.rows:
        view, frame, box = _parsed(f"{path} line {row.line}", row.named(table.header), sizes)
        boxes.setdefault(view, np.full((sizes[view][2], 4), np.nan))[frame] = box
    if not boxes:
        raise SourceError(
            f"{path}: the file has a header but no boxes; give at least one line per view, or leave it out"
        )
    return boxes


def _boxes_around_keypoints(
    folder: Path, sizes: Mapping[ViewName, tuple[int, int, int]], numbers: Mapping[ViewName, Sequence[int]], note: Note
) -> dict[ViewName, Float64[np.ndarray, "frames 4"]]:
    boxes: dict[ViewName, Float64[np.ndarray, "frames 4"]] = {}
    for view, (width, height, count) in sizes.items():
        path = keypoint_file(folder, *view)
        if path is None:
            continue
        keypoints = read_keypoints(path)
        if view not in numbers and keypoints.begins_with_one:
            note(keypoints.begins_with_one)
        own = numbers.get(view, range(count))
        index_of = {number: index for index, number in enumerate(own)}
        frames = np.array([index_of.get(number, -1) for number in keypoints.frames.tolist()], np.int64)
        there = frames >= 0
        if not there.all():
            text = (
                f"{path}: the view lacks {int((~there).sum()):,} of its {len(there):,} images: they have the numbers "
                f"{keypoints.frames.min()} to {keypoints.frames.max()}, and those of the view {own[0]} to {own[-1]}"
            )
            if not there.any():
                raise SourceError(f"{text}; number them like the images of the view")
            note(text)
        scaled = _in_pixels_of_video(keypoints, width, height, note)
        _check_inside(path, scaled.points[there], width, height)
        found = scaled.boxes()
        use = there & np.isfinite(found).all(axis=1)
        use &= (found[:, 2] > 0) & (found[:, 3] > 0) & (found[:, 0] < width) & (found[:, 1] < height)
        if not use.any():
            raise SourceError(f"{path}: no image of the view has four sure keypoints of a person within it")
        boxes[view] = np.full((count, 4), np.nan)
        boxes[view][frames[use]] = found[use]
    if not boxes:
        known = ", ".join("/".join(name) for name in sorted(sizes)[:12])
        raise SourceError(f"{folder}: there are no keypoints of any view; expected a file or folder for one of {known}")
    return boxes


def _in_pixels_of_video(keypoints: ViewKeypoints, width: int, height: int, note: Note) -> ViewKeypoints:
    """Scale keypoints that were found in a smaller or larger copy of a video.

    Raises:
        SourceError: The copy has another shape, so that how it was made is not known.
    """
    if keypoints.size is None:
        reach = np.nanmax(keypoints.points, axis=(0, 1), initial=0) / (width, height)
        if (reach < 0.5 + _BORDER).all():
            note(
                f"{keypoints.path}: all keypoints lie in the upper left quarter of the image, which is "
                f"{width}×{height} pixels; if they were found in a smaller copy of it, scale them"
            )
        return keypoints
    across, down = width / keypoints.size[0], height / keypoints.size[1]
    if (across, down) == (1, 1):
        return keypoints
    copy = f"{keypoints.size[0]:g}×{keypoints.size[1]:g}"
    if abs(across / down - 1) > SAME_SHAPE:
        raise SourceError(
            f"{keypoints.path}: it states images of {copy} pixels, and those of the view are {width}×{height}; "
            "expected keypoints of whole, upright images: find them in images of the same shape"
        )
    note(f"{keypoints.path}: its keypoints are scaled from images of {copy} pixels to {width}×{height}")
    return replace(keypoints, points=keypoints.points * (across, down), size=(float(width), float(height)))


def _check_inside(path: Path, points: Float64[np.ndarray, "n k 2"], width: int, height: int) -> None:
    """Refuse keypoints of which many lie outside the image."""
    size = np.array([width, height])
    known = np.isfinite(points).all(axis=-1)
    outside = (points < -_BORDER * size) | (points > (1 + _BORDER) * size)
    share = float(outside[known].any(axis=-1).mean()) if known.any() else 0.0
    if share > MOST_OUTSIDE:
        raise SourceError(
            f"{path}: {share:.0%} of its keypoints lie outside the image, which is {width}×{height} pixels; expected "
            "pixels of the upright image: scale those that were found in a larger copy of it"
        )


def _parsed(
    where: str, line: Mapping[str, str], sizes: Mapping[ViewName, tuple[int, int, int]]
) -> tuple[ViewName, int, tuple[float, ...]]:
    subject, sequence, name = (unicodedata.normalize("NFC", line[key]) for key in ("subject", "sequence", "view"))
    view = (subject, sequence, name)
    if view not in sizes:
        known = ", ".join("/".join(name) for name in sorted(sizes)[:12]) + (", …" if len(sizes) > 12 else "")
        raise SourceError(f"{where}: there is no video of subject/sequence/view {'/'.join(view)}; there are: {known}")
    width, height, count = sizes[view]
    try:
        frame = int(line["frame"])
        x0, y0, x1, y1 = box = tuple(float(line[name]) for name in ("x0", "y0", "x1", "y1"))
    except ValueError:
        got = ",".join(line[name] for name in COLUMNS[3:])
        raise SourceError(
            f"{where}: expected an integer frame number and four numbers, got {got!r}; correct the line"
        ) from None
    if not 0 <= frame < count:
        raise SourceError(
            f"{where}: frame {frame} is not in the video, which has the frames 0 to {count - 1}; "
            "frames count from 0 and include those that `every` skips"
        )
    if not all(map(math.isfinite, box)) or x1 <= x0 or y1 <= y0:
        raise SourceError(f"{where}: expected x0 < x1 and y0 < y1, got {x0:g},{y0:g},{x1:g},{y1:g}; correct the line")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise SourceError(
            f"{where}: the box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the image, which is {width}×{height} pixels; "
            "boxes are in pixels of the upright image"
        )
    return view, frame, box
