"""The embedding head G, fitted in closed form to unlabelled views. Not in the paper.

L_cnstr moves G by steps that see a few instants each. When the features Ψ have been trained, the linear G that brings
the views of an instant together and keeps the instants of a person apart is known without steps, from all images at
once: Fisher's linear discriminant, whose classes are the instants.

References:
    Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7, 1936.
    Friedman, Regularized discriminant analysis, JASA 84, 1989: the covariance within classes is moved towards a
    diagonal one.
"""

from dataclasses import replace

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from mcss.data.capture import Capture
from mcss.data.instants import Instants, evenly_spread
from mcss.data.loading.augmentation import normalise
from mcss.models.pose_network import PoseNetwork
from mcss.models.prediction import images_at_a_time
from mcss.processes import keep_freed_memory
from mcss.progress import NO_PROGRESS, Progress

DIM = 256
"""Size of the fitted embedding. With it and `RIDGE` a search found the right instant most often on the validation
subject of the synthetic capture, among sizes of 128 to 512 and ridges of 0.003 to 1."""

RIDGE = 0.01
"""Share of the mean variance within instants that is added for every feature, in units of the feature's variance: the
variance within instants is larger for people who were not in training."""

MOST_INSTANTS = 10_000
"""Instants that G is fitted to, evenly spread over all."""

MOST_FEATURES = 8192
"""Features that G is fitted to; maps of more are averaged over neighbouring places first. Their covariances take half a
gigabyte each."""

_LEAST = 1e-8
"""Variance of a feature that never varies."""

_AT_A_TIME = 16
"""Instants whose images are decoded together."""


class _Scatter:
    """Sums over the features of images, from which the covariances within and between instants follow."""

    def __init__(self, features: int) -> None:
        self.within = np.zeros((features, features))
        self.images = 0
        self.means: list[Float[Tensor, "instants features"]] = []
        self.person: list[Int64[np.ndarray, " instants"]] = []

    def add(
        self,
        features: Float[Tensor, "images features"],
        instant: Int64[np.ndarray, " images"],
        person: Int64[np.ndarray, " instants"],
    ) -> None:
        """Count images; `instant` is the index of each one's instant, and `person` says whom these show."""
        index = torch.from_numpy(instant)
        count = torch.bincount(index, minlength=len(person))[:, None]
        means = torch.zeros(len(person), features.shape[1]).index_add_(0, index, features) / count
        apart = features - means[index]
        self.within += (apart.T @ apart).double().numpy()
        self.images += len(features)
        self.means.append(means)
        self.person.append(person)

    def discriminants(self, dim: int) -> tuple[Float64[np.ndarray, "dim features"], Float64[np.ndarray, " dim"]]:
        """Return the directions in which instants differ most, for how much views do, and what they have on average."""
        means, person = torch.cat(self.means).double().numpy(), np.concatenate(self.person)
        centre = means.mean(axis=0)
        within = self.within / self.images
        variance = np.maximum(means.var(axis=0) + np.diag(within), _LEAST)
        people = np.unique(person)
        looks = np.stack([means[person == one].mean(axis=0) for one in people])
        means -= looks[np.searchsorted(people, person)]
        between = means.T @ means / len(means)
        looks -= centre
        nuisance = within + looks.T @ looks / len(looks)  # how people look on average is to be ignored as well
        scale = np.mean(np.diag(nuisance) / variance)
        nuisance += RIDGE * scale * np.diag(variance)
        size = len(nuisance)
        dim = min(dim, size, max(1, len(means) - len(people)))
        _, found = scipy.linalg.eigh(between, nuisance, subset_by_index=[size - dim, size - 1])
        directions = np.ascontiguousarray(found.T[::-1])
        return directions, -directions @ centre


@torch.no_grad()
def with_fitted_embedding(
    network: PoseNetwork, capture: Capture, split: str = "train", progress: Progress = NO_PROGRESS
) -> PoseNetwork:
    """Return the network with a G of `DIM` dimensions, fitted to the views of a split and their mirror images.

    Its pose head says the mean pose: let it remember labels (`mcss.training.heads.remember_labels`).

    Args:
        network: The trained network, which is not changed.
        capture: A capture with two or more views; its labels are not used.
        split: Split of the images.
        progress: Notified of every image.

    Raises:
        CaptureError: There is no such split.
        ValueError: No instant of the split has two views.
    """
    instants = capture.instants(split)
    several = np.flatnonzero((instants.rows >= 0).sum(axis=1) > 1)
    if not len(several):
        raise ValueError(
            f"expected instants with two or more views to fit the embedding to, and the split {split!r} of "
            f"{capture.uri} has none; keep the embedding as it was trained, with --no-fit."
        )
    instants = instants.take(several[evenly_spread(len(several), MOST_INSTANTS)])
    keep_freed_memory()
    network.eval()
    channels, full = network.backbone.channels, network.feature_side()
    side = next(side for side in range(full, 0, -1) if side == 1 or channels * side**2 <= MOST_FEATURES)
    scatter = _Scatter(channels * side**2)
    with progress.task("Fitting the embedding", int((instants.rows >= 0).sum())) as task:
        for start in range(0, len(instants), _AT_A_TIME):
            part = instants.take(np.arange(start, min(start + _AT_A_TIME, len(instants))))
            task.advance(_count(network, capture, part, side, scatter))
    directions, offset = scatter.discriminants(DIM)
    config = replace(network.config, dim=len(directions), embedding_norm=False, embedding_hidden=0)
    fitted = PoseNetwork(config, "random", network.frame)
    fitted.backbone.load_state_dict(network.backbone.state_dict())
    fitted.pose_mean.copy_(network.pose_mean)
    fitted.pose_std.copy_(network.pose_std)
    for parameter in fitted.pose_head.parameters():
        parameter.zero_()
    assert isinstance(fitted.embedding_head, nn.Linear)
    places = nn.functional.adaptive_avg_pool2d(torch.eye(full**2).reshape(full**2, 1, full, full), side).flatten(1)
    weight = torch.from_numpy(directions).float().reshape(len(directions), channels, side**2) @ places.T
    fitted.embedding_head.weight.copy_(weight.flatten(1))
    fitted.embedding_head.bias.copy_(torch.from_numpy(offset))
    return fitted.to(next(network.parameters()).device).eval()


def _count(network: PoseNetwork, capture: Capture, instants: Instants, side: int, scatter: _Scatter) -> int:
    """Count the features of some instants' images and of their mirror images; returns how many images there are.

    The maps are averaged to `side` places in height and width.
    """
    instant, view = np.nonzero(instants.rows >= 0)
    pixels = torch.from_numpy(capture.decode(instants.rows[instant, view], network.config.image_size))
    images = normalise(pixels.permute(0, 3, 1, 2)).to(next(network.parameters()).device)
    few = images_at_a_time(network.config.image_size, images.device)
    for mirrored, shown in enumerate((images, images.flip(-1))):
        maps = torch.cat([network.features(part) for part in torch.split(shown, few)]).float()
        features = nn.functional.adaptive_avg_pool2d(maps, side).flatten(1)
        person = 2 * instants.subject + mirrored  # a mirrored person is another one
        scatter.add(features.cpu(), instant.astype(np.int64), person)
    return len(images)
