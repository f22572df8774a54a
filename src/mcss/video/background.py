"""What a static camera sees when nobody is there, and where an image differs from that."""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

Scene = Float32[np.ndarray, "height width 3"]

MODES = 4
"""How many different things a pixel is thought to show in turn."""

SAME = 14.0
"""Two colours of a pixel that differ less than this (of 255, in the worst channel) show the same thing."""

CHANGED = 20.0
"""A pixel that differs more than this from the empty scene is foreground, unless it is a shadow."""

ODD_MOTION = 0.1
"""What a sample counts at a pixel near which something moves, against 1 at a still one."""

SEAM, SEAM_MAX = 20.0, 60.0
"""A difference of `SEAM` between neighbours of the scene costs as much as a mode that is e times rarer;
differences above `SEAM_MAX` cost no more: real edges exist."""


def empty_scene(samples: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Scene:
    """The scene without its moving person, put together from images spread over a recording.

    The temporal median is not enough: somebody who stays in his place for half of a short recording *is* the
    median there. So each pixel keeps the few colours it showed in turn, each weighted by how often it was
    seen with nothing moving nearby, and one is chosen such that the whole is as free of seams as possible: where
    the wall was seen for a moment it continues the wall around it, while a piece of a person would have an outline.

    Reference:
        Xu and Huang, "A loopy belief propagation approach for robust background estimation", CVPR 2008.
        Departures: modes by sequential clustering, their weights by stillness.
    """
    stack = np.stack(samples).astype(np.float32)
    middle = np.median(stack, axis=0).astype(np.float32)
    exposure = Exposure(middle)
    for image in stack:
        image /= exposure.gain(image)
    middle = np.median(stack, axis=0).astype(np.float32)
    varies = np.any(_apart(stack, middle) > SAME, axis=0)
    scene: Scene = middle
    if not varies.any():
        return scene
    # Only the part of the image in which something ever moves needs more than the median.
    rows, columns = np.flatnonzero(varies.any(axis=1)), np.flatnonzero(varies.any(axis=0))
    part = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    colours, weights = _modes(stack[:, *part])
    scene[part] = _seamless(colours, weights)
    return scene


class Exposure:
    """How much lighter than a scene an image is: lamps flicker, and cameras adapt themselves."""

    def __init__(self, scene: Scene) -> None:
        fit = (scene.min(axis=-1) > 25) & (scene.max(axis=-1) < 235)  # neither black nor blown out
        probes = np.flatnonzero(fit) if fit.sum() > 0.05 * fit.size else np.arange(0)
        self._probes = probes[:: max(1, len(probes) // 2000)]
        self._expected = scene.reshape(-1, 3)[self._probes]

    def gain(self, image: Shaped[np.ndarray, "height width 3"]) -> Float32[np.ndarray, " 3"]:
        """The factor for each channel; 1 where the scene has too little that would tell."""
        if not len(self._probes):
            return np.ones(3, np.float32)
        gain: Float32[np.ndarray, " 3"] = np.median(image.reshape(-1, 3)[self._probes] / self._expected, axis=0)
        return gain.clip(0.5, 2.0).astype(np.float32)


class Foreground:
    """Finds where an image differs from the empty scene: not in shadow, highlight or exposure, but in kind."""

    def __init__(self, scene: Scene) -> None:
        self._scene = np.asarray(cv2.GaussianBlur(scene, (3, 3), 0).round().clip(0, 255), np.uint8)
        self._exposure = Exposure(scene)

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
        """Where the foreground is."""
        # In whole brightness steps: several times as fast as fractions of them, and cameras give no others.
        levels = np.arange(256)[:, None] / self._exposure.gain(image)
        now = cv2.LUT(cv2.GaussianBlur(image, (3, 3), 0), levels.round().clip(0, 255).astype(np.uint8)[None])
        mask: Bool[np.ndarray, "height width"] = (
            cv2.inRange(cv2.absdiff(now, self._scene), (0.0,) * 3, (CHANGED,) * 3) == 0
        )
        # A shadow is the same colour, darker; the reflection on a glossy floor the same colour, a little lighter.
        new, old = (np.ascontiguousarray(part[mask].T.astype(np.float32)) for part in (now, self._scene))
        brightness = (new * old).sum(axis=0) / np.maximum((old * old).sum(axis=0), 1.0)
        colour_kept = np.abs(new - brightness * old).max(axis=0) < 12.0
        lit_otherwise = (brightness > 0.5) & (brightness < 1.15) & colour_kept & (old.max(axis=0) > 40)
        mask[mask] = ~lit_otherwise
        return mask


def _apart(a: Float32[np.ndarray, "*#shape 3"], b: Float32[np.ndarray, "*#shape 3"]) -> Float32[np.ndarray, "*shape"]:
    """How much two colours differ, in the worst channel."""
    # Not np.max: over so short an axis it takes several times as long.
    red, green, blue = (np.abs(a[..., k] - b[..., k]) for k in range(3))
    return np.asarray(np.maximum(np.maximum(red, green), blue), np.float32)


def _modes(
    stack: Float32[np.ndarray, "n height width 3"],
) -> tuple[Float32[np.ndarray, "modes height width 3"], Float32[np.ndarray, "modes height width"]]:
    """The colours that each pixel shows in turn, and the share of (still) samples that show each."""
    height, width = stack.shape[1:3]
    steps = [np.asarray(cv2.blur(_apart(a, b), (9, 9))) for a, b in itertools.pairwise(stack)]
    motion = np.stack([np.maximum(a, b) for a, b in zip(steps[:1] + steps, steps + steps[-1:], strict=True)])
    still = np.where(motion < max(4 * float(np.median(motion)), 3.0), 1.0, ODD_MOTION).astype(np.float32)
    colours = np.zeros((MODES, height, width, 3), np.float32)
    weights = np.zeros((MODES, height, width), np.float32)
    y, x = np.indices((height, width))
    for image, weight in zip(stack, still, strict=True):
        distance = _apart(colours, image)
        distance[weights == 0] = np.inf
        known = distance.min(axis=0) < SAME
        mode: Int64[np.ndarray, "height width"] = np.where(known, distance.argmin(axis=0), weights.argmin(axis=0))
        total = np.where(known, weights[mode, y, x], 0.0).astype(np.float32) + weight
        before = np.where(known[..., None], colours[mode, y, x], image)
        colours[mode, y, x] = before + (image - before) * (weight / total)[..., None]
        weights[mode, y, x] = total
    best = colours[weights.argmax(axis=0), y, x]
    unused = weights == 0
    colours[unused] = np.broadcast_to(best, colours.shape)[unused]
    weights /= still.sum(axis=0)
    return colours, weights


def _seamless(
    colours: Float32[np.ndarray, "modes height width 3"], weights: Float32[np.ndarray, "modes height width"]
) -> Scene:
    """Choose one mode per pixel by min-sum belief propagation on the grid of pixels."""
    own = -np.log(weights + 0.02)

    def seam(
        a: Float32[np.ndarray, "modes rows columns 3"], b: Float32[np.ndarray, "modes rows columns 3"]
    ) -> Float32[np.ndarray, "modes modes rows columns"]:
        difference = _apart(a[:, None], b[None])
        cost: Float32[np.ndarray, "modes modes rows columns"] = np.minimum(difference, SEAM_MAX) / SEAM
        return cost

    # Each direction: which pixels send, which receive, and what a pair of their modes costs.
    head, tail = np.s_[:-1], np.s_[1:]
    across, down = seam(colours[:, :, head], colours[:, :, tail]), seam(colours[:, head], colours[:, tail])
    sends = [
        ((np.s_[:], np.s_[:], head), (np.s_[:], np.s_[:], tail), across),
        ((np.s_[:], np.s_[:], tail), (np.s_[:], np.s_[:], head), across.swapaxes(0, 1)),
        ((np.s_[:], head), (np.s_[:], tail), down),
        ((np.s_[:], tail), (np.s_[:], head), down.swapaxes(0, 1)),
    ]
    opposite = (1, 0, 3, 2)
    messages = [np.zeros_like(own) for _ in sends]
    for _ in range(40):
        belief = sum(messages, own)
        fresh = []
        for direction, (source, target, cost) in enumerate(sends):
            told = (belief - messages[opposite[direction]])[source]
            message = np.zeros_like(own)
            best = (told[:, None] + cost).min(axis=0)
            message[target] = best - best.min(axis=0)
            fresh.append(message)
        messages = [(old + new) / 2 for old, new in zip(messages, fresh, strict=True)]
    chosen = sum(messages, own).argmin(axis=0)
    scene: Scene = np.take_along_axis(colours, chosen[None, ..., None], axis=0)[0]
    return scene
