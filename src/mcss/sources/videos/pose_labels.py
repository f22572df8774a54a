"""3D labels beside videos: the pose at each instant as 17 joints in world millimetres, +Z up.

The labels of a sequence are one file ``poses.c3d``, ``.trc``, ``.bvh``, ``.csv`` or ``.npz`` among its videos.
"""

import json
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from mcss.data.formats.joint_names import JointMapping, JointSource, joint_positions, joints_of
from mcss.data.formats.pose_files import POSE_SUFFIXES, read_pose_file
from mcss.data.formats.trajectories import Trajectories
from mcss.data.formats.units import (
    Up,
    check_depth,
    check_knees,
    check_not_normalised,
    find_unit,
    find_up,
    to_z_up,
    without_broken_bones,
)
from mcss.errors import SourceError
from mcss.skeletons import JOINTS

SETTINGS_FILES = ("poses.toml", "poses.json")
"""Names of a file beside a label file with settings for it alone, by the names of `PoseSettings`."""

MANY = 1.15
"""Labels that number this many times as many images as there are may have a rate of their own."""


@dataclass(frozen=True)
class PoseSettings:
    """How 3D labels (`poses.c3d`, `.trc`, `.bvh`, `.csv`, `.npz` beside the videos) are read.

    A file poses.toml (or .json) beside a label file overrides these settings for that file.
    """

    read: bool = True
    """Whether label files are used at all."""
    units: str = "auto"
    """Unit of the coordinates: mm, cm, m, in, or millimetres per unit; auto uses the unit that the file states, or
    otherwise the one in which people have a plausible size."""
    up: Literal["auto"] | Up = "auto"
    """The axis that points up; auto uses the axis that the file states, or otherwise the one along which heads are
    up."""
    left_handed: bool = False
    """Whether the axes are left-handed, as in Unity; if this is wrong, people come out mirrored."""
    rate: float | None = None
    """Samples per second, if the file states none or a wrong one."""
    offset: float = 0.0
    """Seconds from the first image of the videos to time 0 of the labels, which usually is their first sample."""
    max_gap: float = 0.1
    """Poses are interpolated between samples at most this many seconds apart; in longer gaps there is no label."""
    joints: Path | None = None
    """A TOML or JSON file that gives the name (or a list of names, for their mean) of each joint: LHip = "L_hip"."""

    def __post_init__(self) -> None:
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"poses.rate: expected a positive number of samples per second, got {self.rate}")
        if not math.isfinite(self.offset) or not (math.isfinite(self.max_gap) and self.max_gap >= 0):
            raise ValueError(
                f"expected a poses.offset in seconds and poses.max_gap ≥ 0, got {self.offset} and {self.max_gap}"
            )


@dataclass(frozen=True, eq=False)
class RecordingLabels:
    """The poses of one recording."""

    path: Path
    poses: Float32[np.ndarray, "instants 17 3"]
    """World millimetres, +Z up, by number of the instant; NaN at instants without label."""
    notes: tuple[str, ...]
    """How the file was interpreted, if that is not obvious."""

    def pose(self, instant: int) -> Float32[np.ndarray, "17 3"] | None:
        """Return the pose at an instant; None if it has no label."""
        known = instant < len(self.poses) and bool(np.isfinite(self.poses[instant]).all())
        return self.poses[instant] if known else None

    def poses_at(self, instants: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n 17 3"]:
        """Return the poses at some instants; NaN at those without label."""
        known = instants < len(self.poses)
        poses: Float32[np.ndarray, "n 17 3"] = np.full((len(instants), 17, 3), np.nan, np.float32)
        poses[known] = self.poses[instants[known]]
        return poses


def pose_file(folder: Path) -> Path | None:
    """Return the label file in a sequence's folder, if there is one.

    Raises:
        SourceError: There are several.
    """
    named = [path for path in sorted(folder.iterdir()) if path.stem.lower() == "poses"]
    paths = [path for path in named if path.suffix.lower() in POSE_SUFFIXES]
    if len(paths) > 1:
        raise SourceError(
            f"{folder}: expected one file of 3D labels, got {', '.join(path.name for path in paths)}; keep one"
        )
    return paths[0] if paths else None


def read_labels(
    path: Path,
    count: int,
    rate: float,
    settings: PoseSettings | None = None,
    first: int = 0,
    times: Float64[np.ndarray, " instants"] | None = None,
    image_seconds: Float64[np.ndarray, " images"] | None = None,
) -> RecordingLabels:
    """Read the pose of each of `count` instants, of which there are about `rate` per second.

    Between two samples at most `max_gap` apart, joints are interpolated linearly. Elsewhere, a sample within a quarter
    of a frame is used as it is. Otherwise, and if a joint is missing, there is no pose.

    Args:
        path: The label file.
        count: Number of instants.
        rate: Instants per second.
        settings: How the file is read; a file beside it takes precedence. None uses the defaults.
        first: Number of the first instant that the capture takes; labels may be missing before it.
        times: Seconds of each instant; None if instant i is at i / `rate`.
        image_seconds: Seconds of each image of the first view, for files that count images; None if they are evenly
            spaced.

    Raises:
        SourceError: The file cannot be read, lacks joints, fits no person in any unit or axis, or has no sample in
            the time of the instants.
    """
    settings, mapping = _settings_for(path, settings or PoseSettings())
    source = read_pose_file(path)
    joints = joints_of(path, source.names, mapping)
    positions, broken = without_broken_bones(joint_positions(source.points, joints))
    if not np.isfinite(positions).all(axis=(1, 2)).any():
        raise SourceError(
            f"{path}: none of its {len(source)} samples has all joints ({_rarest_joints(positions)}); fill the gaps, "
            "or name other points in a mapping file (--poses.joints)"
        )
    upright, notes = _in_world(path, positions, source, settings)
    notes = [*(f"{path}: {note}" for note in source.notes), *notes]
    if broken:
        notes.append(
            f"{path}: {broken:,} of its {len(source):,} samples have a bone of impossible length (a marker that was "
            "lost, or a code for one, such as 9999999), so they give no label"
        )
    times = np.arange(count) / rate if times is None else times
    source, clock_note = _in_seconds(source, float(times[-1] - times[0]))
    notes += [clock_note] if clock_note else []
    seconds = _seconds(source, rate, settings, image_seconds)
    if settings.rate is None:
        notes += _outnumbering(source, rate, count if image_seconds is None else len(image_seconds))
    poses = sampled(upright, seconds, times, settings.max_gap, 0.25 / rate)
    labelled = int(np.isfinite(poses[first:]).all(axis=(1, 2)).sum())
    if not labelled:
        raise SourceError(
            f"{path}: no image has a label: its samples lie between {seconds[0]:.3f} s and {seconds[-1]:.3f} s, the "
            f"images between {times[first]:.3f} and {times[-1]:.3f} s, and gaps of more than "
            f"{settings.max_gap:g} s are not bridged; check the settings poses.offset, poses.rate and poses.max_gap"
        )
    if labelled < 0.9 * (count - first):
        notes.append(
            f"{path}: {labelled} of {count - first} images have a label; if there should be more, check poses.offset, "
            "poses.rate and poses.max_gap"
        )
    derived = [f"{JOINTS[k]} from {_point_names(joint, source.names)}" for k, joint in enumerate(joints) if joint.made]
    if derived:
        notes.append(f"{path}: joints derived from others: {'; '.join(derived)}")
    return RecordingLabels(path, poses.astype(np.float32), tuple(notes))


def sampled(
    positions: Float64[np.ndarray, "samples 17 3"],
    seconds: Float64[np.ndarray, " samples"],
    at: Float64[np.ndarray, " images"],
    max_gap: float,
    near: float,
) -> Float64[np.ndarray, "images 17 3"]:
    """Sample the pose at each time `at`; NaN where it is not known.

    Args:
        positions: Joint positions, NaN where a joint is missing; a sample with a missing joint is ignored.
        seconds: Times of the samples, increasing.
        at: Times in seconds.
        max_gap: Poses are interpolated only between samples at most this many seconds apart.
        near: Elsewhere, a sample at most this many seconds away is used as it is.
    """
    complete = np.isfinite(positions).all(axis=(1, 2))
    positions, seconds = positions[complete], seconds[complete]
    poses = np.full((len(at), *positions.shape[1:]), np.nan)
    if not len(seconds):
        return poses
    after = np.searchsorted(seconds, at).clip(0, len(seconds) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(seconds[before] - at) <= np.abs(seconds[after] - at), before, after)
    between = (seconds[before] <= at) & (at <= seconds[after]) & (seconds[after] - seconds[before] <= max_gap + 1e-9)
    span = np.where(after > before, seconds[after] - seconds[before], 1.0)
    weight = ((at - seconds[before]) / span)[:, None, None]
    close = np.abs(seconds[nearest] - at) <= near
    poses[close] = positions[nearest[close]]
    poses[between] = ((1 - weight) * positions[before] + weight * positions[after])[between]
    return poses


def _in_world(
    path: Path, positions: Float64[np.ndarray, "samples 17 3"], source: Trajectories, settings: PoseSettings
) -> tuple[Float64[np.ndarray, "samples 17 3"], list[str]]:
    """Convert joint positions to world millimetres, +Z up; also returns notes on how that was decided."""
    unit = source.unit if settings.units == "auto" else settings.units
    check_depth(path, positions)
    if settings.units == "auto" and unit is None:
        check_not_normalised(path, positions)
    scale, unit_note = find_unit(path, positions, unit)
    up, up_note = find_up(path, positions, source.up if settings.up == "auto" else settings.up, settings.up != "auto")
    upright = to_z_up(positions * scale, up)
    if settings.left_handed:
        upright[..., 1] *= -1
    check_knees(path, upright)
    return upright, [f"{path}: {note}" for note in (unit_note, up_note) if note]


def _in_seconds(source: Trajectories, duration: float) -> tuple[Trajectories, str | None]:
    """Return labels whose times count seconds, and a note if those of the file count thousandths or less.

    They do if they last a thousand times as long as the images, or a million times, give or take a factor of two.
    """
    if source.times is None or source.clock == "images" or duration <= 0:
        return source, None
    span = float(source.times[-1] - source.times[0])
    for parts, name in ((1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")):
        if 0.5 < span / parts / duration < 2:
            note = f"{source.path}: its times are taken as {name}, as they last {span / duration:,.0f} times as long"
            return replace(source, times=source.times / parts), f"{note} as the images"
    return source, None


def _seconds(
    source: Trajectories,
    rate: float,
    settings: PoseSettings,
    image_seconds: Float64[np.ndarray, " images"] | None,
) -> Float64[np.ndarray, " samples"]:
    """Return the time of each sample on the clock of the videos."""
    if settings.rate is not None:
        return sample_numbers(source) / settings.rate + settings.offset
    if source.times is None:
        raise SourceError(
            f"{source.path}: the file does not state how many samples per second it has; add times, or give "
            "--poses.rate"
        )
    if source.clock != "images":
        return source.times + settings.offset
    if image_seconds is None or len(image_seconds) < 2:
        return source.times / rate + settings.offset
    inside = source.times.clip(0, len(image_seconds) - 1)
    at = np.interp(inside, np.arange(len(image_seconds)), image_seconds)
    return np.asarray(at + (source.times - inside) / rate + settings.offset, np.float64)


def sample_numbers(source: Trajectories) -> Float64[np.ndarray, " samples"]:
    """Number the samples of a file from 0, leaving out the numbers of samples that its frames or times skip."""
    numbers = np.arange(len(source), dtype=np.float64)
    if source.times is None or len(source) < 3:
        return numbers
    steps = (source.times - source.times[0]) / np.median(np.diff(source.times))
    even = np.abs(steps - np.round(steps)).max() < 0.1
    return np.asarray(np.round(steps) if even else numbers, np.float64)


def _outnumbering(source: Trajectories, rate: float, images: int) -> list[str]:
    """Return a note if labels that count images count far more than there are."""
    if source.clock != "images" or source.times is None or source.times[-1] + 1 <= MANY * images:
        return []
    last = source.times[-1]
    return [
        f"{source.path}: each sample is taken as one image, and the last as image {last:.0f}, but there are only "
        f"{images} images; if the samples have a rate of their own, give it as --poses.rate "
        f"({(last + 1) / images * rate:.4g} a second if they last as long as the images)"
    ]


def _settings_for(path: Path, settings: PoseSettings) -> tuple[PoseSettings, JointMapping]:
    """Return the settings and the joint mapping for a label file; those in a file beside it take precedence."""
    mapping = {} if settings.joints is None else _table(settings.joints)
    beside = next((path.with_name(name) for name in SETTINGS_FILES if path.with_name(name).is_file()), None)
    if beside is None:
        return settings, _checked_mapping(mapping, settings.joints)
    overrides = _table(beside)
    values = {name: getattr(settings, name) for name in PoseSettings.__dataclass_fields__}
    unknown = sorted(overrides.keys() - (values.keys() - {"read"}))
    if unknown:
        raise SourceError(
            f"{beside}: there is no setting {', '.join(unknown)}; expected some of "
            + ", ".join(name for name in values if name != "read")
        )
    overrides = {name: float(value) if type(value) is int else value for name, value in overrides.items()}
    joints = overrides.pop("joints", None)
    if isinstance(joints, str):
        joints = _table(path.parent / joints)
    if joints is not None:
        mapping = joints
    try:
        return PoseSettings(**(values | overrides)), _checked_mapping(mapping, beside)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{beside}: {error}") from error


def _checked_mapping(value: Any, path: Path | None) -> JointMapping:
    texts = isinstance(value, dict) and all(
        isinstance(v, str) or (isinstance(v, list) and all(isinstance(name, str) for name in v)) for v in value.values()
    )
    if not texts:
        raise SourceError(
            f'{path}: expected a name or a list of names for each joint, such as LHip = "L_hip" or '
            'Hip = ["L_hip", "R_hip"]'
        )
    mapping: JointMapping = value
    return mapping


def _table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # syntax and encoding errors are ValueErrors
        raise SourceError(f"{path}: cannot be read as TOML or JSON ({error}); correct it") from error
    if not isinstance(table, dict):
        raise SourceError(f"{path}: expected a table of names and values, got a {type(table).__name__}")
    return table


def _rarest_joints(positions: Float64[np.ndarray, "samples 17 3"]) -> str:
    known = np.isfinite(positions).all(axis=2).mean(axis=0)
    rarest = np.argsort(known, kind="stable")[:3]
    return ", ".join(f"{JOINTS[k]} is known in {known[k]:.0%}" for k in rarest.tolist())


def _point_names(joint: JointSource, names: tuple[str, ...]) -> str:
    return " and ".join(names[at] for at in joint.points)
