"""Two clips of one movement, set side by side: put in step by pose, and where body angles and joints differ.

What is compared are *predicted* poses: differences that are no larger than the model's own errors say nothing.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from scipy.ndimage import gaussian_filter1d

from mcss.inference.smoothing import SmoothingSettings, smoothed
from mcss.metrics import procrustes_aligned
from mcss.search.clips import Clip
from mcss.search.dtw import at_pace, pace, path_between
from mcss.skeletons import JOINTS, body_angles

FEWEST = 8
"""Images that a clip must have."""


@dataclass(frozen=True)
class CompareSettings:
    """How two clips are put in step."""

    ends: Literal["free", "fixed"] = "free"
    """free: the shorter clip is looked for in the longer one, which may go on before and after. fixed: both show the
    movement from its beginning to its end."""
    steady: float = 0.15
    """Seconds over which the alignment is smoothed."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    """Of the poses."""

    def __post_init__(self) -> None:
        if self.steady < 0:
            raise ValueError(f"steady: expected 0 s or more, got {self.steady}.")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two clips at moments that belong together, in order of time; everything smoothed through time."""

    a: Clip
    b: Clip
    """As `a`, as long: the image of each moment is the nearest one."""
    time_a: Float64[np.ndarray, " n"]
    time_b: Float64[np.ndarray, " n"]
    pose_a: Float64[np.ndarray, "n 17 3"]
    """Canonical, mm."""
    pose_b: Float64[np.ndarray, "n 17 3"]
    distance: Float64[np.ndarray, " n"]
    """Between embeddings of the nearest images, 0 to 2."""

    def __len__(self) -> int:
        return len(self.time_a)

    @property
    def angles_a(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Degrees, by name."""
        return body_angles(self.pose_a)

    @property
    def angles_b(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Degrees, by name."""
        return body_angles(self.pose_b)

    @property
    def joints(self) -> Float64[np.ndarray, "n 17"]:
        """Distance of each joint in mm, b being laid on a: what size, heading and place do not explain."""
        laid = procrustes_aligned(torch.from_numpy(self.pose_b), torch.from_numpy(self.pose_a)).numpy()
        return np.asarray(np.linalg.norm(laid - self.pose_a, axis=2), np.float64)

    def differences(self) -> list["Difference"]:
        """Of every angle, the largest mean difference first."""
        a, b = self.angles_a, self.angles_b
        found = []
        for name in a:
            apart = b[name] - a[name]
            worst = int(np.abs(apart).argmax())
            found.append(
                Difference(
                    name=name,
                    mean_a=float(a[name].mean()),
                    mean_b=float(b[name].mean()),
                    mean=float(np.abs(apart).mean()),
                    largest=float(apart[worst]),
                    at=worst,
                )
            )
        return sorted(found, key=lambda difference: -difference.mean)


@dataclass(frozen=True)
class Difference:
    """How an angle differs between two clips, in degrees."""

    name: str
    mean_a: float
    mean_b: float
    mean: float
    """Of the absolute differences."""
    largest: float
    """The largest, b less a."""
    at: int
    """The moment of it."""


def compare(a: Clip, b: Clip, settings: CompareSettings | None = None) -> Comparison:
    """Put two clips in step.

    Raises:
        ValueError: Too few images, or lengths between which no pace fits.
    """
    settings = settings or CompareSettings()
    for clip in (a, b):
        if len(clip) < FEWEST:
            raise ValueError(f"{clip.name}: {len(clip)} images, expected {FEWEST} or more; name a longer time")
    step = max(pace(a.time), pace(b.time))
    even_a, even_b = a.take(at_pace(a.time, step)), b.take(at_pace(b.time, step))
    turned = len(even_a) > len(even_b)  # the shorter is looked for in the longer
    query, track = (even_b, even_a) if turned else (even_a, even_b)
    path, _ = path_between(query.vector, track.vector, free=settings.ends == "free")
    times = track.time[path]
    if settings.steady and step:
        calm = gaussian_filter1d(times - query.time, settings.steady / step, mode="nearest") + query.time
        times = np.maximum.accumulate(np.clip(calm, track.time[0], track.time[-1]))
    time_a, time_b = (times, query.time) if turned else (query.time, times)
    pose_a, pose_b = _poses_at(a, time_a, settings), _poses_at(b, time_b, settings)
    shown_a, shown_b = a.take(_nearest(a, time_a)), b.take(_nearest(b, time_b))
    distance = np.linalg.norm(shown_a.vector.astype(float) - shown_b.vector, axis=1)
    return Comparison(shown_a, shown_b, time_a, time_b, pose_a, pose_b, distance)


def moments(comparison: Comparison, spread: int = 5, worst: int = 3, apart: float = 0.3) -> tuple[list[int], list[int]]:
    """Moments to be shown: some spread over all, and those at which joints differ most, no two within `apart` s."""
    even = np.unique(np.linspace(0, len(comparison) - 1, spread).round().astype(int)).tolist()
    most: list[int] = []
    for place in np.argsort(-comparison.joints[:, 1:].mean(axis=1), kind="stable").tolist():
        if all(abs(comparison.time_a[place] - comparison.time_a[other]) >= apart for other in most):
            most.append(place)
        if len(most) == worst:
            break
    return even, most


def _poses_at(clip: Clip, time: Float64[np.ndarray, " n"], settings: CompareSettings) -> Float64[np.ndarray, "n 17 3"]:
    calm = smoothed(clip.poses.pose, clip.time, settings.smoothing).reshape(len(clip), -1)
    found = np.stack([np.interp(time, clip.time, column) for column in calm.T], axis=1)
    return found.reshape(-1, len(JOINTS), 3)


def _nearest(clip: Clip, time: Float64[np.ndarray, " n"]) -> np.ndarray:
    return np.asarray(np.abs(clip.time[None] - time[:, None]).argmin(axis=1))
