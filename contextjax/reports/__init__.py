"""Self-contained HTML pages: evaluations (build_report, render) and picture pairs to look through (SampleReport).

phrase_maps and phrase_sheet show where a query's phrases are read in its reference picture.
"""

from contextjax.reports.maps import PhraseMaps, phrase_maps
from contextjax.reports.pictures import phrase_sheet, scaled
from contextjax.reports.report import (
    Report,
    RunResults,
    Sample,
    SampleReport,
    Section,
    build_report,
    make_sample,
    render,
)

__all__ = [
    "PhraseMaps",
    "Report",
    "RunResults",
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
