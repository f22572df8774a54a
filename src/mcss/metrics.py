"""Errors of 3D poses, one value per sample, in mm unless the name says otherwise.

No function here moves the root or leaves out a joint: the caller passes what is to be compared. Two conventions are in
use, and `mcss.evaluation.evaluate` reports both:

* *16 joints*: root-relative poses without their root. These are the numbers of this project and of the paper.
* *17 joints*: with the root, which is zero in both poses. MPJPE and N-MPJPE are then exactly 16/17 of the numbers
  above; PA-MPJPE is so only approximately, since the root takes part in the alignment.

Axis words: ``batch`` samples, ``joints``, ``queries`` × ``gallery`` pairs. Everything is computed in float64.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mcss.skeletons import BONE_ANGLES, JOINTS, joint_angles

TINY = 1e-12
"""A length (mm) or squared length (mm²) below this counts as zero."""

PCK_MM = 150.0
AUC_THRESHOLDS_MM = tuple(float(t) for t in range(0, 151, 5))

_TORSO = (JOINTS.index("Hip"), JOINTS.index("Spine"), JOINTS.index("Thorax"))


def mpjpe(pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]) -> Float[Tensor, "batch"]:
    """Mean per-joint position error: the mean distance between joints, in mm.

    Example:
        >>> mpjpe(torch.zeros(1, 2, 3), torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]])).tolist()
        [3.0]
    """
    return _joint_errors(pred.double(), target.double()).mean(-1)


def n_mpjpe(pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]) -> Float[Tensor, "batch"]:
    """MPJPE in mm after scaling each prediction about the origin (the root) by the factor that fits best.

    A prediction that is zero everywhere stays zero.

    Reference:
        Rhodin et al., CVPR 2018: s = ⟨p, g⟩ / ⟨p, p⟩ without re-centring. EpipolarPose uses the Procrustes scale
        instead.
    """
    p, g = pred.double(), target.double()
    scale = _ratio((p * g).sum((-1, -2)), (p * p).sum((-1, -2)))
    return _joint_errors(scale[..., None, None] * p, g).mean(-1)


def pa_mpjpe(pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]) -> Float[Tensor, "batch"]:
    """MPJPE in mm after aligning each prediction by the best rotation, scale and translation, without reflections."""
    return _joint_errors(procrustes_aligned(pred, target).double(), target.double()).mean(-1)


def procrustes_aligned(
    pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]
) -> Float[Tensor, "batch joints 3"]:
    """Move the predictions onto the targets by the similarity transform of least squared error, without reflections.

    A prediction whose joints coincide becomes the target's mean point: no scale can be fitted to it.

    Reference:
        Umeyama, PAMI 1991.
    """
    p_mean, g_mean = pred.double().mean(-2, keepdim=True), target.double().mean(-2, keepdim=True)
    p, g = pred.double() - p_mean, target.double() - g_mean
    u, sigma, vt = torch.linalg.svd(p.mT @ g)
    # If the best orthogonal matrix is a reflection, the weakest axis is flipped back.
    sign = torch.ones_like(sigma)
    sign[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vt) < 0, -1.0, 1.0)
    rotation: Tensor = u @ (sign[..., None] * vt)
    scale = _ratio((sigma * sign).sum(-1), (p * p).sum((-1, -2)))
    return scale[..., None, None] * (p @ rotation) + g_mean


def pck(
    pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"], threshold: float = PCK_MM
) -> Float[Tensor, "batch"]:
    """Share (0 to 1) of the joints whose error is less than `threshold` mm."""
    return (_joint_errors(pred.double(), target.double()) < threshold).double().mean(-1)


def auc(pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]) -> Float[Tensor, "batch"]:
    """Mean of `pck` (0 to 1) over the thresholds 0, 5, … 150 mm, as in MPI-INF-3DHP's own script."""
    errors = _joint_errors(pred.double(), target.double())
    thresholds = torch.tensor(AUC_THRESHOLDS_MM, dtype=errors.dtype, device=errors.device)
    return (errors[..., None] < thresholds).double().mean((-1, -2))


def angle_error(pred: Float[Tensor, "batch 17 3"], target: Float[Tensor, "batch 17 3"]) -> Float[Tensor, "batch"]:
    """Mean absolute error in degrees of the angles between each bone and the next one along the skeleton.

    These angles, such as the bend of an elbow or a knee, do not depend on body size and heading. This is not the error
    of joint *rotations*, which positions do not determine.
    """
    difference = joint_angles(pred.double(), BONE_ANGLES) - joint_angles(target.double(), BONE_ANGLES)
    return difference.abs().mean(-1).rad2deg()


def torso_length(pose: Float[Tensor, "batch 17 3"]) -> Float[Tensor, "batch"]:
    """Length of Hip→Spine→Thorax in mm, the unit of normalised Procrustes errors.

    Reference:
        Sun et al., ECCV 2020 (Pr-VIPE) scale each pose by it.
    """
    hip, spine, thorax = (pose[..., j, :].double() for j in _TORSO)
    length: Tensor = (spine - hip).norm(dim=-1) + (thorax - spine).norm(dim=-1)
    return length


def pairwise_pa_mpjpe(
    queries: Float[Tensor, "queries joints 3"], gallery: Float[Tensor, "gallery joints 3"], chunk: int = 32768
) -> Float[Tensor, "queries gallery"]:
    """PA-MPJPE in mm of every gallery pose aligned to every query pose: `pa_mpjpe(gallery[j], queries[i])`.

    The query is the target, so a row is in mm of the query's body. This is several times faster than an SVD per pair.

    Args:
        queries: Target poses.
        gallery: Poses to be aligned.
        chunk: Number of pairs that are computed together; it bounds memory and does not change the result.

    Reference:
        Theobald, Acta Cryst. 2005 (QCP) finds the largest eigenvalue λ of Horn's 4×4 matrix N by Newton's
        method. Departure: adj(N − λI) is proportional to qqᵀ and the rotation is linear in qqᵀ, so no quaternion
        has to be chosen. If λ is (nearly) a double root, as for straight lines, `pa_mpjpe` is used.
    """
    g, g_norm = _unit(queries)
    p, p_norm = _unit(gallery)
    result = torch.empty(len(g), len(p), dtype=torch.float64, device=g.device)
    step = max(1, chunk // max(1, len(p)))
    for start in range(0, len(g), step):
        rows = slice(start, start + step)
        k = [[g[rows, :, b] @ p[:, :, a].T for b in range(3)] for a in range(3)]
        rotation, cosine, sound = _rotations(k)
        mean = torch.zeros_like(cosine)
        for j in range(p.shape[1]):
            x, y, z = p[:, j].unbind(-1)
            squared = torch.zeros_like(cosine)
            for b in range(3):
                # For poses of unit norm the best scale is ⟨pR, g⟩, which is the eigenvalue itself.
                turned = (rotation[0][b] * x).addcmul_(rotation[1][b], y).addcmul_(rotation[2][b], z)
                squared += turned.mul_(cosine).sub_(g[rows, j, b, None]).square_()
            mean += squared.sqrt_()
        mean *= g_norm[rows, None] / p.shape[1]
        doubtful = ~sound & (g_norm[rows, None] > TINY) & (p_norm > TINY)
        query, entry = doubtful.nonzero(as_tuple=True)
        if len(query):
            mean[query, entry] = pa_mpjpe(gallery[entry], queries[rows][query])
        points = (p_norm <= TINY)[None, :].expand_as(mean)
        shrunk = (g[rows].norm(dim=-1).mean(-1) * g_norm[rows])[:, None].expand_as(mean)
        result[rows] = torch.where(points, shrunk, mean)
    return result


def _rotations(
    k: list[list[Float[Tensor, "*pairs"]]],
) -> tuple[list[list[Float[Tensor, "*pairs"]]], Float[Tensor, "*pairs"], Bool[Tensor, "*pairs"]]:
    """The best rotation R (pR ≈ g) for k = pᵀg of unit poses, ⟨pR, g⟩, and whether R is well determined.

    Matrices are lists of their entries, each over all pairs, so that the many small operations stay in cache.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = k
    n00, n11, n22, n33 = xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy
    n01, n02, n03 = yz - zy, zx - xz, xy - yx
    n12, n13, n23 = xy + yx, zx + xz, yz + zy
    squares = xx * xx + xy * xy + xz * xz + yx * yx + yy * yy + yz * yz + zx * zx + zy * zy + zz * zz
    c2 = -2 * squares
    c1 = -8 * (xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx))
    c0 = _det4(n00, n01, n02, n03, n11, n12, n13, n22, n23, n33)
    # λ ≤ σ1 + σ2 + σ3 ≤ √3·‖k‖. Newton's method from above never overshoots, as all roots are real.
    value = (3 * squares).sqrt()
    for _ in range(24):
        slope = (4 * value * value + 2 * c2) * value + c1
        height = ((value * value + c2) * value + c1) * value + c0
        value = value - height / torch.where(slope.abs() > TINY, slope, torch.ones_like(slope))
    m00, m11, m22, m33 = n00 - value, n11 - value, n22 - value, n33 - value
    # Cofactors of the symmetric matrix N − λI, from the 2×2 minors of its two lower and its two upper rows.
    a01, a02, a03 = n02 * n13 - n03 * n12, n02 * n23 - n03 * m22, n02 * m33 - n03 * n23
    a12, a13, a23 = n12 * n23 - n13 * m22, n12 * m33 - n13 * n23, m22 * m33 - n23 * n23
    b01, b02, b03 = m00 * m11 - n01 * n01, m00 * n12 - n02 * n01, m00 * n13 - n03 * n01
    b12, b13 = n01 * n12 - n02 * m11, n01 * n13 - n03 * m11
    q00 = m11 * a23 - n12 * a13 + n13 * a12
    q01 = -(n01 * a23 - n12 * a03 + n13 * a02)
    q02 = n01 * a13 - m11 * a03 + n13 * a01
    q03 = -(n01 * a12 - m11 * a02 + n12 * a01)
    q11 = m00 * a23 - n02 * a03 + n03 * a02
    q12 = -(m00 * a13 - n01 * a03 + n03 * a01)
    q13 = m00 * a12 - n01 * a02 + n02 * a01
    q22 = b01 * m33 - b03 * n13 + b13 * n03
    q23 = -(b01 * n23 - b02 * n13 + b12 * n03)
    q33 = b01 * m22 - b02 * n12 + b12 * n02
    trace = q00 + q11 + q22 + q33
    sound = trace.abs() > 1e-5 * squares * squares.sqrt() + TINY
    inverse = 1 / torch.where(sound, trace, torch.ones_like(trace))
    rotation = [
        [q00 + q11 - q22 - q33, 2 * (q12 + q03), 2 * (q13 - q02)],
        [2 * (q12 - q03), q00 - q11 + q22 - q33, 2 * (q23 + q01)],
        [2 * (q13 + q02), 2 * (q23 - q01), q00 - q11 - q22 + q33],
    ]
    return [[entry * inverse for entry in row] for row in rotation], value, sound


def _det4(
    m00: Tensor, m01: Tensor, m02: Tensor, m03: Tensor, m11: Tensor, m12: Tensor, m13: Tensor, m22: Tensor,
    m23: Tensor, m33: Tensor,
) -> Tensor:  # fmt: skip
    """Determinant of a symmetric 4×4 matrix, by the 2×2 minors of its upper and lower rows."""
    u01, u02, u03 = m00 * m11 - m01 * m01, m00 * m12 - m02 * m01, m00 * m13 - m03 * m01
    u12, u13, u23 = m01 * m12 - m02 * m11, m01 * m13 - m03 * m11, m02 * m13 - m03 * m12
    l01, l02, l03 = m02 * m13 - m12 * m03, m02 * m23 - m22 * m03, m02 * m33 - m23 * m03
    l12, l13, l23 = m12 * m23 - m22 * m13, m12 * m33 - m23 * m13, m22 * m33 - m23 * m23
    return u01 * l23 - u02 * l13 + u03 * l12 + u12 * l03 - u13 * l02 + u23 * l01


def _unit(poses: Float[Tensor, "n joints 3"]) -> tuple[Float[Tensor, "n joints 3"], Float[Tensor, "n"]]:
    """Centred poses of norm one and their norms in mm; a pose whose joints coincide stays zero."""
    centred = poses.double() - poses.double().mean(-2, keepdim=True)
    norm = centred.square().sum((-1, -2)).sqrt()
    return centred / torch.where(norm > TINY, norm, torch.ones_like(norm))[:, None, None], norm


def _joint_errors(
    pred: Float[Tensor, "batch joints 3"], target: Float[Tensor, "batch joints 3"]
) -> Float[Tensor, "batch joints"]:
    error: Tensor = (pred - target).norm(dim=-1)
    return error


def _ratio(numerator: Float[Tensor, "batch"], denominator: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """The quotient, or zero where the denominator is zero."""
    zero = denominator <= TINY
    return torch.where(
        zero,
        torch.zeros_like(numerator),
        numerator / torch.where(zero, torch.ones_like(denominator), denominator),
    )
