"""Mini-batch selection: which images each step sees, a pure function of (plan, seed, step).

A plan is what can be worked out once for a set of instants. Nothing else is remembered between steps, so that a
run that is resumed at step n draws what an uninterrupted one would have drawn.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64

from mcss.data.instants import Instants


def generator(seed: int, purpose: str, step: int) -> np.random.Generator:
    """Random numbers for one purpose in one step; independent of those for any other."""
    entropy = (seed, zlib.crc32(purpose.encode()), step)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


@dataclass(frozen=True)
class MetricSettings:
    """What a metric batch holds."""

    instants: int = 33
    """Instants of one subject in the same clothes; with two views each, the paper's 66 images."""
    views: int = 2
    """Different views of every instant; 2 give anchor and positive, 1 compares none."""
    min_gap: float = 0.5
    """Seconds by which two instants of one sequence differ at least, for a near twin is no negative. The paper
    gives no number; half a second is half a walking cycle."""

    def __post_init__(self) -> None:
        if self.instants < 2:
            raise ValueError(f"instants: a negative needs at least 2 instants, came {self.instants}")
        if self.views < 1:
            raise ValueError(f"views: expected 1 or more, got {self.views}.")
        if not self.min_gap >= 0:
            raise ValueError(f"min_gap: expected seconds ≥ 0, came {self.min_gap}")


@dataclass(frozen=True, eq=False)
class MetricBatch:
    """Instants of one subject, and views of each."""

    instants: Int64[np.ndarray, " k"]
    """Positions in the instants of the plan."""
    views: Int64[np.ndarray, "k p"]
    """View indices, different within a row, in random order."""


@dataclass(frozen=True, eq=False)
class PoseBatch:
    """Labelled images."""

    instants: Int64[np.ndarray, " b"]
    """Positions in the instants of the plan."""
    views: Int64[np.ndarray, " b"]


@dataclass(frozen=True, eq=False)
class _Pool:
    instants: Int64[np.ndarray, " m"]
    """Positions of a subject's instants in the same clothes, by sequence and time."""
    near: tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]
    """First and last-plus-one of those that are too near to each one, itself included."""
    spread: Int64[np.ndarray, " s"]
    """A largest set of instants that are far enough apart, as places in `instants`."""


@dataclass(frozen=True, eq=False)
class MetricPlan:
    """What `metric_batch` needs to know of the instants."""

    settings: MetricSettings
    seen: Bool[np.ndarray, "n views"]
    pools: tuple[_Pool, ...]
    """One for each subject and look."""


@dataclass(frozen=True, eq=False)
class PosePlan:
    """What `pose_batch` needs to know: the labelled images."""

    instants: Int64[np.ndarray, " m"]
    views: Int64[np.ndarray, " m"]


def metric_plan(instants: Instants, settings: MetricSettings) -> MetricPlan:
    """Prepare metric batches from `instants`.

    Raises:
        ValueError: A subject has too few views, or too few instants that are far enough apart, for one batch.
    """
    seen = instants.rows >= 0
    usable = seen.sum(axis=1) >= settings.views
    plans = []
    for subject, look in np.unique(np.stack([instants.subject, instants.outfit]), axis=1).T.tolist():
        name = instants.subjects[subject]
        own = (instants.subject == subject) & (instants.outfit == look)
        mine = np.flatnonzero(own & usable)
        if not len(mine):
            most = int(seen[own].sum(axis=1).max())
            raise ValueError(
                f"views: a metric batch needs {settings.views} views of an instant, but those of {name} have at most "
                f"{most}" + (f"; set views to {most} or leave {name} out" if most >= 2 else f"; leave {name} out")
            )
        mine = mine[np.lexsort((instants.time[mine], instants.sequence[mine]))]
        plan = _pool(mine, instants.time[mine], instants.sequence[mine], settings.min_gap)
        if len(plan.spread) < settings.instants:
            raise ValueError(
                f"instants: a metric batch needs {settings.instants} instants of one subject, dressed alike, that are "
                f"min_gap = {settings.min_gap:g} s apart, but {name} has {len(mine)} instants"
                f"{_clothes(instants, subject, look)}, of which at most "
                f"{len(plan.spread)} are; set instants to at most {len(plan.spread)}, or lower min_gap"
            )
        plans.append(plan)
    return MetricPlan(settings=settings, seen=seen, pools=tuple(plans))


def metric_batch(plan: MetricPlan, seed: int, step: int) -> MetricBatch:
    """Instants of one subject, no two of a sequence nearer than ``min_gap``, with different views of each.

    The subjects take turns, in an order that is new in every round. One who changes clothes takes a turn in each.

    Reference:
        Mitra et al., CVPR 2020, Sec. 3.1.1: of one subject, lest looks tell the images apart. Departure: in the same
        clothes too, for the same reason.
    """
    rng = generator(seed, "metric batch", step)
    turn, place = divmod(step, len(plan.pools))
    pool = plan.pools[generator(seed, "turn of subjects", turn).permutation(len(plan.pools))[place]]
    chosen = pool.instants[_far_apart(pool, plan.settings.instants, rng)]
    keys = np.where(plan.seen[chosen], rng.random((len(chosen), plan.seen.shape[1])), 2.0)
    return MetricBatch(instants=chosen, views=keys.argsort(axis=1)[:, : plan.settings.views])


def pose_plan(images: Bool[np.ndarray, "n views"]) -> PosePlan:
    """Prepare pose batches from the labelled images (see `mcss.data.labels.labelled_images`).

    Raises:
        ValueError: There are none.
    """
    instants, views = np.nonzero(images)
    if not len(instants):
        raise ValueError("labels: a pose batch needs labelled images, there are none; choose other labels")
    return PosePlan(instants=instants.astype(np.int64), views=views.astype(np.int64))


def pose_batch(plan: PosePlan, size: int, seed: int, step: int) -> PoseBatch:
    """`size` labelled images; every one comes once before any comes again."""
    count = len(plan.instants)
    epoch, place = np.divmod(np.arange(step * size, (step + 1) * size), count)
    drawn = np.concatenate([_shuffled(count, seed, int(e))[place[epoch == e]] for e in np.unique(epoch)])
    return PoseBatch(instants=plan.instants[drawn], views=plan.views[drawn])


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    """A permutation for one epoch, remembered because a million take longer than a step may."""
    order = generator(seed, "pose epoch", epoch).permutation(count)
    order.flags.writeable = False
    return order


def _pool(
    instants: Int64[np.ndarray, " m"],
    time: np.ndarray,
    sequence: Int64[np.ndarray, " m"],
    min_gap: float,
) -> _Pool:
    # One clock for all sequences, in which they lie far apart; a microsecond's grace for rounded times.
    gap = max(min_gap - 1e-6, 0.0)
    clock = time - time.min() + sequence * (np.ptp(time) + min_gap + 1)
    first = np.searchsorted(clock, clock - gap, side="right") if gap else np.arange(len(clock))
    stop = np.searchsorted(clock, clock + gap, side="left") if gap else np.arange(len(clock)) + 1
    return _Pool(instants=instants, near=(first, stop), spread=_largest_spread(stop.tolist()))


def _clothes(instants: Instants, subject: int, look: int) -> str:
    """Which sequences a look of a subject means, for messages; nothing if the subject has one look only."""
    own = instants.subject == subject
    if (instants.outfit[own] == look).all():
        return ""
    first = instants.sequences[instants.sequence[own & (instants.outfit == look)][0]]
    return f" dressed as in {first}"


def _largest_spread(stop: Sequence[int]) -> Int64[np.ndarray, " s"]:
    """Always the earliest instant that is far enough from the last one: no choice of instants holds more."""
    spread = [0]
    while stop[spread[-1]] < len(stop):
        spread.append(stop[spread[-1]])
    return np.array(spread, np.int64)


def _far_apart(pool: _Pool, count: int, rng: np.random.Generator) -> Int64[np.ndarray, " k"]:
    """Places of `count` instants, drawn one by one from those that are far from all drawn before.

    That may come to a dead end where the instants only just suffice; then some of a largest set are taken.
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
