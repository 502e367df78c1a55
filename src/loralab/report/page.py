"""Rows and figures → report.html: one file, without scripts and without a request to anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from loralab.report.figures.ink import BLUE, GOLD, GREEN, GREY, GRID, INK, PURPLE, VERMILLION, ReportFigure, to_svg
from loralab.report.tables import LABELS, OVERALL, RunTables, one_line
from loralab.report.texts import format_value

LONGEST_TEXT, MOST_EVALUATIONS = 600, 50
SHORT_TEXT, LONG_TEXT = 24, 40
"""Letters of a cell: up to which it stays in one line, from which it needs the width of prose."""
_PAINT = {
    INK: "currentColor",
    GRID: "var(--rule)",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    GOLD: "var(--gold)",
    GREY: "var(--soft)",
}
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")


def render(tables: RunTables, drawings: Sequence[ReportFigure]) -> str:
    """Return the page. Every text and name of the data is escaped; figures are SVG in the page's own colours."""
    figures = {drawing.name: (drawing, inline_svg(drawing)) for drawing in drawings}
    settings = tables.settings()
    return template("page.html.jinja").render(
        t=tables,
        result=tables.result,
        figures=figures,
        overall=[(name, LABELS[name]) for name in OVERALL],
        settings=settings,
        changed=[row for row in settings if row.changed],
        evaluations=_some(tables.evaluations, MOST_EVALUATIONS),
        pairs=tables.predictions.pairs() if tables.predictions else [],
        sections=[_section(each) for each in tables.diagnosis.get("sections", [])],
        attributions=[_tinted(each) for each in tables.diagnosis.get("attributions", [])],
        version=metadata.version("loralab"),
    )


def template(name: str) -> Template:
    """Return a template of this package: it escapes all it is given and knows our filters."""
    environment = Environment(
        loader=PackageLoader("loralab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": format_value, "clip": clip, "line": one_line}
    return environment.get_template(name)


def inline_svg(drawing: ReportFigure) -> Markup:
    """Return a drawing as an <svg> for the page: named, sized by its box, its ids its own, its ink the page's."""
    root = ElementTree.fromstring(to_svg(drawing))  # noqa: S314 - written by ourselves a line ago
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name.rpartition("}")[2]: _repainted(name.rpartition("}")[2], value, drawing.name)
            for name, value in element.attrib.items()
        }
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": f"{drawing.title}, {drawing.rows}. {drawing.caption}"}
    width = 72 * drawing.figure.get_figwidth()
    least = 0.8 * width if drawing.wide else 0  # wide ones scroll on a phone, the others shrink
    root.attrib["style"] = f"--width: {width:.0f}pt; --least: {least:.0f}pt"
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree has escaped every text


def clip(text: str, most: int = LONGEST_TEXT) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else text[:most].rstrip() + " …"


def _repainted(name: str, value: str, drawing: str) -> str:
    """One attribute: ids and what points at them get the drawing's name before them, our colours the page's names."""
    if name == "id":
        return f"{drawing}-{value}"
    if name == "href":
        return value.replace("#", f"#{drawing}-")
    value = value.replace("url(#", f"url(#{drawing}-")
    for colour, paint in _PAINT.items():
        value = value.replace(colour, paint)
    return _FONT.sub("var(--sans)", value)


def _some(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly spread, the last one always."""
    every = -(-len(rows) // most) or 1
    return [row for i, row in enumerate(rows) if (len(rows) - 1 - i) % every == 0]


def _section(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section with its cells as text, and which columns hold numbers: those have one number of digits all the way down."""
    columns = list(zip(*section["rows"], strict=True)) or [()] * len(section["columns"])
    shown_columns = [column(cells) for cells in columns]
    rows = list(zip(*shown_columns, strict=True))
    classes = [column_class(texts, any(map(_is_number, cells))) for texts, cells in zip(shown_columns, columns, strict=True)]
    return {**section, "rows": rows, "classes": classes}


def column_class(texts: Sequence[str], number: bool) -> str:
    """How a column is set: numbers to the right, short texts in one line, long ones in some width."""
    longest = max(map(len, texts), default=0)
    return "n" if number else "one" if longest <= SHORT_TEXT else "words" if longest > LONG_TEXT else "some"


def column(cells: Sequence[object]) -> list[str]:
    """The cells of one column as texts; its fractions have the same number of digits, at most four."""
    fractions = [f"{cell:.4f}".rstrip("0").partition(".")[2] for cell in cells if isinstance(cell, float)]
    digits = max(map(len, fractions), default=0)
    return [
        f"{cell:,.{digits}f}".replace("-", "−") if _is_number(cell) else "" if cell is None else format_value(cell)
        for cell in cells
    ]


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _tinted(explained: Mapping[str, Any]) -> dict[str, Any]:
    """An attribution whose tokens have a sign and a strength from 0 to 1 of the strongest; word pieces are joined on."""
    tokens = explained["tokens"]
    strongest = max((abs(value) for _, value in tokens), default=0) or 1
    marked = [
        {
            "text": one_line(token.removeprefix("##")),
            "joined": token.startswith("##"),
            "sign": "" if abs(value) < 0.05 * strongest else "for" if value > 0 else "against",
            "strength": round(abs(value) / strongest, 2),
            "value": value,
        }
        for token, value in tokens
    ]
    return {**explained, "tokens": marked}
