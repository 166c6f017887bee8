"""Pages of pairs: whole in themselves, texts stay texts, and decisions come out as the file that is read."""

import html
import json
import re

import numpy as np
import pytest

from contextjax.reports import SampleReport, Section, make_sample, render
from contextjax.types import UserError
from data_pipelines.synthesis.review import read_decisions
from tests.reports.pages import HOSTILE, Tags, chromium, needs_chromium

ID = "0123456789abcdef"


def report(*, text="Add a dog.", decisions="", count=3, title="set"):
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
def test_hostile_texts_stay_texts(decisions):
    page = render(report(text=HOSTILE, title=HOSTILE, decisions=decisions))
    tags = Tags(page)
    assert len(tags.named("script")) == (1 if decisions else 0)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in tags.named("img"))
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in page and "{{ 7*7 }}" in page
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(", page)


def test_every_card_can_be_decided_on_where_a_file_is_named():
    tags = Tags(render(report(decisions="decisions.train.json")))
    assert [article["data-id"] for article in tags.named("article")] == [f"{ID[:-1]}{i}" for i in range(3)]
    assert [b.get("data-decision") for b in tags.named("button")] == ["accept", "reject"] * 3 + [None]
    assert not Tags(render(report())).named("button")


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
    page = render(report(decisions="decisions.train.json")).replace("</body>", f"{press}</body>")
    dom = chromium(tmp_path, page)
    saved = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1])
    (tmp_path / "decisions.json").write_text(saved)
    assert read_decisions(tmp_path / "decisions.json") == {f"{ID[:-1]}0": "accept", f"{ID[:-1]}1": "reject"}
    assert "1 accepted, 1 rejected, 1 left of 3" in dom


@pytest.mark.parametrize(
    "found",
    [{}, {"decisions": []}, {"decisions": {"x": "accept"}}, {"decisions": {ID: "maybe"}}, {"decisions": {ID: 1}}],
)
def test_other_files_are_no_decisions(found, tmp_path):
    (tmp_path / "decisions.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="no file of decisions"):
        read_decisions(tmp_path / "decisions.json")
