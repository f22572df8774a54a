"""Cameras of a capture: the sizes of its images, the room of its labels, and where its cameras are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from mcss.calibration.calibrate import Calibration, CalibrationSettings, calibrate, triangulated, with_known_cameras
from mcss.calibration.rig import Rig
from mcss.data.camera_columns import images_with_camera, write_cameras
from mcss.data.cameras import Camera
from mcss.data.capture import Capture
from mcss.errors import CalibrationError
from mcss.images import jpeg_size
from mcss.landmarks.view_landmarks import LANDMARKS, ViewLandmarks
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import JOINTS, LIMBS

LEAST_LABELS = 3
"""Labelled instants that suffice to tell where the room of the labels is."""

_WORDS = {"R": "right", "L": "left"}
_LIMB_LANDMARKS = [
    LANDMARKS.index(f"{_WORDS[JOINTS[j][0]]}_{JOINTS[j][1:].lower().replace('foot', 'ankle')}") for j in LIMBS
]


@dataclass(frozen=True, eq=False)
class PartCalibration:
    """The cameras of some sequences of a capture."""

    parts: tuple[tuple[str, str], ...]
    """(subject, sequence)."""
    landmarks: ViewLandmarks
    calibration: Calibration

    @property
    def name(self) -> str:
        """What it is of: the sequence, or how many there are."""
        return "/".join(self.parts[0]) if len(self.parts) == 1 else f"{len(self.parts)} sequences"


def with_image_sizes(
    landmarks: ViewLandmarks, capture: Capture, stated: tuple[int, int] | None = None
) -> ViewLandmarks:
    """Landmarks that know the sizes of the source images: as stated, or as the capture's backgrounds show them."""
    sizes = landmarks.image_size.copy()
    instants = landmarks.instants
    for v, view in enumerate(landmarks.views):
        if stated is not None:
            sizes[v] = stated
        elif not np.isfinite(sizes[v]).all():
            first = int((instants.rows[:, v] >= 0).argmax())
            names = instants.subjects[instants.subject[first]], instants.sequences[instants.sequence[first]]
            background = capture.background(view, *names)
            size = None if background is None else jpeg_size(background)
            if size is not None:
                sizes[v] = size
    return replace(landmarks, image_size=sizes)


def calibrate_parts(
    landmarks: ViewLandmarks,
    settings: CalibrationSettings,
    known: Rig | None,
    *,
    by_sequence: bool,
    progress: Progress = NO_PROGRESS,
) -> list[PartCalibration]:
    """Find the cameras of all sequences together, or of each sequence by itself.

    Raises:
        CalibrationError: The cameras of a sequence cannot be found; the message names it.
    """
    instants = landmarks.instants
    groups = instants.of_each_sequence() if by_sequence else [np.arange(len(instants))]
    found = []
    with progress.task("Finding cameras", len(groups)) as task:
        for rows in groups:
            own = landmarks.take(rows)
            parts = _parts(own)
            try:
                calibration = in_room_of_labels(own, calibrate(own, settings, known))
            except CalibrationError as error:
                raise CalibrationError(f"{'/'.join(parts[0])}: {error}") if by_sequence else error from None
            found.append(PartCalibration(parts, own, calibration))
            task.advance()
    return found


def judge_parts(landmarks: ViewLandmarks, cameras: Rig, settings: CalibrationSettings) -> list[PartCalibration]:
    """Judge cameras that are known, by all sequences together."""
    return [PartCalibration(_parts(landmarks), landmarks, with_known_cameras(landmarks, cameras, settings))]


def _parts(landmarks: ViewLandmarks) -> tuple[tuple[str, str], ...]:
    instants = landmarks.instants
    pairs = zip(instants.subject.tolist(), instants.sequence.tolist(), strict=True)
    return tuple(dict.fromkeys((instants.subjects[s], instants.sequences[q]) for s, q in pairs))


def in_room_of_labels(landmarks: ViewLandmarks, calibration: Calibration) -> Calibration:
    """The calibration in the room of the capture's labels, so that these lie on the images; as it is without labels."""
    pose = landmarks.instants.pose
    labelled = np.flatnonzero(np.isfinite(pose).all(axis=(1, 2)))
    if len(labelled) < LEAST_LABELS or calibration.verdict.grade == "failed":
        return calibration
    labelled = labelled[np.linspace(0, len(labelled) - 1, min(len(labelled), 100)).astype(int)]
    found = triangulated(landmarks.take(labelled), calibration).landmarks[:, _LIMB_LANDMARKS]
    known = np.isfinite(found).all(axis=-1)
    if known.sum() < 12 * LEAST_LABELS:
        return calibration
    wanted = pose[labelled][:, list(LIMBS)].astype(np.float64)
    turn, origin, scale = fitted(found[known], wanted[known])
    cameras = calibration.cameras.in_room(turn, origin, scale)
    return replace(calibration, cameras=cameras, scale_from=f"the labels of {len(labelled)} instants")


def fitted(
    points: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"], float]:
    """The turn, origin and scale for which ``scale * turn @ (points - origin)`` is nearest to the target.

    Reference:
        Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991; points
        that stay far away count less.
    """
    weight = np.ones(len(points))
    turn, origin, scale = np.eye(3), np.zeros(3), 1.0
    for _ in range(10):
        share = weight / weight.sum()
        a, b = share @ points, share @ target
        left, size, right = np.linalg.svd((target - b).T @ ((points - a) * share[:, None]))
        flip = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
        turn = left @ (flip[:, None] * right)
        scale = float((size * flip).sum() / (share @ ((points - a) ** 2).sum(axis=1)))
        origin = a - turn.T @ b / scale
        away = np.linalg.norm(scale * (points - origin) @ turn.T - target, axis=1)
        weight = 1 / (1 + (away / 100) ** 2)
    return turn, origin, scale


def refuse_to_replace(capture: Capture) -> None:
    """Refuse to go on if the capture has cameras.

    Raises:
        CalibrationError: It has some.
    """
    count = images_with_camera(capture)
    if count:
        raise CalibrationError(
            f"{count:,} of {len(capture):,} images of the capture at {capture.uri} have a camera already; give "
            "--replace to put those that are found in their place, or --no-write to write files alone"
        )


def write_calibrations(capture: Capture, found: Sequence[PartCalibration], progress: Progress = NO_PROGRESS) -> Capture:
    """Write the cameras of parts of a capture whose verdict is not failed."""
    cameras: dict[tuple[str, str], Mapping[str, Camera]] = {}
    for part in found:
        if part.calibration.verdict.grade != "failed":
            rig = part.calibration.cameras
            of_views = {view: rig.camera(v) for v, view in enumerate(rig.views)}
            cameras |= dict.fromkeys(part.parts, of_views)
    return write_cameras(capture, cameras, progress) if cameras else capture
