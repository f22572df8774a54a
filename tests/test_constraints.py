"""constraints.txt: the versions that were tested together."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: Version(version) for name, version in pairs}


def stated() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]


@pytest.mark.parametrize("text", sorted({text for text in stated() if not text.startswith("mcss[")}))
def test_every_stated_dependency_is_pinned_to_a_version_that_it_admits(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_names_are_sorted_each_once_and_pinned_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[2:]
    names = [canonicalize_name(line.partition("==")[0]) for line in lines]
    assert names == [line.partition("==")[0] for line in lines] == sorted(set(names))
    assert len(names) == len(pins())


def test_the_pinned_versions_admit_each_other() -> None:
    known, checked = pins(), 0
    for name, version in known.items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if Version(found.version.partition("+")[0]) != version:
            continue  # another one is installed here, whose requirements say nothing
        for text in found.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pinned = known[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(pinned, prereleases=True), f"{name} needs {text}, not {pinned}"
                checked += 1
    assert checked > 50
