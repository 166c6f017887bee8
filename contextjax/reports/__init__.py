"""The self-contained HTML page of an evaluation (build_report, render), where a query's phrases are read
(phrase_maps, phrase_sheet), and pages of picture pairs to look through (SampleReport)."""

from contextjax.reports.build import build_report
from contextjax.reports.candidates import CandidateReport
from contextjax.reports.composed import ComposedReport
from contextjax.reports.maps import PhraseMaps, phrase_maps
from contextjax.reports.page import render
from contextjax.reports.pictures import scaled
from contextjax.reports.report import Report, Section
from contextjax.reports.samples import Sample, SampleReport, make_sample
from contextjax.reports.sheet import phrase_sheet

__all__ = [
    "CandidateReport",
    "ComposedReport",
    "PhraseMaps",
    "Report",
    "Sample",
    "SampleReport",
    "Section",
    "build_report",
    "make_sample",
    "phrase_maps",
    "phrase_sheet",
    "render",
    "scaled",
]
