"""Write constraints.txt: the versions of all packages that mcss and its tests need, as they are installed here.

python scripts/write_constraints.py
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).parents[1] / "constraints.txt"
HEAD = """\
# The versions with which mcss was last tested, for reproducible installations: pip install -c constraints.txt ".[all]"
# Written by `make lock` from the installed packages; tests/test_constraints.py holds it against pyproject.toml.
"""


def needed(name: str, extras: frozenset[str], known: dict[str, str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Collect a package with its extras and all that they need, by name and version."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is needed but not installed here: run `make setup` first") from None
    if name != "mcss":
        known[name] = found.version.partition("+")[0]  # what follows names a build, such as cu130, of one version
    for text in found.requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            needed(canonicalize_name(requirement.name), frozenset(requirement.extras), known, seen)


def main() -> None:
    """Write the file."""
    known: dict[str, str] = {}
    needed("mcss", frozenset({"dev"}), known, set())
    lines = [f"{name}=={version}" for name, version in sorted(known.items())]
    FILE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(lines)} packages, Python {sys.version_info.major}.{sys.version_info.minor}")


if __name__ == "__main__":
    main()
