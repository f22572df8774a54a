"""The registry of methods. To add one, write its file and add its class to `METHODS`."""

from pathlib import Path

from mcss.methods.chen_cvpr19 import ChenCVPR19
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.points2d import Points2D
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.methods.supervised import Supervised
from mcss.models.model_file import read_model
from mcss.models.pose_network import PoseEstimator

METHODS: tuple[type[Method], ...] = (
    MCSS,
    Supervised,
    RhodinCVPR18,
    RhodinECCV18,
    ChenCVPR19,
    Points2D,
)
"""All methods, in the order in which help and tables list them."""


def method_named(name: str) -> type[Method]:
    """Return the method with this name; hyphens may stand for underscores.

    Raises:
        ValueError: There is none.
    """
    for method in METHODS:
        if method.name == name.replace("-", "_"):
            return method
    raise ValueError(f"method: expected one of {', '.join(method.name for method in METHODS)}, got {name!r}.")


def compared_methods() -> tuple[type[Method], ...]:
    """Return the methods that tables compare: those that predict 3D poses."""
    return tuple(method for method in METHODS if method.predicts_poses)


def title_of(name: str) -> str:
    """Return the title of a method or of its first stage, as tables show it; an unknown name is its own title."""
    titles: dict[str, str] = {}
    for method in METHODS:
        first = method.in_recipe("fast").first_stage
        titles |= {method.name: method.title} | ({} if first is None else {first.name: first.title})
    return titles.get(name, name)


def network_kinds() -> tuple[type[PoseEstimator], ...]:
    """Return the kinds of network that methods train."""
    return tuple(dict.fromkeys(method.network for method in METHODS))


def load_estimator(run: Path) -> PoseEstimator:
    """Load the trained network of a run of any method (a folder or a ``model.safetensors``), in evaluation mode.

    Raises:
        CheckpointError: See `mcss.models.model_file.read_model`.
    """
    return read_model(run, network_kinds()).network
