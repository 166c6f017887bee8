"""Report -> one HTML page with everything in it: style, charts and pictures."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from contextjax.reports.candidates import CandidateReport
from contextjax.reports.composed import ComposedReport
from contextjax.reports.report import Error, Report
from contextjax.reports.samples import SampleReport

# What fills the blocks of page.html.jinja, which is the frame of all.
TEMPLATES = {
    ComposedReport: "composed.html.jinja",
    CandidateReport: "candidates.html.jinja",
    SampleReport: "samples.html.jinja",
}


def render(report: Report | SampleReport) -> str:
    """The page. Every text is escaped; the credit's own links are the only addresses in it."""
    return _environment().get_template(TEMPLATES[type(report)]).render(report=report)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "ordinal": ordinal, "share": share, "sureness": sureness}
    return environment


def percent(value: float | None) -> str:
    """12.3, or a dash for nothing."""
    return "–" if value is None else f"{value:.1f}"


def share(value: float) -> str:
    """A share of a whole: 12 %, <1 %."""
    return "<1 %" if value < 0.5 else f"{value:.0f} %"


def sureness(error: Error) -> str:
    """A standard error, ± 1.2, or an interval, 10.1–12.5."""
    return f"{error[0]:.1f}–{error[1]:.1f}" if isinstance(error, tuple) else f"± {percent(error)}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 1,204th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
