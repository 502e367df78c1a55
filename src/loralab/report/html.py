"""Pages: report.html of a run, of an experiment, and of a folder. Each is one file without scripts and external resources."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

from loralab.report.experiments.analysis import ExperimentAnalysis
from loralab.report.experiments.findings import findings, headline, question_facts
from loralab.report.experiments.reading_notes import reading_notes
from loralab.report.experiments.result_tables import ReportTable
from loralab.report.figures.style import COLORS, GRID, INK, ReportFigure, to_svg
from loralab.report.formatting import format_value, is_number
from loralab.report.memory import memory_rows
from loralab.report.rendering import template_environment
from loralab.report.run_data import SCORE_LABELS, SCORE_MEANINGS, RunData
from loralab.stats import Interval

MAX_TEXT, MAX_EVALUATIONS, MAX_TABLE_ROWS, MAX_TOKENS = 600, 50, 300, 400
SHORT_TEXT, LONG_TEXT = 24, 40
"""Characters of a cell up to which it stays on one line, and from which it gets the width of prose."""
WIDE_TABLE, TALL_TABLE = 8, 25
"""Columns and rows from which a table gets more of the window's width, and scrolls vertically."""
_CSS_NAMES = ("var(--blue)", "var(--vermillion)", "var(--green)", "var(--purple)", "var(--gold)", "var(--soft)")
_CSS_COLORS = {INK: "currentColor", GRID: "var(--rule)", "#ffffff": "var(--sheet)", **dict(zip(COLORS, _CSS_NAMES, strict=True))}
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")


def render_run(run: RunData, drawings: Sequence[ReportFigure]) -> str:
    """Return a run's page. Texts and names from the data are escaped; figures are SVG in the page's colours."""
    settings = run.settings()
    return _render(
        "run.html.jinja",
        drawings,
        run=run,
        result=run.result,
        score_labels=SCORE_LABELS,
        score_meanings=SCORE_MEANINGS,
        parameters=run.parameters(),
        memory=memory_rows(run),
        settings=settings,
        changed=[row for row in settings if row.changed],
        evaluations=_evenly_spaced(run.evaluations, MAX_EVALUATIONS),
        pairs=run.predictions.class_pairs() if run.predictions else [],
        sections=[_diagnosis_section(section) for section in run.diagnosis.get("sections", [])],
        attributions=[_scaled_attribution(text) for text in run.diagnosis.get("attributions", [])],
        max_tokens=MAX_TOKENS,
    )


def render_experiment(analysis: ExperimentAnalysis, tables: Sequence[ReportTable], drawings: Sequence[ReportFigure]) -> str:
    """Return an experiment's page."""
    return _render(
        "experiment.html.jinja",
        drawings,
        tables,
        data=analysis.data,
        best=analysis.best,
        headline=headline(analysis),
        question=question_facts(analysis.data),
        findings=findings(analysis),
        reading=reading_notes(analysis),
        failures=[trial for trial in analysis.data.trials if trial.failure],
    )


def render_dashboard(name: str, tables: Sequence[ReportTable], links: Mapping[str, str], drawings: Sequence[ReportFigure]) -> str:
    """Return the page of a folder. links: name of a run or experiment → its own page, relative to this one."""
    return _render("dashboard.html.jinja", drawings, tables, name=name, links=links)


@dataclass(frozen=True)
class Problem:
    """A problem of a data file, where it is, and what to do."""

    severity: str
    message: str
    where: str
    fix: str


@dataclass(frozen=True)
class DataSection:
    """A file on the page of a data source. facts: name, value and remark of each; notes: text below a table, by its name."""

    title: str
    facts: Sequence[tuple[str, str, str]]
    problems: Sequence[Problem]
    tables: Sequence[ReportTable]
    notes: Mapping[str, str]
    drawings: Sequence[ReportFigure]


def render_data_page(source: str, files: Sequence[DataSection]) -> str:
    """Return the page of a data source. Texts and names from the data are escaped."""
    sections = [
        {
            "title": file.title,
            "facts": file.facts,
            "problems": file.problems,
            "tables": {table.name: _page_table(table) for table in file.tables},
            "notes": file.notes,
            "figures": [drawing.name for drawing in file.drawings],
        }
        for file in files
    ]
    return _render("data.html.jinja", [drawing for file in files for drawing in file.drawings], name=source, sections=sections)


def inline_svg(drawing: ReportFigure) -> Markup:
    """Return a figure as <svg> for a page: labelled, sized by its box, with unique ids and the page's colours."""
    root = ElementTree.fromstring(to_svg(drawing))  # noqa: S314 - matplotlib's own output
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local_name(element.tag)
        attributes = [(_local_name(key), value) for key, value in element.attrib.items()]
        element.attrib = {key: _page_attribute(key, value, drawing.name) for key, value in attributes}
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": drawing.description}
    width = 72 * drawing.figure.get_figwidth()
    min_width = width if drawing.wide else 0  # on a phone wide figures scroll; the others fit
    root.attrib["style"] = f"--width: {width:.0f}pt; --min-width: {min_width:.0f}pt"
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree has escaped every text


def clip(text: str, max_length: int = MAX_TEXT) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= max_length else text[:max_length].rstrip() + " …"


def breakable(text: str) -> Markup:
    """Return a name that may wrap after an underscore, escaped."""
    return escape(text).replace("_", Markup("_<wbr>"))


def format_column(cells: Sequence[object]) -> list[str]:
    """Return the cells of a column as text. Its fractions have the same number of digits, at most four."""
    digits = max((len(f"{cell:.4f}".rstrip("0").partition(".")[2]) for cell in cells if isinstance(cell, float)), default=0)
    return [
        f"{round(cell, digits) + 0.0:,.{digits}f}".replace("-", "−")
        if is_number(cell)
        else ""
        if cell is None
        else format_value(cell)
        for cell in cells
    ]


def _render(template: str, drawings: Sequence[ReportFigure], tables: Sequence[ReportTable] = (), **values: Any) -> str:
    environment = template_environment()
    environment.filters |= {"clip": clip, "breakable": breakable}
    values["figures"] = {drawing.name: (drawing, inline_svg(drawing)) for drawing in drawings}
    values["tables"] = {table.name: _page_table(table) for table in tables}
    return environment.get_template(template).render(version=metadata.version("loralab"), **values)


def _local_name(name: str) -> str:
    return name.rpartition("}")[2]


def _page_attribute(name: str, value: str, figure: str) -> str:
    """Return an SVG attribute for the page: ids and references carry the figure's name, colours and fonts are the page's."""
    if name == "id":
        return f"{figure}-{value}"
    if name == "href":
        return value.replace("#", f"#{figure}-")
    value = value.replace("url(#", f"url(#{figure}-")
    for color, css_color in _CSS_COLORS.items():
        value = value.replace(color, css_color)
    return _FONT.sub("var(--sans)", value)


def _evenly_spaced(rows: Sequence[Any], max_rows: int) -> list[Any]:
    """Return at most `max_rows` evenly spaced rows, the last always among them."""
    step = -(-len(rows) // max_rows) or 1
    return [row for i, row in enumerate(rows) if (len(rows) - 1 - i) % step == 0]


def _page_table(table: ReportTable) -> dict[str, Any]:
    """Return a table for a template: cells as text, a CSS class per column, a note on rows left out."""
    rows = table.rows[:MAX_TABLE_ROWS]
    columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
    texts = [_format_cells(cells, is_key=i < table.keys) for i, cells in enumerate(columns)]
    numeric = [i >= table.keys and not any(isinstance(cell, str) for cell in cells) for i, cells in enumerate(columns)]
    left_out = f" The first {len(rows):,} of {len(table.rows):,} rows; tables/{table.name}.csv has all."
    return _template_table(table.title, table.columns, texts, numeric, left_out if len(rows) < len(table.rows) else None)


def _diagnosis_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section of diagnosis.json for a template."""
    columns = list(zip(*section["rows"], strict=True)) or [()] * len(section["columns"])
    texts, numeric = [format_column(cells) for cells in columns], [any(map(is_number, cells)) for cells in columns]
    table = _template_table(section["title"], section["columns"], texts, numeric, section["note"])
    return {**table, "summary": section["summary"]}


def _template_table(
    title: str, names: Sequence[str], columns: Sequence[Sequence[str]], numeric: Sequence[bool], note: str | None
) -> dict[str, Any]:
    rows = list(zip(*columns, strict=True))
    classes = [_column_class(cells, number) for cells, number in zip(columns, numeric, strict=True)]
    size = {"wide": len(names) > WIDE_TABLE, "tall": len(rows) > TALL_TABLE}
    return {"title": title, "columns": names, "rows": rows, "classes": classes, "note": note, **size}


def _column_class(texts: Sequence[str], numeric: bool) -> str:
    """Return a column's CSS class: numbers align right, short texts stay on one line, long ones get a minimum width."""
    longest = max(map(len, texts), default=0)
    return "n" if numeric else "one" if longest <= SHORT_TEXT else "words" if longest > LONG_TEXT else "some"


def _format_cells(cells: Sequence[object], *, is_key: bool) -> list[str]:
    """Return a column as text: numbers with equal digits, intervals as `low to high`, tiny numbers as <0.0001."""
    if is_key:
        return ["" if cell in ("", None) else format_value(cell) for cell in cells]
    if any(isinstance(cell, Interval) for cell in cells):
        ends = [f"{cell.low:.4f} to {cell.high:.4f}" if isinstance(cell, Interval) else "" for cell in cells]
        return [text.replace("-", "−") for text in ends]
    known = [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in cells]
    return [
        "<0.0001" if isinstance(cell, float) and 0 < cell < 0.00005 else text
        for cell, text in zip(known, format_column(known), strict=True)
    ]


def _scaled_attribution(explained: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attribution with a sign and a strength per word, from 0 to 1 of the strongest, and the space that follows it."""
    tokens = explained["tokens"]
    strongest = max((abs(value) for _, value in tokens), default=0) or 1
    marked = []
    for token, value in tokens:
        text = token.rstrip()
        sign = "" if abs(value) < 0.05 * strongest else "for" if value > 0 else "against"
        strength = round(abs(value) / strongest, 2)
        marked.append({"text": text, "space": token[len(text) :], "sign": sign, "strength": strength, "value": value})
    return {**explained, "tokens": marked}
