"""Report -> one HTML page with everything in it: style, charts and pictures."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from contextjax.reports.report import Report

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render(report: Report) -> str:
    """The page. Every text is escaped; the credit's own links are the only addresses in it."""
    return _template().render(report=report)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1f}"
    environment.filters["ordinal"] = ordinal
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 1,204th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
