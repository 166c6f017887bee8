"""The page holds everything itself, escapes what it is given, and fits a phone."""

import html
import itertools
import re

from contextjax.reports import render
from tests.reports.pages import HOSTILE, Tags, chromium, measure, needs_chromium


def test_hostile_texts_stay_texts(make_report):
    page = render(make_report(text=HOSTILE, title=HOSTILE, credit=HOSTILE, facts={HOSTILE: HOSTILE}, split=HOSTILE))
    tags = Tags(page)
    assert not tags.named("script")
    assert all(image["src"].startswith("data:image/") for image in tags.named("img"))
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7*7 }}" in page  # a text is not a template


def test_nothing_comes_from_outside(make_report):
    page = render(make_report())
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            address = attributes.get(name, "data:")
            assert address.startswith("data:") or (tag == "a" and attributes["rel"] == "noopener"), (tag, address)
    assert [a["href"] for a in Tags(page).named("a")] == ["https://example.org/licence"]
    assert not re.search(r"@import|url\(", page)


def test_every_picture_has_an_alternative_text_and_every_chart_a_summary(make_report):
    tags = Tags(render(make_report()))
    assert len(tags.named("img")) > 100
    assert all(image["alt"].strip() for image in tags.named("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in tags.named("svg"))
    assert len([svg for svg in tags.named("svg") if svg.get("role") == "img"]) == 3


def test_headings_do_not_skip_a_level_and_tables_have_scopes(make_report):
    tags = Tags(render(make_report()))
    levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(cell.get("scope") in ("col", "row") for cell in tags.named("th"))


def test_the_page_is_small(make_report):
    assert len(render(make_report()).encode()) < 3_000_000  # of noise, which does not compress


def test_a_report_of_little_is_a_page_too(make_report):
    page = render(make_report(query="sum", metric_lines=(), baselines={}, credit="", facts=None, sample=1, extremes=0))
    assert "left no metrics" in page
    assert "same towers" not in page


@needs_chromium
def test_a_browser_shows_the_headline_table(make_report, tmp_path):
    report = make_report(text=HOSTILE)
    tags = Tags(dom := chromium(tmp_path, render(report)))
    assert "Metrics of the run and its baselines" in dom
    assert f"{report.rows[0].values[0]:.1f}</td>" in dom
    assert len(tags.named("table")) == 2
    assert not tags.named("script")


@needs_chromium
def test_nothing_sticks_out_at_phone_or_desktop_width(make_report, tmp_path):
    page = render(make_report(text=HOSTILE, title="t" * 200, facts={"Made by": "x" * 300}))
    phone, desktop = measure(tmp_path, page)
    assert 370 <= phone[0] <= 390 and phone[1] <= phone[0], f"page, content, table box, table: {phone}"
    assert phone[3] > phone[2], "the table scrolls inside its box"
    assert desktop[1] <= desktop[0], f"page, content, table box, table: {desktop}"
