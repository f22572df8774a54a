"""Find the cameras of a recording from the person who moves in front of them, and the person in the room."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64

from mcss.calibration.adjustment import Adjusted, AdjustmentSettings, adjusted, from_rays, with_joints
from mcss.calibration.faults import Fault, agreeing_share, fault_of, moved
from mcss.calibration.placement import LEAST_POINTS, placed
from mcss.calibration.rig import Rig, guessed_intrinsics
from mcss.calibration.sightings import Sightings, sightings_of
from mcss.calibration.swaps import swapped_sides
from mcss.calibration.timing import MOST_SECONDS, clock_offsets, in_step, velocities
from mcss.calibration.triangulation import RoomPoses, room_poses, smoothed, solved_joints
from mcss.calibration.upright import on_a_line, upright
from mcss.calibration.verdict import WEAK_SHARE, Measures, Verdict, judged, measured
from mcss.errors import CalibrationError
from mcss.landmarks.image_size import completed_sizes
from mcss.landmarks.view_landmarks import ViewLandmarks

GUESSED_FOCAL = 1.0
"""Focal length, in units of the longer side of the image, of a camera of which nothing is known: telephones film with
0.7 to 0.9, webcams with 0.8 to 1, laboratory cameras with 0.9 to 1.5."""

OTHER_FOCALS = (0.35, 0.5, 0.7, 1.4, 2.0, 2.8)
"""Other focal lengths that are tried where cameras do not fit together, as multiples of the first."""

TRIAL_INSTANTS = 100
"""Instants with which it is tried which views agree."""

FEW_INSTANTS = 40
"""Instants with which they are tried."""

ON_A_LINE = "the person moves along one line: which way the floor leans across it rests on how the person stands alone"


@dataclass(frozen=True)
class CalibrationSettings:
    """How cameras are found."""

    focal: float | None = None
    """Focal length of all cameras: in pixels, or up to 10 in units of the longer side of the image. By default 1 times
    the longer side, which serves for most cameras."""
    height: float | None = None
    """Stature of the person in mm, which sets the scale; by default 1700, an average adult."""
    instants: int = 300
    """Number of instants, evenly spread, from which the cameras are found; all instants are triangulated."""
    clocks: bool = True
    """Find offsets between the cameras' clocks that are finer than an image."""
    smoothing: float = 0.0
    """Standard deviation in seconds of the window over which joints are averaged, without lag; 0 for none."""

    def __post_init__(self) -> None:
        if self.focal is not None and not 0.2 <= self.focal < 1e5:
            raise ValueError(f"focal: expected 0.2 to 10 (times the longer side) or pixels, got {self.focal}.")
        if self.height is not None and not 500 <= self.height <= 2500:
            raise ValueError(f"height: expected the stature in mm, 500 to 2500, got {self.height}.")
        if self.instants < 10:
            raise ValueError(f"instants: expected at least 10, got {self.instants}.")
        if self.smoothing < 0:
            raise ValueError(f"smoothing: expected 0 or more seconds, got {self.smoothing}.")


@dataclass(frozen=True, eq=False)
class Calibration:
    """The cameras of a recording, in a room in mm with +Z up and the floor at 0, and whether to rely on them."""

    cameras: Rig
    """Those of `views`; a view that does not fit is not among them."""
    verdict: Verdict
    offsets: Float64[np.ndarray, " views"]
    """Seconds by which each camera shows things later than the mean of all."""
    faults: tuple[Fault, ...]
    """Views that do not agree with the others, and why."""
    scale_from: str
    """What the scale rests on, in words."""
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    notes: tuple[str, ...] = ()
    """What was assumed besides."""

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return self.cameras.views


def calibrate(
    landmarks: ViewLandmarks,
    settings: CalibrationSettings = CalibrationSettings(),
    known: Rig | None = None,
) -> Calibration:
    """Find the cameras; the first view's camera looks along +Y, and the person's usual place is above the origin.

    Args:
        landmarks: What a detector found in synchronised views of one person (one at a time) by static cameras.
        settings: How cameras are found.
        known: Cameras whose intrinsics are known; their places are not used.

    Raises:
        CalibrationError: There is only one view, or too little is seen.
    """
    views = landmarks.views
    if len(views) < 2:
        raise CalibrationError(
            f"finding cameras needs at least two views of the person, got {len(views)} ({', '.join(views)}); record "
            "with a second camera"
        )
    found = _calibrated(landmarks, settings, known)
    return found if known is not None or _fits_together(found) else _with_other_focal(landmarks, found, settings)


def _fits_together(found: Calibration) -> bool:
    """Whether nothing speaks against the focal length: the fit is good, and views were left out for known reasons."""
    verdict = found.verdict
    return verdict.grade != "failed" and not verdict.misfits and all(fault.kind != "other" for fault in found.faults)


def _with_other_focal(landmarks: ViewLandmarks, found: Calibration, settings: CalibrationSettings) -> Calibration:
    """Look whether another focal length makes the cameras fit; take it if none was given, and say so otherwise."""
    side = float(completed_sizes(landmarks)[0].max())
    focal = GUESSED_FOCAL if settings.focal is None else settings.focal
    given = focal * side if focal <= 10 else focal
    factor = _best_factor(landmarks, replace(settings, focal=given))
    if factor == 1:
        return found
    other = _calibrated(landmarks, replace(settings, focal=factor * given), None)
    if not _fits_together(other) or other.faults:
        return found
    if settings.focal is None:
        note = (
            f"the cameras do not fit together with a focal length of {given:.0f} pixels, the usual one; "
            f"{factor * given:.0f} pixels are taken, which is rough: state --focal if it is known"
        )
        return replace(other, notes=(*other.notes, note), settings=settings)
    text = (
        f"the focal length of {given:.0f} pixels is far off: the cameras fit together with about "
        f"{factor * given:.0f} pixels; leave --focal out, or correct it"
    )
    verdict = replace(found.verdict, grade="failed", reasons=(text, *found.verdict.misfits))
    return replace(
        found, verdict=verdict, faults=()
    )  # what seems wrong with single views follows from the focal length


def _best_factor(landmarks: ViewLandmarks, settings: CalibrationSettings) -> float:
    """The multiple of the focal length, in pixels, with which all cameras fit together best, by few instants."""
    some = sightings_of(landmarks)
    some = some.take(_chosen(some, replace(settings, instants=FEW_INSTANTS)))
    rig = _unplaced(replace(landmarks, image_size=completed_sizes(landmarks)[0]), settings, None)
    costs = {}
    for factor in (1.0, *OTHER_FOCALS):
        intrinsics = rig.intrinsics.copy()
        intrinsics[:, [0, 1], [0, 1]] *= factor
        costs[factor] = _found(replace(rig, intrinsics=intrinsics), some).cost
    return min(costs, key=lambda factor: costs[factor])


def _calibrated(landmarks: ViewLandmarks, settings: CalibrationSettings, known: Rig | None) -> Calibration:
    """Find the cameras with the given focal lengths."""
    sizes, guessed = completed_sizes(landmarks)
    rig = _unplaced(replace(landmarks, image_size=sizes), settings, known)
    everything = sightings_of(landmarks)
    chosen = _chosen(everything, settings)
    some = everything.take(chosen)
    time, sequence = landmarks.instants.time, _sequences(landmarks)

    names = [landmarks.instants.sequences[i] for i in landmarks.instants.sequence[chosen]]
    kept, faults, result = _agreeing(rig, some, time[chosen], sequence[chosen], names)
    some = some.taken(kept)
    result, some = _sides_put_right(result, some)
    offsets = np.zeros(len(kept))
    if settings.clocks:
        speed = velocities(everything.taken(kept), time, sequence)[chosen]
        offsets = _offsets(result, some, speed)
        if offsets.any():
            shifted = in_step(everything.taken(kept), offsets, time, sequence).take(chosen)
            result, some = _sides_put_right(adjusted(result.scene, shifted, AdjustmentSettings()), shifted)
    confidence = np.sort(some.weight * result.agreement, axis=1)[:, -2]
    room = upright(result.scene.rig, result.scene.joints, confidence, settings.height)
    cameras = result.scene.rig.in_room(room.turn, room.origin, room.scale)
    measures = _measures(cameras, room.points(result.scene.joints), some, result.agreement)
    moving = _moved(cameras, room.points(result.scene.joints), some, time[chosen], names)
    texts = [tuple(fault.text for fault in group) for group in (faults, moving)]
    verdict = judged(measures, cameras.views, *texts)
    scale = (
        "the average height of adults, 1700 mm" if settings.height is None else f"a height of {settings.height:g} mm"
    )
    notes: tuple[str, ...] = ()
    if known is None and guessed:
        notes += (_guessed(sizes, guessed, landmarks.views),)
    if verdict.grade != "failed" and on_a_line(room.points(result.scene.joints)):
        notes += (ON_A_LINE,)
    return Calibration(cameras, verdict, offsets, faults + moving, scale, settings, notes)


def _guessed(sizes: Float64[np.ndarray, "views 2"], guessed: tuple[str, ...], views: tuple[str, ...]) -> str:
    size = ", ".join(dict.fromkeys(_size(sizes[views.index(view)]) for view in guessed))
    return f"the source images of {', '.join(guessed)} are taken to be of {size} pixels; state --image-size if not"


def with_known_cameras(
    landmarks: ViewLandmarks,
    cameras: Rig,
    settings: CalibrationSettings = CalibrationSettings(),
) -> Calibration:
    """Judge cameras that are known, by what they saw.

    Args:
        landmarks: What a detector found.
        cameras: The cameras, in a room with +Z up and mm.
        settings: How many instants are looked at.

    Raises:
        CalibrationError: A view has no camera, or its camera is for images of another size.
    """
    own = _of_views(landmarks, cameras)
    everything = sightings_of(landmarks)
    chosen = _chosen(everything, settings)
    some = everything.take(chosen)
    joints, agreement = solved_joints(own, some, AdjustmentSettings())
    some = some.mirrored(swapped_sides(own, joints, some))
    joints, agreement = solved_joints(own, some, AdjustmentSettings())
    verdict = judged(_measures(own, joints, some, agreement), own.views)
    return Calibration(own, verdict, np.zeros(len(own)), (), "the given cameras", settings)


def triangulated(landmarks: ViewLandmarks, calibration: Calibration) -> RoomPoses:
    """Put the person of every instant into the room: mm, +Z up, NaN where fewer than two views agree on a landmark.

    Args:
        landmarks: What the detector found, with the views of the calibration among its own.
        calibration: The cameras.

    Raises:
        CalibrationError: A camera is of a view that the landmarks do not have.
    """
    absent = [view for view in calibration.views if view not in landmarks.views]
    if absent:
        raise CalibrationError(
            f"the calibration has cameras of the views {', '.join(absent)}, the landmarks are of "
            f"{', '.join(landmarks.views)}: use cameras and landmarks of the same recording"
        )
    settings, rig, instants = AdjustmentSettings(), calibration.cameras, landmarks.instants
    own = landmarks.of_views([landmarks.views.index(view) for view in calibration.views])
    sequence = _sequences(landmarks)
    sightings = sightings_of(own)
    if calibration.offsets.any():
        sightings = in_step(sightings, calibration.offsets, instants.time, sequence)
    joints, agreement = solved_joints(rig, sightings, settings)
    swapped = swapped_sides(rig, joints, sightings)
    if swapped.any():
        again = np.flatnonzero(swapped.any(axis=(1, 2)))
        sightings = sightings.mirrored(swapped)
        joints[again], agreement[again] = solved_joints(rig, sightings.take(again), settings)
    poses = room_poses(own, rig, joints, sightings.weight * agreement)
    smooth = smoothed(poses.landmarks, poses.confidence, instants.time, sequence, calibration.settings.smoothing)
    return RoomPoses(smooth, poses.confidence)


def _unplaced(landmarks: ViewLandmarks, settings: CalibrationSettings, known: Rig | None) -> Rig:
    """The cameras with what is known before they are placed."""
    count, size = len(landmarks.views), landmarks.image_size
    if known is not None:
        own = _of_views(landmarks, known)
        return replace(own, rotation=np.tile(np.eye(3), (count, 1, 1)), translation=np.zeros((count, 3)))
    focal = GUESSED_FOCAL if settings.focal is None else settings.focal
    shares = [focal if focal <= 10 else focal / float(s.max()) for s in size]
    return Rig(
        views=landmarks.views,
        rotation=np.tile(np.eye(3), (count, 1, 1)),
        translation=np.zeros((count, 3)),
        intrinsics=guessed_intrinsics(np.asarray(size, np.float64), shares),
        distortion=np.zeros((count, 5)),
        image_size=np.asarray(size, np.float64),
    )


def _of_views(landmarks: ViewLandmarks, known: Rig) -> Rig:
    """The cameras of the landmarks' views."""
    absent = [view for view in landmarks.views if view not in known.views]
    if absent:
        raise CalibrationError(
            f"no camera is given for the views {', '.join(absent)}; expected cameras named "
            f"{', '.join(landmarks.views)}, got {', '.join(known.views)}"
        )
    own = known.taken([known.views.index(view) for view in landmarks.views])
    size = landmarks.image_size
    for v, view in enumerate(landmarks.views):
        both = np.isfinite(size[v]).all() and np.isfinite(own.image_size[v]).all()
        if both and (own.image_size[v] != size[v]).any():
            raise CalibrationError(
                f"the camera given for {view} is for images of {_size(own.image_size[v])} pixels, those of the capture "
                f"are of {_size(size[v])}: calibrate at the size of the footage"
            )
    return own


def _chosen(everything: Sightings, settings: CalibrationSettings) -> np.ndarray:
    """Instants, evenly spread, that two or more views see."""
    several = np.flatnonzero(everything.seen.sum(axis=1) > 1)
    if len(several) * 8 < LEAST_POINTS:
        raise CalibrationError(
            f"only {len(several)} instants are seen by two or more views, expected at least {-(-LEAST_POINTS // 8)}; "
            "use a longer recording"
        )
    return np.asarray(several[np.linspace(0, len(several) - 1, min(len(several), settings.instants)).astype(int)])


def _measures(cameras: Rig, joints: np.ndarray, some: Sightings, agreement: np.ndarray) -> Measures:
    rays = np.nan_to_num(cameras.rays(some.pixels))
    return measured(cameras, from_rays(cameras, rays, some.weight * agreement), joints, some)


def _size(size: Float64[np.ndarray, " 2"]) -> str:
    return f"{size[0]:.0f}×{size[1]:.0f}"


def _sequences(landmarks: ViewLandmarks) -> np.ndarray:
    """A number for each sequence of each subject."""
    instants = landmarks.instants
    return np.asarray(instants.subject * len(instants.sequences) + instants.sequence)


def _found(rig: Rig, some: Sightings) -> Adjusted:
    settings = AdjustmentSettings()
    return adjusted(placed(rig, some, settings).scene, some, settings)


def _shares(result: Adjusted, some: Sightings) -> Float64[np.ndarray, " views"]:
    rig = result.scene.rig
    by_view = [agreeing_share(rig, v, result.scene.joints, some) for v in range(len(rig))]
    return np.array([float(np.nanmean(s)) if np.isfinite(s).any() else 0.0 for s in by_view])


def _agreeing(
    rig: Rig, some: Sightings, time: np.ndarray, sequence: np.ndarray, names: Sequence[str]
) -> tuple[list[int], tuple[Fault, ...], Adjusted]:
    """Find the cameras of the views that agree with each other; leave out views, one by one, that do not.

    A camera that was moved drags the others with it, so that the first to be noticed may be another: the view is left
    out without which the others stand firm and agree best. More than half of the views must remain, since any few
    can be made to agree.
    """
    few = np.unique(np.linspace(0, len(some) - 1, TRIAL_INSTANTS).astype(int))

    def tried(views: list[int]) -> tuple[tuple[bool, bool, float], Adjusted]:
        own = some.take(few).taken(views)
        found = _found(rig.taken(views), own)
        agrees = bool(_shares(found, own).min() >= WEAK_SHARE)
        still = agrees and not _moved(found.scene.rig, found.scene.joints, own, time[few], [names[i] for i in few])
        return (still, agrees, -found.cost / max(float((own.weight > 0).sum()), 1.0)), found

    kept = list(range(len(rig)))
    faults: list[tuple[int, Adjusted]] = []
    now, result = tried(kept)
    while not all(now[:2]) and 2 * (len(kept) - 1) > len(rig):
        trials = [(*tried([w for w in kept if w != v]), v) for v in kept]
        best, found, out = max(trials, key=lambda trial: trial[0])
        if best <= now:
            break
        kept = [w for w in kept if w != out]
        faults.append((out, found))
        now, result = best, found
    named = tuple(
        fault_of(rig, out, found.scene.joints, some.take(few), time[few], sequence[few], [names[i] for i in few])
        for out, found in faults
    )
    if len(few) < len(some):
        own = some.taken(kept)
        joints = with_joints(result.scene.rig, own, AdjustmentSettings()).scene
        result = adjusted(joints, own, AdjustmentSettings())
    return kept, named, result


def _sides_put_right(result: Adjusted, some: Sightings) -> tuple[Adjusted, Sightings]:
    """Exchange left and right where the other views say so, and adjust again."""
    swapped: Bool[np.ndarray, "n views joints"] = swapped_sides(result.scene.rig, result.scene.joints, some)
    if not swapped.any():
        return result, some
    some = some.mirrored(swapped)
    return adjusted(result.scene, some, AdjustmentSettings()), some


def _offsets(result: Adjusted, some: Sightings, speed: np.ndarray) -> Float64[np.ndarray, " views"]:
    """Offsets of the clocks that are certain; 0 otherwise."""
    offset, error = clock_offsets(result.scene, some, speed)
    certain = np.abs(offset) > 3 * error + 0.002
    return np.where(certain.any(), np.clip(offset, -MOST_SECONDS, MOST_SECONDS), 0.0)


def _moved(
    cameras: Rig, joints: Float64[np.ndarray, "n joints 3"], some: Sightings, time: np.ndarray, names: Sequence[str]
) -> tuple[Fault, ...]:
    """Cameras that stand elsewhere for a while; two views alone can be turned onto each other anew in any stretch."""
    if len(cameras) < 3:
        return ()
    found = (moved(cameras, v, joints, some, time, names) for v in range(len(cameras)))
    return tuple(fault for fault in found if fault is not None)
