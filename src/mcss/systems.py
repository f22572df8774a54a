"""The systems that can be trained, and what the training loop has to know of each."""

import math

import torch

from mcss.batches import Batch
from mcss.methods import mcss as mcss_method
from mcss.methods import rhodin_cvpr18
from mcss.methods import supervised as supervised_method
from mcss.methods.mcss import MCSSLosses, MCSSSettings
from mcss.methods.rhodin_cvpr18 import InitialLosses, InitialSettings, RhodinCVPR18Losses, RhodinCVPR18Settings
from mcss.methods.supervised import SupervisedLosses, SupervisedSettings
from mcss.networks import NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame

Method = MCSSSettings | SupervisedSettings | InitialSettings | RhodinCVPR18Settings
Losses = MCSSLosses | SupervisedLosses | InitialLosses | RhodinCVPR18Losses

COMPARES_VIEWS = MCSSSettings | RhodinCVPR18Settings
"""Methods that look at several unlabelled views of an instant."""


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


def frame_of(method: Method) -> PoseFrame:
    """What the poses of a method are turned to, and what they are scored in."""
    match method:
        case MCSSSettings() | SupervisedSettings():
            return "canonical"
        case InitialSettings() | RhodinCVPR18Settings():
            return "camera"


def needs_labels(method: Method) -> bool:
    """Whether a method has nothing to learn from without labels."""
    return not isinstance(method, MCSSSettings)


def needs_every_rotation(method: Method) -> bool:
    """Whether a method must know the cameras of unlabelled pictures, too."""
    return isinstance(method, RhodinCVPR18Settings) and method.rotations == "cameras"


def stages_of(method: Method) -> tuple[Method, float] | None:
    """What is learned first, and its share of the steps, in a method of two stages; None for those of one."""
    match method:
        case RhodinCVPR18Settings():
            return InitialSettings(method.pose_images), method.initial_share
        case _:
            return None


def losses_of(
    method: Method, network: PoseEstimator, output: NetworkOutput, batch: Batch, initial: PoseEstimator | None
) -> Losses:
    """What a method makes of a batch.

    Args:
        method: With its settings.
        network: In training.
        output: What it says of the batch.
        batch: Pictures and labels.
        initial: The network of the first stage as it was at its end, for methods of two stages.
    """
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
