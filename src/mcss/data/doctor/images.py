"""Faults of crops: dark, blank, blurred, repeated, and people who are cut off at the edge."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.data.doctor.lags import BANDS
from mcss.images import decode_jpeg

_SIDE = 64
"""Pixels at which images are looked at."""


@dataclass(frozen=True)
class ImageLimits:
    """When a crop counts as faulty."""

    dark: float = 20.0
    """Mean brightness (0 to 255) below which a crop is dark."""
    white: float = 0.9
    """Share of nearly white pixels above which a crop is white."""
    even: float = 4.0
    """Standard deviation of brightness below which a crop shows nothing."""
    blurred: float = 0.2
    """Share of its view's usual sharpness in that sequence below which a crop is blurred."""
    edge: float = 0.15
    """Share of one edge of the crop that the moving person may cover, where there are no labels to tell."""
    often: float = 0.1
    """Share of a sequence's images of a view in which that must be so; rarer, it may be chance."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What is kept of each image; NaN (and 0 in `digest`) where there is none or it is broken."""

    brightness: Float32[np.ndarray, "n views"]
    contrast: Float32[np.ndarray, "n views"]
    sharpness: Float32[np.ndarray, "n views"]
    """Variance of the Laplacian."""
    white: Float32[np.ndarray, "n views"]
    digest: Int64[np.ndarray, "n views"]
    """Of the JPEG's bytes."""
    motion: Float32[np.ndarray, "n views bands"]
    """Mean change since the instant before, by horizontal bands; NaN for the first."""
    edge: Float32[np.ndarray, "n views"]
    """Largest share of an edge that the moving person covers."""

    @classmethod
    def unseen(cls, instants: int, views: int) -> "ImageFacts":
        """Facts that are still to be filled in."""

        def nan(*shape: int) -> Float32[np.ndarray, "..."]:
            return np.full(shape, np.nan, np.float32)

        size = (instants, views)
        return cls(
            nan(*size), nan(*size), nan(*size), nan(*size), np.zeros(size, np.int64), nan(*size, BANDS), nan(*size)
        )

    def look(
        self,
        place: Int64[np.ndarray, " m"],
        view: int,
        images: list[bytes | None],
        boxes: Float32[np.ndarray, "m 4"],
        edges: bool,
    ) -> list[int]:
        """Fill in one view of one sequence; returns which of `images` are broken.

        Args:
            place: Instants of the sequence in order of time.
            view: Index of the view.
            images: JPEG of each; None where the view is missing.
            boxes: Crops in source pixels.
            edges: Whether to look for people at the edges, which takes time and may err.
        """
        broken, grey = [], np.full((len(place), _SIDE, _SIDE), np.nan, np.float32)
        for i, (instant, image) in enumerate(zip(place, images, strict=True)):
            if image is None:
                continue
            try:
                full = cv2.cvtColor(decode_jpeg(image), cv2.COLOR_RGB2GRAY)
            except ValueError:
                broken.append(i)
                continue
            self.brightness[instant, view] = full.mean()
            self.contrast[instant, view] = full.std()
            self.sharpness[instant, view] = cv2.Laplacian(full, cv2.CV_32F).var()
            self.white[instant, view] = (full > 245).mean()
            digest = hashlib.blake2b(image, digest_size=8).digest()
            self.digest[instant, view] = int.from_bytes(digest, "little", signed=True)
            grey[i] = cv2.resize(full, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        self.motion[place[1:], view] = _motion(grey)
        if edges:
            self.edge[place, view] = edge_shares(grey, boxes)
        return broken


def dark(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are too dark to show anybody."""
    found: Bool[np.ndarray, "n views"] = facts.brightness < limits.dark
    return found


def blank(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are white or of one colour, and not dark."""
    plain = (facts.white > limits.white) | (facts.contrast < limits.even)
    found: Bool[np.ndarray, "n views"] = plain & ~dark(facts, limits)
    return found


def blurred(facts: ImageFacts, part: Int64[np.ndarray, " n"], limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops far less sharp than is usual: in their view and sequence, or (by twice as much) in the other views."""
    plain = dark(facts, limits) | blank(facts, limits)
    sharp = np.where(plain, np.nan, facts.sharpness)
    found = np.zeros(sharp.shape, bool)
    for one in np.unique(part):
        own = sharp[part == one]
        usual = np.array([_median(column) for column in own.T])
        reference = np.fmax(usual, 0.5 * _median(usual))
        found[part == one] = own < limits.blurred * reference
    return found


def repeated(facts: ImageFacts, limits: ImageLimits) -> Bool[np.ndarray, "n views"]:
    """Crops that are byte for byte an earlier one of the capture; dark and blank ones are left out."""
    plain = dark(facts, limits) | blank(facts, limits) | (facts.digest == 0)
    digests = np.where(plain, 0, facts.digest).reshape(-1)
    _, first = np.unique(digests, return_index=True)
    again = np.ones(len(digests), bool)
    again[first] = False
    found: Bool[np.ndarray, "n views"] = (again & (digests != 0)).reshape(facts.digest.shape)
    return found


def edge_shares(
    grey: Float32[np.ndarray, "m side side"], boxes: Float32[np.ndarray, "m 4"]
) -> Float32[np.ndarray, " m"]:
    """How much of an edge of each crop a moving person covers, at most; needs a camera that stands still, no labels.

    Each crop is held against those two instants before and after it, moved to where they were cut from: what differs
    from both is the person now, and not where the person was or will be. Who keeps still is not found.
    """
    shares = np.full(len(grey), np.nan, np.float32)
    for i in range(2, len(grey) - 2):
        away = [np.abs(grey[i] - _moved(grey[k], boxes[k], boxes[i])) for k in (i - 2, i + 2)]
        differs = cv2.blur(np.nan_to_num(np.minimum(*away)), (3, 3)) > 25
        edges = (differs[1], differs[-2], differs[:, 1], differs[:, -2])
        shares[i] = max(float(edge.mean()) for edge in edges)
    return shares


def _moved(
    grey: Float32[np.ndarray, "side side"], box: Float32[np.ndarray, "4"], to: Float32[np.ndarray, "4"]
) -> Float32[np.ndarray, "side side"]:
    """What a crop shows of another box; NaN beyond it."""
    grain, scale = (box[2:] - box[:2]) / _SIDE, (to[2:] - to[:2]) / (box[2:] - box[:2])
    at = (to[:2] - box[:2]) / grain
    onto = np.array([[scale[0], 0, at[0]], [0, scale[1], at[1]]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        grey, onto, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan")
    )
    return np.asarray(moved, np.float32)


def _motion(grey: Float32[np.ndarray, "m side side"]) -> Float32[np.ndarray, "_ bands"]:
    if len(grey) < 2:
        return np.zeros((0, BANDS), np.float32)
    small = np.stack([cv2.resize(g, (_SIDE // 2, _SIDE // 2), interpolation=cv2.INTER_AREA) for g in grey])
    small -= small.mean(axis=(1, 2), keepdims=True)  # a light that changes is no motion
    change: Float32[np.ndarray, "_ bands"] = (
        np.abs(np.diff(small, axis=0)).reshape(len(grey) - 1, BANDS, -1).mean(axis=2)
    )
    return change


def _median(values: Float[np.ndarray, " n"]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
