"""HTML pages in one file each, that ask nothing of the network: what all of them have in common."""

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from mcss.viz.figures import data_uri, skeleton_svg


def coded(text: str) -> Markup:
    """A text as HTML, in which what stands between backticks is code.

    Example:
        >>> str(coded("`a < b` holds"))
        '<code>a &lt; b</code> holds'
    """
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def page_environment() -> Environment:
    """Where the templates of the package are found, with images, skeletons and counts at hand."""
    environment = Environment(loader=PackageLoader("mcss.viz"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count=lambda n: f"{n:,}".replace(",", "\u202f"), coded=coded)
    environment.globals.update(data_uri=data_uri, skeleton=lambda *pose: Markup(skeleton_svg(*pose)))
    return environment
