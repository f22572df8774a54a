"""Recipes: complete settings by name, each with what it costs and what to expect of it.

``paper``
    The paper's training, for a GPU: ResNet-18 with ImageNet weights and no BatchNorm affine, 224 px, Eq. 2 on 33 pairs
    beside 22 labelled images, Adam 1e-3, ×0.1 at half time. ``mcss train mcss --recipe paper --steps 194000`` is
    40 epochs of the 320,000 training images, 66 a step. Expect Table 1 on Human3.6M; not yet measured with this code.
``fast``
    For a laptop: EfficientNet-Lite0 at 96 px whose first five stages are frozen and computed once, all views of an
    instant as positives, an average of the weights.
    ``mcss train mcss --capture C``; minutes on two cores, see README for what came of it. Every departure is
    explained and ablated in docs/method.md.
"""

from dataclasses import replace
from typing import Literal

from mcss.data.augmentation import AugmentationSettings
from mcss.methods.chen_cvpr19 import ChenCVPR19Settings, SkeletonMapSettings
from mcss.methods.mcss import MCSSSettings
from mcss.methods.points2d import Points2DSettings
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import NovelViewSettings, RhodinECCV18Settings, SynthesisConfig
from mcss.methods.supervised import SupervisedSettings
from mcss.models.pose_network import NetworkConfig
from mcss.training.settings import OptimiserSettings, TrainSettings

RecipeName = Literal["paper", "fast"]
MethodName = Literal["mcss", "supervised", "rhodin_cvpr18", "rhodin_eccv18", "chen_cvpr19", "points2d"]

_COLOURS = ("brightness", "contrast", "saturation", "hue", "channel_gain", "grey")
"""Changes of colour, which no decoder could guess."""


def recipe(name: RecipeName, method: MethodName, capture: str) -> TrainSettings:
    """The settings of a recipe for a method, to be changed with `dataclasses.replace`.

    All methods get the same network, weights, schedule and number of labelled images a step. Augmentation is the same
    but for the turning of images, which changes what a pose is in camera space, and for colours where images are
    drawn.
    """
    match name:
        case "paper":
            settings = _paper(capture)
        case "fast":
            settings = _fast(capture)
    ours = settings.method
    assert isinstance(ours, MCSSSettings)
    match method:
        case "mcss":
            return settings
        case "supervised":
            return replace(settings, method=SupervisedSettings(pose_images=ours.pose_images))
        case "rhodin_cvpr18":
            return replace(
                settings,
                method=RhodinCVPR18Settings(
                    instants=ours.instants, views=ours.views, min_gap=ours.min_gap, pose_images=ours.pose_images
                ),
                augmentation=replace(settings.augmentation, rotation=0.0),
            )
        case "rhodin_eccv18":
            views, length = NovelViewSettings(ours.instants, min_gap=ours.min_gap), 1.0
            views = replace(views, synthesis=SynthesisConfig(drawn_size=128))
            if name == "fast":  # small images and batches, and as many more steps
                synthesis = SynthesisConfig(drawn_size=32)
                views = replace(views, instants=16, synthesis=synthesis, differences="squared", own_share=0.5)
                length = 2.0
            return replace(
                settings,
                method=RhodinECCV18Settings(views, representation_length=length, pose_images=ours.pose_images),
                network=replace(settings.network, batchnorm_affine=True),
                augmentation=replace(settings.augmentation, rotation=0.0, **dict.fromkeys(_COLOURS, 0.0)),
            )
        case "chen_cvpr19":
            return replace(
                settings,
                method=ChenCVPR19Settings(
                    SkeletonMapSettings(instants=16, min_gap=ours.min_gap), pose_images=ours.pose_images
                ),
                augmentation=replace(settings.augmentation, rotation=0.0),
            )
        case "points2d":
            return replace(
                settings,
                labels="none",
                method=Points2DSettings(instants=ours.instants, views=ours.views, min_gap=ours.min_gap),
                augmentation=replace(settings.augmentation, rotation=0.0),
            )


def _paper(capture: str) -> TrainSettings:
    return TrainSettings(capture=capture)


def _fast(capture: str) -> TrainSettings:
    return TrainSettings(
        capture=capture,
        method=MCSSSettings(
            metric_loss="infonce", instants=32, views=4, temperature=0.1, metric_weight=5.0, pose_images=22
        ),
        network=NetworkConfig(
            backbone="tf_efficientnet_lite0",
            batchnorm_affine=True,
            embedding_norm=True,
            scaled_embedding=True,
            head_hidden=512,
            image_size=96,
        ),
        frozen_stages=5,
        variants=4,
        augmentation=AugmentationSettings(
            brightness=0.4, contrast=0.4, saturation=0.6, hue=180.0, channel_gain=0.2, grey=0.2
        ),
        optimiser=OptimiserSettings(steps=1000, lr=2e-3, schedule="cosine", warmup=50, average=0.998),
        validate_every=250,
    )
