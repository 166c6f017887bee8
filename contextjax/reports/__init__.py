"""The self-contained HTML page of an evaluation: build_report gathers plain values, render makes the page."""

from contextjax.reports.page import render
from contextjax.reports.report import Report, build_report

__all__ = ["Report", "build_report", "render"]
