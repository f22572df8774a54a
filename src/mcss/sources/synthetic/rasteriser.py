"""Rasteriser: textured triangles drawn on the CPU by compiled, single-threaded kernels on plain arrays.

A mesh has ``vertices`` and ``triangles``. An image is drawn with `SAMPLES` × `SAMPLES` samples per pixel, which are
averaged while shading. Screen coordinates are pixels, x to the right, y down, with pixel centres at .5. The third
coordinate is *nearness* (larger is closer), which is linear on the screen: 1/z for a pinhole camera.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from mcss.compilation import fast_compiled

SAMPLES = 2
"""Samples per pixel in each direction."""

EMPTY = -1
"""Value in an identity buffer where nothing was drawn."""

TONES = 4096
"""Number of entries in a tone table."""

Scalar = float | np.floating[Any]
"""A number; the kernels compute in single precision."""


@fast_compiled
def project(
    vertices: Float32[np.ndarray, "vertices 3"],
    rotation: Float32[np.ndarray, "3 3"],
    translation: Float32[np.ndarray, " 3"],
    focal: float,
    centre_x: float,
    centre_y: float,
    screen: Float32[np.ndarray, "vertices 3"],
) -> None:
    """Project vertices with a pinhole camera into `screen` (x, y, 1/z); 1/z is 0 for vertices not in front of it."""
    r = rotation
    for v in range(vertices.shape[0]):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        depth = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + translation[2]
        if depth < 0.05:
            screen[v, 2] = 0
            continue
        near = np.float32(1.0) / depth
        screen[v, 0] = focal * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + translation[0]) * near + centre_x
        screen[v, 1] = focal * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + translation[1]) * near + centre_y
        screen[v, 2] = near


@fast_compiled
def bounds(points: Float32[np.ndarray, "points 3"]) -> Float32[np.ndarray, "2 3"]:
    """Return the least and greatest coordinates; NumPy's reductions over a short last axis are slower than drawing."""
    low_high = np.empty((2, 3), np.float32)
    for c in range(3):
        low = points[0, c]
        high = low
        for p in range(1, points.shape[0]):
            low = min(low, points[p, c])
            high = max(high, points[p, c])
        low_high[0, c] = low
        low_high[1, c] = high
    return low_high


@fast_compiled
def draw(
    screen: Float32[np.ndarray, "vertices 3"],
    triangles: Int32[np.ndarray, "triangles 3"],
    sides: UInt8[np.ndarray, " triangles"],
    cut: Float32[np.ndarray, " vertices"],
    pinhole: bool,
    nearness: Float32[np.ndarray, "height width"],
    identity: Int32[np.ndarray, "height width"],
) -> None:
    """Draw the nearest triangle at each pixel: its nearness and its number. Both buffers are cleared first.

    Args:
        screen: Vertices as `project` makes them; nearness must be positive.
        triangles: Front faces run counter-clockwise as seen from outside the mesh.
        sides: Flags of each triangle; bit 0: visible from behind too; bit 1: cut along the zero of `cut`.
        cut: A field on the vertices; a triangle that is cut is left out where the field is negative.
        pinhole: Whether to interpolate `cut` in perspective.
        nearness: Result; 0 where nothing was drawn.
        identity: Result; `EMPTY` where nothing was drawn.
    """
    height, width = nearness.shape
    nearness[:] = 0
    identity[:] = EMPTY
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        xa, ya, na = screen[a, 0], screen[a, 1], screen[a, 2]
        xb, yb, nb = screen[b, 0], screen[b, 1], screen[b, 2]
        xc, yc, nc = screen[c, 0], screen[c, 1], screen[c, 2]
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area >= 0 and (area < 1e-9 or not sides[t] & 1):  # y runs down, so a front face has a negative area
            continue
        if na <= 0 or nb <= 0 or nc <= 0:
            continue
        left = max(0, int(np.ceil(min(xa, xb, xc) - np.float32(0.5))))
        right = min(width - 1, int(np.floor(max(xa, xb, xc) - np.float32(0.5))))
        top = max(0, int(np.ceil(min(ya, yb, yc) - np.float32(0.5))))
        bottom = min(height - 1, int(np.floor(max(ya, yb, yc) - np.float32(0.5))))
        if left > right or top > bottom or abs(area) < 1e-9:
            continue
        inverse = np.float32(1.0) / area
        is_cut = sides[t] & 2
        ka, kb, kc = cut[a], cut[b], cut[c]
        if is_cut and pinhole:
            ka, kb, kc = ka * na, kb * nb, kc * nc
        for y in range(top, bottom + 1):
            py = np.float32(y) + np.float32(0.5)
            for x in range(left, right + 1):
                px = np.float32(x) + np.float32(0.5)
                wa = ((xb - px) * (yc - py) - (yb - py) * (xc - px)) * inverse
                wb = ((xc - px) * (ya - py) - (yc - py) * (xa - px)) * inverse
                wc = np.float32(1.0) - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                near = wa * na + wb * nb + wc * nc
                if near <= nearness[y, x]:
                    continue
                if is_cut and wa * ka + wb * kb + wc * kc < 0:
                    continue
                nearness[y, x] = near
                identity[y, x] = t


@fast_compiled
def barycentrics(
    screen: Float32[np.ndarray, "vertices 3"], a: int, b: int, c: int, x: Scalar, y: Scalar
) -> tuple[Scalar, Scalar, Scalar]:
    """Return the perspective-correct weights of a triangle's corners at a point of the screen."""
    xa, ya, na = screen[a, 0], screen[a, 1], screen[a, 2]
    xb, yb, nb = screen[b, 0], screen[b, 1], screen[b, 2]
    xc, yc, nc = screen[c, 0], screen[c, 1], screen[c, 2]
    wa = ((xb - x) * (yc - y) - (yb - y) * (xc - x)) * na
    wb = ((xc - x) * (ya - y) - (yc - y) * (xa - x)) * nb
    wc = ((xa - x) * (yb - y) - (ya - y) * (xb - x)) * nc
    total = np.float32(1.0) / (wa + wb + wc)
    return wa * total, wb * total, wc * total


@dataclass(frozen=True, eq=False)
class ShadedMesh:
    """A mesh on the screen, with its textures' coordinates and the light on it."""

    screen: Float32[np.ndarray, "vertices 3"]
    """Vertices as given to `draw`, in samples."""
    triangles: Int32[np.ndarray, "triangles 3"]
    materials: UInt8[np.ndarray, " triangles"]
    """Material of each triangle."""
    uv: Float32[np.ndarray, "triangles 3 2"]
    """Texture coordinates of each corner, in periods of its texture."""
    light: Float32[np.ndarray, "vertices 4"]
    """Light as computed by `lighting.light_vertices`."""
    shine: Float32[np.ndarray, " vertices"]
    """Highlights as computed by `lighting.add_gloss`."""


@dataclass(frozen=True, eq=False)
class TextureAtlas:
    """The textures of all materials in one array."""

    texels: Float32[np.ndarray, "texels 3"]
    """All textures, one after the other, rows from the top."""
    textures: Int32[np.ndarray, "materials 3"]
    """First texel, height and width (powers of two) of each material's texture."""


@dataclass(frozen=True, eq=False)
class Backdrop:
    """The empty stage behind the person, and the shadow of the person on its floor."""

    light: Float32[np.ndarray, "rows columns 3"]
    """Linear light of the empty stage."""
    place: Float32[np.ndarray, " 3"]
    """Map from the image to the backdrop: x of the left edge, y of the top edge, backdrop pixels per image pixel."""
    to_ground: Float32[np.ndarray, "3 3"]
    """Map from (x, y, 1) of a backdrop pixel to w · (X, Y, 1) on the floor; there is no floor where w ≥ 0."""
    ground: Float32[np.ndarray, "cells cells"]
    """Share of its light that the floor keeps around the person."""
    ground_place: Float32[np.ndarray, " 3"]
    """World x and y of the first cell's corner, and the number of cells per metre."""


def shade(
    mesh: ShadedMesh,
    atlas: TextureAtlas,
    backdrop: Backdrop,
    identity: Int32[np.ndarray, "height width"],
    tones: UInt8[np.ndarray, " tones"],
    noise: Float32[np.ndarray, "size size"],
) -> UInt8[np.ndarray, "size size 3"]:
    """Shade what `draw` found, average the samples, put the backdrop behind it and map light to pixel values.

    Args:
        mesh: The mesh that was drawn.
        atlas: Its textures.
        backdrop: What is behind it.
        identity: The buffer that `draw` filled.
        tones: Pixel value for the square root of light; see `tone_table`.
        noise: Added to the square root of light; as large as the image.
    """
    image = np.empty((*noise.shape, 3), np.uint8)
    _shade(
        mesh.screen, mesh.triangles, mesh.materials, mesh.uv, atlas.texels, atlas.textures, mesh.light, mesh.shine,
        identity, backdrop.light, backdrop.place, backdrop.to_ground, backdrop.ground, backdrop.ground_place,
        tones, noise, image,
    )  # fmt: skip
    return image


@fast_compiled
def _shade(
    screen: Float32[np.ndarray, "vertices 3"],
    triangles: Int32[np.ndarray, "triangles 3"],
    materials: UInt8[np.ndarray, " triangles"],
    uv: Float32[np.ndarray, "triangles 3 2"],
    texels: Float32[np.ndarray, "texels 3"],
    textures: Int32[np.ndarray, "materials 3"],
    light: Float32[np.ndarray, "vertices 4"],
    shine: Float32[np.ndarray, " vertices"],
    identity: Int32[np.ndarray, "height width"],
    background: Float32[np.ndarray, "rows columns 3"],
    place: Float32[np.ndarray, " 3"],
    to_ground: Float32[np.ndarray, "3 3"],
    ground: Float32[np.ndarray, "cells cells"],
    ground_place: Float32[np.ndarray, " 3"],
    tones: UInt8[np.ndarray, " tones"],
    noise: Float32[np.ndarray, "size size"],
    image: UInt8[np.ndarray, "size size 3"],
) -> None:
    """The kernel of `shade`, which numba can call with plain arrays only; writes into `image`."""
    size = image.shape[0]
    samples = identity.shape[0] // size
    rows, columns = background.shape[:2]
    cells = ground.shape[0]
    share = np.float32(1.0) / np.float32(samples * samples)
    for y in range(size):
        for x in range(size):
            red = np.float32(0.0)
            green = np.float32(0.0)
            blue = np.float32(0.0)
            covered = 0
            for j in range(y * samples, (y + 1) * samples):
                for i in range(x * samples, (x + 1) * samples):
                    t = identity[j, i]
                    if t < 0:
                        continue
                    covered += 1
                    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    wa, wb, wc = barycentrics(
                        screen, a, b, c, np.float32(i) + np.float32(0.5), np.float32(j) + np.float32(0.5)
                    )
                    first, high, wide = textures[materials[t]]
                    u = (wa * uv[t, 0, 0] + wb * uv[t, 1, 0] + wc * uv[t, 2, 0]) * wide - np.float32(0.5)
                    v = (wa * uv[t, 0, 1] + wb * uv[t, 1, 1] + wc * uv[t, 2, 1]) * high - np.float32(0.5)
                    u0 = np.floor(u)
                    v0 = np.floor(v)
                    fu, fv = u - u0, v - v0
                    left = int(u0) & (wide - 1)
                    right = (left + 1) & (wide - 1)
                    upper = first + (int(v0) & (high - 1)) * wide
                    lower = first + ((int(v0) + 1) & (high - 1)) * wide
                    k00 = (1 - fu) * (1 - fv)
                    k01 = fu * (1 - fv)
                    k10 = (1 - fu) * fv
                    k11 = fu * fv
                    p, q, r, s = upper + left, upper + right, lower + left, lower + right
                    gleam = wa * shine[a] + wb * shine[b] + wc * shine[c]
                    red += gleam + (
                        k00 * texels[p, 0] + k01 * texels[q, 0] + k10 * texels[r, 0] + k11 * texels[s, 0]
                    ) * (wa * light[a, 0] + wb * light[b, 0] + wc * light[c, 0])
                    green += gleam + (
                        k00 * texels[p, 1] + k01 * texels[q, 1] + k10 * texels[r, 1] + k11 * texels[s, 1]
                    ) * (wa * light[a, 1] + wb * light[b, 1] + wc * light[c, 1])
                    blue += gleam + (
                        k00 * texels[p, 2] + k01 * texels[q, 2] + k10 * texels[r, 2] + k11 * texels[s, 2]
                    ) * (wa * light[a, 2] + wb * light[b, 2] + wc * light[c, 2])
            if covered < samples * samples:
                bx = place[0] + (np.float32(x) + np.float32(0.5)) * place[2]
                by = place[1] + (np.float32(y) + np.float32(0.5)) * place[2]
                keep = np.float32(samples * samples - covered)
                w = to_ground[2, 0] * bx + to_ground[2, 1] * by + to_ground[2, 2]
                if w < 0:
                    gx = (to_ground[0, 0] * bx + to_ground[0, 1] * by + to_ground[0, 2]) / w
                    gy = (to_ground[1, 0] * bx + to_ground[1, 1] * by + to_ground[1, 2]) / w
                    gx = (gx - ground_place[0]) * ground_place[2] - np.float32(0.5)
                    gy = (gy - ground_place[1]) * ground_place[2] - np.float32(0.5)
                    if gx > 0 and gy > 0 and gx < cells - 1 and gy < cells - 1:
                        i, j = int(gx), int(gy)
                        fu, fv = gx - np.float32(i), gy - np.float32(j)
                        keep *= (1 - fv) * ((1 - fu) * ground[j, i] + fu * ground[j, i + 1]) + fv * (
                            (1 - fu) * ground[j + 1, i] + fu * ground[j + 1, i + 1]
                        )
                bx = min(max(bx - np.float32(0.5), np.float32(0.0)), np.float32(columns) - np.float32(1.001))
                by = min(max(by - np.float32(0.5), np.float32(0.0)), np.float32(rows) - np.float32(1.001))
                i, j = int(bx), int(by)
                fu, fv = bx - np.float32(i), by - np.float32(j)
                k00 = (1 - fu) * (1 - fv) * keep
                k01 = fu * (1 - fv) * keep
                k10 = (1 - fu) * fv * keep
                k11 = fu * fv * keep
                p00, p01, p10, p11 = (
                    background[j, i],
                    background[j, i + 1],
                    background[j + 1, i],
                    background[j + 1, i + 1],
                )
                red += k00 * p00[0] + k01 * p01[0] + k10 * p10[0] + k11 * p11[0]
                green += k00 * p00[1] + k01 * p01[1] + k10 * p10[1] + k11 * p11[1]
                blue += k00 * p00[2] + k01 * p01[2] + k10 * p10[2] + k11 * p11[2]
            grain = noise[y, x]
            for channel, value in enumerate((red, green, blue)):
                root = np.sqrt(max(value * share, np.float32(0.0))) + grain
                level = int(root * np.float32(TONES / 4))
                image[y, x, channel] = tones[min(max(level, 0), TONES - 1)]


def tone_table(exposure: float) -> UInt8[np.ndarray, " tones"]:
    """Return pixel values for √light = 0…4 in `TONES` steps: a filmic curve (Narkowicz's fit of ACES), then a gamma."""
    light = (np.arange(TONES) + 0.5) / (TONES / 4)
    light = light * light * exposure
    film = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    return np.round(np.clip(film, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def facing(forward: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Return the axes of a level camera that looks `forward`, as rows: right, down, forward."""
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    forward = forward / np.linalg.norm(forward)
    return np.stack([right, np.cross(forward, right), forward])
