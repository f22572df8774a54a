"""Losses: tensors in, one value per pair, image or pose out; the caller averages.

Axis words: `pairs` anchor-positive pairs of one batch, `instants` multi-view frames of one subject, `views` images of
one instant, `dim` of the embedding, `poses` labelled images, `coordinates` joint coordinates (48).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def pair_distances(
    anchor: Float[Tensor, "pairs dim"], positive: Float[Tensor, "pairs dim"]
) -> Float[Tensor, "pairs pairs"]:
    """D(i, j) = ‖anchor_i − positive_j‖₂, the norm itself and not its square; its gradient at D = 0 is 0.

    Reference:
        Mitra et al., CVPR 2020, Sec. 3.1 (the printed sub- and superscript 2 is the norm's order).
    """
    return torch.cdist(anchor, positive, compute_mode="donot_use_mm_for_euclid_dist")


def hardest_negative(distances: Float[Tensor, "pairs pairs"], beta: float) -> Float[Tensor, " pairs"]:
    """D_min of each pair: the smallest entry of its row or column above `beta`, or +∞ if there is none.

    Reference:
        Mitra et al., CVPR 2020, Eq. 1. Departure: taken literally, argmin δ(D)·D picks the very entries that
        δ zeroed; here they count as +∞.
    """
    diagonal = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    candidates = distances.masked_fill(diagonal | (distances <= beta), math.inf)
    return torch.minimum(candidates.amin(dim=1), candidates.amin(dim=0))


def multiview_contrastive(
    anchor: Float[Tensor, "pairs dim"],
    positive: Float[Tensor, "pairs dim"],
    alpha: float = 0.6,
    beta: float = 0.3,
) -> Float[Tensor, " pairs"]:
    """L_cnstr of each pair: D(i, i) + max(0, α − D_min), the paper's metric loss.

    A pair without any negative above `beta` has no hinge term (its hinge is 0, not α). A batch that has collapsed below
    β is therefore not pushed apart at all, so watch the share of such pairs: `hardest_negative` is +∞ for them.

    Args:
        anchor: Unit embeddings of one subject's images.
        positive: Row i shows the same instant as anchor i from another camera.
        alpha: Margin.
        beta: Distance above which an image counts as a negative.

    Reference:
        Mitra et al., CVPR 2020, Eq. 1 and 2. With no distance inside its duplicate band it equals HardNet's
        loss (Mishchuk et al., NeurIPS 2017) with anchor swap and margin α, plus D(i, i) outside the hinge.
    """
    distances = pair_distances(anchor, positive)
    return distances.diagonal() + (alpha - hardest_negative(distances, beta)).clamp(min=0)


def multiview_infonce(
    embedding: Float[Tensor, "instants views dim"], temperature: float
) -> Float[Tensor, "instants views"]:
    """Cross-entropy of finding an image's other views among all images of the batch, per image.

    Every other view of an instant is a positive; images of other instants, including those of the same view, are the
    negatives. The positives do not compete with each other: each is compared with the negatives alone.

    Args:
        embedding: Unit embeddings of one subject, two or more views of each instant.
        temperature: Temperature of the softmax over cosine similarities.

    Reference:
        Departure from Mitra et al., CVPR 2020, Eq. 2: the supervised contrastive loss of Khosla et al.,
        NeurIPS 2020, Eq. 2, in which each instant is a class.
    """
    instants, views, dim = embedding.shape
    flat = embedding.reshape(instants * views, dim)
    logits = flat @ flat.T / temperature
    instant = torch.arange(instants, device=embedding.device).repeat_interleave(views)
    same = instant[:, None] == instant[None, :]
    negatives = logits.masked_fill(same, -math.inf).logsumexp(dim=1, keepdim=True)
    positive_pairs = same & ~torch.eye(len(flat), dtype=torch.bool, device=embedding.device)
    cross_entropy = torch.nn.functional.softplus(negatives - logits)
    loss = (cross_entropy * positive_pairs).sum(dim=1) / (views - 1)
    return loss.reshape(instants, views)


def pose_l1(
    predicted: Float[Tensor, "poses coordinates"], target: Float[Tensor, "poses coordinates"]
) -> Float[Tensor, " poses"]:
    """L_pose of each pose: the L1 norm of the difference between its normalised joint coordinates and the true ones.

    Reference:
        Mitra et al., CVPR 2020, Sec. 3.2.1. As printed, this is a norm, summed over the coordinates and not averaged,
        so that L_cnstr, whose distances are at most 2, is the smaller part of the total.
    """
    return (predicted - target).abs().sum(dim=-1)


def fused_views(
    poses: Float[Tensor, "instants views joints 3"], outlying: float = 60.0, rounds: int = 3
) -> Float[Tensor, "instants joints 3"]:
    """Average canonical poses over the views of each instant; a view that puts a joint far from the mean counts less.

    Canonical poses of one instant are equal in all views, so no camera needs to be known. Not in the paper.

    Args:
        poses: Canonical poses in mm.
        outlying: Distance in mm from the mean beyond which a view's joint has less weight (Huber).
        rounds: Rounds of reweighting.
    """
    mean = poses.mean(dim=1)
    for _ in range(rounds):
        distance = (poses - mean[:, None]).norm(dim=-1, keepdim=True)
        weight = outlying / distance.clamp(min=outlying)
        mean = (weight * poses).sum(dim=1) / weight.sum(dim=1)
    return mean
