"""Mini-batch selection: which images each step sees, a pure function of (plan, seed, step).

A plan is computed once for a set of instants. Nothing else is kept between steps, so that a run resumed at step n draws
what an uninterrupted one would have drawn.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64

from mcss.data.instants import Instants


def generator(seed: int, purpose: str, step: int) -> np.random.Generator:
    """Return random numbers for one purpose in one step; they are independent of those for any other."""
    entropy = (seed, zlib.crc32(purpose.encode()), step)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


@dataclass(frozen=True)
class MetricSettings:
    """The size of a metric batch: several instants (multi-view frames), and several views of each."""

    instants: int = 33
    """Instants of one subject in the same outfit; with two views each, the paper's 66 images."""
    views: int = 2
    """Views of every instant, or as many as the capture has if they are fewer; 2 give anchor and positive, with 1 there
    is nothing to compare."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence, since nearly the same pose is not a negative. The paper gives
    no number; half a second is half a walking cycle."""

    def __post_init__(self) -> None:
        if self.instants < 2:
            raise ValueError(f"instants: expected 2 or more, since a negative is another instant, got {self.instants}.")
        if self.views < 1:
            raise ValueError(f"views: expected 1 or more, got {self.views}.")
        if not self.min_gap >= 0:
            raise ValueError(f"min_gap: expected 0 seconds or more, got {self.min_gap}.")


@dataclass(frozen=True, eq=False)
class MetricBatch:
    """Instants of one subject, and some views of each."""

    instants: Int64[np.ndarray, " k"]
    """Positions in the instants of the plan."""
    views: Int64[np.ndarray, "k p"]
    """View indices in random order; different within a row as long as the instant has views that are not yet in it."""


@dataclass(frozen=True, eq=False)
class PoseBatch:
    """Labelled images."""

    instants: Int64[np.ndarray, " b"]
    """Positions in the instants of the plan."""
    views: Int64[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class _Pool:
    instants: Int64[np.ndarray, " m"]
    """Positions of a subject's instants in the same outfit, by sequence and time."""
    near: tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]
    """Start and stop of the instants that are too close to each one, itself included."""
    spread: Int64[np.ndarray, " s"]
    """A largest set of instants that are far enough apart, as indices into `instants`."""


@dataclass(frozen=True, eq=False)
class MetricPlan:
    """What `metric_batch` needs to know about the instants."""

    settings: MetricSettings
    seen: Bool[np.ndarray, "n views"]
    pools: tuple[_Pool, ...]
    """One for each subject and outfit."""
    together: int = 1
    """Consecutive steps that are drawn together: they show the same subject, and no two instants are too close."""


@dataclass(frozen=True, eq=False)
class PosePlan:
    """What `pose_batch` needs to know: the labelled images."""

    instants: Int64[np.ndarray, " m"]
    views: Int64[np.ndarray, " m"]


def metric_plan(instants: Instants, settings: MetricSettings, together: int = 1) -> MetricPlan:
    """Prepare metric batches from `instants`.

    Instants that lack some views are used as far as they go: those they have come more than once, each time augmented
    differently.

    Args:
        instants: What to draw from.
        settings: The size of a batch.
        together: Consecutive steps that are drawn together, for devices that compare their images with each other's.

    Raises:
        ValueError: A subject has no instant with two views, or too few instants that are far enough apart.
    """
    seen = instants.rows >= 0
    counts = seen.sum(axis=1)
    least = min(settings.views, 2)
    usable = counts >= least
    settings = replace(settings, views=max(least, min(settings.views, int(counts.max(initial=0)))))
    plans, needed = [], settings.instants * together
    for subject, outfit in np.unique(np.stack([instants.subject, instants.outfit]), axis=1).T.tolist():
        name = instants.subjects[subject]
        dressed_so = (instants.subject == subject) & (instants.outfit == outfit)
        mine = np.flatnonzero(dressed_so & usable)
        if not len(mine):
            raise ValueError(
                f"views: a metric batch needs {least} views of an instant, but instants of {name} have at most "
                f"{counts[dressed_so].max()}; leave {name} out"
            )
        mine = mine[np.lexsort((instants.time[mine], instants.sequence[mine]))]
        plan = _pool(mine, instants.time[mine], instants.sequence[mine], settings.min_gap)
        if len(plan.spread) < needed:
            devices = f" of {together} devices together" if together > 1 else ""
            raise ValueError(
                f"instants: a metric batch{devices} needs {needed} instants of one subject in one outfit that are "
                f"{settings.min_gap:g} s apart (--min-gap), but {name} has {len(mine)} instants"
                f"{_outfit_in_words(instants, subject, outfit)}, of which at most "
                f"{len(plan.spread)} are; use --instants {len(plan.spread) // together} or fewer, or lower --min-gap"
            )
        plans.append(plan)
    return MetricPlan(settings=settings, seen=seen, pools=tuple(plans), together=together)


def metric_batch(plan: MetricPlan, seed: int, step: int) -> MetricBatch:
    """Draw instants of one subject, no two of a sequence closer than ``min_gap``, with different views of each.

    Subjects take turns, in a new order in every round. A subject with several outfits has a turn for each of them.

    Reference:
        Mitra et al., CVPR 2020, Sec. 3.1.1: one subject, so that appearance does not distinguish the images. Departure:
        one outfit too, for the same reason.
    """
    draw, part = divmod(step, plan.together)
    rng = generator(seed, "metric batch", draw)
    turn, position = divmod(draw, len(plan.pools))
    pool = plan.pools[generator(seed, "turn of subjects", turn).permutation(len(plan.pools))[position]]
    chosen = pool.instants[_far_apart(pool, plan.settings.instants * plan.together, rng)]
    keys = np.where(plan.seen[chosen], rng.random((len(chosen), plan.seen.shape[1])), 2.0)
    order, counts = keys.argsort(axis=1), plan.seen[chosen].sum(axis=1, keepdims=True)
    views = np.take_along_axis(order, np.arange(plan.settings.views) % counts, axis=1)
    own = slice(part * plan.settings.instants, (part + 1) * plan.settings.instants)
    return MetricBatch(chosen[own], views[own])


def pose_plan(images: Bool[np.ndarray, "n views"]) -> PosePlan:
    """Prepare pose batches from the labelled images (see `mcss.data.labels.labelled_images`).

    Raises:
        ValueError: There are no labelled images.
    """
    instants, views = np.nonzero(images)
    if not len(instants):
        raise ValueError("labels: a pose batch needs labelled images, but there are none; choose other labels")
    return PosePlan(instants=instants.astype(np.int64), views=views.astype(np.int64))


def pose_batch(plan: PosePlan, size: int, seed: int, step: int) -> PoseBatch:
    """Draw `size` labelled images; each is drawn once before any is drawn again."""
    count = len(plan.instants)
    epoch, position = np.divmod(np.arange(step * size, (step + 1) * size), count)
    chosen = np.concatenate([_shuffled(count, seed, int(e))[position[epoch == e]] for e in np.unique(epoch)])
    return PoseBatch(instants=plan.instants[chosen], views=plan.views[chosen])


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    """Return a permutation for one epoch, cached because a million indices take longer than a step may."""
    order = generator(seed, "pose epoch", epoch).permutation(count)
    order.flags.writeable = False
    return order


def _pool(
    instants: Int64[np.ndarray, " m"],
    time: np.ndarray,
    sequence: Int64[np.ndarray, " m"],
    min_gap: float,
) -> _Pool:
    # One clock for all sequences, far apart on it; a microsecond of tolerance for rounded times.
    gap = max(min_gap - 1e-6, 0.0)
    clock = time - time.min() + sequence * (np.ptp(time) + min_gap + 1)
    first = np.searchsorted(clock, clock - gap, side="right") if gap else np.arange(len(clock))
    stop = np.searchsorted(clock, clock + gap, side="left") if gap else np.arange(len(clock)) + 1
    return _Pool(instants=instants, near=(first, stop), spread=_largest_spread(stop.tolist()))


def _outfit_in_words(instants: Instants, subject: int, outfit: int) -> str:
    """Say in which sequence an outfit is worn, for messages; nothing if the subject has one outfit only."""
    own = instants.subject == subject
    if (instants.outfit[own] == outfit).all():
        return ""
    first = instants.sequences[instants.sequence[own & (instants.outfit == outfit)][0]]
    return f" dressed as in {first}"


def _largest_spread(stop: Sequence[int]) -> Int64[np.ndarray, " s"]:
    """Take the earliest instant that is far enough from the last one, again and again: no choice holds more."""
    spread = [0]
    while stop[spread[-1]] < len(stop):
        spread.append(stop[spread[-1]])
    return np.array(spread, np.int64)


def _far_apart(pool: _Pool, count: int, rng: np.random.Generator) -> Int64[np.ndarray, " k"]:
    """Draw the indices of `count` instants one by one from those that are far enough from all drawn before.

    This may come to a dead end where the instants only just suffice; then some of a largest set are taken.
    """
    first, stop = pool.near
    free = np.ones(len(pool.instants), bool)
    drawn: list[int] = []
    for candidate in rng.permutation(len(free)).tolist():
        if free[candidate]:
            drawn.append(candidate)
            if len(drawn) == count:
                return np.array(drawn, np.int64)
            free[first[candidate] : stop[candidate]] = False
    return rng.choice(pool.spread, size=count, replace=False)
