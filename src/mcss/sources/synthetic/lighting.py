"""Posing and lighting the vertices of a mesh with compiled, single-threaded kernels, once for all cameras.

The *shadow map* is the nearness buffer that `rasteriser.draw` fills as seen from the sun, without perspective.
"""

import numpy as np
from jaxtyping import Float32, Int16, Int32

from mcss.compilation import fast_compiled
from mcss.sources.synthetic.rasteriser import Scalar


@fast_compiled
def skin(
    rest: Float32[np.ndarray, "vertices 3"],
    starts: Int32[np.ndarray, " vertices_plus_one"],
    bones: Int16[np.ndarray, " weights"],
    weights: Float32[np.ndarray, " weights"],
    rotations: Float32[np.ndarray, "bones 3 3"],
    translations: Float32[np.ndarray, "bones 3"],
    posed: Float32[np.ndarray, "vertices 3"],
) -> None:
    """Pose vertices by linear blend skinning; vertex v has the weights ``starts[v]`` up to ``starts[v + 1]``."""
    for v in range(rest.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        px = np.float32(0.0)
        py = np.float32(0.0)
        pz = np.float32(0.0)
        for k in range(starts[v], starts[v + 1]):
            r, t, w = rotations[bones[k]], translations[bones[k]], weights[k]
            px += w * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + t[0])
            py += w * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + t[1])
            pz += w * (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + t[2])
        posed[v, 0] = px
        posed[v, 1] = py
        posed[v, 2] = pz


@fast_compiled
def vertex_normals(
    vertices: Float32[np.ndarray, "vertices 3"],
    triangles: Int32[np.ndarray, "triangles 3"],
    normals: Float32[np.ndarray, "vertices 3"],
) -> None:
    """Write unit normals into `normals`, averaged over the triangles around each vertex, weighted by their areas."""
    normals[:] = 0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ex, ey, ez = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        fx, fy, fz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        nx, ny, nz = ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for v in range(vertices.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        scale = np.float32(1.0) / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-12))
        normals[v, 0] = x * scale
        normals[v, 1] = y * scale
        normals[v, 2] = z * scale


@fast_compiled
def sunlit(shadow: Float32[np.ndarray, "size size"], x: Scalar, y: Scalar, near: Scalar, reach: int) -> Scalar:
    """Return the share of the sun's light at a point of the shadow map, averaged over the texels around it."""
    size = shadow.shape[0]
    column, row = int(x), int(y)
    dark = 0
    for j in range(max(0, row - reach), min(size, row + reach + 1)):
        for i in range(max(0, column - reach), min(size, column + reach + 1)):
            if shadow[j, i] > near:
                dark += 1
    return np.float32(1.0) - np.float32(dark) / np.float32((2 * reach + 1) ** 2)


@fast_compiled
def light_vertices(
    normals: Float32[np.ndarray, "vertices 3"],
    in_sun: Float32[np.ndarray, "vertices 3"],
    shadow: Float32[np.ndarray, "size size"],
    bias: float,
    harmonics: Float32[np.ndarray, "9 3"],
    sun: Float32[np.ndarray, " 3"],
    sun_colour: Float32[np.ndarray, " 3"],
    light: Float32[np.ndarray, "vertices 4"],
) -> None:
    """Write the light on each vertex into `light`: red, green, blue, and the part of the sun alone.

    Args:
        normals: Unit normals.
        in_sun: Vertices on the shadow map: x, y, nearness.
        shadow: The shadow map.
        bias: Difference in nearness from which on a surface is in the shadow of another one.
        harmonics: Irradiance by the sky as spherical harmonics of degree 2.
        sun: Unit vector towards the sun.
        sun_colour: Irradiance of a surface that faces the sun.
        light: Result.
    """
    for v in range(normals.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        facing = x * sun[0] + y * sun[1] + z * sun[2]
        direct = np.float32(0.0)
        if facing > 0:
            direct = facing * sunlit(shadow, in_sun[v, 0], in_sun[v, 1], in_sun[v, 2] + bias, 1)
        for c in range(3):
            h = harmonics[:, c]
            sky = (
                h[0] + h[1] * y + h[2] * z + h[3] * x + h[4] * x * y + h[5] * y * z
                + h[6] * (np.float32(3.0) * z * z - np.float32(1.0)) + h[7] * x * z + h[8] * (x * x - y * y)
            )  # fmt: skip
            light[v, c] = sky + direct * sun_colour[c]
        light[v, 3] = direct


@fast_compiled
def add_gloss(
    vertices: Float32[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    light: Float32[np.ndarray, "vertices 4"],
    gloss: Float32[np.ndarray, " vertices"],
    eye: Float32[np.ndarray, " 3"],
    sun: Float32[np.ndarray, " 3"],
    shine: Float32[np.ndarray, " vertices"],
) -> None:
    """Write the sun's highlights as seen from `eye` (Blinn-Phong, exponent 16) into `shine`."""
    for v in range(vertices.shape[0]):
        shine[v] = 0
        if gloss[v] <= 0 or light[v, 3] <= 0:
            continue
        dx, dy, dz = eye[0] - vertices[v, 0], eye[1] - vertices[v, 1], eye[2] - vertices[v, 2]
        scale = np.float32(1.0) / np.sqrt(dx * dx + dy * dy + dz * dz)
        hx, hy, hz = sun[0] + dx * scale, sun[1] + dy * scale, sun[2] + dz * scale
        dot = normals[v, 0] * hx + normals[v, 1] * hy + normals[v, 2] * hz
        if dot > 0:
            q = dot * dot / (hx * hx + hy * hy + hz * hz)
            q = q * q * q * q
            shine[v] = gloss[v] * q * q * light[v, 3]


@fast_compiled
def press_ground(
    vertices: Float32[np.ndarray, "vertices 3"],
    origin_x: float,
    origin_y: float,
    cell: float,
    height: float,
    contact: Float32[np.ndarray, "cells cells"],
) -> None:
    """Write how close the person is to each cell of the floor into `contact`: 1 on the floor, 0 from `height` on."""
    cells = contact.shape[0]
    for v in range(vertices.shape[0]):
        if vertices[v, 2] >= height:
            continue
        i, j = int((vertices[v, 0] - origin_x) / cell), int((vertices[v, 1] - origin_y) / cell)
        if i >= 0 and j >= 0 and i < cells and j < cells:
            share = min(max(np.float32(1.0) - vertices[v, 2] / np.float32(height), np.float32(0.0)), np.float32(1.0))
            contact[j, i] = max(contact[j, i], share * share)


@fast_compiled
def darken_ground(
    origin_x: float,
    origin_y: float,
    cell: float,
    to_sun: Float32[np.ndarray, "2 3"],
    shadow: Float32[np.ndarray, "size size"],
    strength: float,
    ground: Float32[np.ndarray, "cells cells"],
) -> None:
    """Multiply `ground` by the cast shadow; `to_sun` maps (x, y, 1) on the floor to the shadow map.

    As seen from the sun the floor lies behind everything else, so whatever was drawn casts a shadow on it.
    """
    cells = ground.shape[0]
    for j in range(cells):
        for i in range(cells):
            x, y = origin_x + (i + 0.5) * cell, origin_y + (j + 0.5) * cell
            u = to_sun[0, 0] * x + to_sun[0, 1] * y + to_sun[0, 2]
            v = to_sun[1, 0] * x + to_sun[1, 1] * y + to_sun[1, 2]
            if u < 0 or v < 0 or u >= shadow.shape[0] or v >= shadow.shape[0]:
                continue
            ground[j, i] *= np.float32(1.0) - strength * (np.float32(1.0) - sunlit(shadow, u, v, 1e-6, 2))
