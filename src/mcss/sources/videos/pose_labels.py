"""3D labels beside videos → the pose of each image: 17 joints in world millimetres, +Z up.

A sequence's labels are one file ``poses.c3d``, ``.trc``, ``.bvh``, ``.csv`` or ``.npz`` among its videos.
"""

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64

from mcss.data.formats.joint_names import Joint, JointMapping, joint_places, joints_of
from mcss.data.formats.pose_files import POSE_SUFFIXES, read_pose_file
from mcss.data.formats.trajectories import Trajectories
from mcss.data.formats.units import Up, check_knees, find_unit, find_up, to_z_up
from mcss.errors import SourceError
from mcss.skeletons import JOINTS

OWN_SETTINGS = ("poses.toml", "poses.json")
"""A file beside a label file that holds settings for it alone, by the names of `PoseSettings`."""


@dataclass(frozen=True)
class PoseSettings:
    """How 3D labels (`poses.c3d`, `.trc`, `.bvh`, `.csv`, `.npz` beside the videos) are read.

    A file poses.toml (or .json) beside one of them may set the same for it alone.
    """

    read: bool = True
    """Whether label files are used at all."""
    units: str = "auto"
    """Of the coordinates: mm, cm, m, in, or millimetres per unit; auto: what the file says, else by a person's size."""
    up: Literal["auto"] | Up = "auto"
    """The axis that points up; auto: what the file says, else where people's heads are."""
    left_handed: bool = False
    """Whether the axes are left-handed, as Unity's are; otherwise such a person comes out mirrored."""
    rate: float | None = None
    """Samples per second, where the file states none or a wrong one."""
    offset: float = 0.0
    """Seconds from the first image of the videos to time 0 of the labels (their first sample, as a rule)."""
    max_gap: float = 0.1
    """Between samples that are further apart in seconds there is no label; nearer ones are interpolated."""
    joints: Path | None = None
    """A TOML or JSON file that gives the name (or a list of names, for their mean) of each joint: LHip = "L_hip"."""

    def __post_init__(self) -> None:
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"poses.rate must be a positive number of samples a second, came {self.rate}")
        if not math.isfinite(self.offset) or not (math.isfinite(self.max_gap) and self.max_gap >= 0):
            raise ValueError(
                f"expected a poses.offset in seconds and poses.max_gap ≥ 0, came {self.offset}, {self.max_gap}"
            )


@dataclass(frozen=True, eq=False)
class Labels:
    """The poses of one recording's images."""

    path: Path
    poses: Float32[np.ndarray, "images 17 3"]
    """World millimetres, +Z up; NaN where an image has no label."""
    notes: tuple[str, ...]
    """What is worth knowing of how the file was understood."""

    def pose(self, image: int) -> Float32[np.ndarray, "17 3"] | None:
        """The pose of one image; None if it has none."""
        known = image < len(self.poses) and bool(np.isfinite(self.poses[image]).all())
        return self.poses[image] if known else None


def pose_file(folder: Path) -> Path | None:
    """The label file of a sequence's folder, if there is one.

    Raises:
        SourceError: There are several.
    """
    found = [path for path in sorted(folder.glob("poses.*")) if path.suffix.lower() in POSE_SUFFIXES]
    if len(found) > 1:
        raise SourceError(
            f"{folder}: expected one file of 3D labels, came {', '.join(path.name for path in found)}; keep one"
        )
    return found[0] if found else None


def read_labels(path: Path, count: int, rate: float, settings: PoseSettings | None = None, first: int = 0) -> Labels:
    """The pose of each of `count` images taken `rate` times a second.

    Those before the number `first`, which a capture leaves out because not all views saw them, are not missed.

    Between two samples not more than `max_gap` apart joints are interpolated linearly; elsewhere a sample within a
    quarter of an image is taken as it is; else, and where a joint is missing, there is no pose.

    Raises:
        SourceError: The file cannot be read, lacks joints, fits no person in any unit or axis, or has no sample in
            the time of the images.
    """
    settings, mapping = _own(path, settings or PoseSettings())
    source = read_pose_file(path)
    joints = joints_of(path, source.names, mapping)
    places = joint_places(source.points, joints)
    if not np.isfinite(places).all(axis=(1, 2)).any():
        raise SourceError(
            f"{path}: not one of its {len(source)} samples has all joints ({_seldom(places)}); fill the gaps, or "
            "name other points in a mapping file (setting poses.joints)"
        )
    upright, notes = _world(path, places, source, settings)
    seconds = _seconds(source, rate, settings)
    poses = sampled(upright, seconds, np.arange(count) / rate, settings.max_gap, 0.25 / rate)
    labelled = int(np.isfinite(poses[first:]).all(axis=(1, 2)).sum())
    if not labelled:
        raise SourceError(
            f"{path}: no image has a label: its samples lie between {seconds[0]:.3f} s and {seconds[-1]:.3f} s, the "
            f"images between {first / rate:.3f} and {(count - 1) / rate:.3f} s, and gaps of more than "
            f"{settings.max_gap:g} s are not bridged; check the settings poses.offset, poses.rate and poses.max_gap"
        )
    if labelled < 0.9 * (count - first):
        notes.append(
            f"{path}: {labelled} of {count - first} images have a label; if it should be more, see poses.offset, "
            "poses.rate and poses.max_gap"
        )
    made = [f"{JOINTS[k]} from {_parts(joint, source.names)}" for k, joint in enumerate(joints) if joint.made]
    if made:
        notes.append(f"{path}: joints put together from others: {'; '.join(made)}")
    return Labels(path, poses.astype(np.float32), tuple(notes))


def sampled(
    places: Float64[np.ndarray, "samples 17 3"],
    seconds: Float64[np.ndarray, " samples"],
    at: Float64[np.ndarray, " images"],
    max_gap: float,
    near: float,
) -> Float64[np.ndarray, "images 17 3"]:
    """The pose at each time `at`; NaN where none is known.

    Args:
        places: NaN where a joint is missing; a sample with any missing one does not count.
        seconds: Of the samples, growing.
        at: Seconds.
        max_gap: Two samples further apart are not interpolated between.
        near: Elsewhere a sample as near as this in seconds is taken as it is.
    """
    whole = np.isfinite(places).all(axis=(1, 2))
    places, seconds = places[whole], seconds[whole]
    poses = np.full((len(at), *places.shape[1:]), np.nan)
    if not len(seconds):
        return poses
    after = np.searchsorted(seconds, at).clip(0, len(seconds) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(seconds[before] - at) <= np.abs(seconds[after] - at), before, after)
    between = (seconds[before] <= at) & (at <= seconds[after]) & (seconds[after] - seconds[before] <= max_gap + 1e-9)
    span = np.where(after > before, seconds[after] - seconds[before], 1.0)
    weight = ((at - seconds[before]) / span)[:, None, None]
    close = np.abs(seconds[nearest] - at) <= near
    poses[close] = places[nearest[close]]
    poses[between] = ((1 - weight) * places[before] + weight * places[after])[between]
    return poses


def _world(
    path: Path, places: Float64[np.ndarray, "samples 17 3"], source: Trajectories, settings: PoseSettings
) -> tuple[Float64[np.ndarray, "samples 17 3"], list[str]]:
    scale, unit_note = find_unit(path, places, source.unit if settings.units == "auto" else settings.units)
    up, up_note = find_up(path, places, source.up if settings.up == "auto" else settings.up, settings.up != "auto")
    upright = to_z_up(places * scale, up)
    if settings.left_handed:
        upright[..., 1] *= -1
    check_knees(path, upright)
    return upright, [f"{path}: {note}" for note in (unit_note, up_note) if note]


def _seconds(source: Trajectories, rate: float, settings: PoseSettings) -> Float64[np.ndarray, " samples"]:
    if settings.rate is not None:
        return np.arange(len(source)) / settings.rate + settings.offset
    if source.times is None:
        raise SourceError(
            f"{source.path}: the file does not say how many samples it has a second; add times, or use the setting "
            "poses.rate"
        )
    return (source.times / rate if source.clock == "images" else source.times) + settings.offset


def _own(path: Path, settings: PoseSettings) -> tuple[PoseSettings, JointMapping]:
    """The settings of one label file and its mapping: those beside it come before the general ones."""
    mapping = {} if settings.joints is None else _table(settings.joints)
    found = [path.with_name(name) for name in OWN_SETTINGS if path.with_name(name).is_file()]
    if not found:
        return settings, _mapping(mapping, settings.joints)
    own = _table(found[0])
    values = {name: getattr(settings, name) for name in PoseSettings.__dataclass_fields__}
    unknown = sorted(own.keys() - (values.keys() - {"read"}))
    if unknown:
        raise SourceError(
            f"{found[0]}: there is no setting {', '.join(unknown)}; expected some of "
            + ", ".join(name for name in values if name != "read")
        )
    own = {name: float(value) if type(value) is int else value for name, value in own.items()}
    joints = own.pop("joints", None)
    if isinstance(joints, str):
        joints = _table(path.parent / joints)
    if joints is not None:
        mapping = joints
    try:
        return PoseSettings(**(values | own)), _mapping(mapping, found[0])
    except (TypeError, ValueError) as error:
        raise SourceError(f"{found[0]}: {error}") from error


def _mapping(value: Any, path: Path | None) -> JointMapping:
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
    except (OSError, ValueError) as error:  # both decoders' errors, and that of wrong bytes, are ValueErrors
        raise SourceError(f"{path}: cannot be read as TOML or JSON ({error}); mend it") from error
    if not isinstance(table, dict):
        raise SourceError(f"{path}: expected a table of names and values, came a {type(table).__name__}")
    return table


def _seldom(places: Float64[np.ndarray, "samples 17 3"]) -> str:
    seen = np.isfinite(places).all(axis=2).mean(axis=0)
    worst = np.argsort(seen, kind="stable")[:3]
    return ", ".join(f"{JOINTS[k]} is known in {seen[k]:.0%}" for k in worst.tolist())


def _parts(joint: Joint, names: tuple[str, ...]) -> str:
    return " and ".join(names[at] for at in joint.points)
