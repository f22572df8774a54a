"""A trained model for use: images of people in, 3D poses and embeddings out. `mcss.load` leads here.

The weights that are shipped with the package lie in this folder, with the card that says what they are worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8

from mcss.data.augmentation import normalise
from mcss.data.capture import Capture
from mcss.errors import CheckpointError, ImageError
from mcss.images import OfAnySize, as_rgb, cut_out, read_image
from mcss.models.model_file import ModelParts, read_model
from mcss.models.orientation import Orientation, orientation_of
from mcss.models.pose_network import PoseNetwork
from mcss.models.prediction import BATCH_SIZE, predict_rows
from mcss.progress import Task

SHIPPED = Path(__file__).with_name("mcss.safetensors")
"""The weights that `load` takes if none are named."""

CARD = Path(__file__).with_name("CARD.md")
"""What the shipped weights learned from, how well they do, and where they fail."""

MARGIN = 1.15
"""Side of a crop over the longer side of the person's box, as in the captures of this package."""

_LARGEST_BOX = 4.0
"""Of the image's longer side: what is larger is a mistake, and would take memory."""

Images = Sequence[str | Path | np.ndarray] | np.ndarray | str | Path
"""Files or arrays (see `mcss.images.as_rgb`), several or one; a uint8 array of four axes is a batch."""

Boxes = Sequence[Sequence[float | int]] | np.ndarray
"""x, y, width, height of a person in pixels, from the upper left corner; one for each image."""


@dataclass(frozen=True, eq=False)
class Poses:
    """What a model says of n images of people. Everything is float32 on the CPU."""

    pose: Float32[np.ndarray, "n 17 3"]
    """Canonical, in mm: joints in the order of `mcss.skeletons.JOINTS`, the pelvis at the origin, +Z up, the left hip
    in the direction of +X, so that everybody faces -Y."""
    embedding: Float32[np.ndarray, "n dim"]
    """Unit vectors: near for the same pose, from whichever side and of whomever."""
    error: Float32[np.ndarray, " n"] | None
    """Expected mean distance of a joint from its true place, mm; None for models without reference poses."""
    placement: Orientation | None
    """How the person stands before the camera; None for models without that part."""
    squares: Float32[np.ndarray, "n 4"]
    """x0, y0, x1, y1: the part of each image that was looked at, in its pixels; it may reach beyond the image."""

    def __len__(self) -> int:
        return len(self.pose)

    def take(self, index: Int64[np.ndarray, " k"]) -> "Poses":
        """Some of them, in the order of `index`."""
        return Poses(
            self.pose[index],
            self.embedding[index],
            None if self.error is None else self.error[index],
            None if self.orientation is None else self.orientation.take(index),
            self.squares[index],
        )

    @classmethod
    def joined(cls, parts: "Sequence[Poses]") -> "Poses":
        """Several of one model, one after the other; at least one."""
        errors = [part.error for part in parts if part.error is not None]
        placements = [part.placement for part in parts if part.placement is not None]
        return cls(
            np.concatenate([part.pose for part in parts]),
            np.concatenate([part.embedding for part in parts]),
            np.concatenate(errors) if errors else None,
            Orientation.joined(placements) if placements else None,
            np.concatenate([part.squares for part in parts]),
        )

    @property
    def heading(self) -> Float32[np.ndarray, " n"] | None:
        """Degrees by which the person is turned from facing the camera, see `mcss.models.orientation.Orientation`."""
        return None if self.orientation is None else self.orientation.heading

    def in_camera(self) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm along the axes of the camera: x to the right, y down, z away; the pelvis at the origin.

        Raises:
            CheckpointError: The model does not know how people stand before the camera.
        """
        return self._placed().in_camera(self.pose)

    def upright(self) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm as the camera sees them, but upright: x to the right, y away, z up; the pelvis at the origin.

        Raises:
            CheckpointError: As `in_camera`.
        """
        return self._placed().upright(self.pose)

    def in_image(self) -> Float64[np.ndarray, "n 17 2"]:
        """Where the joints are in each image, in its pixels (without perspective).

        Raises:
            CheckpointError: As `in_camera`.
        """
        corner, side = self.squares[:, None, :2], (self.squares[:, 2] - self.squares[:, 0])[:, None, None]
        return np.asarray(corner + side * self._placed().in_crop(self.pose), np.float64)

    def _placed(self) -> Orientation:
        if self.orientation is None:
            raise CheckpointError(
                "this model does not know how people stand before the camera; `mcss equip RUN --capture C` adds that"
            )
        return self.orientation


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, ready for images."""

    network: PoseNetwork
    parts: ModelParts
    source: Path
    """Where it was read."""

    @property
    def name(self) -> str:
        """What it is called in what is written of it."""
        return "shipped with mcss" if self.source == SHIPPED else str(self.source)

    @property
    def dim(self) -> int:
        """Size of the embedding."""
        return self.network.config.dim

    @property
    def image_size(self) -> int:
        """Side in pixels of what the network sees; crops are scaled to it."""
        return self.network.config.image_size

    def predict(self, images: Images, boxes: Boxes | None = None) -> Poses:
        """3D poses, embeddings and what goes with them, of the one person in each image.

        Args:
            images: Files, or RGB arrays height×width×3 of any sizes; one or several. Without boxes, images should
                be crops: square, the person in the middle with a little room around.
            boxes: x, y, width, height of the person in each image, in pixels; the square that is looked at is
                laid around it.

        Raises:
            ImageError: A file or array that is no image, or a box that lies outside; by its name or number.
        """
        arrays = _images(images)
        squares = _squares(arrays, boxes)
        crops = [cut_out(array, square, self.image_size) for array, square in zip(arrays, squares, strict=True)]
        return self.predict_crops(crops, squares)

    def embed(self, images: Images, boxes: Boxes | None = None) -> Float32[np.ndarray, "n dim"]:
        """The embeddings alone, as `predict`."""
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

    def predict_crops(
        self,
        crops: Sequence[OfAnySize],
        squares: np.ndarray | None = None,
    ) -> Poses:
        """As `predict`, of square crops that were cut out already.

        Args:
            crops: RGB, square.
            squares: x0, y0, x1, y1: where each lies in its image; by default it is an image of its own.
        """
        if squares is None:
            squares = np.array([(0, 0, crop.shape[1], crop.shape[0]) for crop in crops])
        corners = np.asarray(squares, np.float32).reshape(-1, 4)
        size = self.image_size
        pixels = np.zeros((len(crops), size, size, 3), np.uint8)
        for place, crop in enumerate(crops):
            pixels[place] = _scaled(crop, size)
        starts = range(0, max(len(crops), 1), BATCH_SIZE)
        return Poses.joined([self._batch(pixels[s : s + BATCH_SIZE], corners[s : s + BATCH_SIZE]) for s in starts])

    def _batch(self, pixels: UInt8[np.ndarray, "n side side 3"], squares: Float32[np.ndarray, "n 4"]) -> Poses:
        head, reference = self.parts.orientation, self.parts.uncertainty
        stages = len(self.network.backbone.stages) if head is None else head.config.stages
        device = next(self.network.parameters()).device
        images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)).to(device)
        with torch.inference_mode():
            maps = self.network.backbone(images, 0, stages)
            output = self.network(maps, stages)
            pose, embedding = self.network.denormalised(output.coordinates).cpu(), output.embedding.cpu()
            placement = None if head is None else orientation_of(head(maps))
            error = None if reference is None else reference.expected_error(embedding, pose)
        # Copies out of inference mode, so that callers may do with them what they like.
        return Poses(pose.clone().numpy(), embedding.clone().numpy(), error, placement, squares)


def load(run: str | Path | None = None) -> Model:
    """A trained model.

    Args:
        run: A run folder of `mcss train`, or a model file; None for the weights shipped with the package.

    Raises:
        CheckpointError: No such run, an unfinished one, a file of another kind, or a network that has no embedding or
            does not predict canonical poses.
    """
    if run is None and not SHIPPED.exists():
        raise CheckpointError(
            f"this copy of mcss has no weights of its own ({SHIPPED} is not there). Train a model (`mcss synthetic "
            "build captures/synthetic`, then `mcss train mcss --capture captures/synthetic`) and give its run folder: "
            "--run RUN, or mcss.load(RUN)."
        )
    path = SHIPPED if run is None else Path(run)
    file = read_model(path)
    if not isinstance(file.network, PoseNetwork) or file.network.frame != "canonical":
        raise CheckpointError(
            f"{path}: a network of another method, which has no embedding or predicts in camera space; expected one of "
            "`mcss train mcss` or `mcss train supervised`."
        )
    return Model(file.network, file.parts, path)


def on_real_footage() -> str:
    """How well the shipped weights did on real footage, a sentence of the card."""
    _, _, rest = CARD.read_text(encoding="utf-8").partition("<!-- real:begin -->")
    return rest.partition("<!-- real:end -->")[0].strip()


def square_around(box: Sequence[float | int], width: int, height: int, name: str) -> Int64[np.ndarray, " 4"]:
    """x0, y0, x1, y1 of the square that a model should see of a person in an image.

    Args:
        box: x, y, width, height of the person in pixels; it may reach beyond the image.
        width: Of the image.
        height: Likewise.
        name: Of the box or image, for the message.

    Raises:
        ImageError: The box lies outside the image, or is no box of something in it.
    """
    x, y, w, h = (float(value) for value in box)
    inside = x < width and y < height and x + w > 0 and y + h > 0
    if not (w > 0 and h > 0 and inside and max(w, h) <= _LARGEST_BOX * max(width, height)):
        raise ImageError(
            f"{name}: expected a box x,y,width,height that lies in the image of {width}×{height} pixels, came "
            f"{x:g},{y:g},{w:g},{h:g}"
        )
    side = MARGIN * max(w, h)
    corner = np.array([x + w / 2 - side / 2, y + h / 2 - side / 2])
    return np.asarray(np.rint(np.concatenate([corner, corner + side])), np.int64)


def whole_square(width: int, height: int) -> Int64[np.ndarray, " 4"]:
    """x0, y0, x1, y1 of the square around a whole image; it reaches beyond its longer sides."""
    side = max(width, height)
    x, y = (width - side) // 2, (height - side) // 2
    return np.array([x, y, x + side, y + side], np.int64)


def _images(images: Images) -> list[OfAnySize]:
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    return [
        read_image(Path(image)) if isinstance(image, str | Path) else as_rgb(image, f"image {number}")
        for number, image in enumerate(images)
    ]


def _squares(images: Sequence[OfAnySize], boxes: Boxes | None) -> Int64[np.ndarray, "n 4"]:
    if boxes is not None and len(boxes) != len(images):
        raise ImageError(f"boxes: expected one for each of {len(images)} images, got {len(boxes)}.")
    squares = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        if boxes is None:
            squares.append(whole_square(width, height))
        else:
            squares.append(square_around(boxes[number], width, height, f"box {number}"))
    return np.array(squares, np.int64).reshape(-1, 4)


def _scaled(crop: UInt8[np.ndarray, "side side 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    if crop.shape[0] == size:
        return crop
    how = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (size, size), interpolation=how), np.uint8)
