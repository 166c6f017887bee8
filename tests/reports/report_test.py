"""A report says what the evaluation says; a page is self-contained, escapes what it is given, and fits a phone."""

import html
import itertools
import re

import numpy as np
import pytest

from contextjax.reports import SampleReport, Section, make_sample, render
from contextjax.reports.report import probe_rows
from data_pipelines.synthesis.review import read_decisions
from tests.reports.pages import HOSTILE, Tags, chromium, measure, needs_chromium

ID = "0123456789abcdef"


def test_the_rows_are_the_run_and_its_baselines_under_the_protocols_columns(make_report):
    report = make_report()
    assert report.columns == ("R@1", "R@5", "R@10", "R@50", "Rs@1", "Rs@2", "Rs@3", "Avg")
    assert [row.main for row in report.rows] == [True, False, False]
    assert report.rows[0].values == report.rows[1].values  # the fixture hands the run's own as "image"
    assert report.rows[2].values == (12.5, *[None] * 7)
    assert [name for name, _, _ in report.headline] == ["R@1", "Rs@1", "Avg"]
    assert report.headline[-1][2] is None  # a mean of recalls has no binomial error
    assert (report.n_queries, report.n_gallery, report.n_ranked) == (40, 40, 39)
    assert report.kinds[0].n_queries == 40
    assert report.facts["Config"] == "0123456789ab"
    assert report.facts["Checkpoint"] == "step 2800"


def test_the_sample_is_a_function_of_the_seed(make_report):
    ids = lambda **arguments: [card.id for card in make_report(**arguments).sections[0].cards]
    assert ids(seed=3) == ids(seed=3)
    assert ids(seed=3) != ids(seed=4)
    assert len(ids()) == 12


def test_hostile_texts_stay_texts(make_report):
    page = render(make_report(text=HOSTILE, title=HOSTILE, credit=HOSTILE, facts={HOSTILE: HOSTILE}, split=HOSTILE))
    tags = Tags(page)
    assert not tags.named("script")
    assert all(image["src"].startswith("data:image/") for image in tags.named("img"))
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in page
    assert "\x1b" not in page and "\u202e" not in page and "\\x1b[2J\\u202e" in page
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
    page = render(make_report(query="sum", metric_lines=(), baselines={}, credit="", facts={}, sample=1, extremes=0))
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


def make_samples(*, text="Add a dog.", decisions="", count=3, title="set"):
    rng = np.random.default_rng(0)
    picture = lambda: rng.integers(0, 256, (20, 30, 3), np.uint8)
    cards = [
        make_sample(
            f"{ID[:-1]}{i}", [(picture(), f"reference: {title}"), (picture(), "target")], text=text, notes=[text]
        )
        for i in range(count)
    ]
    sections = (Section(f"First: {title}", title, tuple(cards)), Section("Empty", "", ()))
    return SampleReport(title, "review of triplets", title, {"pairs": "3"}, sections, {"Made by": title}, "", decisions)


@pytest.mark.parametrize("decisions", ["", "decisions.train.json"])
def test_hostile_texts_stay_texts_on_a_page_of_samples(decisions):
    page = render(make_samples(text=HOSTILE, title=HOSTILE, decisions=decisions))
    tags = Tags(page)
    assert len(tags.named("script")) == (1 if decisions else 0)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in tags.named("img"))
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in page and "{{ 7*7 }}" in page
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(", page)


def test_every_card_can_be_decided_on_where_a_file_is_named():
    tags = Tags(render(make_samples(decisions="decisions.train.json")))
    assert [article["data-id"] for article in tags.named("article")] == [f"{ID[:-1]}{i}" for i in range(3)]
    assert [b.get("data-decision") for b in tags.named("button")] == ["accept", "reject"] * 3 + [None]
    assert not Tags(render(make_samples())).named("button")


@needs_chromium
def test_a_browser_saves_what_the_next_run_reads(tmp_path):
    """The page's own script, pressed and saved; what would go to the disk is caught."""
    press = """<script>
      window.Blob = function (parts) { document.title = parts[0]; };
      URL.createObjectURL = () => "#saved";
      const press = (card, what) => cards[card].querySelector(`[data-decision=${what}]`).click();
      press(0, "accept"); press(1, "accept"); press(1, "reject"); press(2, "reject"); press(2, "reject");
      document.getElementById("save").click();
    </script>"""
    page = render(make_samples(decisions="decisions.train.json")).replace("</body>", f"{press}</body>")
    dom = chromium(tmp_path, page)
    saved = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1])
    (tmp_path / "decisions.json").write_text(saved)
    assert read_decisions(tmp_path / "decisions.json") == {f"{ID[:-1]}0": "accept", f"{ID[:-1]}1": "reject"}
    assert "1 accepted, 1 rejected, 1 left of 3" in dom


def test_probes_are_said_with_intervals_and_what_was_cut():
    """Results of before have no intervals, and a share that rounds to zero is not worth a word."""
    row = lambda strength, **more: {"strength": strength, "accuracy": 50.0, "low95": 45.0, "high95": 55.0, **more}
    order = {"accuracy": 49.5, "n_queries": 7, "difference": 1e-6}
    rows = probe_rows({"distractor texts": [row(0, cut=0.2), row(1, cut=61.7)], "order of candidates": order})
    assert rows == (
        ("distractor texts", "0: 50.0 (45.0 to 55.0); 1: 50.0 (45.0 to 55.0), 62 % of the texts cut"),
        ("order of candidates", "49.5; scores permute, largest difference 1.0e-06 of their deviation"),
    )
    assert "(40.0 to 60.0); scores do not" in probe_rows({"x": {**order, **row(0), "low95": 40.0, "high95": 60.0,
                                                               "difference": 0.5}})[0][1]  # fmt: skip


def test_what_one_modality_answers_and_the_number_of_phrases_are_tables(make_report, make_sets):
    shares = {"R@1": {"image": 11.8, "text": 0.4, "either": 12.1, "n_rest": 1759, "rest": 70.2},
              "Rs@1": {"image": 50.0, "text": 50.0, "either": 100.0, "n_rest": 0, "rest": None}}  # fmt: skip
    grounding = {f"grounding/{name}": 40.0 for name in ("pointing", "mass", "pointing_chance", "mass_chance")}
    grounding |= {"grounding/phrases": 9, "grounding/alone_pointing": 33.3, "grounding/alone_mass": 22.2}
    by_phrases = {"2": {"R@1": 61.5, "n_queries": 30}, "3": {"R@1": 31.5, "n_queries": 10}}
    page = render(make_report(single_modality=shares, grounding=grounding, by_phrases=by_phrases))
    assert "By number of noun phrases" in page and "61.5" in page and "31.5" in page
    row = "<td>11.8</td><td>0.4</td><td>12.1</td><td>1,759</td><td>70.2</td>"
    assert row in page and "<td>0</td><td>–</td>" in page and "<td>33.3</td>" in page and ">alone</th>" in page
    plain = render(make_report())
    assert "one modality alone" not in plain and "noun phrases" not in plain
    own = {"accuracy": {"image": 10.0, "either": 10.0, "n_rest": 9, "rest": 50.0}}
    page = render(make_sets(single_modality=own))
    assert "<td>10.0</td><td>9</td><td>50.0</td>" in page and "text alone</th>" not in page
