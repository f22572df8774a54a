"""Human3.6M as two widely used programs unpack it: images in folders instead of videos.

* h36m-fetch: ``processed/S1/Phoning-1/imageSequence/54138969/img_000001.jpg`` and ``processed/S1/Phoning-1/annot.h5``;
* the layout with JSON: ``images/s_01_act_02_subact_01_ca_01/…jpg`` and ``annotations/Human36M_subject1_data.json``,
  ``…_camera.json``, ``…_joint_3d.json``.

Both number takes by action and sub-action; ``metadata.xml`` says which file of the release that is.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.capture import Frame
from mcss.errors import ImageError, SourceError
from mcss.images import cut_out, encode_jpeg, read_image
from mcss.skeletons import HUMAN36M_32, ROOT
from mcss.sources.assembly import Note
from mcss.sources.hdf5 import load_h5py
from mcss.sources.human36m.annotations import JOINTS_32, SILHOUETTE, checked
from mcss.sources.human36m.faults import SHIFTED, boxes_shifted_back, shifted_back
from mcss.sources.human36m.metadata import Lens, Metadata, Take
from mcss.sources.human36m.sequences import RATE, Human36MSettings, squared

FETCH_NAMES = {"WalkTogether": "WalkingTogether"}
"""What h36m-fetch calls an action → what the set's list calls it."""


@dataclass(frozen=True, eq=False)
class ImageView:
    """The images of one camera, an image for each instant of the take."""

    lens: Lens
    paths: tuple[Path | None, ...]
    """None where the annotation has no image of this camera."""
    boxes: Float64[np.ndarray, "n 4"]
    """x0, y0, x1, y1 in pixels; NaN where there is no image."""


@dataclass(frozen=True, eq=False)
class ImagesPart:
    """One take whose images lie in folders."""

    take: Take
    instants: Int64[np.ndarray, " n"]
    """Numbers of the images within the video, from 0."""
    poses: Float64[np.ndarray, "n 17 3"]
    views: tuple[ImageView, ...]
    settings: Human36MSettings

    @property
    def subject(self) -> str:
        """As in the set."""
        return self.take.subject

    @property
    def sequence(self) -> str:
        """What the release calls the take's files."""
        return self.take.file

    @property
    def images(self) -> int:
        """Rows that its annotation promises."""
        return sum(path is not None for view in self.views for path in view.paths)

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows.

        Raises:
            SourceError: An image is damaged, or more than `max_missing` of them are missing.
        """
        if self.settings.undo_s9_shift and (self.subject, self.sequence) in SHIFTED:
            note(f"{self.subject}/{self.sequence}: poses and boxes moved back by 200 mm in world X")
        missing: list[Path] = []
        for index, frame in enumerate(self.instants.tolist()):
            pose = self.poses[index].astype(np.float32)
            for view in self.views:
                path = view.paths[index]
                if path is None:
                    continue
                if not path.is_file():
                    missing.append(path)
                    continue
                square = squared(view.boxes[index : index + 1], self.settings.margin)[0]
                yield Frame(
                    subject=self.subject,
                    sequence=self.sequence,
                    action=self.take.action,
                    frame=frame,
                    time=frame / RATE,
                    view=view.lens.name,
                    image=self._crop(path, square),
                    box=(float(square[0]), float(square[1]), float(square[2]), float(square[3])),
                    pose=pose if np.isfinite(pose).all() else None,
                    camera=view.lens.camera(),
                )
            if len(missing) > self.settings.max_missing:
                raise SourceError(
                    f"{missing[0]}: no such file, nor are {len(missing) - 1} others that the annotation of "
                    f"{self.subject}/{self.sequence} names; unpack the images again, or raise max_missing"
                )
        if missing:
            note(f"{missing[0]}: no such file; {len(missing)} images of the take are missing and left out")

    def _crop(self, path: Path, square: Int64[np.ndarray, " 4"]) -> bytes:
        try:
            image = read_image(path)
        except ImageError as error:
            raise SourceError(f"{error}; unpack it again") from error
        height, width = image.shape[:2]
        x0, y0, x1, y1 = square.tolist()
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise SourceError(
                f"{path}: the person's box {x0},{y0},{x1},{y1} lies outside its {width}×{height} pixels; use images "
                "and annotation of the same copy, neither scaled nor cut"
            )
        return encode_jpeg(cut_out(image, square, self.settings.size), self.settings.quality)


def fetch_root(folder: Path) -> Path | None:
    """Where the subjects of h36m-fetch lie, if the folder is its output."""
    return next((root for root in (folder / "processed", folder) if any(root.glob("S*/*-*/annot.h5"))), None)


def json_root(folder: Path) -> Path | None:
    """The folder, if it has the layout with JSON."""
    return folder if any(folder.glob("annotations/Human36M_subject*_data.json")) else None


def fetch_takes(
    root: Path, subject: str, metadata: Metadata, settings: Human36MSettings
) -> Iterator[ImagesPart | SourceError]:
    """The takes of a subject in the output of h36m-fetch; a problem for each that cannot be used."""
    known = {take.index: take for take in metadata.takes if take.subject == subject}
    numbers = {name: index for index, name in enumerate(metadata.actions, start=1)}
    for path in sorted((root / subject).glob("*-*/annot.h5")):
        action, _, sub = path.parent.name.rpartition("-")
        index = (numbers.get(FETCH_NAMES.get(action, action), 0), int(sub) if sub.isdecimal() else 0)
        if index not in known:
            yield SourceError(f"{path.parent}: no take of {subject} by metadata.xml; expected such as Phoning-1")
            continue
        try:
            yield _fetch_take(path, known[index], metadata.lenses[subject], settings)
        except SourceError as problem:
            yield problem


def _fetch_take(path: Path, take: Take, lenses: tuple[Lens, ...], settings: Human36MSettings) -> ImagesPart:
    way_out = "make it again with h36m-fetch, or import the release itself"
    try:
        with load_h5py().File(path, "r") as file:
            table = {name: np.asarray(file[name][()]) for name in ("camera", "frame", "pose/2d", "pose/3d")}
        rows = len(table["frame"])
        seen = table["pose/2d"].astype(np.float64).reshape(rows, JOINTS_32, 2)
        own = table["pose/3d"].astype(np.float64).reshape(rows, JOINTS_32, 3)
        camera, frame = table["camera"].astype(int).reshape(rows), table["frame"].astype(int).reshape(rows) - 1
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise SourceError(
            f"{path}: expected h36m-fetch's annot.h5 with camera, frame, pose/2d and pose/3d, which cannot be read "
            f"({type(error).__name__}: {error}); {way_out}"
        ) from error
    checked(own, path)
    instants = _picked(np.unique(frame), settings.step(take.subject))
    poses = np.full((len(instants), JOINTS_32, 3), np.nan)
    views = []
    for lens in lenses:
        if settings.cameras and lens.name not in settings.cameras:
            continue
        at = {int(number): row for row, number in enumerate(frame) if camera[row] == int(lens.name)}
        rows_there = np.array([at.get(number, -1) for number in instants.tolist()])
        there = rows_there >= 0
        world = (own[rows_there] - lens.camera().translation) @ lens.camera().rotation  # Rᵀ (x − t)
        poses = np.where(np.isnan(poses) & there[:, None, None], world, poses)
        low, high = seen[rows_there].min(axis=1), seen[rows_there].max(axis=1)
        centre, half = (low + high) / 2, SILHOUETTE * (high - low) / 2
        boxes = np.where(there[:, None], np.concatenate([centre - half, centre + half], axis=1), np.nan)
        folder = path.parent / "imageSequence" / lens.name
        paths = [
            folder / f"img_{n + 1:06d}.jpg" if ok else None
            for n, ok in zip(instants.tolist(), there.tolist(), strict=True)
        ]
        views.append(ImageView(lens, tuple(paths), boxes))
    return _part(take, instants, poses, views, settings)


def json_takes(
    root: Path, subject: str, metadata: Metadata, settings: Human36MSettings
) -> Iterator[ImagesPart | SourceError]:
    """The takes of a subject in the layout with JSON; a problem for each that cannot be used."""
    stem = root / "annotations" / f"Human36M_subject{subject[1:]}"
    try:
        data = _json(Path(f"{stem}_data.json"))
        cameras = _json(Path(f"{stem}_camera.json"))
        joints = _json(Path(f"{stem}_joint_3d.json"))
        grouped = _grouped(Path(f"{stem}_data.json"), data)
        lenses = {str(key): _json_lens(str(key), value, metadata.lenses[subject]) for key, value in cameras.items()}
    except SourceError as problem:
        yield problem
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield SourceError(
            f"{stem}_….json: expected images and annotations, cameras with R, t, f and c, and joints; "
            f"{type(error).__name__}: {error}; copy the three files again"
        )
        return
    for take in metadata.takes:
        if take.subject == subject and take.index in grouped:
            try:
                yield _json_take(root, take, grouped[take.index], joints, lenses, settings)
            except (KeyError, TypeError, ValueError) as error:
                yield SourceError(
                    f"{stem}_joint_3d.json: action {take.index[0]}, sub-action {take.index[1]}: "
                    + (str(error) if isinstance(error, SourceError) else f"no 17 joints for {error}; copy it again")
                )


def _json(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; copy the annotations of this subject there")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise SourceError(
            f"{path}: expected JSON, came something else or half of it ({error}); copy it again"
        ) from error


Shots = dict[int, dict[str, tuple[str, Float64[np.ndarray, " 4"]]]]
"""Image number → camera → file and box (x0, y0, x1, y1)."""


def _grouped(path: Path, data: Any) -> dict[tuple[int, int], Shots]:
    boxes = {entry["image_id"]: entry["bbox"] for entry in data["annotations"]}
    grouped: dict[tuple[int, int], Shots] = {}
    for image in data["images"]:
        name = str(image["file_name"])
        parts = PurePosixPath(name).parts
        if not all(re.fullmatch(r"[\w-]+(\.\w+)?", part) for part in parts):
            raise SourceError(f"{path}: the name {name!r} leads out of the folder of images; copy the file again")
        if image["id"] in boxes:
            x, y, width, height = map(float, boxes[image["id"]])
            shots = grouped.setdefault((int(image["action_idx"]), int(image["subaction_idx"])), {})
            box = np.array([x, y, x + width, y + height])
            shots.setdefault(int(image["frame_idx"]), {})[str(image["cam_idx"])] = (name, box)
    return grouped


def _json_lens(key: str, entry: Mapping[str, Any], lenses: tuple[Lens, ...]) -> Lens:
    """The camera ``1`` … ``4`` of metadata.xml, after a look whether the file's own numbers agree (x = R X + t)."""
    lens = lenses[int(key) - 1]
    camera = lens.camera()
    rotation, moved = np.array(entry["R"], np.float64), np.array(entry["t"], np.float64).reshape(3)
    if np.abs(rotation - camera.rotation).max() > 0.01 or np.abs(moved - camera.translation).max() > 20:
        raise SourceError(
            f"camera {key} of the JSON is not camera {lens.name} of metadata.xml (R or t differ); use files of "
            "one release"
        )
    return lens


def _json_take(
    root: Path, take: Take, shots: Shots, joints: Any, lenses: Mapping[str, Lens], settings: Human36MSettings
) -> ImagesPart:
    instants = _picked(np.array(sorted(shots), np.int64), settings.step(take.subject))
    own = joints[str(take.index[0])][str(take.index[1])]
    seventeen = np.stack([np.array(own[str(n)], np.float64).reshape(17, 3) for n in instants.tolist()])
    poses = np.full((len(instants), JOINTS_32, 3), np.nan)
    poses[:, HUMAN36M_32] = checked(seventeen, root / "annotations", f"{take.subject}, {take.file}")
    views = []
    for key, lens in sorted(lenses.items()):
        if settings.cameras and lens.name not in settings.cameras:
            continue
        found = [shots[number].get(key) for number in instants.tolist()]
        boxes = np.array([np.full(4, np.nan) if shot is None else shot[1] for shot in found])
        paths = tuple(None if shot is None else root / "images" / shot[0] for shot in found)
        views.append(ImageView(lens, paths, boxes))
    return _part(take, instants, poses, views, settings)


def _picked(there: Int64[np.ndarray, " a"], step: int) -> Int64[np.ndarray, " b"]:
    """Of images that may be thinned out already, as near to every `step`-th as can be."""
    stride = int(np.median(np.diff(there))) if len(there) > 1 else 1
    picked: Int64[np.ndarray, " b"] = there[:: max(1, round(step / max(stride, 1)))].astype(np.int64)
    return picked


def _part(
    take: Take,
    instants: Int64[np.ndarray, " n"],
    poses: Float64[np.ndarray, "n 32 3"],
    views: list[ImageView],
    settings: Human36MSettings,
) -> ImagesPart:
    if settings.undo_s9_shift:
        roots = poses[:, HUMAN36M_32[ROOT]]
        key = (take.subject, take.file)
        views = [ImageView(v.lens, v.paths, boxes_shifted_back(*key, v.lens, v.boxes, roots)) for v in views]
        poses = shifted_back(*key, poses)
    return ImagesPart(take, instants, poses[:, HUMAN36M_32], tuple(views), settings)
