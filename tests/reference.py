"""Slow, plain numpy versions of the measures, written from their definitions; they share no code with mcss."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mpjpe(pred: Array, target: Array) -> float:
    return sum(float(np.sqrt(((p - g) ** 2).sum())) for p, g in zip(pred, target, strict=True)) / len(pred)


def n_mpjpe(pred: Array, target: Array) -> float:
    """N-MPJPE whose scale comes from least squares over all coordinates instead of the closed form."""
    scale, *_ = np.linalg.lstsq(pred.reshape(-1, 1), target.reshape(-1), rcond=None)
    return mpjpe(pred * scale[0], target)


def pa_mpjpe(pred: Array, target: Array) -> float:
    """PA-MPJPE by Kabsch with the determinant's sign, one pose at a time; the scale by least squares after rotation."""
    p, g = pred - pred.mean(0), target - target.mean(0)
    u, _, vt = np.linalg.svd(g.T @ p)
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    turned = np.stack([rotation @ joint for joint in p])
    scale, *_ = np.linalg.lstsq(turned.reshape(-1, 1), g.reshape(-1), rcond=None)
    return mpjpe(turned * scale[0], g)


def pck(pred: Array, target: Array, threshold: float) -> float:
    return sum(float(np.linalg.norm(p - g)) < threshold for p, g in zip(pred, target, strict=True)) / len(pred)


def auc(pred: Array, target: Array) -> float:
    return sum(pck(pred, target, t) for t in np.arange(0.0, 150.1, 5.0)) / 31


def angle(pose: Array, before: int, joint: int, after: int) -> float:
    a, b = pose[before] - pose[joint], pose[after] - pose[joint]
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def mean_pa_mpjpe_at_k(distances: Array, errors: Array, allowed: NDArray[np.bool_], k: int) -> list[float]:
    """Mean-PA-MPJPE@K, one query at a time, by sorting (distance, gallery index) pairs."""
    means = []
    for i in range(len(distances)):
        ranked = sorted((distances[i, j], j) for j in range(distances.shape[1]) if allowed[i, j])
        means.append(sum(errors[i, j] for _, j in ranked[:k]) / k)
    return means


def chance_of_a_hit(relevant: int, allowed: int, k: int) -> float:
    """The chance of a hit when drawing without replacement, one draw after the other."""
    miss = 1.0
    for drawn in range(k):
        miss *= max(0.0, (allowed - relevant - drawn) / (allowed - drawn))
    return 1.0 - miss
