"""Settings of the synthetic capture, and the rendering of one subject's sequences from them alone.

Everything follows from (settings, subject, action), so it does not matter which process renders a sequence, or when.
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
from mcss.sources.synthetic.performances import (
    ACTIONS,
    NEW_ACTIONS,
    Performance,
    PerformancePlan,
    subject_performances,
)
from mcss.sources.synthetic.rasteriser import bounds
from mcss.sources.synthetic.rendering import PosedBones, StageRenderer, posed_vertices
from mcss.sources.synthetic.retargeting import Rig
from mcss.sources.synthetic.stage import PANORAMAS, STAGE_RADIUS, STAGES, StageName, draw_cameras, load_stage
from mcss.sources.synthetic.wardrobe import dress

Stages = Literal["per-subject", "per-sequence", "per-view"] | StageName

JPEG_QUALITY = 90

RENDERER = 1
"""Version of what the same settings show. Raise it with every change of the images, since figures that were measured on
the earlier ones would otherwise count as measured on these."""

_FLOOR_SHARE = 0.1
"""Share of a sequence's frames that may be lower than its floor before they are lifted onto it."""


@dataclass(frozen=True)
class SyntheticSettings:
    """Contents of the synthetic capture."""

    subjects: int = 8
    """Number of people; the last quarter is for testing, the one before it for validation."""
    instants: int = 2000
    """Number of frames of each subject over all shared actions."""
    size: int = 128
    """Width and height of the crops in pixels."""
    views: int = 4
    """Number of cameras around the stage."""
    seed: int = 0
    """Seed of everything that is random."""
    rate: float = 10.0
    """Frames per second."""
    takes: int = 2
    """Number of sequences of each action of a subject."""
    outfits: int = 2
    """Number of outfits of each subject, worn in turn from sequence to sequence."""
    new_motion: bool = True
    """Let the test subjects also perform actions that nobody else performs (the split new-motion)."""
    stages: Stages = "cyclorama"
    """The place, by name, or a different one for each subject, each sequence, or each view of a sequence, so that
    nothing but the person connects the views. The cyclorama is a plain, evenly lit studio."""
    cameras: Literal["fixed", "per-sequence"] = "fixed"
    """Whether all sequences have the same cameras, as in a laboratory, or each has cameras of its own."""

    def __post_init__(self) -> None:
        sequences = len(ACTIONS) * max(self.takes, 1)
        least = {"subjects": 3, "instants": 8 * sequences, "size": 16, "views": 1, "takes": 1, "outfits": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value < low:
                reason = f" (8 for each of {sequences} sequences)" if name == "instants" else ""
                raise ValueError(f"{name}: expected at least {low}{reason}, got {value}")
        if not 0 < self.rate <= 120:
            raise ValueError(f"rate: expected more than 0 and at most 120 frames per second, got {self.rate}")
        if self.stages not in (known := ("per-subject", "per-sequence", "per-view", *STAGES)):
            raise ValueError(f"stages: expected one of {', '.join(known)}, got {self.stages!r}")
        if self.cameras not in ("fixed", "per-sequence"):
            raise ValueError(f"cameras: expected 'fixed' or 'per-sequence', got {self.cameras!r}")

    @property
    def test_subjects(self) -> int:
        """Number of subjects, counted from the last, that are for testing."""
        return max(1, self.subjects // 4)

    def actions(self, subject: int) -> tuple[str, ...]:
        """Return what the `subject`-th person (from 0) performs."""
        performs_new = self.new_motion and subject >= self.subjects - self.test_subjects
        return (*ACTIONS, *NEW_ACTIONS) if performs_new else tuple(ACTIONS)


@dataclass(frozen=True, eq=False)
class RenderedSequence:
    """All rows of one sequence, ready to be written."""

    frames: list[Frame]
    stage: str
    """The sequences that share the backgrounds; see `mcss.data.writer.CaptureWriter.add_backgrounds`."""
    backgrounds: dict[str, bytes]
    """JPEG of the empty stage in each view."""


def subject_name(subject: int) -> str:
    """Return the name of the `subject`-th person: ``S1`` for 0."""
    return f"S{subject + 1}"


def sequence_names(action: str, takes: int) -> list[str]:
    """Return the names of an action's sequences."""
    return [f"{action} {take}" for take in range(1, takes + 1)]


def render_sequences(
    settings: SyntheticSettings, subject: int, action: str, sequences: frozenset[str]
) -> list[RenderedSequence]:
    """Render those of a subject's sequences of one action whose names are in `sequences`."""
    return [
        render_sequence(settings, subject, performance)
        for performance in _performances(settings, subject)
        if performance.action == action and performance.sequence in sequences
    ]


@lru_cache(maxsize=1)
def _performances(settings: SyntheticSettings, subject: int) -> list[Performance]:
    body = body_of(subject, settings.seed)
    rig = Rig.of(body.joints.astype(np.float64), body.bone_names, body.bone_parents)
    plan = PerformancePlan(
        actions=settings.actions(subject), instants=settings.instants, rate=settings.rate, takes=settings.takes
    )
    return subject_performances(subject_name(subject), settings.seed, rig, plan)


def render_sequence(settings: SyntheticSettings, subject: int, performance: Performance) -> RenderedSequence:
    """Render all images of one performance."""
    body, figure = body_of(subject, settings.seed), figure_of(settings, subject, performance.sequence)
    stage = ""
    if settings.cameras == "per-sequence" or settings.stages in ("per-sequence", "per-view"):
        stage = f"{performance.subject}/{performance.sequence}"
    elif settings.stages == "per-subject":
        stage = performance.subject
    renderers = renderers_of(settings, subject, performance.sequence)
    heads = _on_floor(body, figure, performance)
    bones = PosedBones.of(body, performance.orientations, heads)
    poses = body.pose_joints(performance.orientations, heads)
    rng = generator(settings.seed, performance.subject, performance.sequence)
    cameras = [camera.matrices() for renderer in renderers for camera in renderer.cameras]
    frames = []
    for number, pose in enumerate(poses):
        vertices = posed_vertices(figure, bones, number)
        crops = [crop for renderer in renderers for crop in renderer.render(figure, vertices, rng)]
        for view, (crop, camera) in enumerate(zip(crops, cameras, strict=True)):
            frames.append(
                Frame(
                    subject=performance.subject,
                    sequence=performance.sequence,
                    action=performance.action,
                    frame=number,
                    time=number / performance.rate,
                    view=str(view + 1),
                    image=encode_jpeg(crop.pixels, JPEG_QUALITY),
                    box=crop.box,
                    pose=pose,
                    camera=camera,
                )
            )
    return RenderedSequence(frames, stage, _backgrounds(renderers))


def moved_to_stage(pelvis: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    """Move a path to the centre of the stage, and shrink it if it leaves `STAGE_RADIUS`; heights are kept."""
    floor = pelvis[:, :2] - (pelvis[:, :2].min(axis=0) + pelvis[:, :2].max(axis=0)) / 2
    reach = float(np.linalg.norm(floor, axis=1).max())
    return np.concatenate([floor * min(1.0, STAGE_RADIUS / max(reach, 1e-9)), pelvis[:, 2:]], axis=1)


def _on_floor(body: Body, figure: Figure, performance: Performance) -> Float[np.ndarray, "frames bones 3"]:
    """Return the heads of the bones on the stage, metres.

    The sequence is put onto the floor as a whole, so that jumps stay in the air. Frames that still sink into the floor
    are then lifted one by one.
    """
    heads = body.bone_heads(performance.orientations, moved_to_stage(performance.pelvis))
    bones = PosedBones.of(body, performance.orientations, heads)
    frames = range(len(performance))
    lowest = np.array([bounds(posed_vertices(figure, bones, frame))[0, 2] for frame in frames], np.float64)
    lift = -float(np.quantile(lowest, _FLOOR_SHARE))
    lift_of_frame = lift + np.maximum(-(lowest + lift), 0)
    return np.asarray(heads + [0.0, 0.0, 1.0] * lift_of_frame[:, None, None])


@lru_cache(maxsize=2)
def body_of(subject: int, seed: int) -> Body:
    """Return the body of the `subject`-th person (from 0)."""
    return Body.of_subject(subject, seed)


def figure_of(settings: SyntheticSettings, subject: int, sequence: str) -> Figure:
    """Return a person in the outfit that they wear in a sequence."""
    take = int(sequence.rsplit(" ", 1)[1])
    return _figure(subject, settings.seed, (take - 1) % settings.outfits)


@lru_cache(maxsize=8)
def _figure(subject: int, seed: int, outfit: int) -> Figure:
    return dress(body_of(subject, seed), subject, seed, outfit)


def renderers_of(settings: SyntheticSettings, subject: int, sequence: str) -> tuple[StageRenderer, ...]:
    """Return what renders a sequence: one renderer for all cameras, or one per view if every view has its own place."""
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
    return _renderers(stages, name if settings.cameras == "per-sequence" else "", settings)


def _drawn_stages(seed: int, name: str) -> tuple[StageName, ...]:
    """Return all places in an order that belongs to a sequence's name, or to the whole capture if it is empty."""
    names = ("stages", name) if name else ("stages",)
    return tuple(PANORAMAS[int(place)] for place in generator(seed, *names).permutation(len(PANORAMAS)))


@lru_cache(maxsize=1)
def _renderers(
    stages: tuple[StageName, ...], cameras_of: str, settings: SyntheticSettings
) -> tuple[StageRenderer, ...]:
    """Return a renderer for each stage, among which the cameras are divided; `cameras_of` is empty or a sequence."""
    cameras = draw_cameras(generator(settings.seed, "cameras", cameras_of), settings.views)
    shares = [cameras[place :: len(stages)] for place in range(len(stages))]
    return tuple(
        StageRenderer(load_stage(stage), share, settings.size) for stage, share in zip(stages, shares, strict=True)
    )


@lru_cache(maxsize=1)
def _backgrounds(renderers: tuple[StageRenderer, ...]) -> dict[str, bytes]:
    empty = [renderer.background(view) for renderer in renderers for view in range(len(renderer.cameras))]
    return {str(view + 1): encode_jpeg(image, JPEG_QUALITY) for view, image in enumerate(empty)}


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator that depends on the seed and the names alone."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
