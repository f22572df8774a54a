"""What the processes of a build do: the images of one action of one subject, from the settings alone.

Everything follows from (settings, subject, action), so that it does not matter which process makes a part, or when.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from mcss.data.schema import Frame
from mcss.images import encode_jpeg
from mcss.sources.synthetic.body import Body
from mcss.sources.synthetic.figure import Figure
from mcss.sources.synthetic.performances import ACTIONS, NEW_ACTIONS, Performance, perform
from mcss.sources.synthetic.photography import Bones, Photographer, posed
from mcss.sources.synthetic.rasteriser import bounds
from mcss.sources.synthetic.stage import PANORAMAS, STAGE_RADIUS, STAGES, StageName, draw_cameras, load_stage
from mcss.sources.synthetic.wardrobe import dress

Stages = Literal["per-subject", "per-sequence", "per-view"] | StageName

JPEG_QUALITY = 90

RENDERER = 1
"""Counts changes of what the same settings show: raise it with each, or what was measured before counts as measured."""

_FLOOR_SHARE = 0.1
"""This share of a sequence's frames may be lower than its floor before they are lifted onto it."""


@dataclass(frozen=True)
class SyntheticSettings:
    """What the synthetic capture is like."""

    subjects: int = 8
    """People; the last quarter is for testing, the one before it for validation."""
    instants: int = 2000
    """Frames of each subject over all shared actions."""
    size: int = 128
    """Width and height of the crops in pixels."""
    views: int = 4
    """Cameras around the stage."""
    seed: int = 0
    """Decides everything that is drawn."""
    rate: float = 10.0
    """Frames per second."""
    takes: int = 2
    """Sequences of each action of a subject."""
    outfits: int = 2
    """Sets of clothes that each subject has, worn in turn from take to take."""
    new_motion: bool = True
    """Let the test subjects also perform actions that nobody else performs (the split new-motion)."""
    stages: Stages = "cyclorama"
    """The place of all by name, or another one for each subject or sequence, or for each view of a sequence, so that
    nothing but the person connects the views. The cyclorama is a plain, evenly lit studio."""
    cameras: Literal["fixed", "per-sequence"] = "fixed"
    """The same cameras for all, as in a laboratory, or drawn anew for every sequence."""

    def __post_init__(self) -> None:
        sequences = len(ACTIONS) * max(self.takes, 1)
        least = {"subjects": 3, "instants": 8 * sequences, "size": 16, "views": 1, "takes": 1, "outfits": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value < low:
                reason = f" (8 for each of {sequences} sequences)" if name == "instants" else ""
                raise ValueError(f"{name} must be at least {low}{reason}, came {value}")
        if not 0 < self.rate <= 120:
            raise ValueError(f"rate must lie between 0 and 120 frames per second, came {self.rate}")
        if self.stages not in (stages := ("per-subject", "per-sequence", "per-view", *STAGES)):
            known = ", ".join(stages)
            raise ValueError(f"there is no stage {self.stages!r}; choose from {known}")
        if self.cameras not in ("fixed", "per-sequence"):
            raise ValueError(f"cameras must be 'fixed' or 'per-sequence', came {self.cameras!r}")

    @property
    def test_subjects(self) -> int:
        """How many subjects, from the last, are for testing."""
        return max(1, self.subjects // 4)

    def actions(self, subject: int) -> tuple[str, ...]:
        """What the `subject`-th person (from 0) performs."""
        new = self.new_motion and subject >= self.subjects - self.test_subjects
        return (*ACTIONS, *NEW_ACTIONS) if new else tuple(ACTIONS)


@dataclass(frozen=True, eq=False)
class Scene:
    """One sequence with all its images, ready to be written."""

    frames: list[Frame]
    stage: str
    """What its backgrounds belong to; see `captures.CaptureWriter.add_backgrounds`."""
    backgrounds: dict[str, bytes]
    """JPEG of each view's empty stage."""


def subject_name(subject: int) -> str:
    """``S1`` for the first."""
    return f"S{subject + 1}"


def sequence_names(action: str, takes: int) -> list[str]:
    """The sequences of an action."""
    return [f"{action} {take}" for take in range(1, takes + 1)]


def make_scenes(settings: SyntheticSettings, subject: int, action: str, sequences: frozenset[str]) -> list[Scene]:
    """Film those takes of one action of one subject that are called `sequences`."""
    performances = _performances(settings, subject)
    return [
        film(settings, subject, performance)
        for performance in performances
        if performance.action == action and performance.sequence in sequences
    ]


@lru_cache(maxsize=1)
def _performances(settings: SyntheticSettings, subject: int) -> list[Performance]:
    body = cast(subject, settings.seed)
    return perform(
        subject_name(subject),
        settings.seed,
        body.joints.astype(np.float64),
        body.bone_names,
        body.bone_parents,
        settings.instants,
        rate=settings.rate,
        takes=settings.takes,
        actions=settings.actions(subject),
    )


def film(settings: SyntheticSettings, subject: int, performance: Performance) -> Scene:
    """All images of one performance."""
    body, figure = cast(subject, settings.seed), dressed(settings, subject, performance.sequence)
    label = ""
    if settings.cameras == "per-sequence" or settings.stages in ("per-sequence", "per-view"):
        label = f"{performance.subject}/{performance.sequence}"
    elif settings.stages == "per-subject":
        label = performance.subject
    crew = crew_of(settings, subject, performance.sequence)
    heads = _on_floor(body, figure, performance)
    bones = Bones.of(body, performance.orientations, heads)
    poses = body.pose_joints(performance.orientations, heads)
    rng = generator(settings.seed, performance.subject, performance.sequence)
    cameras = [camera.matrices() for photographer in crew for camera in photographer.cameras]
    frames = []
    for number, pose in enumerate(poses):
        vertices = posed(figure, bones, number)
        images = [image for photographer in crew for image in photographer.shoot(figure, vertices, rng)]
        for view, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            frames.append(
                Frame(
                    subject=performance.subject,
                    sequence=performance.sequence,
                    action=performance.action,
                    frame=number,
                    time=number / performance.rate,
                    view=str(view + 1),
                    image=encode_jpeg(image.pixels, JPEG_QUALITY),
                    box=image.box,
                    pose=pose,
                    camera=camera,
                )
            )
    return Scene(frames, label, _backgrounds(crew))


def on_stage(pelvis: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    """The path moved to the middle of the stage, and made smaller if it leaves `STAGE_RADIUS`; heights are kept."""
    floor = pelvis[:, :2] - (pelvis[:, :2].min(axis=0) + pelvis[:, :2].max(axis=0)) / 2
    reach = float(np.linalg.norm(floor, axis=1).max())
    return np.concatenate([floor * min(1.0, STAGE_RADIUS / max(reach, 1e-9)), pelvis[:, 2:]], axis=1)


def _on_floor(body: Body, figure: Figure, performance: Performance) -> Float[np.ndarray, "frames bones 3"]:
    """Heads of the bones on the stage, metres.

    The whole sequence is put onto the floor, so that jumps stay in the air, and then each frame that still sinks
    into it is lifted.
    """
    heads = body.bone_heads(performance.orientations, on_stage(performance.pelvis))
    bones = Bones.of(body, performance.orientations, heads)
    frames = range(len(performance))
    lowest = np.array([bounds(posed(figure, bones, frame))[0, 2] for frame in frames], np.float64)
    lift = -float(np.quantile(lowest, _FLOOR_SHARE))
    lift_each = lift + np.maximum(-(lowest + lift), 0)
    return np.asarray(heads + [0.0, 0.0, 1.0] * lift_each[:, None, None])


@lru_cache(maxsize=2)
def cast(subject: int, seed: int) -> Body:
    """A person of the capture."""
    return Body.of_subject(subject, seed)


def dressed(settings: SyntheticSettings, subject: int, sequence: str) -> Figure:
    """A person of the capture in what they wear in a sequence."""
    take = int(sequence.rsplit(" ", 1)[1])
    return _figure(subject, settings.seed, (take - 1) % settings.outfits)


@lru_cache(maxsize=8)
def _figure(subject: int, seed: int, outfit: int) -> Figure:
    return dress(cast(subject, seed), subject, seed, outfit)


def crew_of(settings: SyntheticSettings, subject: int, sequence: str) -> tuple[Photographer, ...]:
    """Who takes the images of a sequence: one for all cameras, or where places differ by view one for each."""
    name = f"{subject_name(subject)}/{sequence}"
    stages: tuple[StageName, ...]
    match settings.stages:
        case "per-view":
            stages = _drawn_stages(settings.seed, name)[: settings.views]
        case "per-sequence":
            stages = _drawn_stages(settings.seed, name)[:1]
        case "per-subject":
            stages = (_drawn_stages(settings.seed, "")[subject % len(PANORAMAS)],)
        case stage:
            stages = (stage,)
    return _photographers(stages, name if settings.cameras == "per-sequence" else "", settings)


def _drawn_stages(seed: int, name: str) -> tuple[StageName, ...]:
    """All places in the order of whoever has that name; `name` is empty for the capture's."""
    names = ("stages", name) if name else ("stages",)
    return tuple(PANORAMAS[int(place)] for place in generator(seed, *names).permutation(len(PANORAMAS)))


@lru_cache(maxsize=1)
def _photographers(stages: tuple[StageName, ...], seats: str, settings: SyntheticSettings) -> tuple[Photographer, ...]:
    """One for all cameras on one stage, or one for each on as many."""
    cameras = draw_cameras(generator(settings.seed, "cameras", seats), settings.views)
    shares = [cameras[place :: len(stages)] for place in range(len(stages))]
    return tuple(
        Photographer(load_stage(stage), share, settings.size) for stage, share in zip(stages, shares, strict=True)
    )


@lru_cache(maxsize=1)
def _backgrounds(crew: tuple[Photographer, ...]) -> dict[str, bytes]:
    empty = [photographer.background(n) for photographer in crew for n in range(len(photographer.cameras))]
    return {str(view + 1): encode_jpeg(image, JPEG_QUALITY) for view, image in enumerate(empty)}


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the names alone."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
