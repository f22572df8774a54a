"""Cameras, poses and images of a capture, and predicted poses, in Rerun's viewer, to turn about and to play."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.files import replacing
from mcss.inference.pose_sequence import Take
from mcss.skeletons import JOINTS, PARENTS
from mcss.viz.figures import LEFT, MIDDLE, RIGHT

_BONE_MM, _PLANE_MM = 12.0, 800.0
"""Radius of a bone, and the distance of an image from its camera, in mm."""


def show_in_rerun(capture: Capture, instants: Instants, out: Path | None = None) -> None:
    """Open the viewer, or write an .rrd file for it; world millimetres, a timeline that counts the instants.

    Images of views without a camera are shown beside the scene; so are all where no pose is known.

    Args:
        capture: Where the images are.
        instants: What to show, in this order.
        out: The file; None to open the viewer.

    Raises:
        ImportError: The extra rerun is not installed.
        ValueError: `out` is no .rrd file.
    """
    if out is not None and out.suffix != ".rrd":
        raise ValueError(
            f"out: with --rerun expected a file that ends in .rrd, got {out}; leave it out to look at once."
        )
    rr = _rerun()
    recording = rr.RecordingStream("mcss")
    if out is None:
        recording.spawn()
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        recording.save(out)
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for number in range(len(instants)):
        recording.set_time("instant", sequence=number)
        recording.log("what", rr.TextLog(f"{instants.describe(number)}, {instants.time[number]:.2f} s"))
        _log_pose(rr, recording, instants, number)
        for view, row in enumerate(instants.rows[number]):
            if row >= 0:
                _log_image(rr, recording, capture, instants.views[view], int(row))
    recording.flush()


def show_take_in_rerun(take: Take, out: Path) -> None:
    """Write predicted poses through time as an .rrd file for the viewer; mm, +Z up, a timeline in seconds.

    Raises:
        ImportError: The extra rerun is not installed.
    """
    rr = _rerun()
    recording = rr.RecordingStream("mcss")
    with replacing(out) as temporary:
        recording.save(temporary)
        recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        for i in range(len(take)):
            recording.set_time("time", duration=float(take.time[i]))
            _log_bones(rr, recording, take.poses.pose[i])
            if take.poses.error is not None:
                recording.log("expected_error", rr.Scalars(float(take.poses.error[i])))
        recording.flush()
        recording.disconnect()


def _rerun() -> Any:
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ImportError(
            "--rerun needs the viewer Rerun, which is not installed: pip install 'mcss[rerun]', or leave --rerun out "
            "for a contact sheet."
        ) from error
    return rerun


def _log_pose(rr: Any, recording: Any, instants: Instants, number: int) -> None:
    pose = instants.pose[number]
    if not np.isfinite(pose).all():
        recording.log("world/person", rr.Clear(recursive=True))
        return
    _log_bones(rr, recording, pose)


def _log_bones(rr: Any, recording: Any, pose: Float[np.ndarray, "17 3"]) -> None:
    bones = [pose[[parent, joint]] for joint, parent in enumerate(PARENTS) if parent >= 0]
    colours = [{"L": LEFT, "R": RIGHT}.get(name[0], MIDDLE) for name in JOINTS[1:]]
    rgb = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours]
    recording.log("world/person", rr.LineStrips3D(bones, radii=_BONE_MM, colors=rgb))


def _log_image(rr: Any, recording: Any, capture: Capture, view: str, row: int) -> None:
    rows = np.array([row])
    image = rr.EncodedImage(contents=capture.images(rows)[0], media_type="image/jpeg")
    cameras, box, size = capture.cameras(rows), capture.boxes(rows)[0], capture.info.image_size
    rotation, translation = cameras.rotation[0].astype(float), cameras.translation[0].astype(float)
    if not np.isfinite(rotation).all() or not np.isfinite(cameras.intrinsics).all():
        recording.log(f"images/{view}", image)
        return
    crop = cameras.intrinsics[0].astype(float)
    crop[:2, 2] -= box[:2]
    crop[:2] *= size / (box[2] - box[0])
    place = f"world/cameras/{view}"
    recording.log(place, rr.Transform3D(translation=-rotation.T @ translation, mat3x3=rotation.T))
    recording.log(
        f"{place}/image",
        rr.Pinhole(image_from_camera=crop, resolution=[size, size], image_plane_distance=_PLANE_MM),
        image,
    )
