"""Figures: a dressed person as one mesh, made of layers of skin and cloth, without what can never be seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, Int32, UInt8

from mcss.sources.synthetic import textures
from mcss.sources.synthetic.body import Body, template
from mcss.sources.synthetic.lighting import vertex_normals
from mcss.sources.synthetic.rasteriser import EMPTY, draw, facing

TILE = 0.5
"""Width and height in metres of the cloth that a texture shows."""

SKIN, EYE, HAIR, SHOE, TOP, BOTTOM, JACKET, HAT = range(8)
"""The materials, in the order of their textures."""

_TWO_SIDED, _CUT = 1, 2
"""Flags of `rasteriser.draw`."""

_VISIBLE_FROM = 36
"""Number of directions from which triangles are looked for."""
_VISIBLE_SIZE = 800
"""Width and height in pixels of the images in which they are looked for."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A dressed person, ready to be posed and drawn, without the vertices and triangles that can never be seen.

    Attributes:
        rest: Vertices at rest, metres.
        starts: First weight of each vertex; see `lighting.skin`.
        bones: Bone of each weight.
        weights: Skinning weights.
        triangles: Vertices of each triangle.
        sides: Flags of each triangle; see `rasteriser.draw`.
        cut: Field along whose zero the cut triangles end.
        gloss: Strength of the highlights.
        materials: Material of each triangle.
        uv: Texture coordinates of the corners, in periods.
        texels: The textures of all materials with their halvings.
        textures: First texel, height and width by level (number of halvings) and material.
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
        """Return the textures whose texels are about as large as a sample of the image."""
        finest = TILE / textures.CLOTH_SIZE
        level = round(float(np.log2(max(sample_metres / finest, 1.0))))
        return np.ascontiguousarray(self.textures[min(level, len(self.textures) - 1)])


@dataclass(frozen=True, eq=False)
class Layer:
    """Skin, a garment or hair.

    Attributes:
        surface: Triangles of vertices of the body model.
        uv: Texture coordinates of their corners.
        materials: Material of each triangle.
        offset: Distance in metres by which each vertex of the model is moved outwards.
        field: The layer ends where this field on the vertices is negative.
        gloss: Strength of the highlights.
        two_sided: Whether the layer is visible from inside too.
    """

    surface: Int[np.ndarray, "triangles 3"]
    uv: Float32[np.ndarray, "triangles 3 2"]
    materials: UInt8[np.ndarray, " triangles"]
    offset: Float[np.ndarray, " vertices"]
    field: Float[np.ndarray, " vertices"]
    gloss: float = 0.0
    two_sided: bool = False


def assembled_figure(
    body: Body, layers: Sequence[Layer], material_textures: Sequence[Float32[np.ndarray, "_ _ 3"]]
) -> Figure:
    """Assemble one mesh of all layers on a body, with a texture for each material."""
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
    mesh = _WholeMesh(
        np.concatenate(rest).astype(np.float32), np.concatenate(cut).astype(np.float32),
        np.concatenate(gloss).astype(np.float32), np.concatenate(triangles).astype(np.int32),
        np.concatenate(sides).astype(np.uint8), np.concatenate(materials), np.concatenate(uv).astype(np.float32),
    )  # fmt: skip
    visible = _ever_visible(mesh)
    used, compact = np.unique(mesh.triangles[visible], return_inverse=True)
    weights = shared.weights[used % count]
    bones = shared.weight_bones[used % count]
    heavy = weights > 0.01
    weights = np.where(heavy, weights, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    texels, table = _packed(material_textures)
    return Figure(
        rest=np.ascontiguousarray(mesh.rest[used]),
        starts=np.concatenate([[0], np.cumsum(heavy.sum(axis=1))]).astype(np.int32),
        bones=bones[heavy].astype(np.int16),
        weights=weights[heavy].astype(np.float32),
        triangles=np.ascontiguousarray(compact.reshape(-1, 3), np.int32),
        sides=mesh.sides[visible],
        cut=mesh.cut[used],
        gloss=mesh.gloss[used],
        materials=mesh.materials[visible],
        uv=np.ascontiguousarray(mesh.uv[visible]),
        texels=texels,
        textures=table,
    )


@dataclass(frozen=True, eq=False)
class _WholeMesh:
    """All layers as one mesh, before what can never be seen is removed; see `Figure` for the fields."""

    rest: Float32[np.ndarray, "vertices 3"]
    cut: Float32[np.ndarray, " vertices"]
    gloss: Float32[np.ndarray, " vertices"]
    triangles: Int32[np.ndarray, "triangles 3"]
    sides: UInt8[np.ndarray, " triangles"]
    materials: UInt8[np.ndarray, " triangles"]
    uv: Float32[np.ndarray, "triangles 3 2"]


def _ever_visible(mesh: _WholeMesh) -> Bool[np.ndarray, " triangles"]:
    """Return which triangles are visible from any side at rest, with their neighbours.

    The others are the inside of the mouth, or skin under cloth.
    """
    used = np.unique(mesh.triangles)
    low, high = mesh.rest[used].min(0), mesh.rest[used].max(0)
    centre, reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    nearness = np.empty((_VISIBLE_SIZE, _VISIBLE_SIZE), np.float32)
    identity = np.empty((_VISIBLE_SIZE, _VISIBLE_SIZE), np.int32)
    seen = np.zeros(len(mesh.triangles), bool)
    golden = np.pi * (3 - np.sqrt(5))
    for k in range(_VISIBLE_FROM):
        height = 1 - 2 * (k + 0.5) / _VISIBLE_FROM
        ring = np.sqrt(1 - height**2)
        forward = -np.array([ring * np.cos(golden * k), ring * np.sin(golden * k), height])
        basis = facing(forward)
        screen = ((mesh.rest - centre) @ basis.T / reach).astype(np.float32)
        screen[:, :2] = (screen[:, :2] + 1) / 2 * _VISIBLE_SIZE
        screen[:, 2] = 2 - screen[:, 2]
        draw(screen, mesh.triangles, mesh.sides, mesh.cut, False, nearness, identity)
        seen[identity[identity != EMPTY]] = True
    near = np.zeros(len(mesh.rest), bool)
    near[mesh.triangles[seen]] = True
    return np.asarray(near[mesh.triangles].any(axis=1))


def _packed(
    material_textures: Sequence[Float32[np.ndarray, "_ _ 3"]],
) -> tuple[Float32[np.ndarray, "texels 3"], Int32[np.ndarray, "levels materials 3"]]:
    """Put the textures and their halvings into one array, with a table of where they are."""
    levels = [textures.mipmaps(texture) for texture in material_textures]
    depth = max(map(len, levels))
    table = np.zeros((depth, len(material_textures), 3), np.int32)
    texels: list[np.ndarray] = []
    first = 0
    for material, pyramid in enumerate(levels):
        for level, texture in enumerate(pyramid):
            table[level, material] = first, *texture.shape[:2]
            texels.append(texture.reshape(-1, 3))
            first += len(texels[-1])
        table[len(pyramid) :, material] = table[len(pyramid) - 1, material]
    # The eye is a tenth as large as a tile of cloth, so it stays fine for longer.
    table[:, EYE] = table[np.maximum(np.arange(depth) - 2, 0), EYE]
    return np.concatenate(texels).astype(np.float32), table
