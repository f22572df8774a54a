"""The page of all parts that lie in a folder, whichever call made them."""

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from mcss.viz.figures import INK
from mcss.viz.html import page_environment


def reproduction_page(folder: Path, names: Sequence[str]) -> str:
    """One HTML page with tables and figures of those of `names` that were measured; it asks nothing of the network."""
    parts = []
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        part = json.loads(path.read_text(encoding="utf-8"))
        drawn = [(folder / f"{figure}.svg").read_text(encoding="utf-8") for figure in part["figures"]]
        figures = [Markup(_unique(svg, figure)) for svg, figure in zip(drawn, part["figures"], strict=True)]
        parts.append({**part, "name": name, "drawn": figures})
    synthetic = any(part["made"]["synthetic"] for part in parts)
    return page_environment().get_template("reproduction.html").render(parts=parts, synthetic=synthetic)


def _unique(svg: str, name: str) -> str:
    """An SVG file as an element whose ink is the page's, its ids told apart from those of others on the page."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for mark in ('id="', "url(#", 'href="#'):
        element = element.replace(mark, f"{mark}{name}-")
    return element
