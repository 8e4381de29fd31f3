"""A document as one self-contained page: it fetches nothing, and follows the reader's light or dark setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from ftkit.report.document import Document, Figure, Section
from ftkit.report.theme import DARK, LIGHT, specification

_SNIPPET = "window.vegaEmbed = vegaEmbed;"

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


def to_html(document: Document) -> str:
    """Write a document as a whole HTML page that needs nothing else."""
    sections = document.shown("html")
    figures = list(_figures(sections))
    places = {id(figure): place for place, figure in enumerate(figures)}
    return _template("page.html.j2").render(
        document=document,
        sections=sections,
        charts=[specification(figure.chart) for figure in figures],
        place=lambda figure: places[id(figure)],
        bundle=_bundle() if figures else "",
        light=LIGHT,
        dark=DARK,
    )


def fragment(document: Document) -> str:
    """Write the head of a document and its tables as a piece of HTML, for a notebook."""
    return _template("fragment.html.j2").render(document=document, sections=document.shown("html"))


def _figures(sections: Iterable[Section]) -> Iterator[Figure]:
    for section in sections:
        yield from section.figures
        yield from _figures(section.table.details if section.table else ())


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ftkit.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(name)


@cache
def _bundle() -> Markup:
    """The scripts of Vega, Vega-Lite and Vega-Embed."""
    from markupsafe import Markup
    from vl_convert import javascript_bundle

    return Markup(javascript_bundle(_SNIPPET).replace("</script", "<\\/script"))
