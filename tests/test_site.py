"""The documentation as a site, and the container."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]

GENERATED = {"commands.md", "contributing.md", "changes.md"}
"""Pages that `scripts/site_hooks.py` adds."""

INSTRUCTIONS = {"FROM", "ARG", "RUN", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD", "LABEL"}


def pages_of(entry: Any) -> set[str]:
    """The pages in a part of the navigation."""
    match entry:
        case str():
            docs = ROOT / "docs"
            return {str(path.relative_to(docs)) for path in docs.glob(entry)} if "*" in entry else {entry}
        case list():
            return set().union(*map(pages_of, entry))
        case dict():
            return set().union(*map(pages_of, entry.values()))
    return set()


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = pages_of(yaml.safe_load(text)["nav"])
    docs = ROOT / "docs"
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} | GENERATED
    assert named == there


@pytest.mark.slow
def test_the_site_is_built_strictly_with_the_help_of_every_verb(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "commands.html").read_text(encoding="utf-8")
    for verb in ("mcss demo", "mcss train mcss", "mcss import videos", "mcss push"):
        assert f"usage: {verb}" in commands, verb
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert "mcss.metrics.n_mpjpe" in reference
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]*)"', commands)
    assert [address for address in loaded if "canonical" not in address] == [], "nothing is loaded from elsewhere"


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_the_dockerfile_copies_what_is_there_and_installs_extras_that_exist() -> None:
    instructions = dockerfile()
    assert {word for word, _ in instructions} <= INSTRUCTIONS
    assert instructions[0][0] == "FROM"
    image = re.fullmatch(r"python:3\.(\d+)-slim", instructions[0][1])
    assert image is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert int(image[1]) >= int(project["requires-python"].removeprefix(">=3."))
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in instructions:
        for source in rest.split()[:-1] if word == "COPY" else ():
            assert (ROOT / source).exists(), source
            assert source.removeprefix("./") in kept, f"{source} is not sent to the build"
    (extras,) = [rest.removeprefix("EXTRAS=") for word, rest in instructions if rest.startswith("EXTRAS=")]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for word, rest in instructions:
        if word == "RUN" and "pip install" in rest:
            assert "--no-cache-dir" in rest, "caches make images large"
    users = [rest for word, rest in instructions if word == "USER"]
    assert users, "programs in containers should not run as root"
    assert users[-1] != "root"
    assert ("ENTRYPOINT", '["mcss"]') in instructions
