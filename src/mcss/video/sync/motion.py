"""How a person moves, in a form that views from different sides share: the signal by which views are aligned.

How much moves differs from view to view: a person who walks towards one camera crosses the image of another. What
moves *up or down*, and at which height of the body, is nearly the same for all cameras that stand about level: a raised
leg is a raised leg from behind as well. Cameras may be rolled, so the profile is kept for several directions of "up".

Only what moves counts, each height with its speed times its area: what stands still, be it a leg, a hole in the
silhouette, or the trace of a person in the estimate of the empty scene, neither adds to the profile nor dilutes it.

Reference:
    Sinha and Pollefeys, "Camera network calibration and synchronization from silhouettes in dynamic scenes", IJCV
    2010, and Caspi and Irani, "Spatio-temporal alignment of sequences", PAMI 2002, align views by quantities that
    epipolar geometry leaves unchanged. Departures: the epipolar coordinate is taken to be height, optical flow replaces
    the outline of the silhouette, and no geometry is estimated.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.ndimage import gaussian_filter1d

from mcss.data.instants import evenly_spread
from mcss.errors import SourceError
from mcss.images import Image
from mcss.progress import Task
from mcss.video.background import Foreground
from mcss.video.boxes import Box, Boxes, union_box
from mcss.video.people import ForegroundGroup, foreground_groups
from mcss.video.reading.decoding import VideoFile, pictures_of
from mcss.video.spool import ImageSpool

IMAGE_SIDE = 320
"""Longer side in pixels of the images in which motion is measured."""

SCENE_SAMPLES = 48
"""Number of images from which the empty scene is composed."""

ROLLS = np.radians(np.arange(-40, 41, 10))
"""Angles by which a camera may be rolled; each gives a direction that may be the upright one."""

PARTS = (5, 6, 7, 8)
"""Numbers of parts into which the body is divided from head to foot; several, so that no single border matters."""

MIN_MOTION = 0.3
"""Pixels between two images of `IMAGE_SIDE`; smaller motion is stillness or noise of the optical flow."""

BORDER = 6
"""Pixels around the person's box that may belong to the person too."""

SMOOTH = 0.025
"""Seconds over which motion is smoothed before it is compared, against the noise of single images."""

SLOW = 0.15
"""Motion slower than about this many seconds is removed before motion is compared: two slow curves look alike at nearly
every lag, whereas quick motion determines the time (prewhitening)."""

ENDS_SMOOTH = 0.1
"""Seconds over which the upper and the lower end of the body are smoothed."""


@dataclass(frozen=True, eq=False)
class MotionProfile:
    """Upward or downward speed at each height of the body, times the area that moves there."""

    rate: float
    """Samples per second; sample i lies half a frame after image i."""
    speed: Float32[np.ndarray, "rolls samples heights"]
    """Body sizes per second along each of `ROLLS`, positive downwards in the image; 0 where nobody is seen. Areas are
    relative to the median area that moves, divided by the number of heights."""
    seconds: Float64[np.ndarray, " samples"] | None = None
    """Time of each sample after the first image; None if sample i lies at (i + 0.5) / `rate`."""

    @property
    def moves(self) -> bool:
        """Whether there is enough motion to be aligned."""
        return self.speed.shape[1] >= 8 and bool((np.abs(self.speed).max(axis=(0, 2)) > 0.05).mean() > 0.05)

    def at_rate(self, rate: float) -> Float64[np.ndarray, "rolls samples heights"]:
        """Resample the profile; sample j lies j / rate seconds after the first image."""
        count = self.speed.shape[1]
        old_times = (np.arange(count) + 0.5) / self.rate if self.seconds is None else self.seconds
        length = (count + 1) / self.rate if self.seconds is None else float(self.seconds[-1]) + 1.5 / self.rate
        new_times = np.arange(int(length * rate)) / rate
        flat = self.speed.transpose(1, 0, 2).reshape(len(old_times), -1)
        columns = [np.interp(new_times, old_times, flat[:, k]) for k in range(flat.shape[1])]
        return np.stack(columns, axis=1).reshape(len(new_times), len(ROLLS), -1).transpose(1, 0, 2)

    def quick_at_rate(self, rate: float) -> Float64[np.ndarray, "rolls samples heights"]:
        """Resample the profile without noise (`SMOOTH`) and slow motion (`SLOW`), as it is compared between views."""
        profile = self.at_rate(rate)
        smooth, slow = (gaussian_filter1d(profile, seconds * rate, axis=1) for seconds in (SMOOTH, SLOW))
        return np.asarray(smooth - slow, np.float64)


def motion_profile(view: VideoFile, seconds: float, task: Task) -> MotionProfile:
    """Measure how the person in a video moves.

    Args:
        view: A static camera's video.
        seconds: How much of the video is examined, from its start.
        task: Advanced by every image.

    Raises:
        SourceError: Fewer than three images can be decoded.
    """
    with closing(ImageSpool()) as spool:
        numbers: list[int] = []
        end = max(2, min(view.image_at(seconds), view.count))
        for picture in takewhile(lambda picture: picture.number < end, pictures_of(view)):
            spool.append(picture.rgb(IMAGE_SIDE))
            numbers.append(picture.number)
            task.advance()
        if len(spool) < 3:
            raise SourceError(
                f"{view.path}: only {len(spool)} of its {view.count} images can be decoded, too few to align it by "
                "motion; the file is damaged or was cut off: copy it again, or remove it"
            )
        complete = numbers == list(range(len(numbers)))
        return profile_of(spool, view.rate, None if view.evenly_timed and complete else view.seconds[numbers])


def profile_of(
    shots: Sequence[Image] | ImageSpool, rate: float, seconds: Float64[np.ndarray, " images"] | None = None
) -> MotionProfile:
    """Measure the profile of the person who shows most foreground in small images of a static camera.

    Args:
        shots: The images.
        rate: Images per second.
        seconds: The time of each image; None if they are evenly spaced.
    """
    count = len(shots)
    rates = np.full(count - 1, rate) if seconds is None else 1 / np.diff(seconds)
    middles = None if seconds is None else (seconds[1:] + seconds[:-1]) / 2
    samples = evenly_spread(count, SCENE_SAMPLES)
    foreground = Foreground.of([shots[int(i)] for i in samples])
    packed_masks, groups = [], []
    for i in range(count):
        mask = foreground(shots[i])
        packed_masks.append(np.packbits(mask, axis=1))  # an eighth of the memory, so that minutes of them fit
        groups.append(foreground_groups(mask))
    speed = np.zeros((len(ROLLS), count - 1, sum(PARTS)), np.float32)
    boxes = largest_path(groups)
    if not np.isfinite(boxes).any():
        return MotionProfile(rate, speed, middles)
    size = float(np.nanmedian((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before = cv2.cvtColor(shots[0], cv2.COLOR_RGB2GRAY)
    moving = []
    for i in range(count - 1):
        after = cv2.cvtColor(shots[i + 1], cv2.COLOR_RGB2GRAY)
        mask = np.unpackbits(packed_masks[i], axis=1, count=before.shape[1]).astype(bool)
        motion = np.asarray(flow.calc(before, after, None))  # type: ignore[call-overload]
        y, x = _moving_pixels(mask, motion, boxes[i])
        moving.append((np.stack([x, y], axis=1).astype(np.float32), motion[y, x] * np.float32(rates[i] / size)))
        before = after
    for k, roll in enumerate(ROLLS):
        speed[k] = _speeds(moving, np.array([np.sin(roll), np.cos(roll)], np.float32), rate)
    return MotionProfile(rate, speed, middles)


def largest_path(groups: Sequence[Sequence[ForegroundGroup]]) -> Boxes:
    """Return the box of one person in every image, from the groups of foreground in each; NaN where there is none.

    The path through the groups is the best of all paths (Viterbi): each image rewards its group by √area, each step
    costs what the centre and the area jump. Pieces beside the chosen group, such as a foot that a dark floor cuts off,
    are added afterwards.

    Imports track everybody instead (`mcss.video.tracking`) and choose among the tracks. For synchronising, that found
    298 of the real clip's 300 lags instead of all, and at most 3 % instead of more than half in windows of a clip of
    two men who walk.
    """
    path = _best_path(groups)
    boxes = np.full((len(groups), 4), np.nan)
    chosen = [group[state] for group, state in zip(groups, path, strict=True) if state >= 0]
    if not chosen:
        return boxes
    usual_area = float(np.median([group.area for group in chosen]))
    usual_size = float(np.median([_size(group.box) for group in chosen]))
    for i, (pieces, state) in enumerate(zip(groups, path, strict=True)):
        if state < 0:
            continue
        box = pieces[state].box
        for piece in pieces:
            union = union_box(box, piece.box)
            near = _gap(box, piece.box) < 0.06 * usual_size
            if near and 0.01 * usual_area < piece.area and _size(union) < 1.3 * max(usual_size, _size(box)):
                box = union
        boxes[i] = box
    return boxes


def _best_path(groups: Sequence[Sequence[ForegroundGroup]]) -> Int64[np.ndarray, " n"]:
    """Return for each image the index of the group on the best path, -1 where it passes through none."""
    areas = [group.area for image in groups for group in image]
    if not areas:
        return np.full(len(groups), -1, np.int64)
    unit = float(np.sqrt(np.percentile(areas, 95)))
    lost = 1.5  # the cost of losing the person, or of finding somebody
    score = np.zeros(1)
    before: Sequence[ForegroundGroup] = ()
    previous: list[Int64[np.ndarray, " states"]] = []
    for image in groups:  # states: the groups, then "nobody"
        cost = np.full((len(before) + 1, len(image) + 1), lost)
        cost[-1, -1] = 0.0
        for i, a in enumerate(before):
            for j, b in enumerate(image):
                jump = np.linalg.norm(_centre(a.box) - _centre(b.box)) / max(_size(a.box), _size(b.box))
                cost[i, j] = min(3.0 * jump + 0.5 * abs(np.log(a.area / b.area)), 2 * lost)
        total = score[:, None] - cost
        previous.append(total.argmax(axis=0).astype(np.int64))
        reward = np.array([np.sqrt(group.area) / unit for group in image] + [0.0])
        score = total.max(axis=0) + reward
        before = image
    path = np.full(len(groups), -1, np.int64)
    state = int(score.argmax())
    for i in range(len(groups) - 1, -1, -1):
        path[i] = state if state < len(groups[i]) else -1
        state = int(previous[i][state])
    return path


def _centre(box: Box) -> Float64[np.ndarray, " 2"]:
    return np.asarray((box[:2] + box[2:]) / 2, np.float64)


def _size(box: Box) -> float:
    """Return the longer side of a box."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def _gap(a: Box, b: Box) -> float:
    """Return the distance between two boxes, 0 if they touch."""
    return float(np.hypot(*np.maximum(np.maximum(a[:2] - b[2:], b[:2] - a[2:]), 0)))


def _moving_pixels(
    mask: Bool[np.ndarray, "height width"], motion: Float32[np.ndarray, "height width 2"], box: Box
) -> tuple[Int64[np.ndarray, " pixels"], Int64[np.ndarray, " pixels"]]:
    """Return the rows and columns of the foreground pixels that move in and around a box; none if it is NaN."""
    if not np.isfinite(box).all():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    x0, y0, x1, y1 = map(int, box)
    x0, y0 = max(x0 - BORDER, 0), max(y0 - BORDER, 0)
    around = np.s_[y0 : y1 + BORDER, x0 : x1 + BORDER]
    person = cv2.dilate(mask[around].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    y, x = np.nonzero(person & (np.linalg.norm(motion[around], axis=2) > MIN_MOTION))
    return y + y0, x + x0


def _speeds(
    moving: Sequence[tuple[np.ndarray, np.ndarray]], down: Float32[np.ndarray, " 2"], rate: float
) -> Float32[np.ndarray, "samples heights"]:
    """Sum the speeds along `down` in each part of the body, from the upper to the lower end of what moves.

    Args:
        moving: For each sample, the positions and the velocities of the pixels that move.
        down: The direction that is taken for downwards.
        rate: Samples per second.
    """
    ends = np.array([np.percentile(at @ down, (1, 99)) if len(at) else (np.nan, np.nan) for at, _ in moving])
    seen = np.isfinite(ends[:, 0])
    if not seen.any():
        return np.zeros((len(moving), sum(PARTS)), np.float32)
    usual_area = float(np.median([len(at) for at, _ in moving if len(at)]))
    index = np.arange(len(ends))
    ends = np.stack([np.interp(index, index[seen], ends[seen, k]) for k in range(2)], axis=1)
    width = max(ENDS_SMOOTH * rate / 2, 0.5)
    kernel = np.exp(-0.5 * (np.arange(-round(3 * width), round(3 * width) + 1) / width) ** 2)
    reach = len(kernel) // 2
    padded = np.pad(ends, ((reach, reach), (0, 0)), mode="edge")
    ends = np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), "valid") for k in range(2)], axis=1)
    speeds = np.zeros((len(moving), sum(PARTS)), np.float32)
    for i, (at, velocity) in enumerate(moving):
        if len(at):
            top, bottom = ends[i]
            height, speed = ((at @ down - top) / max(bottom - top, 1.0)).astype(np.float32), velocity @ down
            speeds[i] = np.concatenate([_summed(height, speed, n) / usual_area * np.sqrt(n) for n in PARTS])
    return speeds


def _summed(
    height: Float32[np.ndarray, " pixels"], speed: Float32[np.ndarray, " pixels"], parts: int
) -> Float64[np.ndarray, " parts"]:
    """Sum the speeds of the pixels in each part."""
    summed: Float64[np.ndarray, " parts"] = np.bincount((height * parts).astype(int).clip(0, parts - 1), speed, parts)
    return summed
