"""The readers that `scripts/fuzz.py` gives mangled files to, each with a file that is whole."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import human36m_files as h36m
import mpi_inf_3dhp_writing as mpi
import numpy as np
import pose_writing as poses
import pyarrow as pa
import pyarrow.parquet
import torch
from filming import Room, write_video

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.formats.keypoint_files import read_keypoints
from mcss.data.formats.keypoint_layouts import COCO
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.keypoints import COLUMNS, _table
from mcss.data.labels import Labels
from mcss.data.writer import CaptureWriter
from mcss.images import read_image, write_image
from mcss.methods.mcss import MCSS
from mcss.models.model_file import read_model, save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.search.index import PoseIndex
from mcss.search.index_table import Entries, ModelIdentity
from mcss.skeletons import JOINTS
from mcss.sources.aist.annotations import read_cameras, read_joints, read_mapping
from mcss.sources.aspset import read_box_table, read_camera, read_splits
from mcss.sources.human36m.annotations import mask_boxes, read_poses, read_videopose3d
from mcss.sources.human36m.metadata import read_metadata
from mcss.sources.mpi_inf_3dhp.annotations import read_annotation, read_calibration
from mcss.training.config_file import read_config
from mcss.training.metrics_log import read_metrics
from mcss.training.runs import read_run_config
from mcss.training.settings import recipe
from mcss.video.reading.decoding import images
from mcss.video.recordings import _probed
from mcss.web.limits import Limits
from mcss.web.uploads import UploadError, copy_video, read_upload
from mcss.weights import read_weights


@dataclass(frozen=True)
class Reader:
    """A reader, and how a file for it is made."""

    name: str
    make: Callable[[Path], Path]
    """Writes a file (or a folder of files) that is whole into a folder, and returns its path."""
    read: Callable[[Path], Any]
    own: tuple[type[Exception], ...] = ()
    """Errors of its own besides those of `mcss.errors`."""


def _written(name: str, write: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return make


def _json(name: str, value: Any) -> Callable[[Path], Path]:
    return _written(name, lambda path: path.write_text(json.dumps(value)))


def _text(name: str, text: str) -> Callable[[Path], Path]:
    return _written(name, lambda path: path.write_text(text))


def _places() -> np.ndarray:
    return poses.walk(12, 60)


def _npz(path: Path) -> None:
    np.savez_compressed(path, poses=_places(), names=np.array(JOINTS), rate=np.array(60.0))


def _videopose3d(path: Path) -> None:
    table = {"S1": {"Walking 1": (h36m.walk(20) / 1000).astype(np.float32)}}
    np.savez_compressed(path, positions_3d=np.array(table, dtype=object))


def _joints(path: Path) -> None:
    import pickle

    places = np.random.default_rng(0).normal(size=(8, 17, 3))
    path.write_bytes(pickle.dumps({"keypoints3d": places, "keypoints3d_optim": places}, protocol=4))


def _capture(path: Path) -> None:
    writer = CaptureWriter.open(path, info=INFO)
    part = stick_part(0, 0, instants=2)
    writer.append(part)
    writer.add_backgrounds({"1": part[0].image})
    writer.finish()


def _read_capture(path: Path) -> None:
    capture = Capture.open(path)
    rows = np.arange(len(capture))
    capture.instants()
    capture.decode(rows)
    capture.cameras(rows)
    capture.background("1")


_IDENTITY = ModelIdentity("abc", 8, "runs/one")


def _index(path: Path) -> None:
    index = PoseIndex.create(path, _IDENTITY)
    index.remember_capture("c", "somewhere")
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    rows = np.arange(40)
    names = [["S1"] * 40, ["Walking"] * 40, ["1"] * 40]
    index.add(Entries("c", rows, names[0], names[1], rows, rows / 10, names[2], vectors))


def _read_index(path: Path) -> None:
    index = PoseIndex.open(path)
    index.count()
    index.captures()
    index.search(np.zeros(8, np.float32), top=3, exact=True)
    list(index.view_sequences())


def _model(path: Path) -> None:
    torch.manual_seed(0)
    save_model(path, PoseNetwork(NetworkConfig("tf_efficientnet_lite0", dim=8, image_size=32), "random"), {})


def _weights(path: Path) -> None:
    torch.save(torch.nn.Linear(3, 3).state_dict(), path)


def _video(path: Path) -> None:
    write_video(path, list(Room(seed=0, width=64, height=48).images())[:12])


def _read_video(path: Path) -> None:
    _probed(path, 30.0)
    sum(1 for _ in images(path))


def _points(path: Path) -> None:
    columns = {
        "subject": pa.array(["S1"] * 9),
        "sequence": pa.array(["Walking 1"] * 9),
        "frame": pa.array(range(9), pa.int64()),
        "view": pa.array(["1"] * 9),
        "joint": pa.array(["Hip"] * 9),
        "x": pa.array(np.arange(9.0)),
        "y": pa.array(np.arange(9.0)),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)


_POINTS = [value for k in range(17) for value in (100.0 + 10 * k, 50.0 + 20 * k, 2)]
_COCO = {
    "images": [{"id": n, "file_name": f"{n:06d}.jpg"} for n in range(3)],
    "annotations": [{"image_id": n, "category_id": 1, "keypoints": _POINTS} for n in range(3)],
    "categories": [{"id": 1, "name": "person", "keypoints": list(COCO)}],
}
_EYE = np.eye(4).tolist()
_CAMERA = {"intrinsic_matrix": np.eye(3, 4).tolist(), "extrinsic_matrix": _EYE}
_AIST = [
    {
        "name": "c01", "size": [100, 100], "matrix": np.eye(3).tolist(), "rotation": [0.1, 0, 0],
        "translation": [0, 0, 1], "distortions": [0] * 5,
    }
]  # fmt: skip
_CONFIG = {"digest": "a", "optimiser": {"steps": 3, "lr": 0.1}, "network": {"dim": 16}, "min_gap": 0.3}
_YAML = "min_gap: 0.3\noptimiser:\n  steps: 3\n  lr: 1e-3\n"
_LINES = "".join(json.dumps({"step": n, "total": 0.1, "images": 3, "seconds": 1.0}) + "\n" for n in range(5))
_BOXES = "x1,y1,x2,y2\n" + "".join(f"{n},{n},{n + 50},{n + 90}\n" for n in range(9))
_SPLITS = "subject,clip,split\n04ac,0001,train\n04ac,0002,val\n08e8,0003,test\n"
_FEW = "subject,sequence,frame,time\n" + "".join(f"S1,Walking 1,{n},{n / 10}\n" for n in range(5))
_MAPPING = "gBR_sBM_cAll_d04_mBR0_ch01 setting1\ngBR_sBM_cAll_d04_mBR0_ch02 setting2\n"


def _first_row(path: Path) -> Any:
    return _table(path, COLUMNS, "points")


def _annot() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        name: [rng.normal(size=(6, columns)) for _ in range(14)]
        for name, columns in (("annot2", 56), ("annot3", 84), ("univ_annot3", 84))
    }


def _annotation(path: Path) -> Any:
    return read_annotation(path, (0, 1))


def _settings(path: Path) -> Any:
    return read_config(path, recipe("fast", MCSS, "c"))


def _uploaded_image(path: Path) -> None:
    write_image(path.with_suffix(".png"), np.zeros((40, 40, 3), np.uint8) + 90)
    path.with_suffix(".png").rename(path)


def _uploaded_video(path: Path) -> None:
    _video(path.with_suffix(".mp4"))
    path.with_suffix(".mp4").rename(path)


def _read_upload(path: Path) -> Any:
    return read_upload(path, Limits())


def _copied(path: Path) -> None:
    copy_video(path, path.with_name("copy.mp4"), Limits())


def _grey(path: Path) -> None:
    write_image(path, np.zeros((40, 40, 3), np.uint8) + 90)


def _masks(path: Path) -> None:
    h36m.write_masks(path, np.array([[5, 5, 30, 40]] * 3, float), 64)


def _read_masks(path: Path) -> Any:
    return mask_boxes(path, range(3))


def _csv(path: Path) -> None:
    poses.write_csv(path, JOINTS, _places(), list(range(12)), "frame")


READERS = (
    Reader("bvh", _written("a.bvh", lambda path: poses.write_bvh(path, 6, 25)), read_pose_file),
    Reader("trc", _written("a.trc", lambda path: poses.write_trc(path, JOINTS, _places(), 60)), read_pose_file),
    Reader("csv", _written("a.csv", _csv), read_pose_file),
    Reader("c3d", _written("a.c3d", lambda path: poses.write_c3d(path, JOINTS, _places(), 60)), read_pose_file),
    Reader("npz", _written("a.npz", _npz), read_pose_file),
    Reader("coco", _json("a.json", _COCO), read_keypoints),
    Reader("image jpeg", _written("a.jpg", _grey), read_image),
    Reader("image png", _written("a.png", _grey), read_image),
    Reader("video mp4", _written("a.mp4", _video), _read_video),
    Reader("video mkv", _written("a.mkv", _video), _read_video),
    Reader("video avi", _written("a.avi", _video), _read_video),
    Reader("upload image", _written("a", _uploaded_image), _read_upload, (UploadError,)),
    Reader("upload video", _written("a", _uploaded_video), _copied, (UploadError,)),
    Reader("h36m cdf", _written("a.cdf", lambda path: h36m.write_cdf(path, h36m.walk(20))), read_poses),
    Reader("h36m masks", _written("a.mat", _masks), _read_masks),
    Reader("h36m metadata", _written("metadata.xml", h36m.write_metadata), read_metadata),
    Reader("videopose3d", _written("a.npz", _videopose3d), read_videopose3d.__wrapped__),
    Reader("mpi annot v5", _written("annot.mat", lambda path: mpi.write_annot(path, _annot())), _annotation),
    Reader("mpi annot v7.3", _written("annot.mat", lambda path: mpi.write_annot(path, _annot(), "v7.3")), _annotation),
    Reader("mpi calibration", _written("camera.calibration", mpi.write_calibration), read_calibration),
    Reader("aist joints", _written("a.pkl", _joints), lambda path: read_joints(path, True)),
    Reader("aist cameras", _json("a.json", _AIST), read_cameras),
    Reader("aist mapping", _text("mapping.txt", _MAPPING), read_mapping),
    Reader("aspset camera", _json("a.json", _CAMERA), read_camera),
    Reader("aspset boxes", _text("a.csv", _BOXES), read_box_table),
    Reader("aspset splits", _text("splits.csv", _SPLITS), read_splits),
    Reader("capture", _written("capture", _capture), _read_capture),
    Reader("index", _written("index", _index), _read_index),
    Reader("model", _written("model.safetensors", _model), read_model),
    Reader("weights pth", _written("a.pth", _weights), read_weights),
    Reader("run config", _json("config.json", _CONFIG), read_run_config),
    Reader("settings json", _json("a.json", _CONFIG), _settings, (ValueError,)),
    Reader(
        "settings yaml", _text("a.yaml", "min_gap: 0.3\noptimiser:\n  steps: 3\n  lr: 1e-3\n"), _settings, (ValueError,)
    ),
    Reader("metrics", _text("metrics.jsonl", _LINES), read_metrics),
    Reader("labels", _text("few.csv", _FEW), lambda path: Labels.parse(f"@{path}"), (ValueError,)),
    Reader("points parquet", _written("a.parquet", _points), _first_row),
)
