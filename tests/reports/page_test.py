"""The page holds everything itself, escapes what it is given, and fits a phone."""

import html
import html.parser
import itertools
import re
import shutil
import subprocess

import pytest

from contextjax.reports import render

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"a\" & 'b' {{ 7*7 }} " + "long" * 60 + " and then"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (apt-get install chromium)")


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


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


def chromium(tmp_path, page):
    """The page's DOM after its scripts ran."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    off = ("gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage")
    flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in off)]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


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
    """Measured in frames, since a headless window is never narrower than about 500 pixels."""
    page = html.escape(render(make_report(text=HOSTILE, title="t" * 200, facts={"Made by": "x" * 300})))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in (390, 1280))
    script = """<script>addEventListener("load", () => {
      const measure = ({contentDocument: d}) => {
        const [page, box] = [d.documentElement, d.querySelector(".scroll")];
        return [page.clientWidth, page.scrollWidth, box.clientWidth, box.scrollWidth].join(",");
      };
      const widths = [...document.querySelectorAll("iframe")].map(measure).join(";");
      document.body.innerHTML = `<p>widths ${widths}</p>`;
    });</script>"""
    dom = chromium(tmp_path, f"<!doctype html><meta charset=utf-8><body>{frames}{script}</body>")
    measured = re.search(r"<p>widths (.*?)</p>", dom)[1].split(";")
    phone, desktop = ([int(number) for number in widths.split(",")] for widths in measured)
    assert 370 <= phone[0] <= 390 and phone[1] <= phone[0], f"page, content, table box, table: {phone}"
    assert phone[3] > phone[2], "the table scrolls inside its box"
    assert desktop[1] <= desktop[0], f"page, content, table box, table: {desktop}"
