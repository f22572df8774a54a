"""How a person moves, in a form that views from different sides share: the signal that views are aligned by.

How much moves differs from view to view: who walks towards one camera crosses the image of another. What moves *up or
down*, and at which height of the body, is nearly the same for all cameras that stand about level: a raised leg is a
raised leg from behind as well. Cameras may be rolled, so the profile is kept for several directions of "up".

Only what moves counts, each height by its speed times its area: what stands still, be it a leg, a hole in the
silhouette, or the trace of a person in the estimate of the empty scene, neither adds to that nor dilutes it.

Reference:
    Sinha and Pollefeys, "Camera network calibration and synchronization from silhouettes in dynamic scenes", IJCV
    2010, and Caspi and Irani, "Spatio-temporal alignment of sequences", PAMI 2002, align views by what epipolar
    geometry leaves unchanged. Departures: the epipolar coordinate is taken to be height, optical flow replaces the
    rim of the silhouette, and no geometry is estimated.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.ndimage import gaussian_filter1d

from mcss.errors import SourceError
from mcss.images import Image
from mcss.progress import Task
from mcss.video.background import Foreground, empty_scene
from mcss.video.decoding import Footage, images
from mcss.video.people import candidates, filled, follow
from mcss.video.spool import ImageSpool

LOOK_SIZE = 320
"""Longer side in pixels of the images in which motion is measured."""

SAMPLES = 48
"""So many images show what the empty scene looks like."""

ROLLS = np.radians(np.arange(-40, 41, 10))
"""By how much a camera may be rolled: each direction that may be the upright one of the image."""

PARTS = (5, 6, 7, 8)
"""So many parts from head to foot, in several divisions side by side, so that no one border between parts matters."""

MOVING = 0.3
"""Pixels between two images, of `LOOK_SIZE`; what moves less stands still, or is the noise of the flow."""

BORDER = 6
"""So many pixels beyond the person's box may belong to the person too."""

SMOOTH = 0.025
"""Seconds by which motion is smoothed before it is compared: noise of single images."""

SLOW = 0.15
"""What goes on for longer than about so many seconds is taken away before motion is compared. Two slow curves look
alike at nearly every lag; what is quick says when it was (prewhitening)."""

CALM = 0.1
"""Seconds over which the upper and the lower end of the body are smoothed."""


@dataclass(frozen=True, eq=False)
class MotionProfile:
    """Upward or downward speed at each height of the body, times how much of the body moves there."""

    rate: float
    """Samples per second; sample i lies half an image after image i."""
    speed: Float32[np.ndarray, "rolls samples heights"]
    """Body sizes per second along each of `ROLLS`, positive downwards in the image; 0 where nobody is seen. An area
    of 1 is what usually moves of the body, over the number of heights."""

    @property
    def moves(self) -> bool:
        """Whether there is motion that could be aligned."""
        return self.speed.shape[1] >= 8 and bool((np.abs(self.speed).max(axis=(0, 2)) > 0.05).mean() > 0.05)

    def at_rate(self, rate: float) -> Float64[np.ndarray, "rolls samples heights"]:
        """The same profile at another rate; sample j at j / rate seconds after the first image."""
        taken = (np.arange(self.speed.shape[1]) + 0.5) / self.rate
        wanted = np.arange(int((self.speed.shape[1] + 1) / self.rate * rate)) / rate
        flat = self.speed.transpose(1, 0, 2).reshape(len(taken), -1)
        columns = [np.interp(wanted, taken, flat[:, k]) for k in range(flat.shape[1])]
        return np.stack(columns, axis=1).reshape(len(wanted), len(ROLLS), -1).transpose(1, 0, 2)

    def quick_at_rate(self, rate: float) -> Float64[np.ndarray, "rolls samples heights"]:
        """`at_rate` without noise (`SMOOTH`) and without what is slow (`SLOW`): what views are compared by."""
        profile = self.at_rate(rate)
        smooth, slow = (gaussian_filter1d(profile, seconds * rate, axis=1) for seconds in (SMOOTH, SLOW))
        return np.asarray(smooth - slow, np.float64)


def motion_profile(view: Footage, seconds: float, task: Task) -> MotionProfile:
    """Measure how the person in a video moves.

    Args:
        view: A static camera's video.
        seconds: No more of the video than this is looked at, from its start.
        task: Told of every image.

    Raises:
        SourceError: Hardly anything of the video can be decoded.
    """
    with closing(ImageSpool()) as spool:
        for image in islice(images(view.path, LOOK_SIZE), max(2, round(seconds * view.rate))):
            spool.append(image)
            task.advance()
        if len(spool) < 3:
            raise SourceError(
                f"{view.path}: only {len(spool)} of its {view.count} images can be decoded, too few to align it by "
                "motion; the file is damaged or was cut off: copy it again, or remove it"
            )
        return profile_of(spool, view.rate)


def profile_of(shots: Sequence[Image] | ImageSpool, rate: float) -> MotionProfile:
    """The profile of small images of a static camera, in order."""
    count = len(shots)
    at = np.unique(np.linspace(0, count - 1, SAMPLES).round().astype(int))
    foreground = Foreground(empty_scene([shots[int(i)] for i in at]))
    masks, groups = [], []
    for i in range(count):
        mask = foreground(shots[i])
        masks.append(np.packbits(mask, axis=1))  # an eighth, so that minutes of them fit
        groups.append(candidates(mask))
    boxes = follow(groups)
    speed = np.zeros((len(ROLLS), count - 1, sum(PARTS)), np.float32)
    if not np.isfinite(boxes).any():
        return MotionProfile(rate, speed)
    size = float(np.nanmedian(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])))
    whole = filled(boxes).round().astype(int).clip(0)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before = cv2.cvtColor(shots[0], cv2.COLOR_RGB2GRAY)
    parts = []
    for i in range(count - 1):
        after = cv2.cvtColor(shots[i + 1], cv2.COLOR_RGB2GRAY)
        mask = np.unpackbits(masks[i], axis=1, count=before.shape[1]).astype(bool)
        motion = np.asarray(flow.calc(before, after, None))  # type: ignore[call-overload]
        y, x = _moving(mask, motion, whole[i] if np.isfinite(boxes[i]).all() else np.zeros(4, int))
        parts.append((np.stack([x, y], axis=1).astype(np.float32), motion[y, x] * np.float32(rate / size)))
        before = after
    for k, roll in enumerate(ROLLS):
        speed[k] = _speeds(parts, np.array([np.sin(roll), np.cos(roll)], np.float32), rate)
    return MotionProfile(rate, speed)


def _moving(
    mask: Bool[np.ndarray, "height width"],
    motion: Float32[np.ndarray, "height width 2"],
    box: Int64[np.ndarray, " 4"],
) -> tuple[Int64[np.ndarray, " pixels"], Int64[np.ndarray, " pixels"]]:
    """Rows and columns of what moves of the foreground in and about a box."""
    x0, y0, x1, y1 = map(int, box)
    if x1 <= x0 or y1 <= y0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    x0, y0 = max(x0 - BORDER, 0), max(y0 - BORDER, 0)
    near = np.s_[y0 : y1 + BORDER, x0 : x1 + BORDER]
    person = cv2.dilate(mask[near].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    y, x = np.nonzero(person & (np.linalg.norm(motion[near], axis=2) > MOVING))
    return y + y0, x + x0


def _speeds(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], down: Float32[np.ndarray, " 2"], rate: float
) -> Float32[np.ndarray, "samples heights"]:
    """Speed along `down` times moving area in each part of the body, from the upper to the lower end of what moves."""
    ends = np.array([np.percentile(at @ down, (1, 99)) if len(at) else (np.nan, np.nan) for at, _ in parts])
    seen = np.isfinite(ends[:, 0])
    if not seen.any():
        return np.zeros((len(parts), sum(PARTS)), np.float32)
    usual = float(np.median([len(at) for at, _ in parts if len(at)]))
    index = np.arange(len(ends))
    ends = np.stack([np.interp(index, index[seen], ends[seen, k]) for k in range(2)], axis=1)
    width = max(CALM * rate / 2, 0.5)
    kernel = np.exp(-0.5 * (np.arange(-round(3 * width), round(3 * width) + 1) / width) ** 2)
    reach = len(kernel) // 2
    padded = np.pad(ends, ((reach, reach), (0, 0)), mode="edge")
    ends = np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), "valid") for k in range(2)], axis=1)
    speeds = np.zeros((len(parts), sum(PARTS)), np.float32)
    for i, (at, moved) in enumerate(parts):
        if len(at):
            top, bottom = ends[i]
            height, speed = ((at @ down - top) / max(bottom - top, 1.0)).astype(np.float32), moved @ down
            speeds[i] = np.concatenate([_summed(height, speed, n) / usual * np.sqrt(n) for n in PARTS])
    return speeds


def _summed(
    height: Float32[np.ndarray, " pixels"], speed: Float32[np.ndarray, " pixels"], parts: int
) -> Float64[np.ndarray, " parts"]:
    """The sum of the speeds of the pixels in each part."""
    summed: Float64[np.ndarray, " parts"] = np.bincount((height * parts).astype(int).clip(0, parts - 1), speed, parts)
    return summed
