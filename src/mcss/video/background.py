"""The empty scene in front of a static camera, and the foreground: where an image differs from it."""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

from mcss.video.contrast import COARSE, USUAL_CONTRAST, Contrast, contrast_of

EmptyScene = Float32[np.ndarray, "height width 3"]

MODES = 4
"""Number of colours that a pixel is assumed to show in turn."""

SAME = 14.0
"""Two colours of a pixel that differ less than this (of 255, in the worst channel) belong to the same mode."""

CHANGED = 20.0
"""A pixel that differs more than this from the empty scene is foreground, unless it is a shadow."""

HUELESS = 14
"""A pixel whose channels (of 255) differ by less than this is grey."""

NO_COLOURS = 0.97
"""If a larger share of the scene is grey, the camera records no colours."""

TEXTURE_WINDOW, TEXTURE, TEXTURE_KEPT = 9, 4.0, 0.7
"""Side of the windows in pixels in which texture is compared, the spread of brightness (of 255) that makes one, and how
well it has to correlate with that of the scene to be the same."""

MOVING_WEIGHT = 0.1
"""Weight of a sample at a pixel near which something moves; at a still pixel it is 1."""

SEAM, SEAM_MAX = 20.0, 60.0
"""A difference of `SEAM` between neighbouring pixels of the scene costs as much as a mode that is e times rarer;
differences above `SEAM_MAX` cost no more, since real edges exist."""


def empty_scene(
    samples: Sequence[UInt8[np.ndarray, "height width 3"]], contrast: Contrast = USUAL_CONTRAST
) -> EmptyScene:
    """Compose the scene without its moving person from images spread over a recording.

    The temporal median is not enough: a person who stays in one place for half of a short recording *is* the median
    there. So each pixel keeps the few colours (modes) that it showed in turn, each weighted by how often it was seen
    with nothing moving nearby. One mode is then chosen per pixel such that the whole scene is as free of seams as
    possible: a wall that was seen for a moment continues the wall around it, whereas a piece of a person would have
    an outline.

    Reference:
        Xu and Huang, "A loopy belief propagation approach for robust background estimation", CVPR 2008.
        Departures: modes come from sequential clustering, their weights from stillness.
    """
    stack = np.stack([contrast.grey(image) for image in samples])
    coarse = stack[:, ::COARSE, ::COARSE]
    exposure = Exposure(_median(coarse.astype(np.float32)))
    stack = np.stack([contrast.stretched(image / exposure.gain(few)) for image, few in zip(stack, coarse, strict=True)])
    if contrast.smooth:
        stack = np.stack([cv2.GaussianBlur(image, (3, 3), 0) for image in stack])
    middle = _median(stack)
    varies = np.zeros(middle.shape[:2], bool)
    for image in stack:
        varies |= _apart(image, middle) > SAME
    scene: EmptyScene = middle
    if not varies.any():
        return contrast.restored(scene)
    # The median suffices outside the part of the image in which something moves.
    rows, columns = np.flatnonzero(varies.any(axis=1)), np.flatnonzero(varies.any(axis=0))
    part = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    colours, weights = _modes(stack[:, *part], middle[part], varies[part])
    scene[part] = _seamless(colours, weights)
    return contrast.restored(scene)


class Exposure:
    """Measures how much brighter than a scene an image is: lamps flicker, and cameras adapt their exposure."""

    def __init__(self, scene: EmptyScene) -> None:
        usable = (scene.min(axis=-1) > 25) & (scene.max(axis=-1) < 235)  # neither black nor overexposed
        probes = np.flatnonzero(usable) if usable.sum() > 0.05 * usable.size else np.arange(0)
        self._probes = probes[:: max(1, len(probes) // 2000)]
        self._expected = scene.reshape(-1, 3)[self._probes].T.copy()

    def gain(self, image: Shaped[np.ndarray, "height width 3"]) -> Float32[np.ndarray, " 3"]:
        """Return the factor for each channel; 1 if too little of the scene is usable."""
        if not len(self._probes):
            return np.ones(3, np.float32)
        ratios = np.sort(np.take(image.reshape(-1, 3), self._probes, axis=0).T / self._expected, axis=1)
        quarter = len(self._probes) // 4  # the mean of the middle half: in a dim image a step of brightness is large
        return np.asarray(ratios[:, quarter : len(self._probes) - quarter].mean(axis=1).clip(0.5, 2.0), np.float32)


class Foreground:
    """Finds where an image differs from the empty scene in more than shadow, highlight or exposure.

    A shadow has the same hue as what it falls on, so it is recognised by that. Where neither the image nor the scene
    has any hue, as before a grey wall or in the footage of an infrared camera, equal hue says nothing: grey clothes
    would be taken for a shadow. There a shadow is believed if it leaves the scene's texture as it is. In a camera's
    image that has no hue at all, nothing else is excused; in colour footage, what lies between foreground above and
    below it is kept, such as a grey shirt between head and trousers.
    """

    def __init__(self, scene: EmptyScene, contrast: Contrast = USUAL_CONTRAST) -> None:
        self._contrast = contrast
        self._scene = np.asarray(self._smooth(contrast.stretched(scene)).round().clip(0, 255), np.uint8)
        self._exposure = Exposure(scene)
        self._hueless = _chroma(self._scene) < HUELESS
        self._no_colours = bool(self._hueless.mean() > NO_COLOURS)

    @classmethod
    def of(cls, samples: Sequence[UInt8[np.ndarray, "height width 3"]]) -> "Foreground":
        """Return the foreground of a recording of which there are images spread over it."""
        contrast = contrast_of(samples)
        return cls(empty_scene(samples, contrast), contrast)

    def _smooth(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.GaussianBlur(image, (5, 5) if self._contrast.smooth else (3, 3), 0))

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
        """Return the foreground mask of an image."""
        # A lookup table of whole brightness steps is several times as fast as floating point, and cameras record
        # no finer steps.
        image = self._contrast.grey(image)
        levels = self._contrast.stretched(np.arange(256, dtype=np.float32)[:, None] / self._exposure.gain(image))
        now = cv2.LUT(self._smooth(image), levels.round().clip(0, 255).astype(np.uint8)[None])
        red, green, blue = cv2.split(cv2.absdiff(now, self._scene))
        mask: Bool[np.ndarray, "height width"] = np.asarray(cv2.max(cv2.max(red, green), blue) > CHANGED)
        part = nonzero_part(mask, TEXTURE_WINDOW // 2)
        if part is not None:
            mask[part] = self._without_lighting(mask[part], now[part], part)
        return mask

    def _without_lighting(
        self,
        mask: Bool[np.ndarray, "rows columns"],
        now: UInt8[np.ndarray, "rows columns 3"],
        part: tuple[slice, slice],
    ) -> Bool[np.ndarray, "rows columns"]:
        """Return the mask of a part of the image without shadows and highlights."""
        scene = self._scene[part]
        # A shadow has the same colour, darker; a reflection on a glossy floor the same colour, a little lighter.
        where = np.flatnonzero(mask)
        new, old = (np.ascontiguousarray(_taken(pixels, where).T, np.float32) for pixels in (now, scene))
        brightness = (new * old).sum(axis=0) / np.maximum((old * old).sum(axis=0), 1.0)
        colour_kept = np.abs(new - brightness * old).max(axis=0) < 12.0
        only_lighting = (brightness > 0.5) & (brightness < 1.15) & colour_kept & (old.max(axis=0) > 40)
        excused = np.zeros_like(mask)
        excused.reshape(-1)[where[only_lighting]] = True
        return np.asarray(mask & ~(excused & ~self._kept(now, mask & ~excused, excused, part)))

    def _kept(
        self,
        now: UInt8[np.ndarray, "rows columns 3"],
        sure: Bool[np.ndarray, "rows columns"],
        excused: Bool[np.ndarray, "rows columns"],
        part: tuple[slice, slice],
    ) -> Bool[np.ndarray, "rows columns"]:
        """Return which pixels are kept although their hue would excuse them as shadow, because there is no hue."""
        hueless = excused & self._hueless[part]
        if not hueless.any():
            return hueless
        hueless &= _chroma(now) < HUELESS
        if not self._no_colours:
            hueless &= _between(sure, *self._hueless.shape)
        within = nonzero_part(hueless, TEXTURE_WINDOW // 2)
        if within is not None:
            hueless[within] &= ~_texture_kept(now[within], self._scene[part][within])
        return hueless


def nonzero_part(mask: Bool[np.ndarray, "height width"], room: int) -> tuple[slice, slice] | None:
    """Return the rows and columns in which a mask is set, and some more on all sides; None if it is set nowhere."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (
        slice(max(int(rows[0]) - room, 0), int(rows[-1]) + room + 1),
        slice(max(int(columns[0]) - room, 0), int(columns[-1]) + room + 1),
    )


def _chroma(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width"]:
    """Return how far the channels of each pixel differ: 0 for grey."""
    red, green, blue = cv2.split(image)
    return np.asarray(cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue))


def _taken(image: UInt8[np.ndarray, "height width 3"], where: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return some pixels of an image, given by their numbers in reading order."""
    return np.take(image.reshape(-1, 3), where, axis=0)


def _between(sure: Bool[np.ndarray, "rows columns"], height: int, width: int) -> Bool[np.ndarray, "rows columns"]:
    """Return which pixels have foreground above and below them, no farther away than a third of the whole image."""
    reach, wide = max(1, height // 3), max(1, width // 20)
    spread = cv2.dilate(sure.astype(np.uint8), np.ones((1, 2 * wide + 1), np.uint8))
    ones = np.ones((reach, 1), np.uint8)
    above, below = (cv2.dilate(spread, ones, anchor=(0, at)) for at in (reach - 1, 0))
    return np.asarray((above > 0) & (below > 0), bool)


def _texture_kept(
    now: UInt8[np.ndarray, "height width 3"], scene: UInt8[np.ndarray, "height width 3"]
) -> Bool[np.ndarray, "height width"]:
    """Return around which pixels the scene has a texture that the image shows too, lighter or darker."""
    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in (now, scene))
    window = (TEXTURE_WINDOW, TEXTURE_WINDOW)
    mean_a, mean_b = cv2.blur(a, window), cv2.blur(b, window)
    spread_a = np.maximum(cv2.blur(a * a, window) - mean_a**2, 0)
    spread_b = np.maximum(cv2.blur(b * b, window) - mean_b**2, 0)
    together = cv2.blur(a * b, window) - mean_a * mean_b
    alike = together > TEXTURE_KEPT * np.sqrt(spread_a * spread_b)
    return np.asarray((spread_b > TEXTURE**2) & (spread_a > (TEXTURE / 2) ** 2) & alike, bool)


def _median(stack: Float32[np.ndarray, "n height width 3"]) -> EmptyScene:
    """Return the median of images; sorting is several times as fast as np.median, because it uses wide instructions."""
    middle = (len(stack) - 1) // 2
    pair: Float32[np.ndarray, "2 height width 3"] = np.sort(stack, axis=0)[[middle, len(stack) // 2]]
    return np.asarray((pair[0] + pair[1]) / 2, np.float32)


def _apart(a: Float32[np.ndarray, "*#shape 3"], b: Float32[np.ndarray, "*#shape 3"]) -> Float32[np.ndarray, "*shape"]:
    """Return how much two colours differ, in the worst channel."""
    # np.max takes several times as long over so short an axis.
    red, green, blue = (np.abs(a[..., k] - b[..., k]) for k in range(3))
    return np.asarray(np.maximum(np.maximum(red, green), blue), np.float32)


def _modes(
    stack: Float32[np.ndarray, "n height width 3"],
    middle: Float32[np.ndarray, "height width 3"],
    varies: Bool[np.ndarray, "height width"],
) -> tuple[Float32[np.ndarray, "modes height width 3"], Float32[np.ndarray, "modes height width"]]:
    """Return the colours that each pixel shows in turn, and the share of (still) samples that show each.

    Args:
        stack: The samples.
        middle: Their median.
        varies: Which pixels ever differ from it; the others have one mode, the median.
    """
    steps = [np.asarray(cv2.blur(_apart(a, b), (9, 9))) for a, b in itertools.pairwise(stack)]
    motion = np.stack([np.maximum(a, b) for a, b in zip(steps[:1] + steps, steps + steps[-1:], strict=True)])
    still = np.where(motion < max(4 * float(np.median(motion)), 3.0), 1.0, MOVING_WEIGHT).astype(np.float32)
    few, shares = _modes_of_pixels(np.ascontiguousarray(stack[:, varies]), np.ascontiguousarray(still[:, varies]))
    colours = np.repeat(middle[None], MODES, axis=0)
    weights = np.zeros((MODES, *varies.shape), np.float32)
    weights[0] = 1
    colours[:, varies], weights[:, varies] = few, shares
    return colours, weights


def _modes_of_pixels(
    samples: Float32[np.ndarray, "n pixels 3"], still: Float32[np.ndarray, "n pixels"]
) -> tuple[Float32[np.ndarray, "modes pixels 3"], Float32[np.ndarray, "modes pixels"]]:
    """Return the modes of some pixels by sequential clustering; those that are not needed repeat the commonest."""
    pixel = np.arange(samples.shape[1])
    colours = np.zeros((MODES, len(pixel), 3), np.float32)
    weights = np.zeros((MODES, len(pixel)), np.float32)
    for colour, weight in zip(samples, still, strict=True):
        distance = _apart(colours, colour)
        distance[weights == 0] = np.inf
        known = distance.min(axis=0) < SAME
        mode: Int64[np.ndarray, " pixels"] = np.where(known, distance.argmin(axis=0), weights.argmin(axis=0))
        total = np.where(known, weights[mode, pixel], 0.0).astype(np.float32) + weight
        before = np.where(known[:, None], colours[mode, pixel], colour)
        colours[mode, pixel] = before + (colour - before) * (weight / total)[:, None]
        weights[mode, pixel] = total
    best = colours[weights.argmax(axis=0), pixel]
    unused = weights == 0
    colours[unused] = np.broadcast_to(best, colours.shape)[unused]
    return colours, weights / still.sum(axis=0)


def _seamless(
    colours: Float32[np.ndarray, "modes height width 3"], weights: Float32[np.ndarray, "modes height width"]
) -> EmptyScene:
    """Choose one mode per pixel by min-sum belief propagation on the grid of pixels."""
    rarity = -np.log(weights + 0.02)

    def seam(
        a: Float32[np.ndarray, "modes rows columns 3"], b: Float32[np.ndarray, "modes rows columns 3"]
    ) -> Float32[np.ndarray, "modes modes rows columns"]:
        difference = _apart(a[:, None], b[None])
        cost: Float32[np.ndarray, "modes modes rows columns"] = np.minimum(difference, SEAM_MAX) / SEAM
        return cost

    # For each direction: the pixels that send, those that receive, and the cost of a pair of their modes.
    head, tail = np.s_[:-1], np.s_[1:]
    across, down = seam(colours[:, :, head], colours[:, :, tail]), seam(colours[:, head], colours[:, tail])
    sends = [
        ((np.s_[:], np.s_[:], head), (np.s_[:], np.s_[:], tail), across),
        ((np.s_[:], np.s_[:], tail), (np.s_[:], np.s_[:], head), across.swapaxes(0, 1)),
        ((np.s_[:], head), (np.s_[:], tail), down),
        ((np.s_[:], tail), (np.s_[:], head), down.swapaxes(0, 1)),
    ]
    opposite = (1, 0, 3, 2)
    messages = [np.zeros_like(rarity) for _ in sends]
    for _ in range(40):
        belief = sum(messages, rarity)
        fresh = []
        for direction, (source, target, cost) in enumerate(sends):
            outgoing = (belief - messages[opposite[direction]])[source]
            message = np.zeros_like(rarity)
            best = (outgoing[:, None] + cost).min(axis=0)
            message[target] = best - best.min(axis=0)
            fresh.append(message)
        messages = [(old + new) / 2 for old, new in zip(messages, fresh, strict=True)]
    chosen = sum(messages, rarity).argmin(axis=0)
    scene: EmptyScene = np.take_along_axis(colours, chosen[None, ..., None], axis=0)[0]
    return scene
