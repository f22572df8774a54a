"""Performances: the sequences of every subject, each in a style of its own.

All subjects perform the same actions, as in a laboratory data set. What differs is the performance: the subject's
habits (constant departures of all joint angles), each sequence's random style (departures, amplitude, tempo, mirroring,
order, path) and, in recordings that are long enough, the part of the recording that is used.
"""

import math
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from mcss.sources.synthetic.gestures import CHANNELS, Proportions, key_curves, motion_of_curves, with_arms
from mcss.sources.synthetic.mocap import HINGES, PARTS, Motion, blended, joined, recordings
from mcss.sources.synthetic.retargeting import Rig, bone_rotations, stand_on_floor
from mcss.sources.synthetic.styles import INNER_RATE, Performer, Variety, bent_around_stage, paced, styled


@dataclass(frozen=True)
class RecordedAction:
    """An action taken from recordings.

    Attributes:
        clips: Names in `mocap.recordings`, with the part of the clip to use as fractions of its length.
        leaves_floor: Whether the feet leave the floor (see `retargeting.stand_on_floor`).
        cyclic: Whether each clip is one cycle, all in the same phase, so that clips may be blended.
        path_scale: Share of the recorded travel that is kept, since nobody runs far on a small stage.
        weight: Length of the action's sequences relative to those of other actions.
    """

    clips: tuple[tuple[str, float, float], ...]
    leaves_floor: bool = True
    cyclic: bool = False
    path_scale: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class ProceduralAction:
    """An action of `gestures.GESTURES`, performed standing or, in a share of the sequences, while walking."""

    gesture: str
    walking: float = 0.0
    weight: float = 1.0


Action = RecordedAction | ProceduralAction

_WALKS = tuple(
    (name, 0.0, 1.0) for name in ("walk", "0walk_forward", "turn_left0", "turn_left1", "turn_right0", "turn_right1")
)

ACTIONS: dict[str, Action] = {
    "Walking": RecordedAction(_WALKS, leaves_floor=False, cyclic=True, weight=1.4),
    "Running": RecordedAction((("run", 0.0, 1.0),), cyclic=True, path_scale=0.6),
    "Jumping": RecordedAction((("jump", 0.0, 1.0), ("cmu_01_01", 0.1, 0.95))),
    "Kicking": RecordedAction((("kick", 0.0, 1.0),), leaves_floor=False, weight=0.6),
    "Punching": RecordedAction((("punch", 0.0, 1.0),), leaves_floor=False, path_scale=0.7),
    "Dancing": RecordedAction((("dance_a", 0.0, 1.0), ("dance_b", 0.0, 1.0))),
    "Spinning": RecordedAction((("spin", 0.0, 1.0),), weight=0.5),
    "Climbing": RecordedAction(
        (
            ("climb_0", 0.12, 0.85),
            ("climb_1", 0.12, 0.75),
            ("climb_2", 0.12, 0.65),
            ("climb_3", 0.12, 0.75),
            ("cmu_01_03", 0.02, 0.98),
        ),
        leaves_floor=False,
    ),
    "Crawling": RecordedAction((("crawl", 0.0, 1.0), ("climb_4", 0.16, 0.9)), leaves_floor=False, weight=0.4),
    "Getting up": RecordedAction(
        (("getup_facedown", 0.0, 1.0), ("getup_faceup", 0.0, 1.0)), leaves_floor=False, weight=0.5
    ),
    "Phoning": ProceduralAction("Phoning", walking=0.5, weight=1.2),
    "Pointing": ProceduralAction("Pointing", walking=0.25, weight=1.2),
    "Sitting": ProceduralAction("Sitting", weight=1.2),
    "Reaching": ProceduralAction("Reaching", weight=1.2),
    "Stretching": ProceduralAction("Stretching", weight=1.2),
    "Waiting": ProceduralAction("Waiting", walking=0.25, weight=1.2),
}
"""The actions that every subject performs."""

NEW_ACTIONS: dict[str, Action] = {
    "Cartwheel": RecordedAction((("cartwheel", 0.0, 1.0),), leaves_floor=False),
    "Backflip": RecordedAction((("backflip", 0.0, 1.0),)),
    "Rolling": RecordedAction((("roll", 0.0, 1.0),), leaves_floor=False),
    "Spin kick": RecordedAction((("spinkick", 0.0, 1.0),)),
}
"""The actions that only the subjects of the split `new-motion` perform."""

ALL_ACTIONS = ACTIONS | NEW_ACTIONS


@dataclass(frozen=True)
class Performance:
    """One continuous sequence of one subject.

    Attributes:
        subject: Name of the subject, such as "S1".
        sequence: Name of the sequence, such as "Walking 1"; unique within the subject.
        action: Name of the action, such as "Walking".
        rate: Frames per second.
        orientations: World rotation of every bone relative to its rest.
        pelvis: Midpoint of the hips on the stage in metres, +Z up, floor at z = 0.
    """

    subject: str
    sequence: str
    action: str
    rate: float
    orientations: Float[np.ndarray, "frames bones 3 3"]
    pelvis: Float[np.ndarray, "frames 3"]

    def __len__(self) -> int:
        return len(self.pelvis)


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator that depends on the seed and the names alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, *(zlib.crc32(name.encode()) for name in names)]))


@dataclass(frozen=True)
class PerformancePlan:
    """Which actions a subject performs, how long, and how much performances differ."""

    actions: tuple[str, ...] = tuple(ACTIONS)
    """Names from `ACTIONS` and `NEW_ACTIONS`."""
    instants: int = 2080
    """Number of frames over all *shared* actions (rounded up), divided by their weights; new actions come on top."""
    rate: float = 10.0
    """Frames per second."""
    takes: int = 2
    """Number of sequences of each action."""
    variety: Variety = field(default_factory=Variety)
    """How much performances differ."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.actions if name not in ALL_ACTIONS]
        if unknown:
            raise ValueError(f"actions: expected some of {', '.join(ALL_ACTIONS)}, got {unknown[0]!r}")
        if self.takes < 1 or self.rate <= 0:
            raise ValueError(f"takes and rate must be positive, got takes={self.takes} and rate={self.rate}")
        if min(self.frames().values()) < 2:
            sequences = len(self.actions) * self.takes
            raise ValueError(
                f"{self.instants} instants are too few for {sequences} sequences of two frames or more; ask for "
                f"{8 * sequences} instants, or for fewer takes or actions"
            )

    def frames(self) -> dict[str, int]:
        """Return the number of frames of a sequence of each action."""
        shared = [name for name in self.actions if name in ACTIONS] or list(self.actions)
        unit = self.instants / (self.takes * sum(ALL_ACTIONS[name].weight for name in shared))
        return {name: math.ceil(unit * ALL_ACTIONS[name].weight) for name in self.actions}


def subject_performances(subject: str, seed: int, rig: Rig, plan: PerformancePlan | None = None) -> list[Performance]:
    """Return all performances of one subject.

    They depend on the seed, the subject's name and rig, and the plan alone, so subjects can be made in any order.

    Args:
        subject: Name of the subject. The number at its end ("S1", "S2", …) decides the subject's part of the long
            recordings.
        seed: Seed of the whole capture.
        rig: The subject's bones.
        plan: Actions, lengths and variety.
    """
    plan = plan or PerformancePlan()
    return [
        _performance(subject, seed, rig, plan, action, take)
        for action in plan.actions
        for take in range(1, plan.takes + 1)
    ]


def _performance(subject: str, seed: int, rig: Rig, plan: PerformancePlan, action: str, take: int) -> Performance:
    habit_rng = _generator(seed, subject, "habit")
    rng = _generator(seed, subject, action, str(take))
    tempo = float(np.exp(plan.variety.tempo * (habit_rng.normal() + rng.normal()) * 0.7))
    performer = Performer(subject, *(habit_rng.normal(size=n) for n in (3 * len(PARTS), len(HINGES), len(CHANNELS))))
    spec, frames = ALL_ACTIONS[action], plan.frames()[action]
    seconds = (frames - 1) / plan.rate
    if isinstance(spec, RecordedAction):
        motion = _recorded(spec, performer, seconds * tempo + 0.5, rng)
        leaves_floor = spec.leaves_floor
        motion = replace(motion, pelvis=motion.pelvis * [spec.path_scale, spec.path_scale, 1.0])
        strength = 1.0
    else:
        motion = _procedural(spec, performer, rig, seconds * tempo + 0.5, rng, plan.variety)
        leaves_floor, strength = False, 0.5
    motion = paced(motion, tempo, seconds, rng)
    motion = styled(motion, performer, rng, plan.variety, strength)
    motion = bent_around_stage(motion, rig, rng)
    orientations = bone_rotations(motion, rig)
    pelvis = stand_on_floor(orientations, motion.pelvis * rig.leg, rig, INNER_RATE, leaves_floor)
    keep = np.round(np.arange(frames) * INNER_RATE / plan.rate).astype(int)
    return Performance(
        subject=subject,
        sequence=f"{action} {take}",
        action=action,
        rate=plan.rate,
        orientations=orientations[keep].astype(np.float32),
        pelvis=pelvis[keep].astype(np.float32),
    )


SHARES = 8
"""Number of parts into which long recordings are divided, one per subject; a ninth subject shares the first part."""
_LONG_SECONDS = 12.0
"""Shorter recordings are used whole by every subject."""


def _excerpt(clip: tuple[str, float, float], performer: Performer) -> Motion:
    """Return the clip or, if it is long, the performer's own part of it."""
    name, start, stop = clip
    motion = recordings()[name]
    first, last = int(start * len(motion)), int(stop * len(motion))
    motion = motion.window(first, last)
    if motion.seconds < _LONG_SECONDS:
        return motion
    # Shifted by the clip's name, so that no subject gets the beginning of every clip.
    share = (performer.number * 3 + zlib.crc32(name.encode())) % SHARES
    edges = np.linspace(0, len(motion), SHARES + 1).astype(int).tolist()
    return motion.window(edges[share], edges[share + 1])


def _recorded(spec: RecordedAction, performer: Performer, seconds: float, rng: np.random.Generator) -> Motion:
    """Join clips of an action in random order, some of them mirrored."""
    whole: Motion | None = None
    queue: list[int] = []
    while whole is None or whole.seconds < seconds:
        if not queue:
            queue = list(rng.permutation(len(spec.clips)))
        piece = _excerpt(spec.clips[queue.pop()], performer)
        if spec.cyclic and len(spec.clips) > 1:
            other = _excerpt(spec.clips[int(rng.integers(len(spec.clips)))], performer)
            piece = _mixed(piece, other, float(rng.uniform(0.0, 1.0)))
        if not spec.cyclic and rng.uniform() < 0.5:
            piece = piece.mirrored()
        whole = piece if whole is None else joined(whole, piece, 4 if spec.cyclic else 14)
    if spec.cyclic and rng.uniform() < 0.5:
        whole = whole.mirrored()
    return whole


def _mixed(a: Motion, b: Motion, weight: float) -> Motion:
    """Blend two cycles that are in the same phase."""
    b = b.at(np.linspace(0.0, b.seconds, len(a)), a.rate)
    share = np.full((len(a), len(PARTS)), weight)
    return Motion(
        rate=a.rate,
        pelvis=(1 - weight) * a.pelvis + weight * b.pelvis,
        rotations=blended(a.rotations, b.rotations, share),
        flexions=(1 - weight) * a.flexions + weight * b.flexions,
    )


def _procedural(
    spec: ProceduralAction,
    performer: Performer,
    rig: Rig,
    seconds: float,
    rng: np.random.Generator,
    variety: Variety,
) -> Motion:
    arm = rig.length("Shoulder") + rig.length("Elbow")
    hips = rig.rest("upperleg01.L") - rig.rest("upperleg01.R")
    sizes = Proportions(
        thigh=rig.length("Hip") / rig.leg,
        shin=rig.length("Knee") / rig.leg,
        hip=float(np.linalg.norm(hips)) / 2 / rig.leg,
        upper_arm=rig.length("Shoulder") / arm,
        forearm=rig.length("Elbow") / arm,
    )
    curves = key_curves(
        spec.gesture, seconds, INNER_RATE, rng, departure=variety.gesture, habit=performer.channels * variety.habit
    )
    gesture = motion_of_curves(curves, INNER_RATE, sizes)
    if rng.uniform() < 0.5:
        gesture = gesture.mirrored()
    if rng.uniform() >= spec.walking:
        return gesture
    walk = ACTIONS["Walking"]
    assert isinstance(walk, RecordedAction)
    steps = _recorded(walk, performer, seconds, rng).window(0, len(gesture))
    return with_arms(steps, gesture.window(0, len(steps)))
