"""Show captures and predicted poses in Rerun's 3D viewer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.files import replacing
from mcss.inference.pose_sequence import PoseSequence
from mcss.skeletons import PARENTS
from mcss.viz.skeleton import bone_colour

_BONE_MM, _PLANE_MM = 12.0, 800.0
"""Radius of a bone, and the distance at which an image is drawn in front of its camera, in mm."""


def show_in_rerun(capture: Capture, instants: Instants, out: Path | None = None) -> None:
    """Show the cameras, poses and images of a capture: open the viewer, or write an .rrd file for it.

    Positions are in world millimetres, and the timeline counts the instants. Images of views without a camera are
    shown beside the scene.

    Args:
        capture: Holds the images.
        instants: The instants to show, in this order.
        out: The file; None to open the viewer.

    Raises:
        ImportError: The extra rerun is not installed.
        ValueError: `out` does not end in .rrd.
    """
    if out is not None and out.suffix != ".rrd":
        raise ValueError(
            f"out: with --rerun expected a file that ends in .rrd, got {out}; leave it out to open the viewer."
        )
    rr = _rerun()
    if out is not None:
        with _recording_in(rr, out) as recording:
            _log_capture(rr, recording, capture, instants)
        return
    recording = rr.RecordingStream("mcss")
    recording.spawn()
    _log_capture(rr, recording, capture, instants)
    recording.flush()


@contextmanager
def _recording_in(rr: Any, out: Path) -> Iterator[Any]:
    """Yield a recording that is written to a file, completely or not at all."""
    recording = rr.RecordingStream("mcss")
    with replacing(out) as temporary:
        recording.save(temporary)
        yield recording
        recording.flush()
        recording.disconnect()


def _log_capture(rr: Any, recording: Any, capture: Capture, instants: Instants) -> None:
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for number in range(len(instants)):
        recording.set_time("instant", sequence=number)
        recording.log("what", rr.TextLog(f"{instants.describe(number)}, {instants.time[number]:.2f} s"))
        _log_pose(rr, recording, instants.pose[number])
        for view, row in enumerate(instants.rows[number]):
            if row >= 0:
                _log_image(rr, recording, capture, instants.views[view], int(row))


def write_rerun(sequence: PoseSequence, out: Path) -> None:
    """Write predicted poses over time as an .rrd file for the viewer: mm, +Z up, a timeline in seconds.

    Raises:
        ImportError: The extra rerun is not installed.
    """
    rr = _rerun()
    with _recording_in(rr, out) as recording:
        recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        for i in range(len(sequence)):
            recording.set_time("time", duration=float(sequence.time[i]))
            _log_bones(rr, recording, sequence.poses.pose[i])
            if sequence.poses.error is not None:
                recording.log("expected_error", rr.Scalars(float(sequence.poses.error[i])))


def _rerun() -> Any:
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ImportError(
            "--rerun needs the viewer Rerun, which is not installed: pip install 'mcss[rerun]', or leave --rerun out "
            "for a contact sheet."
        ) from error
    return rerun


def _log_pose(rr: Any, recording: Any, pose: Float[np.ndarray, "17 3"]) -> None:
    if np.isfinite(pose).all():
        _log_bones(rr, recording, pose)
    else:
        recording.log("world/person", rr.Clear(recursive=True))


def _log_bones(rr: Any, recording: Any, pose: Float[np.ndarray, "17 3"]) -> None:
    joints = [joint for joint, parent in enumerate(PARENTS) if parent >= 0]
    bones = [pose[[PARENTS[joint], joint]] for joint in joints]
    rgb = [[int(bone_colour(joint)[i : i + 2], 16) for i in (1, 3, 5)] for joint in joints]
    recording.log("world/person", rr.LineStrips3D(bones, radii=_BONE_MM, colors=rgb))


def _log_image(rr: Any, recording: Any, capture: Capture, view: str, row: int) -> None:
    rows = np.array([row])
    image = rr.EncodedImage(contents=capture.images(rows)[0], media_type="image/jpeg")
    cameras, box, size = capture.cameras(rows), capture.boxes(rows)[0], capture.info.image_size
    rotation, translation = cameras.rotation[0].astype(float), cameras.translation[0].astype(float)
    if not np.isfinite(rotation).all() or not np.isfinite(cameras.intrinsics).all():
        recording.log(f"images/{view}", image)
        return
    intrinsics = cameras.intrinsics[0].astype(float)  # of the whole image, turned into those of the crop
    intrinsics[:2, 2] -= box[:2]
    intrinsics[:2] *= size / (box[2] - box[0])
    entity = f"world/cameras/{view}"
    recording.log(entity, rr.Transform3D(translation=-rotation.T @ translation, mat3x3=rotation.T))
    recording.log(
        f"{entity}/image",
        rr.Pinhole(image_from_camera=intrinsics, resolution=[size, size], image_plane_distance=_PLANE_MM),
        image,
    )
