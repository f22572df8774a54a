"""A dressed person as one mesh: layers of skin and cloth cut, put together, and rid of what nobody can see."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, Int32, UInt8

from mcss.sources.synthetic import textures
from mcss.sources.synthetic.body import Body, template
from mcss.sources.synthetic.lighting import vertex_normals
from mcss.sources.synthetic.rasteriser import EMPTY, draw, facing

TILE = 0.5
"""Metres of cloth in one texture."""

SKIN, EYE, HAIR, SHOE, TOP, BOTTOM, JACKET, HAT = range(8)
"""The materials, in the order of their textures."""

_TWO_SIDED, _CUT = 1, 2
_VISIBLE_FROM = 36
_VISIBLE_SIZE = 800


@dataclass(frozen=True, eq=False)
class Figure:
    """A dressed person, ready to be posed and drawn. Vertices and triangles that nobody can see are left out.

    Attributes:
        rest: Vertices at rest, metres.
        starts: First weight of each vertex; see `lighting.skin`.
        bones: Bone of each weight.
        weights: Skinning weights.
        triangles: Corners.
        sides: Flags of `rasteriser.draw`.
        cut: Field along whose zero the cut triangles end.
        gloss: Strength of the highlights.
        materials: Texture of each triangle.
        uv: Texture coordinates of the corners in periods.
        texels: All textures with their halvings.
        textures: (level, material): first texel, height, width. A level stands for a distance.
        texel: Size of a texel in metres at the finest level.
    """

    rest: Float32[np.ndarray, "vertices 3"]
    starts: Int32[np.ndarray, " vertices_plus_one"]
    bones: Int16[np.ndarray, " weights"]
    weights: Float32[np.ndarray, " weights"]
    triangles: Int32[np.ndarray, "triangles 3"]
    sides: UInt8[np.ndarray, " triangles"]
    cut: Float32[np.ndarray, " vertices"]
    gloss: Float32[np.ndarray, " vertices"]
    materials: UInt8[np.ndarray, " triangles"]
    uv: Float32[np.ndarray, "triangles 3 2"]
    texels: Float32[np.ndarray, "texels 3"]
    textures: Int32[np.ndarray, "levels materials 3"]

    def textures_at(self, sample_metres: float) -> Int32[np.ndarray, "materials 3"]:
        """The textures whose texels are about as large as a sample of the image."""
        finest = TILE / textures.CLOTH_SIZE
        level = round(float(np.log2(max(sample_metres / finest, 1.0))))
        return np.ascontiguousarray(self.textures[min(level, len(self.textures) - 1)])


@dataclass(frozen=True, eq=False)
class Layer:
    """Skin, a garment or hair.

    Attributes:
        surface: Its faces, of vertices of the body model.
        uv: Texture coordinates of their corners.
        materials: Texture of each face.
        offset: How far each vertex of the model is moved outwards, metres.
        field: The layer ends where this is negative.
        gloss: Strength of the highlights.
        two_sided: Seen from inside too.
    """

    surface: Int[np.ndarray, "triangles 3"]
    uv: Float32[np.ndarray, "triangles 3 2"]
    materials: UInt8[np.ndarray, " triangles"]
    offset: Float[np.ndarray, " vertices"]
    field: Float[np.ndarray, " vertices"]
    gloss: float = 0.0
    two_sided: bool = False


def assembled(body: Body, layers: Sequence[Layer], images: Sequence[Float32[np.ndarray, "_ _ 3"]]) -> Figure:
    """One mesh of all layers on a body, with an image for each material."""
    shared = template()
    count = len(shared.vertices)
    rest, cut, gloss, triangles, sides, materials, uv = [], [], [], [], [], [], []
    for number, layer in enumerate(layers):
        signs = layer.field[layer.surface] >= 0
        kept = signs.any(axis=1)
        surface = layer.surface[kept].astype(np.int32)
        normals = np.empty((count, 3), np.float32)
        vertex_normals(body.vertices, layer.surface.astype(np.int32), normals)
        rest.append(body.vertices + normals * layer.offset[:, None].astype(np.float32))
        cut.append(np.clip(layer.field, -1, 1))
        gloss.append(np.full(count, layer.gloss))
        triangles.append(surface + number * count)
        crossed = ~signs[kept].all(axis=1)
        sides.append(_CUT * crossed | _TWO_SIDED * (layer.two_sided | crossed))
        materials.append(layer.materials[kept])
        uv.append(layer.uv[kept])
    figure = _Soup(
        np.concatenate(rest).astype(np.float32), np.concatenate(cut).astype(np.float32),
        np.concatenate(gloss).astype(np.float32), np.concatenate(triangles).astype(np.int32),
        np.concatenate(sides).astype(np.uint8), np.concatenate(materials), np.concatenate(uv).astype(np.float32),
    )  # fmt: skip
    seen = _ever_visible(figure)
    used, compact = np.unique(figure.triangles[seen], return_inverse=True)
    weights = shared.weights[used % count]
    bones = shared.weight_bones[used % count]
    heavy = weights > 0.01
    weights = np.where(heavy, weights, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    texels, table = _packed(images)
    return Figure(
        rest=np.ascontiguousarray(figure.rest[used]),
        starts=np.concatenate([[0], np.cumsum(heavy.sum(axis=1))]).astype(np.int32),
        bones=bones[heavy].astype(np.int16),
        weights=weights[heavy].astype(np.float32),
        triangles=np.ascontiguousarray(compact.reshape(-1, 3), np.int32),
        sides=figure.sides[seen],
        cut=figure.cut[used],
        gloss=figure.gloss[used],
        materials=figure.materials[seen],
        uv=np.ascontiguousarray(figure.uv[seen]),
        texels=texels,
        textures=table,
    )


@dataclass(frozen=True, eq=False)
class _Soup:
    rest: Float32[np.ndarray, "vertices 3"]
    cut: Float32[np.ndarray, " vertices"]
    gloss: Float32[np.ndarray, " vertices"]
    triangles: Int32[np.ndarray, "triangles 3"]
    sides: UInt8[np.ndarray, " triangles"]
    materials: UInt8[np.ndarray, " triangles"]
    uv: Float32[np.ndarray, "triangles 3 2"]


def _ever_visible(soup: _Soup) -> Bool[np.ndarray, " triangles"]:
    """Triangles seen from any side at rest, with their neighbours: the rest is mouth, or skin under cloth."""
    used = np.unique(soup.triangles)
    low, high = soup.rest[used].min(0), soup.rest[used].max(0)
    centre, reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    nearness = np.empty((_VISIBLE_SIZE, _VISIBLE_SIZE), np.float32)
    identity = np.empty((_VISIBLE_SIZE, _VISIBLE_SIZE), np.int32)
    seen = np.zeros(len(soup.triangles), bool)
    golden = np.pi * (3 - np.sqrt(5))
    for k in range(_VISIBLE_FROM):
        height = 1 - 2 * (k + 0.5) / _VISIBLE_FROM
        ring = np.sqrt(1 - height**2)
        forward = -np.array([ring * np.cos(golden * k), ring * np.sin(golden * k), height])
        basis = facing(forward)
        screen = ((soup.rest - centre) @ basis.T / reach).astype(np.float32)
        screen[:, :2] = (screen[:, :2] + 1) / 2 * _VISIBLE_SIZE
        screen[:, 2] = 2 - screen[:, 2]
        draw(screen, soup.triangles, soup.sides, soup.cut, False, nearness, identity)
        seen[identity[identity != EMPTY]] = True
    near = np.zeros(len(soup.rest), bool)
    near[soup.triangles[seen]] = True
    return np.asarray(near[soup.triangles].any(axis=1))


def _packed(
    images: Sequence[Float32[np.ndarray, "_ _ 3"]],
) -> tuple[Float32[np.ndarray, "texels 3"], Int32[np.ndarray, "levels materials 3"]]:
    levels = [textures.mipmaps(image) for image in images]
    depth = max(map(len, levels))
    table = np.zeros((depth, len(images), 3), np.int32)
    texels: list[np.ndarray] = []
    first = 0
    for material, pyramid in enumerate(levels):
        for level, image in enumerate(pyramid):
            table[level, material] = first, *image.shape[:2]
            texels.append(image.reshape(-1, 3))
            first += len(texels[-1])
        table[len(pyramid) :, material] = table[len(pyramid) - 1, material]
    # The eye is a tenth as large as a tile of cloth: it may stay fine for longer.
    table[:, EYE] = table[np.maximum(np.arange(depth) - 2, 0), EYE]
    return np.concatenate(texels).astype(np.float32), table
