"""Methods, a recipe and a capture so small that a test can train them all."""

from dataclasses import replace
from pathlib import Path

from captures_for_tests import INFO, VIEWS, empty_scene, stick_part
from mcss.data.capture import Capture
from mcss.data.schema import Selector
from mcss.data.writer import CaptureWriter
from mcss.methods.chen_cvpr19 import ChenCVPR19, SkeletonMapConfig, SkeletonMapSynthesis
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.points2d import Points2D
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18
from mcss.methods.rhodin_eccv18 import NovelViewSynthesis, RhodinECCV18, SynthesisConfig
from mcss.methods.supervised import Supervised
from mcss.models.pose_network import NetworkConfig
from mcss.training.settings import TrainSettings
from runs_for_tests import NO_AUGMENTATION

METHODS_BY_NAME: dict[str, Method] = {
    "mcss": MCSS(metric_loss="infonce", instants=4, min_gap=0.2, pose_images=4),
    "supervised": Supervised(pose_images=4),
    "rhodin_cvpr18": RhodinCVPR18(instants=4, views=2, min_gap=0.2, pose_images=4),
    "rhodin_eccv18": RhodinECCV18(
        NovelViewSynthesis(3, 2, 0.2, synthesis=SynthesisConfig(8, 4, 16, 32, 1, 16)), pose_images=4
    ),
    "chen_cvpr19": ChenCVPR19(
        SkeletonMapSynthesis("labels", 3, 2, 0.2, maps=SkeletonMapConfig(8, 8, 0.4, 32, 16)),
        pose_images=4,
    ),
    "points2d": Points2D(instants=4, views=2, min_gap=0.2),
}


def tiny_recipe(name: str, method: type[Method], capture: str) -> TrainSettings:
    """A recipe at 32 pixels without augmentation."""
    network = NetworkConfig(dim=16, image_size=32, embedding_norm=True, batchnorm_affine=True)
    return TrainSettings(
        capture, network=network, weights="random", validation=None, method=METHODS_BY_NAME[method.name],
        augmentation=NO_AUGMENTATION, labels="S1" if method.predicts_poses else "none",
    )  # fmt: skip


def made(place: Path, test: tuple[str, ...]) -> Capture:
    """Three people, one sequence each: S1 to train on, and some to test on."""
    splits = {"train": (Selector(subjects=("S1",)),), "test": (Selector(subjects=test),)}
    writer = CaptureWriter.open(place, info=replace(INFO, splits=splits))
    for subject in range(3):
        writer.append(stick_part(subject, 0, instants=14))
    writer.add_backgrounds({view: empty_scene() for view in VIEWS})
    return writer.finish()
