"""Compare two clips of one movement: align them by pose, and measure where body angles and joints differ.

The poses that are compared are *predicted*, so differences no larger than the model's own errors mean nothing.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.ndimage import gaussian_filter1d

from mcss.data.instants import evenly_spread
from mcss.inference.pose_sequence import PoseSequence
from mcss.metrics import procrustes_aligned
from mcss.search.dtw import at_pace, pace, path_between
from mcss.skeletons import JOINTS, body_angles
from mcss.smoothing import SmoothingSettings, smoothed

EVEN_PACE = 0.34
"""A path at an even pace is kept if it gains at least this share of what warping gains over pairs at random.

With the shipped weights and two cameras of one recording of 32 s the share was 0.38 to 0.44; it was at most 0.29 once
one of them ran 1.1 to 1.5 times as fast, unevenly, or backwards."""

NEARLY = 1.34
"""The mean distance along a path at an even pace is at most this many times that of the warped one."""

FEWEST = 8
"""Smallest number of images in a clip."""


@dataclass(frozen=True)
class CompareSettings:
    """How two clips are aligned."""

    ends: Literal["free", "fixed"] = "free"
    """free: find the shorter clip within the longer one, which may begin earlier and end later. fixed: both clips show
    the movement from beginning to end."""
    steady: float = 0.15
    """Seconds over which the alignment is smoothed; 0 for no smoothing."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    """How the poses are smoothed over time."""

    def __post_init__(self) -> None:
        if self.steady < 0:
            raise ValueError(f"steady: expected 0 s or more, got {self.steady}.")


@dataclass(frozen=True)
class AngleDifference:
    """How an angle differs between two clips, in degrees."""

    name: str
    mean_a: float
    mean_b: float
    mean: float
    """Mean absolute difference."""
    largest: float
    """The difference, b - a, that is largest in absolute value."""
    at: int
    """The moment of the largest difference."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two clips at corresponding moments, in order of time, with smoothed poses."""

    a: PoseSequence
    """For each moment, the nearest image of clip A."""
    b: PoseSequence
    """For each moment, the nearest image of clip B."""
    time_a: Float64[np.ndarray, " n"]
    time_b: Float64[np.ndarray, " n"]
    pose_a: Float64[np.ndarray, "n 17 3"]
    """Canonical poses in mm."""
    pose_b: Float64[np.ndarray, "n 17 3"]
    """Canonical poses in mm."""
    distance: Float64[np.ndarray, " n"]
    """Distance between the embeddings of the nearest images, 0 to 2."""

    def __len__(self) -> int:
        return len(self.time_a)

    @property
    def angles_a(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """The body angles of clip A in degrees, by name; only those that are defined throughout both clips."""
        return self._angles[0]

    @property
    def angles_b(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """The body angles of clip B in degrees, by name; only those that are defined throughout both clips."""
        return self._angles[1]

    @property
    def joints(self) -> Float64[np.ndarray, "n 17"]:
        """Distance of each joint in mm once B is aligned to A, so that size, heading and position do not count."""
        aligned = procrustes_aligned(torch.from_numpy(self.pose_b), torch.from_numpy(self.pose_a)).numpy()
        return np.asarray(np.linalg.norm(aligned - self.pose_a, axis=2), np.float64)

    @cached_property
    def _angles(self) -> tuple[dict[str, Float64[np.ndarray, " n"]], dict[str, Float64[np.ndarray, " n"]]]:
        a, b = body_angles(self.pose_a), body_angles(self.pose_b)
        defined = [name for name in a if np.isfinite(a[name] + b[name]).all()]
        return {name: a[name] for name in defined}, {name: b[name] for name in defined}

    def differences(self) -> list[AngleDifference]:
        """Compare every angle; the largest mean difference comes first."""
        a, b = self._angles
        differences = []
        for name in a:
            difference = b[name] - a[name]
            worst = int(np.abs(difference).argmax())
            differences.append(
                AngleDifference(
                    name=name,
                    mean_a=float(a[name].mean()),
                    mean_b=float(b[name].mean()),
                    mean=float(np.abs(difference).mean()),
                    largest=float(difference[worst]),
                    at=worst,
                )
            )
        return sorted(differences, key=lambda difference: -difference.mean)


def compare(a: PoseSequence, b: PoseSequence, settings: CompareSettings | None = None) -> Comparison:
    """Align two clips.

    Raises:
        ValueError: A clip has too few images, or no pace aligns their lengths.
    """
    settings = settings or CompareSettings()
    for clip in (a, b):
        if len(clip) < FEWEST:
            raise ValueError(f"{clip.name}: expected {FEWEST} images or more, got {len(clip)}; name a longer time")
    step = max(pace(a.time), pace(b.time))
    even_a, even_b = a.take(at_pace(a.time, step)), b.take(at_pace(b.time, step))
    swapped = len(even_a) > len(even_b)  # the shorter clip is found within the longer
    shorter, longer = (even_b, even_a) if swapped else (even_a, even_b)
    path, _ = path_between(shorter.poses.embedding, longer.poses.embedding, free=settings.ends == "free")
    if settings.ends == "free":
        path = without_needless_warping(shorter.poses.embedding, longer.poses.embedding, path)
    times = longer.time[path]
    if settings.steady and step:
        offset = gaussian_filter1d(times - shorter.time, settings.steady / step, mode="nearest")
        times = np.maximum.accumulate(np.clip(offset + shorter.time, longer.time[0], longer.time[-1]))
    time_a, time_b = (times, shorter.time) if swapped else (shorter.time, times)
    nearest_a, nearest_b = a.take(_nearest(a.time, time_a)), b.take(_nearest(b.time, time_b))
    return Comparison(
        a=nearest_a,
        b=nearest_b,
        time_a=time_a,
        time_b=time_b,
        pose_a=_poses_at(a, time_a, settings.smoothing),
        pose_b=_poses_at(b, time_b, settings.smoothing),
        distance=np.linalg.norm(nearest_a.poses.embedding.astype(float) - nearest_b.poses.embedding, axis=1),
    )


def without_needless_warping(
    a: Float[np.ndarray, "m dim"], b: Float[np.ndarray, "n dim"], path: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " m"]:
    """Return a path at an even pace if it agrees nearly as well as a path found by warping, else that path.

    A path that may change its pace agrees better by chance alone: two cameras that filmed one performance would come
    out seconds apart where the person hardly moves.

    Args:
        a: Embeddings of the shorter clip.
        b: Embeddings of the longer clip, at the same pace.
        path: The image of `b` for each image of `a`.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    distance = np.sqrt(np.maximum(squared, 0.0))
    index = np.arange(len(a))
    costs = [distance[index, index + shift].mean() for shift in range(len(b) - len(a) + 1)]
    shift, usual = int(np.argmin(costs)), float(distance.mean())
    warped = float(distance[index, path].mean())
    agrees = usual - costs[shift] >= EVEN_PACE * (usual - warped) and costs[shift] <= NEARLY * warped
    return index + shift if agrees else path


def shown_moments(
    comparison: Comparison, spread: int = 5, worst: int = 3, apart: float = 0.3
) -> tuple[list[int], list[int]]:
    """Choose moments to show: some spread evenly, and those at which joints differ most, at least `apart` s apart."""
    even = evenly_spread(len(comparison), spread).tolist()
    most: list[int] = []
    for moment in np.argsort(-comparison.joints[:, 1:].mean(axis=1), kind="stable").tolist():
        if all(abs(comparison.time_a[moment] - comparison.time_a[other]) >= apart for other in most):
            most.append(moment)
        if len(most) == worst:
            break
    return even, most


def _poses_at(
    clip: PoseSequence, time: Float64[np.ndarray, " n"], settings: SmoothingSettings
) -> Float64[np.ndarray, "n 17 3"]:
    poses = smoothed(clip.poses.pose, clip.time, settings).reshape(len(clip), -1)
    return np.stack([np.interp(time, clip.time, column) for column in poses.T], axis=1).reshape(-1, len(JOINTS), 3)


def _nearest(time: Float64[np.ndarray, " n"], wanted: Float64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    return np.asarray(np.abs(time[None] - wanted[:, None]).argmin(axis=1), np.int64)
