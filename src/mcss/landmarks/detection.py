"""Detection of the landmarks of a person in the images of a capture, with the network that is shipped.

The network was trained on crops in which hips→shoulders points up and whose size follows from the person's extent. It
tells where such a crop lies (`mcss.models.blazepose.Landmarks.alignment`), so every image is looked at twice: first the
whole crop of the capture with some room around it, and then the crop that the network asked for, turned upright. The
second crop is looked at in a mirror as well, and the two answers are averaged unless they contradict each other.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor, nn

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.landmarks.kept_landmarks import KeptLandmarks
from mcss.landmarks.view_landmarks import LANDMARKS, MIRROR, ViewLandmarks
from mcss.models.blazepose import IMAGE_SIZE, blazepose_stages, load_landmark_heads, shipped_weights
from mcss.models.depthwise import speed_up_depthwise
from mcss.processes import keep_freed_memory
from mcss.progress import NO_PROGRESS, Progress, Task
from mcss.weights import load_strictly

LARGEST_DECODED = 2 * IMAGE_SIZE
"""Larger crops are scaled down to this side before they are warped, so that warping does not skip pixels."""

BATCH_SIZE = 4
"""Small enough for maps to stay in the cache of a processor, which halves its time."""

_KEPT_AT_ONCE = 1000
"""New images after which the cache is written, so that a run that is stopped loses no more."""

MIN_PRESENCE = 0.5
"""The first look's opinion of where the person is counts only from this presence on."""

MOST_APART = 0.06
"""Two looks contradict each other if joints of arms and legs lie farther apart, as a share of the side of the image
that the network sees; at half of all images of real people they lie 0.014 apart."""

_LIMBS = tuple(
    i
    for i, name in enumerate(LANDMARKS)
    if name.split("_")[-1] in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
)

Transforms = Float64[np.ndarray, "n 2 3"]
"""Affine maps: from pixels of the network's image to shares (0 to 1) of the capture's crop."""


@dataclass(frozen=True)
class DetectionSettings:
    """How the detector is asked."""

    room: float = 1.25
    """Side of what the detector sees first, divided by the side of the capture's crop; beyond the crop its border is
    repeated."""
    aligned: bool = True
    """Look a second time, at the crop that the first look asks for: turned upright, and of the person's size."""
    mirrored: bool = True
    """Look in a mirror as well, and average where both looks agree; otherwise the surer one counts."""

    def __post_init__(self) -> None:
        if not 1 <= self.room <= 3:
            raise ValueError(f"room: expected 1 to 3 times the side of the crop, got {self.room}.")


@dataclass(frozen=True, eq=False)
class CropLandmarks:
    """What was found in some images of a capture."""

    image: Float64[np.ndarray, "n 33 2"]
    """Shares of the capture's crop: 0 to 1 lies inside."""
    world: Float64[np.ndarray, "n 33 3"]
    """Millimetres along the camera's axes."""
    visibility: Float64[np.ndarray, "n 33"]
    presence: Float64[np.ndarray, " n"]
    aligned: Transforms
    """From the network's image to the crop that the network asks for."""

    @property
    def values(self) -> Float32[np.ndarray, "n values"]:
        """All but the last as rows of numbers."""
        flat = [part.reshape(len(part), -1) for part in (self.image, self.world, self.visibility, self.presence)]
        return np.concatenate(flat, axis=1).astype(np.float32)


class LandmarkDetector:
    """BlazePose's landmark network with its shipped weights."""

    def __init__(self, settings: DetectionSettings) -> None:
        self.settings = settings
        net = nn.Module()
        net.stages = nn.ModuleList(blazepose_stages((0.0,) * 3, (1.0,) * 3))
        load_strictly(net, shipped_weights("stages."), source="mediapipe", name="blazepose")
        speed_up_depthwise(net)
        net.heads = load_landmark_heads()
        self._net = net.eval().to(memory_format=torch.channels_last)

    def __call__(self, crops: UInt8[np.ndarray, "n size size 3"]) -> CropLandmarks:
        """Find the landmarks of the person in square crops, RGB."""
        first = _enlarged(len(crops), self.settings.room)
        if not self.settings.aligned:
            return self._look(crops, first, self.settings.mirrored)
        rough = self._look(crops, first, mirrored=False)
        sure = rough.presence >= MIN_PRESENCE
        second = np.where(sure[:, None, None], rough.aligned, first)
        return self._look(crops, second, self.settings.mirrored)

    def _look(self, crops: UInt8[np.ndarray, "n size size 3"], to_crop: Transforms, mirrored: bool) -> CropLandmarks:
        seen = _warped(crops, to_crop)
        found = self._found(seen, to_crop)
        if not mirrored:
            return found
        flip = np.array([[-1.0, 0, IMAGE_SIZE], [0, 1, 0], [0, 0, 1]])
        return _together(found, self._found(seen.flip(-1), to_crop @ flip, mirrored=True), to_crop)

    def _found(self, images: Tensor, to_crop: Transforms, mirrored: bool = False) -> CropLandmarks:
        """Ask the network, and express its answer along the axes of the camera and in shares of the capture's crop."""
        with torch.inference_mode():
            maps = images.contiguous(memory_format=torch.channels_last)
            for stage in self._net.stages:  # type: ignore[union-attr]
                maps = stage(maps)
            found = self._net.heads(maps)  # type: ignore[operator]
        image, world = (part.double().numpy() for part in (found.image[..., :2], found.world))
        visibility = found.visibility.double().numpy()
        if mirrored:
            image, world, visibility = (part[:, MIRROR] for part in (image, world, visibility))
        # Turning (and mirroring) the image turns what the network says about x and y, and leaves the depth.
        turn = to_crop[:, :, :2] / np.sqrt(np.abs(np.linalg.det(to_crop[:, :, :2])))[:, None, None]
        world[..., :2] = world[..., :2] @ turn.transpose(0, 2, 1)
        return CropLandmarks(
            image=_mapped(image, to_crop),
            world=world,
            visibility=visibility,
            presence=found.presence.double().numpy(),
            aligned=_aligned(_mapped(found.alignment.double().numpy(), to_crop)),
        )


def _together(found: CropLandmarks, other: CropLandmarks, to_crop: Transforms) -> CropLandmarks:
    """Average two looks at the same crops; where they contradict each other, return the surer one.

    Of a person who might be seen from the front or from the back, one look may take for left what the other takes for
    right. The mean of the two would press arms and legs into the middle of the body.
    """
    limbs, exchanged = list(_LIMBS), [MIRROR[i] for i in _LIMBS]
    side = IMAGE_SIZE * np.sqrt(np.abs(np.linalg.det(to_crop[:, :, :2])))
    apart = np.linalg.norm(found.image[:, limbs] - other.image[:, limbs], axis=2).mean(axis=1) / side
    crossed = np.linalg.norm(found.image[:, limbs] - other.image[:, exchanged], axis=2).mean(axis=1) / side
    first, second = (look.presence * look.visibility[:, limbs].mean(axis=1) for look in (found, other))
    alone = (apart > MOST_APART) | (crossed < apart)
    share = np.where(alone, first >= second, 0.5)

    def mixed(name: str) -> np.ndarray:
        a, b = getattr(found, name), getattr(other, name)
        part = share.reshape(-1, *[1] * (a.ndim - 1))
        return np.asarray(part * a + (1 - part) * b)

    return CropLandmarks(
        image=mixed("image"),
        world=mixed("world"),
        visibility=mixed("visibility"),
        presence=mixed("presence"),
        aligned=found.aligned,
    )


def detect_landmarks(
    capture: Capture,
    instants: Instants,
    settings: DetectionSettings = DetectionSettings(),
    progress: Progress = NO_PROGRESS,
) -> ViewLandmarks:
    """Find the landmarks of the person in every image of some instants of a capture.

    Raises:
        CaptureError: An image is broken.
    """
    there = instants.rows >= 0
    rows = instants.rows[there]
    with progress.task("Finding landmarks", len(rows)) as task:
        found = _found_in_rows(capture, rows, settings, task)
    boxes = capture.boxes(rows)[:, None]
    shares, world, visibility, presence = np.split(found, np.cumsum([33 * 2, 33 * 3, 33]), axis=1)
    landmarks = ViewLandmarks(
        instants=instants,
        image=np.full((*there.shape, 33, 2), np.nan, np.float32),
        world=np.full((*there.shape, 33, 3), np.nan, np.float32),
        visibility=np.zeros((*there.shape, 33), np.float32),
        presence=np.zeros(there.shape, np.float32),
        image_size=np.full((len(instants.views), 2), np.nan),
    )
    landmarks.image[there] = boxes[..., :2] + shares.reshape(-1, 33, 2) * (boxes[..., 2:] - boxes[..., :2])
    landmarks.world[there] = world.reshape(-1, 33, 3)
    landmarks.visibility[there] = visibility
    landmarks.presence[there] = presence[:, 0]
    return landmarks


def _found_in_rows(
    capture: Capture, rows: Int64[np.ndarray, " n"], settings: DetectionSettings, task: Task
) -> Float32[np.ndarray, "n values"]:
    """Look at the images that were not looked at before, and return what is known of all."""
    keep_freed_memory()
    kept = KeptLandmarks.open(capture.uri, settings)
    size = min(capture.info.image_size, LARGEST_DECODED)
    detector: LandmarkDetector | None = None
    parts = []
    try:
        for start in range(0, len(rows), BATCH_SIZE):
            batch = rows[start : start + BATCH_SIZE]
            images = capture.images(batch)
            new = ~kept.known(images)
            if new.any():
                detector = detector or LandmarkDetector(settings)
                found = detector(capture.decode(batch[new], size))
                kept.add([image for image, is_new in zip(images, new, strict=True) if is_new], found.values)
                kept.write(least=_KEPT_AT_ONCE)
            parts.append(kept.values(images))
            task.advance(len(batch))
    finally:
        kept.write()
    return np.concatenate(parts)


def _enlarged(count: int, room: float) -> Transforms:
    """From the network's image to the capture's crop with room around it."""
    scale = room / IMAGE_SIZE
    one = np.array([[scale, 0, (1 - room) / 2], [0, scale, (1 - room) / 2]])
    return np.broadcast_to(one, (count, 2, 3))


def _aligned(points: Float64[np.ndarray, "n 2 2"]) -> Transforms:
    """From the network's image to the crop that it asks for.

    Args:
        points: The middle of the hips, and a point above it on the circle around the person, in shares of the crop.

    Reference:
        pose_landmarks_to_roi.pbtxt of MediaPipe 0.10: the crop is turned until the second point lies above the first,
        and is 1.25 times as wide as the circle.
    """
    centre, up = points[:, 0], points[:, 0] - points[:, 1]
    scale = 2 * 1.25 / IMAGE_SIZE
    down = up * scale  # the crop's y axis, as long as a pixel of the network's image
    right = np.stack([down[:, 1], -down[:, 0]], axis=1)
    axes = np.stack([right, down], axis=2)
    corner = centre - axes @ np.full(2, IMAGE_SIZE / 2)
    return np.concatenate([axes, corner[..., None]], axis=2)


def _mapped(points: Float64[np.ndarray, "n points 2"], transform: Transforms) -> Float64[np.ndarray, "n points 2"]:
    turned = points @ transform[:, :, :2].transpose(0, 2, 1)
    mapped: Float64[np.ndarray, "n points 2"] = turned + transform[:, None, :, 2]
    return mapped


def _warped(crops: UInt8[np.ndarray, "n size size 3"], to_crop: Transforms) -> Float32[Tensor, "n 3 256 256"]:
    """Cut the network's images, RGB in 0..1, out of crops; beyond its border a crop is continued by it."""
    size = crops.shape[1]
    images = np.empty((len(crops), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for image, crop, transform in zip(images, crops, to_crop, strict=True):
        # From the centres of pixels to their corners, and back: OpenCV counts from the centre of the first pixel.
        matrix = transform * size
        matrix = np.concatenate([matrix[:, :2], matrix[:, :2].sum(axis=1, keepdims=True) / 2 + matrix[:, 2:] - 0.5], 1)
        cv2.warpAffine(
            crop,
            matrix,
            (IMAGE_SIZE, IMAGE_SIZE),
            dst=image,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
