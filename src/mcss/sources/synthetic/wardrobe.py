"""Wardrobe: the outfits, hair styles and shoes that turn a body into a `Figure`.

A garment is a part of a surface over the skin (the model's helper tights, skirt or hair, or the skin itself), moved
outwards and cut along the zero of a scalar field, such as the distance from the end of the sleeve or from the hem.
Fields are defined on the average body, so that one number means the same on every body. Since a garment is shaped and
skinned like the body, it moves with it.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from mcss.sources.synthetic import textures
from mcss.sources.synthetic.body import Body, template
from mcss.sources.synthetic.figure import (
    BOTTOM,
    EYE,
    HAIR,
    HAT,
    JACKET,
    SHOE,
    SKIN,
    TILE,
    TOP,
    Figure,
    Layer,
    assembled_figure,
)


@dataclass(frozen=True)
class Outfit:
    """The cut of the clothes that a person wears together."""

    sleeve: float
    """Length of the sleeves as a share of the arm: 0.25 is short, 0.95 long; below 0 there are none."""
    hem: float
    """Height in metres on the average body at which the top ends; the waist is at 0.08, the crotch at -0.08."""
    leg: float
    """Length of the trousers as a share of the leg."""
    skirt: float | None = None
    """Length of the skirt as a share of the leg; None without a skirt."""
    jacket: str | None = None
    """``open`` or ``closed``; None without a jacket."""
    hood: bool = False
    one_piece: bool = False
    """Whether top and skirt or trousers are of the same cloth."""
    top_cloth: tuple[str, ...] = ("plain",)
    bottom_cloth: tuple[str, ...] = ("plain",)
    looseness: float = 0.5
    boots: bool = False


OUTFITS = (
    Outfit(0.25, -0.05, 0.50, top_cloth=("stripes",), looseness=0.6),
    Outfit(0.95, -0.10, 0.94, top_cloth=("checks",), bottom_cloth=("plain",), looseness=0.7),
    Outfit(0.30, -0.02, 0.94, jacket="open", top_cloth=("plain", "print"), bottom_cloth=("knit",), looseness=0.4),
    Outfit(0.15, 0.02, 0.20, skirt=0.55, one_piece=True, top_cloth=("dots", "print"), looseness=0.3),
    Outfit(-0.05, -0.03, 0.32, top_cloth=("plain",), bottom_cloth=("stripes", "bars"), looseness=0.3),
    Outfit(0.97, -0.10, 0.96, hood=True, top_cloth=("plain",), bottom_cloth=("camouflage",), looseness=1.0),
    Outfit(0.55, 0.03, 0.20, skirt=0.36, top_cloth=("pinstripes", "bars"), bottom_cloth=("checks",), looseness=0.4),
    Outfit(0.97, -0.06, 0.95, jacket="closed", bottom_cloth=("plain", "knit"), boots=True, looseness=0.5),
    Outfit(0.28, -0.08, 0.72, top_cloth=("camouflage",), bottom_cloth=("plain",), looseness=0.8),
    Outfit(0.35, -0.09, 0.95, top_cloth=("print", "dots"), bottom_cloth=("pinstripes", "bars"), looseness=0.5),
    Outfit(0.97, 0.04, 0.97, one_piece=True, top_cloth=("plain", "stripes", "camouflage"), looseness=0.4),
)
"""Cuts that differ at a glance; the first people of a capture get different ones."""

HAIR_STYLES = ("short", "long", "crop", "bob", "cap", "full", "bald", "beanie")


@dataclass(frozen=True, eq=False)
class _Fields:
    """Fields on the vertices of the average body, by which garments are cut."""

    x: Float[np.ndarray, " vertices"]
    y: Float[np.ndarray, " vertices"]
    z: Float[np.ndarray, " vertices"]
    arm: Float[np.ndarray, " vertices"]
    """0 at the shoulder, 1 at the wrist; -0.3 on the torso."""
    leg: Float[np.ndarray, " vertices"]
    """0 at the height of the hip, 1 at that of the ankle."""
    on_arm: Bool[np.ndarray, " vertices"]
    region: Int[np.ndarray, " vertices"]
    """0 torso, 1 left arm, 2 right arm, 3 left leg, 4 right leg."""


@cache
def _fields() -> _Fields:
    """Compute the fields on the average body."""
    shared = template()
    vertices = shared.vertices.astype(np.float64)
    names = [shared.bone_names[bone] for bone in shared.weight_bones[:, 0]]
    arm_bones = ("upperarm", "lowerarm", "wrist", "finger", "metac")
    on_arm = np.array([name.startswith(arm_bones) for name in names])
    on_shoulder = np.array([name.startswith(("shoulder01", "clav")) for name in names])
    on_leg = np.array([name.startswith(("upperleg", "lowerleg", "foot", "toe")) for name in names])
    left = vertices[:, 0] > 0
    shoulder, wrist = shared.joint("upperarm01.L"), shared.joint("wrist.L")
    hip, ankle = shared.joint("upperleg01.L"), shared.joint("foot.L")
    mirrored = np.abs(vertices) * [1, 0, 0] + vertices * [0, 1, 1]
    along = (mirrored - shoulder) @ (wrist - shoulder) / ((wrist - shoulder) @ (wrist - shoulder))
    region = np.where(on_arm, np.where(left, 1, 2), np.where(on_leg, np.where(left, 3, 4), 0))
    return _Fields(
        x=mirrored[:, 0],
        y=mirrored[:, 1],
        z=mirrored[:, 2],
        arm=np.where(on_arm | on_shoulder, along, -0.3),
        leg=(hip[2] - mirrored[:, 2]) / (hip[2] - ankle[2]),
        on_arm=on_arm,
        region=region,
    )


def dress(body: Body, subject: int, seed: int, outfit: int = 0) -> Figure:
    """Dress the `subject`-th person of a capture in their `outfit`-th outfit; skin, face and hair stay the same."""
    person_rng = np.random.default_rng([seed, subject, 0xD2E55])
    style = HAIR_STYLES[(subject * 3 + seed) % len(HAIR_STYLES)]
    female = body.phenotype.gender > 0.5
    if female and style in ("bald", "full"):
        style = "long"
    if not female and style in ("long", "bob") and person_rng.uniform() < 0.7:
        style = "crop"
    hair_colour = textures.hair_colour(person_rng, old=body.phenotype.age > 0.84)
    beard = 0.0 if female else float(person_rng.choice([0.0, 0.3, 0.85]))
    person = [
        textures.skin(person_rng, textures.skin_colour(person_rng, subject), hair_colour, beard),
        textures.eye(person_rng),
        textures.hair(person_rng, hair_colour),
    ]
    head = _head(person_rng, style, female)
    rng = np.random.default_rng([seed, subject, 0xC107, outfit])
    cut = _cut(subject, seed, outfit, female)
    clothes = [
        textures.sole_and_upper(rng),
        textures.cloth(rng, str(rng.choice(cut.top_cloth))),
        textures.cloth(rng, str(rng.choice(cut.bottom_cloth))),
        textures.cloth(rng, str(rng.choice(["plain", "knit", "checks", "plain"]))),
        textures.cloth(rng, "plain"),
    ]
    material_textures = person + clothes
    if cut.one_piece:
        material_textures[BOTTOM] = material_textures[TOP]
    return assembled_figure(body, _garments(rng, cut) + head, material_textures)


def _cut(subject: int, seed: int, outfit: int, female: bool) -> Outfit:
    """Choose the cut of an outfit."""
    order = np.random.default_rng([seed, 0x0F17]).permutation(len(OUTFITS))
    cut = OUTFITS[order[(subject + 5 * outfit) % len(OUTFITS)]]
    if not female and cut.skirt is not None:
        return replace(cut, skirt=None, leg=0.5, one_piece=False)
    return cut


def _garments(rng: np.random.Generator, outfit: Outfit) -> list[Layer]:
    """Return the layers of skin, eyes and clothes."""
    f, shared = _fields(), template()
    tights, skirt_surface = shared.surfaces["helper-tights"], shared.surfaces["helper-skirt"]
    everywhere = np.ones_like(f.z)
    neck = 0.575 - rng.choice([0.0, 0.0, 0.9]) * np.maximum(0.05 - f.x, 0) * (f.y < 0)

    def sleeves(length: float) -> Float[np.ndarray, " vertices"]:
        return np.where(f.arm > -0.3, (length - f.arm) * 0.3, 1.0)

    top = np.minimum.reduce([f.z - outfit.hem, neck - f.z, sleeves(outfit.sleeve)])
    bottom = np.where(f.on_arm, -1.0, np.minimum(0.09 - f.z, (outfit.leg - f.leg) * 0.8))
    shoe = np.where(f.on_arm, -1.0, (-0.58 if outfit.boots else -0.70) - f.z)
    jacket = None
    if outfit.jacket:
        opening = np.where((f.y < -0.02) & ~f.on_arm, f.x - 0.055, 1.0) if outfit.jacket == "open" else everywhere
        jacket = np.minimum.reduce([f.z - outfit.hem + 0.05, 0.585 - f.z, sleeves(0.97), opening])
    covered = np.maximum.reduce([top, bottom, shoe] + ([] if jacket is None else [jacket]))
    folds = _folds(rng, f)
    loose = outfit.looseness
    cloth_uv = _wrapped(tights.vertices, f)
    layers = [
        _skin_layer(0.03 - covered),
        _eyes(),
        Layer(tights.vertices, cloth_uv, _all(tights.vertices, BOTTOM), 0.005 + 0.008 * loose + folds, bottom),
        Layer(tights.vertices, cloth_uv, _all(tights.vertices, TOP), 0.009 + 0.010 * loose + folds, top),
        Layer(
            tights.vertices,
            _by_height(tights.vertices, f),
            _all(tights.vertices, SHOE),
            0.007 * everywhere,
            shoe,
            0.10,
        ),
    ]
    if jacket is not None:
        layers.append(
            Layer(
                tights.vertices,
                cloth_uv,
                _all(tights.vertices, JACKET),
                0.022 + 0.006 * loose + folds,
                jacket,
                0.02,
                True,
            )
        )
    if outfit.skirt is not None:
        layers.append(
            Layer(
                skirt_surface.vertices, _wrapped(skirt_surface.vertices, f), _all(skirt_surface.vertices, BOTTOM),
                0.014 + folds, outfit.skirt - f.leg, 0.0, True,
            )
        )  # fmt: skip
    if outfit.hood:
        collar = np.where(f.on_arm, -1.0, np.minimum(f.z - 0.50, 0.60 - f.z) + np.where(f.y > -0.02, 0.03, -0.04))
        layers.append(Layer(tights.vertices, cloth_uv, _all(tights.vertices, TOP), 0.04 + folds, collar, 0.0, True))
    if outfit.sleeve > 0.2 and not outfit.one_piece and rng.uniform() < 0.35:  # sleeves of another colour
        sleeve_faces = f.on_arm[tights.vertices].sum(axis=1) >= 2
        layers[3] = replace(layers[3], materials=np.where(sleeve_faces, HAT, TOP).astype(np.uint8))
    return layers


def _skin_layer(field: Float[np.ndarray, " vertices"]) -> Layer:
    """Return the skin, cut where clothes cover it."""
    shared = template()
    surface = shared.surfaces["body"]
    uv = shared.texture[surface.texture] * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    return Layer(surface.vertices, uv, _all(surface.vertices, SKIN), np.zeros_like(field), field, 0.10)


def _eyes() -> Layer:
    """Return both eyes."""
    shared = template()
    sides = [shared.surfaces["helper-l-eye"].vertices, shared.surfaces["helper-r-eye"].vertices]
    uv = []
    for surface in sides:
        places = shared.vertices[surface]
        centre = shared.vertices[np.unique(surface)].mean(0)
        uv.append((places - centre)[..., [0, 2]] / 0.026 + 0.5)
    surface = np.concatenate(sides)
    everywhere = np.ones(len(shared.vertices))
    return Layer(surface, np.concatenate(uv).astype(np.float32), _all(surface, EYE), 0 * everywhere, everywhere, 0.3)


def _head(rng: np.random.Generator, style: str, female: bool) -> list[Layer]:
    """Return the layers of hair or of a hat."""
    f, shared = _fields(), template()
    body, strands = shared.surfaces["body"], shared.surfaces["helper-hair"]
    eye = shared.joint("eye.L")
    # The hairline lies high above the forehead, in front of the ears, and low on the neck.
    line = f.z - (eye[2] + 0.075 - np.clip((f.y - eye[1]) * 1.1, 0.0, 0.17))
    line = np.where(f.z < 0.56, -1.0, line) + 0.003 * np.sin(f.x * 160)
    scalp = body.vertices[(line[body.vertices] > -0.05).all(axis=1)]
    uv = _around(scalp, f)

    def cap(
        offset: Float[np.ndarray, " vertices"] | float, field: Float[np.ndarray, " vertices"], material: int
    ) -> Layer:
        return Layer(scalp, uv, _all(scalp, material), offset + 0 * f.z, field, 0.06)

    crown = np.clip((f.z - eye[2]) / 0.12, 0, 1)
    match style:
        case "bald":
            return []
        case "crop":
            return [cap(0.004, line, HAIR)]
        case "short":
            return [cap(0.006 + 0.010 * crown, line, HAIR)]
        case "full":
            return [cap(0.012 + 0.022 * crown, line + 0.004, HAIR)]
        case "cap" | "beanie":
            low = f.z - (eye[2] + (0.045 if style == "cap" else 0.035))
            return [cap(0.005, line, HAIR), cap(0.014 + 0.01 * crown, low, HAT)]
        case _:
            end = rng.uniform(0.42, 0.52) if style == "long" else rng.uniform(0.56, 0.60)
            behind = f.y - (eye[1] + 0.065)
            hanging = np.minimum(f.z - end, behind)
            layer = Layer(
                strands.vertices,
                _around(strands.vertices, f),
                _all(strands.vertices, HAIR),
                0 * f.z,
                hanging,
                0.06,
                True,
            )
            return [cap(0.008 + 0.008 * crown, line, HAIR), layer]


def _all(surface: Int[np.ndarray, "triangles 3"], material: int) -> UInt8[np.ndarray, " triangles"]:
    """Return the same material for all triangles."""
    return np.full(len(surface), material, np.uint8)


def _folds(rng: np.random.Generator, f: _Fields) -> Float[np.ndarray, " vertices"]:
    """Return the height of folds of cloth in metres: a few crossed waves of 8 to 20 cm."""
    folds = np.zeros_like(f.z)
    for _ in range(5):
        wave = rng.normal(size=3) * [0.6, 0.6, 1.0]
        wave *= 2 * np.pi / rng.uniform(0.08, 0.2) / np.linalg.norm(wave)
        phase = rng.uniform(0, 2 * np.pi) + 1.5 * np.sin(f.x * 17 + f.z * 11)
        folds += 0.0016 * np.sin(wave[0] * f.x + wave[1] * f.y + wave[2] * f.z + phase)
    return folds


_LIMBS = (("spine05", "neck01", 0.95), ("upperarm01.L", "wrist.L", 0.30), ("upperarm01.R", "wrist.R", 0.30),
          ("upperleg01.L", "foot.L", 0.50), ("upperleg01.R", "foot.R", 0.50))  # fmt: skip
"""First bone, last bone and circumference in metres of the torso, arms and legs."""


def _wrapped(surface: Int[np.ndarray, "triangles 3"], f: _Fields) -> Float32[np.ndarray, "triangles 3 2"]:
    """Return texture coordinates of cloth wound around torso and limbs, so that stripes run around them unstretched.

    A whole number of quarters of the texture goes around, so patterns that repeat in a quarter have no seam.
    """
    shared = template()
    uv = np.empty((len(surface), 3, 2), np.float32)
    region = np.median(f.region[surface], axis=1).astype(int)
    for number, (start, end, circumference) in enumerate(_LIMBS):
        faces = region == number
        origin, axis = shared.joint(start), shared.joint(end) - shared.joint(start)
        if number == 0:
            origin, axis = np.array([0, origin[1], 0]), np.array([0, 0, 1.0])
        axis = axis / np.linalg.norm(axis)
        side = np.cross(axis, [0, 1.0, 0])
        side /= np.linalg.norm(side)
        front = np.cross(axis, side)
        places = shared.vertices[surface[faces]] - origin
        turns = np.arctan2(places @ side, places @ front) / (2 * np.pi)
        turns -= np.round(turns - turns[:, :1])
        uv[faces, :, 0] = turns * round(circumference / TILE * 4) / 4
        uv[faces, :, 1] = places @ axis / TILE
    return uv


def _around(surface: Int[np.ndarray, "triangles 3"], f: _Fields) -> Float32[np.ndarray, "triangles 3 2"]:
    """Return texture coordinates that run around the head."""
    shared = template()
    places = shared.vertices[surface] - np.array([0, shared.joint("head")[1] + 0.02, 0], np.float32)
    turns = np.arctan2(places[..., 0], places[..., 1]) / (2 * np.pi)
    turns -= np.round(turns - turns[:, :1])
    return np.stack([turns * 2, places[..., 2] / TILE], -1).astype(np.float32)


def _by_height(surface: Int[np.ndarray, "triangles 3"], f: _Fields) -> Float32[np.ndarray, "triangles 3 2"]:
    """Return texture coordinates of shoes, from the sole up."""
    height = (f.z[surface] + 0.82) / 0.15
    return np.stack([f.y[surface] / TILE, np.clip(height, 0.02, 0.98)], -1).astype(np.float32)
