"""The templates of pages, model cards and logs."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from loralab.metrics import NO_TEST_ROWS
from loralab.report.formatting import capitalize, format_score, format_value, one_line


def template_environment() -> Environment:
    """Return the environment of all templates. It escapes values for pages only; an undefined name is an error."""
    loader = PackageLoader("loralab.report", "templates")
    environment = Environment(loader=loader, autoescape=select_autoescape(["html.jinja"]), undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"value": format_value, "score": format_score, "line": one_line, "capitalized": capitalize}
    environment.globals["no_test_rows"] = NO_TEST_ROWS
    return environment
