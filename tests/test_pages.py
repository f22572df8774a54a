"""Whatever the README and docs refer to exists."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import mcss

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_image_of_a_page_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [t for t in targets if t and not t.startswith("http") and not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_module_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"\b((?:scripts|tests|benchmarks|docs)/[\w/]+\.(?:py|md|jpg))\b", text)
    modules = [name.split(".")[1] for name in re.findall(r"`(mcss\.[a-z_.]+)[^`]*`", text)]
    source = ROOT / "src" / "mcss"
    assert [f for f in files if not (ROOT / f).exists()] == []
    known = [m for m in modules if (source / m).is_dir() or (source / f"{m}.py").exists() or hasattr(mcss, m)]
    assert sorted(set(modules) - set(known)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_and_path_of_the_package_in_a_page_resolves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"`(mcss(?:\.[A-Za-z_]\w*)+)", text)
    for module, imported in re.findall(r"^from (mcss[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
        names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    for name in names:
        pkgutil.resolve_name(name)
    paths = re.findall(r"\b((?:src|tests|scripts|benchmarks)/[\w./-]*\w)", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_tree_in_contributing_has_every_folder_with_the_words_of_its_docstring() -> None:
    tree = re.search(r"^src/mcss/\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    assert tree is not None
    listed: dict[str, str] = {}
    parents: list[str] = []
    for indent, folder, words in re.findall(r"^( +)(\w+)/ +(.*)$", tree[1], re.MULTILINE):
        parents = [*parents[: len(indent) // 2 - 1], folder]
        listed["/".join(parents)] = words
    source = ROOT / "src" / "mcss"
    docstrings = {}
    for path in source.glob("*/**/__init__.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = docstring.partition("\n")[0].removesuffix(".").replace("`", "")
        docstrings[str(path.parent.relative_to(source))] = first
    assert listed == docstrings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks_of_written_tables_come_in_pairs(page: Path) -> None:
    marks = re.findall(r"<!-- (\w+):(begin|end) -->", page.read_text(encoding="utf-8"))
    assert [edge for _, edge in marks] == ["begin", "end"] * (len(marks) // 2)
    assert [name for name, _ in marks[::2]] == [name for name, _ in marks[1::2]]
