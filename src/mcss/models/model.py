"""A trained model in use: images of people in, 3D poses and embeddings out; `mcss.load` returns one.

The weights shipped with the package are in this folder, beside a card that says how accurate they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8

from mcss.data.capture import Capture
from mcss.data.loading.augmentation import normalise
from mcss.errors import CheckpointError, ImageError
from mcss.images import AnySizeImage, as_rgb, cut_out, read_image
from mcss.models.model_file import ModelParts, read_model
from mcss.models.orientation import Orientation, orientation_of
from mcss.models.pose_network import PoseNetwork
from mcss.models.prediction import images_at_a_time, predict_rows
from mcss.models.run_names import SHIPPED, located
from mcss.progress import Task

CARD = Path(__file__).with_name("CARD.md")
"""The model card of the shipped weights: training data, accuracy and failure cases."""

MARGIN = 1.15
"""Side of a crop box divided by the longer side of the person's bounding box, as in the captures of this package."""

_LARGEST_BOX = 4.0
"""Largest bounding box that is accepted, relative to the image's longer side; its crop would take too much memory."""

Images = Sequence[str | Path | np.ndarray] | np.ndarray | str | Path
"""One or several files or arrays (see `mcss.images.as_rgb`); a uint8 array with four axes is a batch."""

BoundingBoxes = Sequence[Sequence[float | int]] | np.ndarray
"""x, y, width, height of a person in pixels, from the upper left corner; one for each image."""


@dataclass(frozen=True, eq=False)
class Poses:
    """What a model predicts for n images of people; everything is float32 on the CPU."""

    pose: Float32[np.ndarray, "n 17 3"]
    """Canonical poses in mm: joints in the order of `mcss.skeletons.JOINTS`, the pelvis at the origin, +Z up, the left
    hip in the direction of +X, so that everybody faces -Y."""
    embedding: Float32[np.ndarray, "n dim"]
    """Unit vectors that are close for similar poses, regardless of viewpoint and person."""
    error: Float32[np.ndarray, " n"] | None
    """Expected mean error of a joint in mm; None for models without an uncertainty head."""
    orientation: Orientation | None
    """How the person stands in front of the camera; None for models without an orientation head."""
    crop_boxes: Float32[np.ndarray, "n 4"]
    """x0, y0, x1, y1 of the square that was cut out of each image, in pixels; it may reach beyond the image."""

    def __len__(self) -> int:
        return len(self.pose)

    def take(self, index: Int64[np.ndarray, " k"]) -> "Poses":
        """Select images by position, in the order of `index`."""
        return Poses(
            self.pose[index],
            self.embedding[index],
            None if self.error is None else self.error[index],
            None if self.orientation is None else self.orientation.take(index),
            self.crop_boxes[index],
        )

    @classmethod
    def joined(cls, parts: "Sequence[Poses]") -> "Poses":
        """Concatenate the predictions of one model; at least one."""
        errors = [part.error for part in parts if part.error is not None]
        orientations = [part.orientation for part in parts if part.orientation is not None]
        return cls(
            np.concatenate([part.pose for part in parts]),
            np.concatenate([part.embedding for part in parts]),
            np.concatenate(errors) if errors else None,
            Orientation.joined(orientations) if orientations else None,
            np.concatenate([part.crop_boxes for part in parts]),
        )

    @property
    def heading(self) -> Float32[np.ndarray, " n"] | None:
        """Degrees by which the person is turned from facing the camera; see `mcss.models.orientation.Orientation`."""
        return None if self.orientation is None else self.orientation.heading

    def in_camera(self) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm along the camera axes: x to the right, y down, z away; the pelvis at the origin.

        Raises:
            CheckpointError: The model has no orientation head.
        """
        return self._known_orientation().in_camera(self.pose)

    def upright(self) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm seen from the camera but upright: x to the right, y away, z up; the pelvis at the origin.

        Raises:
            CheckpointError: The model has no orientation head.
        """
        return self._known_orientation().upright(self.pose)

    def in_image(self) -> Float64[np.ndarray, "n 17 2"]:
        """The joints projected into each image, in its pixels (without perspective).

        Raises:
            CheckpointError: The model has no orientation head.
        """
        corner = self.crop_boxes[:, None, :2]
        side = (self.crop_boxes[:, 2] - self.crop_boxes[:, 0])[:, None, None]
        return np.asarray(corner + side * self._known_orientation().in_crop(self.pose), np.float64)

    def _known_orientation(self) -> Orientation:
        if self.orientation is None:
            raise CheckpointError(
                "this model has no orientation head, which says how people stand in front of the camera; "
                "`mcss equip RUN --capture CAPTURE` adds it"
            )
        return self.orientation


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, ready to predict from images."""

    network: PoseNetwork
    parts: ModelParts
    source: Path
    """The file or run folder that it was read from."""

    def __repr__(self) -> str:
        return f"Model({self.name}, embedding of {self.dim}, images of {self.image_size} px)"

    @property
    def name(self) -> str:
        """The name by which outputs refer to the model."""
        return "shipped with mcss" if self.source == SHIPPED else str(self.source)

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.network.config.dim

    @property
    def image_size(self) -> int:
        """Side in pixels of the network's input, to which crops are scaled."""
        return self.network.config.image_size

    def predict(self, images: Images, boxes: BoundingBoxes | None = None) -> Poses:
        """Predict the 3D pose, the embedding and more for the one person in each image.

        Args:
            images: One or several files, or RGB arrays height×width×3 of any size. Without boxes they should be crops:
                square, with the person in the middle and a little room around them.
            boxes: x, y, width, height of the person in each image, in pixels; the crop box is laid around it.

        Raises:
            ImageError: A file or array is not an image, or a box lies outside its image; the message says which.
        """
        arrays = _images(images)
        crop_boxes = _crop_boxes(arrays, boxes)
        crops = [cut_out(array, box, self.image_size) for array, box in zip(arrays, crop_boxes, strict=True)]
        return self.predict_crops(crops, crop_boxes)

    def embed(self, images: Images, boxes: BoundingBoxes | None = None) -> Float32[np.ndarray, "n dim"]:
        """Compute only the embeddings; takes the same arguments as `predict`."""
        return self.predict(images, boxes).embedding

    def predict_rows(self, capture: Capture, rows: Int64[np.ndarray, " n"], task: Task | None = None) -> Poses:
        """Predict for rows of a capture, a batch at a time.

        Args:
            capture: Holds the images.
            rows: Rows of the capture.
            task: Advanced by every image.
        """

        def predict(batch: Int64[np.ndarray, " batch"]) -> Poses:
            return self.predict_crops(list(capture.decode(batch, self.image_size)), capture.boxes(batch))

        return Poses.joined(predict_rows(predict, rows, task))

    def predict_crops(self, crops: Sequence[AnySizeImage], crop_boxes: np.ndarray | None = None) -> Poses:
        """Predict from square crops that have already been cut out.

        Args:
            crops: RGB, square.
            crop_boxes: x0, y0, x1, y1 of each crop in its image; by default every crop is a whole image.
        """
        if crop_boxes is None:
            crop_boxes = np.array([(0, 0, crop.shape[1], crop.shape[0]) for crop in crops])
        boxes = np.asarray(crop_boxes, np.float32).reshape(-1, 4)
        size = self.image_size
        pixels = np.zeros((len(crops), size, size, 3), np.uint8)
        for number, crop in enumerate(crops):
            pixels[number] = _scaled(crop, size)
        few = images_at_a_time(size, next(self.network.parameters()).device)
        starts = range(0, max(len(crops), 1), few)
        return Poses.joined([self._batch(pixels[s : s + few], boxes[s : s + few]) for s in starts])

    def _batch(self, pixels: UInt8[np.ndarray, "n side side 3"], crop_boxes: Float32[np.ndarray, "n 4"]) -> Poses:
        orientation_head, uncertainty_head = self.parts.orientation, self.parts.uncertainty
        # The orientation head reads the maps between two stages, so the backbone runs in two parts.
        stages = len(self.network.backbone.stages) if orientation_head is None else orientation_head.config.stages
        device = next(self.network.parameters()).device
        images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)).to(device)
        with torch.inference_mode():
            maps = self.network.backbone(images, 0, stages)
            output = self.network(maps, stages)
            pose, embedding = self.network.denormalised(output.coordinates).cpu(), output.embedding.cpu()
            orientation = None if orientation_head is None else orientation_of(orientation_head(maps))
            error = None if uncertainty_head is None else uncertainty_head.expected_error(embedding, pose)
        # Clones made outside inference mode, so that callers may change them.
        return Poses(pose.clone().numpy(), embedding.clone().numpy(), error, orientation, crop_boxes)


def load(run: str | Path | None = None) -> Model:
    """Load a trained model.

    Args:
        run: A run folder of `mcss train`, a model file, or ``hf:USER/NAME`` for a model on the Hugging Face hub; by
            default, or for ``"shipped"``, the weights shipped with the package.

    Raises:
        CheckpointError: There is no such run, it is unfinished, the file is of another kind, or the network has no
            embedding or does not predict canonical poses.
    """
    path = SHIPPED if run is None else located(run)
    if path == SHIPPED and not SHIPPED.exists():
        raise CheckpointError(
            f"this copy of mcss comes without weights ({SHIPPED} does not exist). Train a model (`mcss synthetic "
            "build captures/synthetic`, then `mcss train mcss --capture captures/synthetic`) and name its run folder: "
            "--run RUN, or mcss.load(RUN)."
        )
    file = read_model(path)
    if not isinstance(file.network, PoseNetwork) or file.network.frame != "canonical":
        raise CheckpointError(
            f"{path}: a network of another method, which has no embedding or predicts in camera space; expected one of "
            "`mcss train mcss` or `mcss train supervised`."
        )
    return Model(file.network, file.parts, path)


def on_real_footage() -> str:
    """Read from the model card how accurate the shipped weights are on real footage."""
    _, _, rest = CARD.read_text(encoding="utf-8").partition("<!-- real:begin -->")
    return rest.partition("<!-- real:end -->")[0].strip()


def crop_box_around(box: Sequence[float | int], width: int, height: int, name: str) -> Int64[np.ndarray, " 4"]:
    """Lay the crop box around a person's bounding box; returns x0, y0, x1, y1 in pixels.

    Args:
        box: x, y, width, height of the person in pixels; it may reach beyond the image.
        width: Width of the image.
        height: Height of the image.
        name: The name of the box or image in error messages.

    Raises:
        ImageError: The box lies outside the image, or is empty or far too large.
    """
    x, y, w, h = (float(value) for value in box)
    inside = x < width and y < height and x + w > 0 and y + h > 0
    if not (w > 0 and h > 0 and inside and max(w, h) <= _LARGEST_BOX * max(width, height)):
        raise ImageError(
            f"{name}: expected a box x,y,width,height that lies in the image of {width}×{height} pixels, got "
            f"{x:g},{y:g},{w:g},{h:g}"
        )
    side = MARGIN * max(w, h)
    corner = np.array([x + w / 2 - side / 2, y + h / 2 - side / 2])
    return np.asarray(np.rint(np.concatenate([corner, corner + side])), np.int64)


def crop_box_of_whole(width: int, height: int) -> Int64[np.ndarray, " 4"]:
    """The square x0, y0, x1, y1 around a whole image, which it exceeds at its longer sides."""
    side = max(width, height)
    x, y = (width - side) // 2, (height - side) // 2
    return np.array([x, y, x + side, y + side], np.int64)


def _images(images: Images) -> list[AnySizeImage]:
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    return [
        read_image(Path(image)) if isinstance(image, str | Path) else as_rgb(image, f"image {number}")
        for number, image in enumerate(images)
    ]


def _crop_boxes(images: Sequence[AnySizeImage], boxes: BoundingBoxes | None) -> Int64[np.ndarray, "n 4"]:
    if boxes is not None and len(boxes) != len(images):
        raise ImageError(f"boxes: expected one for each of {len(images)} images, got {len(boxes)}.")
    crop_boxes = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        if boxes is None:
            crop_boxes.append(crop_box_of_whole(width, height))
        else:
            crop_boxes.append(crop_box_around(boxes[number], width, height, f"box {number}"))
    return np.array(crop_boxes, np.int64).reshape(-1, 4)


def _scaled(crop: UInt8[np.ndarray, "side side 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    if crop.shape[0] == size:
        return crop
    interpolation = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (size, size), interpolation=interpolation), np.uint8)
