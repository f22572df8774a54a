"""The pose network: backbone F, embedding head G and pose head H."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.models.backbones import Backbone, BackboneName, build_backbone, check_backbone_name
from mcss.skeletons import JOINTS, PoseFrame

OUTPUT_JOINTS = len(JOINTS) - 1
"""H predicts all joints but the root, which is zero by definition."""

MAX_FEATURE_SIDE = 4
"""The feature map is max-pooled by 2, with ceil, until its side is at most this (7 → 4, 8 → 4)."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network's architecture; stored with every checkpoint."""

    backbone: BackboneName = "resnet18"
    """Architecture of the backbone F: resnet18, resnet34, resnet50, tf_efficientnet_lite0, blazepose, or any network of
    timm as timm/NAME, such as timm/vit_small_patch14_dinov2. With another one than the recipe's, no stages are frozen
    by default."""
    batchnorm_affine: bool = False
    """Keep scale and shift of the backbone's BatchNorm layers. The paper turns them off (Sec. 4)."""
    dim: int = 128
    """Size of the embedding φ (dim φ in the paper)."""
    embedding_norm: bool = False
    """BatchNorm without scale and shift before the L2-normalisation, to keep φ from collapsing. Not in the paper."""
    embedding_hidden: int = 0
    """Width of a hidden layer with BatchNorm in the embedding head G; 0 for the paper's single layer."""
    scaled_embedding: bool = False
    """Feed √dim·φ to the pose head H, so that its inputs have unit variance. Not in the paper, whose H learns
    slowly."""
    head_hidden: int = 0
    """Width of a hidden layer in the pose head H; 0 for the paper's single layer FC(dim, 48)."""
    dropout: float = 0.0
    """Share of the feature map's channels dropped before the embedding head G while training. Not in the paper."""
    image_size: int = 224
    """Side of the square input image in pixels."""

    def __post_init__(self) -> None:
        check_backbone_name(self.backbone)
        if self.dim < 2:
            raise ValueError(f"dim: expected 2 or more, got {self.dim}.")
        if self.image_size < 32:
            raise ValueError(f"image_size: expected 32 or more, got {self.image_size}.")


class NetworkOutput(NamedTuple):
    """What the network predicts for a batch of images (not a dataclass: Fabric's wrapper takes frozen ones apart)."""

    embedding: Float[Tensor, "batch dim"]
    """The embedding φ: unit vectors."""
    coordinates: Float[Tensor, "batch 48"]
    """H's normalised joint coordinates; `PoseNetwork.denormalised` turns them into mm."""


_LEAST_DEVIATION = 0.5
"""Share of the deviation of all features that every one is taken to have at least, since some hardly ever vary."""


@runtime_checkable
class Inputs(Protocol):
    """Images, or what a stage of the backbone takes."""

    @property
    def images(self) -> Float[Tensor, "batch _ _ _"]:
        """The images, or the maps."""

    @property
    def first_stage(self) -> int:
        """The stage that takes them; 0 for images."""


EMBEDDING_CONFIG = frozenset(
    {"dim", "embedding_norm", "embedding_hidden", "scaled_embedding", "head_hidden", "dropout"}
)
"""Fields of `NetworkConfig` that describe G and H, for networks without them."""


class PoseEstimator(nn.Module):
    """A backbone F and the conversion of normalised coordinates to mm; subclasses define what lies between.

    A subclass has its own `KIND`, and an `architecture` if its config does not describe it completely.

    Attributes:
        config: The architecture of the backbone, and what the subclass takes from it.
        frame: The coordinate frame of the predicted poses.
        backbone: The backbone F.
    """

    KIND: ClassVar[str]
    """What a model file calls this kind of network."""
    UNUSED_CONFIG: ClassVar[frozenset[str]] = frozenset()
    """Fields of `NetworkConfig` that this kind of network has no use for."""
    ARCHITECTURE: ClassVar[Any] = None
    """The dataclass of what `architecture` describes; None for a network that its config describes completely."""

    pose_mean: Tensor
    pose_std: Tensor
    pose_head: nn.Module

    def __init__(self, config: NetworkConfig, weights: str, frame: PoseFrame) -> None:
        super().__init__()
        self.config = config
        self.frame: PoseFrame = frame
        self.encoder_frozen = False
        self.backbone: Backbone = build_backbone(config.backbone, weights, config.batchnorm_affine, config.image_size)
        self.register_buffer("pose_mean", torch.zeros(OUTPUT_JOINTS, 3))
        self.register_buffer("pose_std", torch.ones(OUTPUT_JOINTS, 3))

    @property
    def architecture(self) -> dict[str, Any]:
        """JSON values from which, with config and frame, `untrained` builds the same network again."""
        return {}

    @classmethod
    @abstractmethod
    def untrained(cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]) -> "PoseEstimator":
        """Return a network of this kind with random weights."""

    @torch.no_grad()
    def feature_side(self) -> int:
        """Return the side of the feature map Ψ."""
        size = self.config.image_size
        training = self.backbone.training
        self.backbone.eval()
        side = self.backbone(torch.zeros(1, 3, size, size)).shape[-1]
        self.backbone.train(training)
        while side > MAX_FEATURE_SIDE:
            side = -(-side // 2)
        return int(side)

    @torch.no_grad()
    def map_shape(self, stages: int) -> tuple[int, int]:
        """Return channels and side of the map after the first `stages` stages of the backbone.

        Raises:
            ValueError: The backbone has fewer stages.
        """
        if not 1 <= stages <= len(self.backbone.stages):
            raise ValueError(f"stages: expected 1 to {len(self.backbone.stages)}, those of the backbone, got {stages}.")
        training, size = self.backbone.training, self.config.image_size
        self.backbone.eval()
        shape = self.backbone(torch.zeros(1, 3, size, size), 0, stages).shape
        self.backbone.train(training)
        return int(shape[1]), int(shape[2])

    def features(
        self, images: Float[Tensor, "batch _ _ _"], first: int = 0
    ) -> Float[Tensor, "batch channels side side"]:
        """Return Ψ of images, or of what stage `first` of the backbone takes."""
        psi: Tensor = self.backbone(images, first)
        while psi.shape[-1] > MAX_FEATURE_SIDE:
            psi = nn.functional.max_pool2d(psi, 2, ceil_mode=True)
        return psi

    def freeze_encoder(self) -> None:
        """Freeze everything but the pose head from now on, BatchNorm statistics included."""
        self.encoder_frozen = True
        self.requires_grad_(False)
        self.pose_head.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PoseEstimator":
        """Set training mode, except for what is frozen."""
        super().train(mode)
        if self.encoder_frozen:
            for child in self.children():
                child.train(mode and child is self.pose_head)
        return self

    def set_pose_statistics(self, poses: Float[Tensor, "poses 17 3"]) -> None:
        """Set mean and standard deviation of every joint coordinate from the labelled training poses.

        Coordinates that never vary (the left hip's Y in canonical pose) keep a deviation of 1 mm.
        """
        body = poses[:, 1:]
        self.pose_mean.copy_(body.mean(dim=0))
        self.pose_std.copy_(body.std(dim=0, correction=0).clamp(min=1.0))

    @property
    def has_pose_statistics(self) -> bool:
        """Whether mean and standard deviation of the joint coordinates have been set."""
        return not bool((self.pose_std == 1).all())

    def normalised(self, poses: Float[Tensor, "batch 17 3"]) -> Float[Tensor, "batch 48"]:
        """Return joint coordinates in standard deviations from the mean of the labelled training poses."""
        return ((poses[:, 1:] - self.pose_mean) / self.pose_std).flatten(1)

    def denormalised(self, coordinates: Float[Tensor, "batch 48"]) -> Float[Tensor, "batch 17 3"]:
        """Return poses in mm in the network's coordinate frame, the root at the origin."""
        poses = coordinates.reshape(-1, OUTPUT_JOINTS, 3) * self.pose_std + self.pose_mean
        return nn.functional.pad(poses, (0, 0, 1, 0))

    def standardise(self, batches: Iterable[Inputs]) -> None:
        """Prepare for training on other images than before, without changing what is predicted; here nothing to do."""

    def poses(self, images: Float[Tensor, "batch _ _ _"], first: int = 0) -> Float[Tensor, "batch 17 3"]:
        """Return poses in mm of images, or of what stage `first` of the backbone takes."""
        poses: Tensor = self.denormalised(self(images, first).coordinates)
        return poses


class _Standardised(nn.Module):
    """Subtracts a mean of every feature and divides by a deviation; both are constants, 0 and 1 at first."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """The standardised features."""
        return (features - self.mean) / self.std


NEIGHBOURS, NEIGHBOUR_TEMPERATURE = 100, 0.05
"""Labelled neighbours that a pose is read off, and how their weight falls with the distance; chosen on the validation
subject of the synthetic capture among 10, 30 and 100 neighbours and temperatures of 0.03, 0.05, 0.1 and 0.2. More make
no difference there: with 300 or 1,000 the error is the same within 0.2 mm."""


@dataclass(frozen=True)
class PoseArchitecture:
    """What a `PoseNetwork` has that its config does not tell."""

    neighbours: int = 0
    """Labelled poses that a `NeighbourHead` knows; 0 for the pose head H."""
    nearest: int = NEIGHBOURS
    """How many of them it reads a pose off."""


class NeighbourHead(nn.Module):
    """Reads a pose off the nearest labelled poses in the embedding: their mean, weighted by a softmax of the cosines.

    Not in the paper. It has nothing to learn, so few labels cannot be learned by heart, and it profits from labels
    that were made after training.
    """

    known: Tensor
    coordinates: Tensor

    def __init__(
        self, known: Float[Tensor, "labels dim"], coordinates: Float[Tensor, "labels 48"], nearest: int = NEIGHBOURS
    ) -> None:
        super().__init__()
        self.nearest = nearest
        self.register_buffer("known", known)
        self.register_buffer("coordinates", coordinates)

    def forward(self, embedding: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch 48"]:
        """Return the normalised joint coordinates for embeddings of any length."""
        cosines = nn.functional.normalize(embedding, dim=1) @ self.known.T
        nearest, index = cosines.topk(min(self.nearest, len(self.known)), dim=1)
        weights = (nearest / NEIGHBOUR_TEMPERATURE).softmax(dim=1)
        return (weights[:, :, None] * self.coordinates[index]).sum(dim=1)


class PoseNetwork(PoseEstimator):
    """F, G and H of the paper: image → feature map Ψ → embedding φ → pose.

    Reference:
        Mitra et al., CVPR 2020, Fig. 1a and Sec. 4. Departures are options of `NetworkConfig`, off by default.
    """

    KIND = "pose"
    ARCHITECTURE = PoseArchitecture

    def __init__(self, config: NetworkConfig, weights: str = "random", frame: PoseFrame = "canonical") -> None:
        super().__init__(config, weights, frame)
        side = self.feature_side()
        self.dropout = nn.Dropout2d(config.dropout)
        features = self.backbone.channels * side * side
        if hidden := config.embedding_hidden:
            self.embedding_head: nn.Module = nn.Sequential(
                _Standardised(features),
                nn.Linear(features, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, config.dim),
            )
        else:
            self.embedding_head = nn.Linear(features, config.dim)
        self.embedding_norm = nn.BatchNorm1d(config.dim, affine=False) if config.embedding_norm else nn.Identity()
        outputs = OUTPUT_JOINTS * 3
        if config.head_hidden:
            self.pose_head = nn.Sequential(
                nn.Linear(config.dim, config.head_hidden),
                nn.ReLU(),
                nn.Linear(config.head_hidden, outputs),
            )
        else:
            self.pose_head = nn.Linear(config.dim, outputs)

    @property
    def architecture(self) -> dict[str, Any]:
        """How many labelled poses a `NeighbourHead` knows and reads a pose off; empty without one."""
        head = self.pose_head
        return {"neighbours": len(head.known), "nearest": head.nearest} if isinstance(head, NeighbourHead) else {}

    @classmethod
    def untrained(cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]) -> "PoseNetwork":
        """Return a network with random weights."""
        network = cls(config, "random", frame)
        given = PoseArchitecture(**architecture)
        if known := given.neighbours:
            network.remember(torch.zeros(known, config.dim), torch.zeros(known, len(JOINTS), 3), given.nearest)
        return network

    def remember(
        self, known: Float[Tensor, "labels dim"], poses: Float[Tensor, "labels 17 3"], nearest: int = NEIGHBOURS
    ) -> None:
        """Read poses off labelled ones from now on, not by the head H.

        Args:
            known: Their embeddings, as unit vectors.
            poses: The poses in mm, in the network's coordinate frame.
            nearest: How many of them a pose is read off.
        """
        self.pose_head = NeighbourHead(known, self.normalised(poses), nearest)

    @torch.no_grad()
    def standardise(self, batches: Iterable[Inputs]) -> None:
        """Let the hidden layer of G, if there is one, read features of mean 0 and deviation 1 over some images.

        The layer's weights are changed so that it says the same as before. Features whose size differs a thousandfold
        are learned many times as fast so. A network that learns from nothing does not need it: on rendered people,
        features that hardly vary are then taken for as telling as others, and real people are recognised worse. With
        dropout nothing is done: a dropped feature, which is 0, would be far from its mean.
        """
        if not self.config.embedding_hidden or self.config.dropout:
            return
        assert isinstance(self.embedding_head, nn.Sequential)
        before, layer = self.embedding_head[0], self.embedding_head[1]
        assert isinstance(before, _Standardised)
        assert isinstance(layer, nn.Linear)
        training = self.training
        self.eval()
        features = torch.cat([self.features(each.images, each.first_stage).flatten(1).float() for each in batches])
        self.train(training)
        mean, variance = features.mean(dim=0), features.var(dim=0)
        std = (variance + _LEAST_DEVIATION**2 * variance.mean()).sqrt()
        layer.bias.add_(layer.weight @ ((mean - before.mean) / before.std))
        layer.weight.mul_(std / before.std)
        before.mean.copy_(mean)
        before.std.copy_(std)

    def forward(self, images: Float[Tensor, "batch _ _ _"], first: int = 0) -> NetworkOutput:
        """Predict embedding and normalised pose of images, or of what stage `first` of the backbone takes."""
        psi = self.dropout(self.features(images, first))
        raw = self.embedding_norm(self.embedding_head(psi.flatten(1)))
        embedding = nn.functional.normalize(raw, dim=1)
        scale = self.config.dim**0.5 if self.config.scaled_embedding else 1.0
        return NetworkOutput(embedding, self.pose_head(embedding * scale))
