"""The self-contained HTML page of an evaluation (build_report, render), and where a query's phrases are read
(phrase_maps, phrase_sheet)."""

from contextjax.reports.build import build_report
from contextjax.reports.candidates import CandidateReport
from contextjax.reports.composed import ComposedReport
from contextjax.reports.maps import PhraseMaps, phrase_maps
from contextjax.reports.page import render
from contextjax.reports.pictures import scaled
from contextjax.reports.report import Report
from contextjax.reports.sheet import phrase_sheet

__all__ = [
    "CandidateReport",
    "ComposedReport",
    "PhraseMaps",
    "Report",
    "build_report",
    "phrase_maps",
    "phrase_sheet",
    "render",
    "scaled",
]
