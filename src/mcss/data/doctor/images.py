"""Faults of crops: dark, blank, blurred and repeated ones, and people who are cut off at the edge."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.images import decode_jpeg

_SIDE = 64
"""Side in pixels to which images are scaled for measurements of motion."""

BANDS = 4
"""Number of horizontal bands in which motion is measured separately: all cameras see a movement at a similar height."""


@dataclass(frozen=True)
class ImageLimits:
    """When a crop counts as a fault."""

    dark: float = 20.0
    """Mean brightness (0 to 255) below which a crop is dark."""
    white: float = 0.9
    """Share of nearly white pixels above which a crop is white."""
    even: float = 4.0
    """Standard deviation of brightness below which a crop shows nothing."""
    blurred: float = 0.2
    """Share of the usual sharpness of its view and sequence below which a crop is blurred."""
    colour: float = 4.0
    """Mean difference between the channels of a pixel (0 to 255) below which a view shows no colours."""
    edge: float = 0.15
    """Share of one edge of the crop that the moving person may cover, for images without labels."""
    often: float = 0.1
    """Share of a view's images of a sequence that must exceed `edge` for a fault; fewer may do so by chance."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What was measured of each image; NaN (and 0 in `digest`) for missing and broken images."""

    brightness: Float32[np.ndarray, "n views"]
    contrast: Float32[np.ndarray, "n views"]
    sharpness: Float32[np.ndarray, "n views"]
    """Variance of the Laplacian."""
    white: Float32[np.ndarray, "n views"]
    """Share of nearly white pixels."""
    digest: Int64[np.ndarray, "n views"]
    """Digest of the bytes of the JPEG."""
    motion: Float32[np.ndarray, "n views bands"]
    """Mean change since the instant before in each horizontal band; NaN for the first instant."""
    colour: Float32[np.ndarray, "n views"]
    """Mean difference between the channels of a pixel: near 0 for an image without colours."""
    edge: Float32[np.ndarray, "n views"]
    """The largest share of any edge that the moving person covers."""

    @classmethod
    def empty(cls, instants: int, views: int) -> "ImageFacts":
        """Facts that are still to be measured."""

        def nan(*shape: int) -> Float32[np.ndarray, "..."]:
            return np.full(shape, np.nan, np.float32)

        size = (instants, views)
        return cls(
            nan(*size),
            nan(*size),
            nan(*size),
            nan(*size),
            np.zeros(size, np.int64),
            nan(*size, BANDS),
            nan(*size),
            nan(*size),
        )

    def measure(
        self,
        instants: Int64[np.ndarray, " m"],
        view: int,
        images: list[bytes | None],
        boxes: Float32[np.ndarray, "m 4"],
        find_edges: bool,
    ) -> list[int]:
        """Fill in one view of one sequence; returns the indices of broken images.

        Args:
            instants: Instants of the sequence in order of time.
            view: Index of the view.
            images: JPEG of each instant; None if the view is missing.
            boxes: Crop boxes in source pixels.
            find_edges: Whether to look for people at the edges, which takes time and may err.
        """
        broken, grey = [], np.full((len(instants), _SIDE, _SIDE), np.nan, np.float32)
        for i, (instant, image) in enumerate(zip(instants, images, strict=True)):
            if image is None:
                continue
            try:
                rgb = decode_jpeg(image)
                full = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
            except ValueError:
                broken.append(i)
                continue
            self.brightness[instant, view] = full.mean()
            small = rgb[::4, ::4].astype(np.int16)
            self.colour[instant, view] = (small.max(axis=2) - small.min(axis=2)).mean()
            self.contrast[instant, view] = full.std()
            self.sharpness[instant, view] = cv2.Laplacian(full, cv2.CV_32F).var()
            self.white[instant, view] = (full > 245).mean()
            digest = hashlib.blake2b(image, digest_size=8).digest()
            self.digest[instant, view] = int.from_bytes(digest, "little", signed=True)
            grey[i] = cv2.resize(full, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        self.motion[instants[1:], view] = _motion(grey)
        if find_edges:
            self.edge[instants, view] = edge_shares(grey, boxes)
        return broken


def dark(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are too dark to show anybody."""
    return np.asarray(facts.brightness < limits.dark)


def blank(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are white or of one colour, and not dark."""
    plain = (facts.white > limits.white) | (facts.contrast < limits.even)
    return np.asarray(plain & ~dark(facts, limits))


def blurred(facts: ImageFacts, part: Int64[np.ndarray, " n"], limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are far less sharp than usual in their view and sequence, or than half of what other views have."""
    plain = dark(facts, limits) | blank(facts, limits)
    sharpness = np.where(plain, np.nan, facts.sharpness)
    is_blurred = np.zeros(sharpness.shape, bool)
    for number in np.unique(part):
        of_part = sharpness[part == number]
        median = np.array([_median(column) for column in of_part.T])
        reference = np.fmax(median, 0.5 * _median(median))
        is_blurred[part == number] = of_part < limits.blurred * reference
    return is_blurred


def repeated(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that equal an earlier crop of the capture byte for byte; dark and blank ones are left out."""
    plain = dark(facts, limits) | blank(facts, limits) | (facts.digest == 0)
    digests = np.where(plain, 0, facts.digest).reshape(-1)
    _, first = np.unique(digests, return_index=True)
    again = np.ones(len(digests), bool)
    again[first] = False
    return np.asarray(again & (digests != 0)).reshape(facts.digest.shape)


def edge_shares(
    grey: Float32[np.ndarray, "m side side"], boxes: Float32[np.ndarray, "m 4"]
) -> Float32[np.ndarray, " m"]:
    """The largest share of any edge of each crop that a moving person covers; needs a static camera and no labels.

    Each crop is compared with those two instants before and after it, shifted to the same part of the source image:
    pixels that differ from both show the person now, and not where the person was or will be. People who keep still
    are not found.
    """
    shares = np.full(len(grey), np.nan, np.float32)
    for i in range(2, len(grey) - 2):
        changes = [np.abs(grey[i] - _shifted_to(grey[k], boxes[k], boxes[i])) for k in (i - 2, i + 2)]
        differs = cv2.blur(np.nan_to_num(np.minimum(*changes)), (3, 3)) > 25
        edges = (differs[1], differs[-2], differs[:, 1], differs[:, -2])
        shares[i] = max(float(edge.mean()) for edge in edges)
    return shares


def _shifted_to(
    grey: Float32[np.ndarray, "side side"], box: Float32[np.ndarray, "4"], target: Float32[np.ndarray, "4"]
) -> Float32[np.ndarray, "side side"]:
    """The part of a crop of `box` that lies in the box `target`; NaN beyond it."""
    pixel, scale = (box[2:] - box[:2]) / _SIDE, (target[2:] - target[:2]) / (box[2:] - box[:2])
    corner = (target[:2] - box[:2]) / pixel
    matrix = np.array([[scale[0], 0, corner[0]], [0, scale[1], corner[1]]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shifted = cv2.warpAffine(
        grey, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan")
    )
    return np.asarray(shifted, np.float32)


def _motion(grey: Float32[np.ndarray, "m side side"]) -> Float32[np.ndarray, "_ bands"]:
    if len(grey) < 2:
        return np.zeros((0, BANDS), np.float32)
    small = np.stack([cv2.resize(g, (_SIDE // 2, _SIDE // 2), interpolation=cv2.INTER_AREA) for g in grey])
    small -= small.mean(axis=(1, 2), keepdims=True)  # a change of light is not motion
    change: Float32[np.ndarray, "_ bands"] = (
        np.abs(np.diff(small, axis=0)).reshape(len(grey) - 1, BANDS, -1).mean(axis=2)
    )
    return change


def _median(values: Float[np.ndarray, " n"]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
