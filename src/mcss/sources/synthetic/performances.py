"""Who performs what: every subject's sequences, in a style of their own.

All subjects perform the same actions, as in a laboratory set. What differs is the performance: the subject's
habits (constant departures of all joint angles), each sequence's own style draw (departures, amplitude, tempo,
mirroring, order, path) and, from recordings that are long enough, which part of the recording is used.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mcss.sources.synthetic.gestures import CHANNELS, Proportions, key_curves, posed, with_arms
from mcss.sources.synthetic.mocap import HINGES, PARTS, Motion, blended, joined, recordings
from mcss.sources.synthetic.retargeting import Build, bone_rotations, stand_on_floor
from mcss.sources.synthetic.styles import INNER_RATE, Person, Variety, on_stage, paced, styled


@dataclass(frozen=True)
class Recorded:
    """An action taken from recordings.

    Attributes:
        clips: Names in `mocap.recordings`, with the part of the clip to use as fractions of its length.
        leaves_floor: Whether feet leave the floor (see `retargeting.stand_on_floor`).
        cyclic: Clips are one cycle each, in the same phase, and may be blended.
        path_scale: How much of the recorded travel is kept: nobody runs far on a small stage.
        weight: Length of the action's sequences relative to the other actions'.
    """

    clips: tuple[tuple[str, float, float], ...]
    leaves_floor: bool = True
    cyclic: bool = False
    path_scale: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class Procedural:
    """An action of `gestures.GESTURES`, standing or, for a share of the sequences, while walking."""

    gesture: str
    walking: float = 0.0
    weight: float = 1.0


Action = Recorded | Procedural

_WALKS = tuple(
    (name, 0.0, 1.0) for name in ("walk", "0walk_forward", "turn_left0", "turn_left1", "turn_right0", "turn_right1")
)

ACTIONS: dict[str, Action] = {
    "Walking": Recorded(_WALKS, leaves_floor=False, cyclic=True, weight=1.4),
    "Running": Recorded((("run", 0.0, 1.0),), cyclic=True, path_scale=0.6),
    "Jumping": Recorded((("jump", 0.0, 1.0), ("cmu_01_01", 0.1, 0.95))),
    "Kicking": Recorded((("kick", 0.0, 1.0),), leaves_floor=False, weight=0.6),
    "Punching": Recorded((("punch", 0.0, 1.0),), leaves_floor=False, path_scale=0.7),
    "Dancing": Recorded((("dance_a", 0.0, 1.0), ("dance_b", 0.0, 1.0))),
    "Spinning": Recorded((("spin", 0.0, 1.0),), weight=0.5),
    "Climbing": Recorded(
        (
            ("climb_0", 0.12, 0.85),
            ("climb_1", 0.12, 0.75),
            ("climb_2", 0.12, 0.65),
            ("climb_3", 0.12, 0.75),
            ("cmu_01_03", 0.02, 0.98),
        ),
        leaves_floor=False,
    ),
    "Crawling": Recorded((("crawl", 0.0, 1.0), ("climb_4", 0.16, 0.9)), leaves_floor=False, weight=0.4),
    "Getting up": Recorded((("getup_facedown", 0.0, 1.0), ("getup_faceup", 0.0, 1.0)), leaves_floor=False, weight=0.5),
    "Phoning": Procedural("Phoning", walking=0.5, weight=1.2),
    "Pointing": Procedural("Pointing", walking=0.25, weight=1.2),
    "Sitting": Procedural("Sitting", weight=1.2),
    "Reaching": Procedural("Reaching", weight=1.2),
    "Stretching": Procedural("Stretching", weight=1.2),
    "Waiting": Procedural("Waiting", walking=0.25, weight=1.2),
}
"""What every subject performs."""

NEW_ACTIONS: dict[str, Action] = {
    "Cartwheel": Recorded((("cartwheel", 0.0, 1.0),), leaves_floor=False),
    "Backflip": Recorded((("backflip", 0.0, 1.0),)),
    "Rolling": Recorded((("roll", 0.0, 1.0),), leaves_floor=False),
    "Spin kick": Recorded((("spinkick", 0.0, 1.0),)),
}
"""What only the subjects of the split `new-motion` perform."""


@dataclass(frozen=True)
class Performance:
    """One continuous sequence of one subject.

    Attributes:
        subject: For example "S1".
        sequence: For example "Walking 1"; unique within the subject.
        action: For example "Walking".
        rate: Frames per second.
        orientations: World rotation of every bone relative to its rest.
        pelvis: Mean of the hips on the stage in metres, +Z up, floor at z = 0.
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
    """A generator that depends on the seed and the names alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, *(zlib.crc32(name.encode()) for name in names)]))


def perform(
    subject: str,
    seed: int,
    rest_joints: Float[np.ndarray, "bones 3"],
    bone_names: Sequence[str],
    bone_parents: Sequence[int],
    instants: int = 2080,
    *,
    rate: float = 10.0,
    takes: int = 2,
    actions: Sequence[str] | None = None,
    variety: Variety | None = None,
) -> list[Performance]:
    """All sequences of one subject.

    Depends on the seed, the subject's name and its body alone: subjects can be made in any order.

    Args:
        subject: Name; ends in a number for the subjects of one capture ("S1", "S2", …), which decides the
            subject's part of the long recordings.
        seed: Of the whole capture.
        rest_joints: Bone heads at rest in metres, +Z up.
        bone_names: Anny's.
        bone_parents: Index of each bone's parent, −1 for the root.
        instants: Frames over all *shared* actions (rounded up), spread by their weights; new actions come on top.
        rate: Frames per second.
        takes: Sequences per action.
        actions: Names from `ACTIONS` and `NEW_ACTIONS`; all of `ACTIONS` by default.
        variety: How much performances differ.
    """
    known = ACTIONS | NEW_ACTIONS
    chosen = tuple(ACTIONS) if actions is None else tuple(actions)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"there is no action {unknown[0]!r}; choose from {', '.join(known)}")
    if takes < 1 or rate <= 0:
        raise ValueError(f"takes and rate must be positive, got takes={takes} and rate={rate}")
    shared = [name for name in chosen if name in ACTIONS] or list(chosen)
    unit = instants / (takes * sum(known[name].weight for name in shared))
    frames = {name: math.ceil(unit * known[name].weight) for name in chosen}
    if min(frames.values()) < 2:
        raise ValueError(
            f"{instants} instants are too few for {len(chosen) * takes} sequences of two frames or more; "
            f"ask for {8 * len(chosen) * takes} instants, or for fewer takes or actions"
        )
    build = Build.of(rest_joints, bone_names, bone_parents)
    variety = variety or Variety()
    return [
        _sequence(subject, seed, build, name, take, frames[name], rate, variety)
        for name in chosen
        for take in range(1, takes + 1)
    ]


def _sequence(
    subject: str, seed: int, build: Build, action: str, take: int, frames: int, rate: float, variety: Variety
) -> Performance:
    habit = _generator(seed, subject, "habit")
    rng = _generator(seed, subject, action, str(take))
    tempo = float(np.exp(variety.tempo * (habit.normal() + rng.normal()) * 0.7))
    person = Person(subject, *(habit.normal(size=n) for n in (3 * len(PARTS), len(HINGES), len(CHANNELS))))
    spec = (ACTIONS | NEW_ACTIONS)[action]
    seconds = (frames - 1) / rate
    if isinstance(spec, Recorded):
        motion = _recorded(spec, person, seconds * tempo + 0.5, rng)
        leaves_floor = spec.leaves_floor
        motion = replace(motion, pelvis=motion.pelvis * [spec.path_scale, spec.path_scale, 1.0])
        strength = 1.0
    else:
        motion = _procedural(spec, person, build, seconds * tempo + 0.5, rng, variety)
        leaves_floor, strength = False, 0.5
    motion = paced(motion, tempo, seconds, rng)
    motion = styled(motion, person, rng, variety, strength)
    motion = on_stage(motion, build, rng)
    orientations = bone_rotations(motion, build)
    pelvis = stand_on_floor(orientations, motion.pelvis * build.leg, build, INNER_RATE, leaves_floor)
    keep = np.round(np.arange(frames) * INNER_RATE / rate).astype(int)
    return Performance(
        subject=subject,
        sequence=f"{action} {take}",
        action=action,
        rate=rate,
        orientations=orientations[keep].astype(np.float32),
        pelvis=pelvis[keep].astype(np.float32),
    )


SHARES = 8
"""Long recordings are dealt out in so many parts, one per subject; a ninth subject uses the first's part again."""
_LONG_SECONDS = 12.0


def _excerpt(clip: tuple[str, float, float], person: Person) -> Motion:
    """The clip, or of a long one the person's own part of it."""
    name, start, stop = clip
    motion = recordings()[name]
    first, last = int(start * len(motion)), int(stop * len(motion))
    motion = motion.window(first, last)
    if motion.seconds < _LONG_SECONDS:
        return motion
    # The clips' names shift the deal, so that no subject has all the beginnings.
    share = (person.number * 3 + zlib.crc32(name.encode())) % SHARES
    edges = np.linspace(0, len(motion), SHARES + 1).astype(int).tolist()
    return motion.window(edges[share], edges[share + 1])


def _recorded(spec: Recorded, person: Person, seconds: float, rng: np.random.Generator) -> Motion:
    """Clips of an action one after the other, in random order, some of them mirrored."""
    whole: Motion | None = None
    queue: list[int] = []
    while whole is None or whole.seconds < seconds:
        if not queue:
            queue = list(rng.permutation(len(spec.clips)))
        piece = _excerpt(spec.clips[queue.pop()], person)
        if spec.cyclic and len(spec.clips) > 1:
            other = _excerpt(spec.clips[int(rng.integers(len(spec.clips)))], person)
            piece = _mixed(piece, other, float(rng.uniform(0.0, 1.0)))
        if not spec.cyclic and rng.uniform() < 0.5:
            piece = piece.mirrored()
        whole = piece if whole is None else joined(whole, piece, 4 if spec.cyclic else 14)
    if spec.cyclic and rng.uniform() < 0.5:
        whole = whole.mirrored()
    return whole


def _mixed(a: Motion, b: Motion, weight: float) -> Motion:
    """A blend of two cycles that are in the same phase."""
    b = b.at(np.linspace(0.0, b.seconds, len(a)), a.rate)
    share = np.full((len(a), len(PARTS)), weight)
    return Motion(
        rate=a.rate,
        pelvis=(1 - weight) * a.pelvis + weight * b.pelvis,
        rotations=blended(a.rotations, b.rotations, share),
        flexions=(1 - weight) * a.flexions + weight * b.flexions,
    )


def _procedural(
    spec: Procedural,
    person: Person,
    build: Build,
    seconds: float,
    rng: np.random.Generator,
    variety: Variety,
) -> Motion:
    arm = build.length("Shoulder") + build.length("Elbow")
    hips = build.rest("upperleg01.L") - build.rest("upperleg01.R")
    sizes = Proportions(
        thigh=build.length("Hip") / build.leg,
        shin=build.length("Knee") / build.leg,
        hip=float(np.linalg.norm(hips)) / 2 / build.leg,
        upper_arm=build.length("Shoulder") / arm,
        forearm=build.length("Elbow") / arm,
    )
    curves = key_curves(
        spec.gesture, seconds, INNER_RATE, rng, departure=variety.gesture, habit=person.channels * variety.habit
    )
    gesture = posed(curves, INNER_RATE, sizes)
    if rng.uniform() < 0.5:
        gesture = gesture.mirrored()
    if rng.uniform() >= spec.walking:
        return gesture
    walk = ACTIONS["Walking"]
    assert isinstance(walk, Recorded)
    steps = _recorded(walk, person, seconds, rng).window(0, len(gesture))
    return with_arms(steps, gesture.window(0, len(steps)))
