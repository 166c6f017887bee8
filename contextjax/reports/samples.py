"""Pages of picture pairs to look through, with their texts; or to decide on, one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from contextjax.reports.pictures import data_uri
from contextjax.reports.report import Section
from contextjax.types import Picture


@dataclasses.dataclass(frozen=True)
class Sample:
    """Two pictures and what is said of them."""

    id: str  # by which decisions name it
    pictures: tuple[tuple[str, str], ...]  # (a data: URI, what it is)
    text: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SampleReport:
    """What such a page shows."""

    title: str
    kind: str  # of page
    lead: str
    counts: Mapping[str, str]  # shown large: name -> value
    sections: tuple[Section, ...]  # of samples
    facts: Mapping[str, str]  # how the page came about: name -> value
    credit: str = ""  # of the pictures
    decisions: str = ""  # the name of the file that decisions are saved in; "": nothing is decided on


def make_sample(
    id: str, pictures: Sequence[tuple[Picture, str]], *, text: str = "", notes: Sequence[str] = ()
) -> Sample:
    """A sample of uint8 pictures [H, W, 3] and what each is."""
    return Sample(id, tuple((data_uri(picture), alt) for picture, alt in pictures), text, tuple(notes))
