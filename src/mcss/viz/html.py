"""HTML pages that consist of one file and load nothing from the Internet: what all of them have in common."""

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mcss.viz.skeleton import skeleton_svg


def page_environment() -> Environment:
    """The Jinja environment of the package's templates, with filters and functions for images, skeletons and counts."""
    environment = Environment(
        loader=PackageLoader("mcss.viz"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(count=lambda n: f"{n:,}".replace(",", "\u202f"), coded=coded)
    environment.globals.update(data_uri=data_uri, skeleton=lambda *pose: Markup(skeleton_svg(*pose)))
    return environment


def coded(text: str) -> Markup:
    """Convert text to HTML in which everything between backticks is code.

    Example:
        >>> str(coded("`a < b` holds"))
        '<code>a &lt; b</code> holds'
    """
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def data_uri(image: bytes) -> str:
    """A URI that contains a JPEG or PNG image itself."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
