"""Files of cameras, as other programs write and read them.

* ``.toml``: Pose2Sim's and Anipose's calibration, a table for each camera (name, size, matrix, distortions, rotation as
  a rotation vector, translation).
* ``.yml``, ``.yaml``: OpenCV's FileStorage with ``names`` and, for each, ``K_``, ``dist_``, ``R_`` (rotation vector),
  ``Rot_``, ``T_`` and ``size_``, as EasyMocap's intri.yml and extri.yml have them.
* ``.json``: ``{name: {"K", "dist", "R", "T", "size"}}``.

All are world to camera, ``x_camera = R @ x_world + T``. Translations are written in metres. A file in which all
translations are longer than `MOST_METRES` is read as millimetres.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64

from mcss.calibration.rig import Rig
from mcss.data.cameras import are_rotations
from mcss.errors import CalibrationError
from mcss.files import replacing, write_json, write_text

SUFFIXES = (".toml", ".yml", ".yaml", ".json")

MOST_METRES = 100.0
"""No camera of a room is farther from the origin, in metres."""


def write_cameras_file(path: Path, rig: Rig) -> None:
    """Write cameras in the format of the file's ending, completely or not at all.

    Raises:
        CalibrationError: The ending is none of `SUFFIXES`, or a name does not fit the format.
    """
    match path.suffix.lower():
        case ".toml":
            write_text(path, _toml(rig))
        case ".json":
            write_json(path, _plain(rig))
        case ".yml" | ".yaml":
            _write_storage(path, rig)
        case suffix:
            raise CalibrationError(f"{path}: expected a file of cameras ({', '.join(SUFFIXES)}), got {suffix!r}")


def read_cameras_file(path: Path) -> Rig:
    """Read cameras; sizes of images that the file does not state are NaN, and absent places are the origin.

    Raises:
        CalibrationError: The file is missing or malformed, or a matrix in it is not a rotation.
    """
    try:
        match path.suffix.lower():
            case ".toml":
                cameras = _of_toml(path)
            case ".json":
                cameras = _of_json(path)
            case ".yml" | ".yaml":
                cameras = _of_storage(path)
            case suffix:
                raise CalibrationError(f"{path}: expected a file of cameras ({', '.join(SUFFIXES)}), got {suffix!r}")
        return _rig(path, cameras)
    except (OSError, KeyError, TypeError, ValueError, cv2.error) as error:
        if isinstance(error, CalibrationError):
            raise
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise CalibrationError(
            f"{path}: not a file of cameras that mcss can read ({why}); expected Pose2Sim's .toml, OpenCV's .yml with "
            "names, K_, dist_, R_ and T_, or .json with K, dist, R and T of each camera"
        ) from error


def _rig(path: Path, cameras: dict[str, dict[str, Any]]) -> Rig:
    if not cameras:
        raise CalibrationError(f"{path}: there are no cameras in it")
    rotation = np.stack([_rotation(camera.get("R", np.zeros(3))) for camera in cameras.values()])
    for name, matrix in zip(cameras, rotation, strict=True):
        if not are_rotations(matrix):
            raise CalibrationError(f"{path}: R of {name} is not a rotation; expected 3×3 numbers or a rotation vector")
    translation = np.stack(
        [np.asarray(camera.get("T", np.zeros(3)), np.float64).reshape(3) for camera in cameras.values()]
    )
    lengths = np.linalg.norm(translation, axis=1)
    scale = 1.0 if len(lengths[lengths > 0]) and lengths[lengths > 0].min() > MOST_METRES else 1000.0
    intrinsics = np.stack([np.asarray(camera["K"], np.float64).reshape(3, 3) for camera in cameras.values()])
    for name, matrix in zip(cameras, intrinsics, strict=True):
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise CalibrationError(f"{path}: K of {name} has no focal length above 0")
    sizes = [np.asarray(camera.get("size", (np.nan, np.nan)), np.float64).reshape(2) for camera in cameras.values()]
    distortion = np.zeros((len(cameras), 5))
    for v, (name, camera) in enumerate(cameras.items()):
        given = np.asarray(camera.get("dist", ()), np.float64).ravel()
        if given[5:].any():
            raise CalibrationError(f"{path}: {name} has {len(given)} distortion coefficients, expected up to 5")
        distortion[v, : len(given[:5])] = given[:5]
    return Rig(tuple(cameras), rotation, translation * scale, intrinsics, distortion, np.stack(sizes))


def _rotation(given: Any) -> Float64[np.ndarray, "3 3"]:
    values = np.asarray(given, np.float64)
    if values.size == 3:
        return np.asarray(cv2.Rodrigues(values.reshape(3))[0], np.float64)
    return values.reshape(3, 3)


def _plain(rig: Rig) -> dict[str, Any]:
    return {
        view: {
            "K": rig.intrinsics[v].tolist(),
            "dist": rig.distortion[v].tolist(),
            "R": rig.rotation[v].tolist(),
            "T": (rig.translation[v] / 1000).tolist(),
        }
        | ({"size": rig.image_size[v].tolist()} if np.isfinite(rig.image_size[v]).all() else {})
        for v, view in enumerate(rig.views)
    }


def _toml(rig: Rig) -> str:
    lines = []
    for v, view in enumerate(rig.views):
        turn = cv2.Rodrigues(rig.rotation[v])[0][:, 0]
        lines += [
            f"[cam_{v + 1:02}]",
            f"name = {json.dumps(view, ensure_ascii=False)}",
            *([f"size = {rig.image_size[v].tolist()}"] if np.isfinite(rig.image_size[v]).all() else []),
            f"matrix = {rig.intrinsics[v].tolist()}",
            f"distortions = {rig.distortion[v, : 5 if rig.distortion[v, 4] else 4].tolist()}",
            f"rotation = {turn.tolist()}",
            f"translation = {(rig.translation[v] / 1000).tolist()}",
            "fisheye = false",
            "",
        ]
    return "\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0", ""])


def _of_toml(path: Path) -> dict[str, dict[str, Any]]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    cameras = {}
    for key, table in tables.items():
        if key == "metadata" or not isinstance(table, dict):
            continue
        if table.get("fisheye"):
            raise CalibrationError(f"{path}: {key} is a fisheye camera; undistort the videos and calibrate again")
        names = {"K": "matrix", "dist": "distortions", "R": "rotation", "T": "translation", "size": "size"}
        if "matrix" not in table:
            raise KeyError("matrix")
        cameras[str(table.get("name", key))] = {ours: table[name] for ours, name in names.items() if name in table}
    return cameras


def _of_json(path: Path) -> dict[str, dict[str, Any]]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict) or not all(isinstance(camera, dict) for camera in value.values()):
        raise ValueError("it is not an object of cameras by name")
    return value


def _write_storage(path: Path, rig: Rig) -> None:
    wrong = [view for view in rig.views if not re.fullmatch(r"[A-Za-z0-9_-]+", view)]
    if wrong:
        raise CalibrationError(
            f"{path}: OpenCV's YAML allows letters, digits, _ and - in names, got {', '.join(wrong)}; write .toml or "
            ".json"
        )
    storage = cv2.FileStorage(".yml", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    storage.startWriteStruct("names", cv2.FILE_NODE_SEQ)
    for view in rig.views:
        storage.write("", view)
    storage.endWriteStruct()
    for v, view in enumerate(rig.views):
        storage.write(f"K_{view}", rig.intrinsics[v])
        storage.write(f"dist_{view}", rig.distortion[v : v + 1])
        storage.write(f"R_{view}", cv2.Rodrigues(rig.rotation[v])[0])
        storage.write(f"Rot_{view}", rig.rotation[v])
        storage.write(f"T_{view}", rig.translation[v][:, None] / 1000)
        if np.isfinite(rig.image_size[v]).all():
            storage.write(f"size_{view}", rig.image_size[v : v + 1])
    text = storage.releaseAndGetString()
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _of_storage(path: Path) -> dict[str, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    names = storage.getNode("names")
    if names.empty():
        raise KeyError("names")
    cameras: dict[str, dict[str, Any]] = {}
    for i in range(names.size()):
        name = names.at(i).string()
        parts = {"K": f"K_{name}", "dist": f"dist_{name}", "T": f"T_{name}", "size": f"size_{name}"}
        turned = "Rot" if not storage.getNode(f"Rot_{name}").empty() else "R"
        parts["R"] = f"{turned}_{name}"
        found = {ours: storage.getNode(node).mat() for ours, node in parts.items()}
        if found["K"] is None:
            raise KeyError(f"K_{name}")
        cameras[name] = {ours: value for ours, value in found.items() if value is not None}
    return cameras
