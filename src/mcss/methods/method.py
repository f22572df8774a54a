"""The systems that can be trained, and what the training loop has to know of each."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcss.data.batches import Batch
from mcss.methods import chen_cvpr19, points2d, rhodin_cvpr18, rhodin_eccv18
from mcss.methods import mcss as mcss_method
from mcss.methods import supervised as supervised_method
from mcss.methods.chen_cvpr19 import (
    ChenCVPR19Settings,
    SkeletonMapLosses,
    SkeletonMapNetwork,
    SkeletonMapOutput,
    SkeletonMapSettings,
)
from mcss.methods.mcss import MCSSLosses, MCSSSettings
from mcss.methods.points2d import Points2DLosses, Points2DSettings
from mcss.methods.rhodin_cvpr18 import InitialLosses, InitialSettings, RhodinCVPR18Losses, RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import (
    NovelViewLosses,
    NovelViewNetwork,
    NovelViewSettings,
    RegressionLosses,
    RhodinECCV18Settings,
)
from mcss.methods.supervised import SupervisedLosses, SupervisedSettings
from mcss.models.model_file import read_model
from mcss.models.pose_network import NetworkConfig, NetworkOutput, PoseEstimator, PoseNetwork
from mcss.skeletons import PoseFrame

Method = (
    MCSSSettings
    | SupervisedSettings
    | InitialSettings
    | RhodinCVPR18Settings
    | NovelViewSettings
    | RhodinECCV18Settings
    | SkeletonMapSettings
    | ChenCVPR19Settings
    | Points2DSettings
)
Losses = (
    MCSSLosses
    | SupervisedLosses
    | InitialLosses
    | RhodinCVPR18Losses
    | NovelViewLosses
    | RegressionLosses
    | SkeletonMapLosses
    | Points2DLosses
)
Output = NetworkOutput | SkeletonMapOutput | Tensor
"""Poses, skeletons of other views, or images of them."""

COMPARES_VIEWS = MCSSSettings | RhodinCVPR18Settings | NovelViewSettings | SkeletonMapSettings | Points2DSettings
"""Methods that look at several unlabelled views of an instant."""

_WITHOUT_LABELS = NovelViewSettings | SkeletonMapSettings | Points2DSettings
"""Methods that do not look at 3D labels."""


def method_name(method: Method) -> str:
    """As `mcss train` calls it; for the first of two stages, the method's name and the stage's."""
    match method:
        case MCSSSettings():
            return "mcss"
        case SupervisedSettings():
            return "supervised"
        case InitialSettings():
            return "rhodin_cvpr18_initial"
        case RhodinCVPR18Settings():
            return "rhodin_cvpr18"
        case NovelViewSettings():
            return "rhodin_eccv18_representation"
        case RhodinECCV18Settings():
            return "rhodin_eccv18"
        case SkeletonMapSettings():
            return "chen_cvpr19_representation"
        case ChenCVPR19Settings():
            return "chen_cvpr19"
        case Points2DSettings():
            return "points2d"


def frame_of(method: Method) -> PoseFrame:
    """What the poses of a method are turned to, and what they are scored in."""
    match method:
        case MCSSSettings() | SupervisedSettings():
            return method.frame
        case Points2DSettings():  # has no pose to be turned to anything
            return "canonical"
        case _:
            return "camera"


def needs_labels(method: Method) -> bool:
    """Whether a method has nothing to learn from without labels."""
    return not isinstance(method, MCSSSettings | _WITHOUT_LABELS)


def pose_images_of(method: Method) -> int:
    """Labelled images in a step; 0 for a method that does not look at labels."""
    return 0 if isinstance(method, _WITHOUT_LABELS) else method.pose_images


def needs_every_rotation(method: Method) -> bool:
    """Whether a method must know the cameras of unlabelled images, too."""
    match method:
        case RhodinCVPR18Settings():
            return method.rotations == "cameras"
        case _:
            return isinstance(method, NovelViewSettings | SkeletonMapSettings)


def learns_from_views(method: Method) -> bool:
    """Whether a method learns from seeing an instant from several sides, and not only looks at several images."""
    match method:
        case MCSSSettings():
            return True
        case RhodinCVPR18Settings():
            return method.consistency_weight > 0
        case NovelViewSettings() | SkeletonMapSettings():
            return method.views > 1
        case _:
            return False


def points_of(method: Method) -> str | None:
    """Where a method's 2D joints come from; None for methods that need none."""
    match method:
        case SkeletonMapSettings() | Points2DSettings():
            return method.points
        case ChenCVPR19Settings():
            return method.representation.points
        case _:
            return None


@dataclass(frozen=True)
class Information:
    """What a system learns from, beside images."""

    labels: bool
    """3D poses of the labelled people."""
    views: bool
    """Which unlabelled images show the same instant."""
    rotations: bool
    """Of the cameras, for more than the labels themselves."""
    backgrounds: bool
    """Images of the empty scene."""
    points: bool
    """2D joints of all training images."""


def information_of(method: Method) -> Information:
    """What a system, both stages together, learns from."""
    first = first_stage_of(method)
    every = [method] if first is None else [first, method]
    return Information(
        labels=any(pose_images_of(one) > 0 for one in every),
        views=any(learns_from_views(one) for one in every),
        rotations=any(learns_from_views(one) and needs_every_rotation(one) for one in every),
        backgrounds=any(isinstance(one, NovelViewSettings) for one in every),
        points=any(points_of(one) is not None for one in every),
    )


def freezes_encoder(method: Method) -> bool:
    """Whether a method trains the pose head alone, on what its first stage made."""
    return isinstance(method, RhodinECCV18Settings | ChenCVPR19Settings)


def needs_initial(method: Method) -> bool:
    """Whether a method of two stages looks back at the network of the first one."""
    return isinstance(method, RhodinCVPR18Settings)


def first_stage_of(method: Method) -> Method | None:
    """What is learned first in a method of two stages; None for those of one."""
    match method:
        case RhodinCVPR18Settings():
            return InitialSettings(method.pose_images)
        case RhodinECCV18Settings() | ChenCVPR19Settings():
            return method.representation
        case _:
            return None


def steps_of_stages(method: Method, steps: int) -> tuple[int, int]:
    """The steps of both stages, of which those with labels come to `steps`, as for every method; (0, steps) for one.

    Raises:
        ValueError: Too few steps for two stages that both look at labels.
    """
    match method:
        case RhodinCVPR18Settings():
            first = max(1, round(method.initial_share * steps))
            if first >= steps:
                raise ValueError(f"steps: {method_name(method)} has two stages and needs 2 or more, got {steps}.")
            return first, steps - first
        case RhodinECCV18Settings() | ChenCVPR19Settings():
            return max(1, round(method.representation_length * steps)), steps
        case _:
            return 0, steps


def network_of(method: Method, config: NetworkConfig, weights: str) -> PoseEstimator:
    """A new network for a method; see `network_fits`."""
    match method:
        case NovelViewSettings():
            return NovelViewNetwork(config, method.synthesis, weights)
        case RhodinECCV18Settings():
            return NovelViewNetwork(config, method.representation.synthesis, weights)
        case SkeletonMapSettings():
            return SkeletonMapNetwork(config, method.maps, weights)
        case ChenCVPR19Settings():
            return SkeletonMapNetwork(config, method.representation.maps, weights)
        case _:
            return PoseNetwork(config, weights, frame_of(method))


def network_fits(method: Method, network: PoseEstimator) -> bool:
    """Whether a network is of the kind that a method trains."""
    kind: type[PoseEstimator]
    match method:
        case NovelViewSettings() | RhodinECCV18Settings():
            kind = NovelViewNetwork
        case SkeletonMapSettings() | ChenCVPR19Settings():
            kind = SkeletonMapNetwork
        case _:
            kind = PoseNetwork
    return isinstance(network, kind) and network.frame == frame_of(method)


def output_of(method: Method, model: Any, batch: Batch) -> Output:
    """What a network, perhaps wrapped for several devices, says of a batch."""
    output: Output
    match method:
        case NovelViewSettings():
            own = round(method.own_share * batch.metric_shape[0])
            output = model(batch.images, batch.first_stage, batch.metric_shape, batch.rotations, batch.backgrounds, own)
        case SkeletonMapSettings():
            output = model(batch.images, batch.first_stage, batch.metric_shape, batch.rotations)
        case _:
            output = model(batch.images, batch.first_stage)
    return output


def losses_of(
    method: Method,
    network: PoseEstimator,
    output: Output,
    batch: Batch,
    initial: PoseEstimator | None,
) -> Losses:
    """What a method makes of a batch.

    Args:
        method: With its settings.
        network: In training.
        output: What it says of the batch.
        batch: Images and labels.
        initial: The network of the first stage as it was at its end, for methods that look back at it.
    """
    if isinstance(method, NovelViewSettings):
        assert isinstance(network, NovelViewNetwork)
        assert isinstance(output, Tensor)
        return rhodin_eccv18.novel_view_losses(method, network, output, batch)
    if isinstance(method, SkeletonMapSettings):
        assert isinstance(network, SkeletonMapNetwork)
        assert isinstance(output, SkeletonMapOutput)
        return chen_cvpr19.representation_losses(method, network, output, batch)
    assert isinstance(output, NetworkOutput)
    match method:
        case MCSSSettings():
            return mcss_method.losses(method, network, output, batch)
        case SupervisedSettings():
            return supervised_method.losses(method, network, output, batch)
        case InitialSettings():
            return rhodin_cvpr18.initial_losses(method, network, output, batch)
        case RhodinCVPR18Settings():
            assert initial is not None
            with torch.no_grad():
                before = initial(batch.images[: math.prod(batch.metric_shape)], batch.first_stage)
                poses = initial.denormalised(before.coordinates)
            return rhodin_cvpr18.losses(method, network, output, batch, poses)
        case RhodinECCV18Settings() | ChenCVPR19Settings():
            return rhodin_eccv18.regression_losses(network, output, batch)
        case Points2DSettings():
            return points2d.losses(method, output, batch)


NETWORKS: tuple[type[PoseEstimator], ...] = (PoseNetwork, NovelViewNetwork, SkeletonMapNetwork)
"""The kinds of network that methods train."""


def load_estimator(run: Path) -> PoseEstimator:
    """The trained network of a run of any method (a folder or a ``model.safetensors``), in evaluation mode.

    Raises:
        CheckpointError: See `mcss.models.model_file.read_model`.
    """
    return read_model(run, NETWORKS).network
