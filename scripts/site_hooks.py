"""Hooks with which MkDocs builds the site: pages that lie elsewhere, the commands' help, and links out of `docs/`.

`commands.md` holds the help of every verb, as the program prints it; CONTRIBUTING.md and CHANGELOG.md become pages.
Links to files that are not part of the site become their names, and links that are named after a page get its title.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md", "README.md": "index.md"}
"""Pages outside `docs/`, by the name of the page that they become or that stands for them."""

PRINT_HELP = """
import io, json, sys
from contextlib import redirect_stdout
from importlib import import_module
from mcss.cli import main
from mcss.cli.stand_ins import heavy_packages_replaced
from mcss.cli.verbs import SECTIONS

def commands(verbs, prefix=()):
    for name, entry in verbs.entries.items():
        if hasattr(entry, "entries"):
            yield from commands(entry, (*prefix, name))
        else:
            yield (*prefix, name)

def printed(command):
    text = io.StringIO()
    with redirect_stdout(text):
        try:
            main([*command, "--help"])
        except SystemExit:
            pass
    return text.getvalue()

with heavy_packages_replaced():
    for module in SECTIONS.values():
        import_module(f"mcss.cli.{module}")
    app = import_module("mcss.cli.terminal").app
    help_of = {" ".join(command): printed(command) for command in commands(app)}
json.dump(help_of, sys.stdout)
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace patterns in the navigation, such as `results/*.md`, by the pages that are named nowhere else."""
    docs = Path(config.docs_dir)
    config.nav = expanded(config.nav, docs, named(config.nav))
    return config


def named(entry: Any) -> set[str]:
    """The pages that a part of the navigation names one by one."""
    match entry:
        case dict():
            return set().union(*map(named, entry.values()))
        case list():
            return set().union(*map(named, entry))
    return {entry}


def expanded(entry: Any, docs: Path, elsewhere: set[str]) -> Any:
    """A part of the navigation without patterns."""
    match entry:
        case dict():
            return {title: expanded(part, docs, elsewhere) for title, part in entry.items()}
        case list():
            parts = [expanded(part, docs, elsewhere) for part in entry]
            return [one for part in parts for one in (part if isinstance(part, list) else [part])]
        case str() if "*" in entry:
            return sorted({str(path.relative_to(docs)) for path in docs.glob(entry)} - elsewhere)
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not written in `docs/`."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    for source, page in ELSEWHERE.items():
        if page != "index.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=re.sub(r"\]\(docs/", "](", text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at pages that moved, and turn links to files that the site lacks into their names."""
    there = {file.src_uri for file in files}
    titles = {file.src_uri: title_of(file) for file in files.documentation_pages()}
    folder = Path(page.file.src_uri).parent

    def link(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        path, hash_, anchor = target.partition("#")
        if not path or "://" in path or target.startswith("mailto:"):
            return found[0]
        if Path(path).name in ELSEWHERE and path.removeprefix("../") == Path(path).name:
            return f"[{text}]({ELSEWHERE[Path(path).name]}{hash_}{anchor})"
        place = os.path.normpath(folder / path)
        if place not in there:
            return text
        return f"[{titles.get(place, text)}]({target})" if text.removeprefix("docs/") == Path(path).name else found[0]

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)
    return "".join(p if p.startswith("```") else re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, p) for p in parts)


def title_of(file: File) -> str:
    """The first heading of a page, as the text of links that name its file."""
    found = re.search(r"^#+ (.+)$", file.content_string, re.MULTILINE)
    return found[1].strip() if found else file.src_uri


def commands_page() -> str:
    """The help of every verb as a page."""
    environment = {**os.environ, "COLUMNS": "82", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HELP], env=environment, capture_output=True, text=True, check=True
    )
    help_of: dict[str, Any] = json.loads(done.stdout)
    parts = ["# All commands", "", "The help of every command, as `mcss VERB --help` prints it.", ""]
    for command, text in help_of.items():
        parts += [f"## mcss {command}", "", "```text", text.strip("\n"), "```", ""]
    return "\n".join(parts)
