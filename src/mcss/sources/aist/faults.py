"""The known faults of AIST++, one function each; each has a switch in `Aist`.

Reference:
    The release's download page ("Filter List"), and the views that its own programs leave out when they estimate
    cameras and joints (aistplusplus_api, processing/run_estimate_camera.py and run_estimate_keypoints.py).
"""

from collections.abc import Collection, Sequence

OUT_OF_STEP = frozenset({("gBR_sBM_cAll_d04_mBR0_ch01", "c05")})
"""Sequence and camera of videos that are not synchronised with the others."""

SMALL = frozenset({("gJB_sBM_cAll_d07_mJB3_ch05", "c07")})
"""Sequence and camera of videos of 640×480 pixels instead of 1920×1080."""


def without_ignored(names: Sequence[str], ignored: Collection[str]) -> tuple[str, ...]:
    """Leave out the sequences of ``ignore_list.txt``, whose joints the authors found poorly reconstructed."""
    listed = {name.removesuffix(".pkl").removesuffix(".json") for name in ignored}
    return tuple(name for name in names if name not in listed)


def synchronised_cameras(name: str, cameras: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the camera that is not synchronised: c05 of gBR_sBM_cAll_d04_mBR0_ch01."""
    return tuple(camera for camera in cameras if (name, camera) not in OUT_OF_STEP)


def full_size_cameras(name: str, cameras: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the camera whose video is small: c07 of gJB_sBM_cAll_d07_mJB3_ch05."""
    return tuple(camera for camera in cameras if (name, camera) not in SMALL)
