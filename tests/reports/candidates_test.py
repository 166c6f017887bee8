"""Cards of candidate sets: every candidate with its score and marks, attention maps, the patches masking would hide."""

import html
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.evaluation import evaluate_candidates
from contextjax.reports import render
from contextjax.reports.candidates import CandidateView, first_of_sets, predicted, shares, spread
from contextjax.reports.pictures import CaptionedPictures
from contextjax.types import CandidateRecord
from tests.reports.conftest import COUNT, SIZES, FakeSets, cards_of
from tests.reports.pages import HOSTILE, Tags, chromium, measure, needs_chromium


def test_every_candidate_of_every_example_is_on_the_page_in_its_order(make_sets):
    report = make_sets(sample=COUNT)
    cards = cards_of(report)
    assert {len(card.candidates) for card in cards} == set(SIZES) and report.sizes == (3, 10)
    assert len(report.sections[0].cards) == COUNT
    page = render(report)
    shown = [image["alt"] for image in Tags(page).named("img") if image["alt"].startswith("Candidate ")]
    assert shown == [candidate.alt for card in cards for candidate in card.candidates]
    assert len(shown) == sum(len(card.candidates) for card in cards)
    for card in cards:
        assert [candidate.number for candidate in card.candidates] == list(range(1, len(card.candidates) + 1))
        assert [c.alt.rsplit(": ")[1] for c in card.candidates] == list(report_images(card.id))


def report_images(row):
    row = int(row)
    return [f"picture-{(row - row % 2 + near) % COUNT}" for near in range(SIZES[row % 3])]


def test_scores_shares_and_marks_are_those_of_the_evaluation(make_sets):
    for card in cards_of(make_sets(sample=COUNT)):
        scores = [candidate.score for candidate in card.candidates]
        (target,) = (c for c in card.candidates if c.is_target)
        (prediction,) = (c for c in card.candidates if c.is_prediction)
        assert target.number == card.target == int(card.id) % SIZES[int(card.id) % 3] + 1
        assert prediction.number == card.prediction == int(np.argmax(scores)) + 1
        assert card.rank == 1 + sum(score > target.score for score in scores)
        assert card.is_right == (card.rank == 1)
        assert sum(c.share for c in card.candidates) == pytest.approx(100)
        assert ", the target" in target.alt and ", the prediction" in prediction.alt


def test_target_and_prediction_are_marked_in_words_too(make_sets):
    report = make_sets()
    page, cards = render(report), cards_of(report)
    assert page.count("<strong>target</strong>") == page.count("<strong>prediction</strong>") == len(cards)
    assert page.count("<b>Right</b>") == sum(card.is_right for card in cards)
    assert page.count("<b>Wrong</b>") == sum(not card.is_right for card in cards)


def test_the_interval_and_the_baselines_are_reported(make_sets):
    report = make_sets()
    page = re.sub(r"\s+", " ", render(report))
    run, itc, random, constant = report.rows
    assert report.columns == ("accuracy",) and run.main and run.note == "score: selection"
    low, high = run.interval
    assert low < run.values[0] < high
    assert f"<td>{low:.1f}–{high:.1f}</td>" in page and f"95 %: {low:.1f}–{high:.1f}" in page
    assert itc.interval == (11.25, 33.75) and "<td>11.2–33.8</td>" in page
    assert (random.name, constant.name) == ("random", "best constant index") and random.interval is None
    assert f"{random.values[0]:.1f}</td><td>–</td>" in page
    assert [(row.name, row.n_queries) for row in report.kinds] == [("static", 20), ("video", 20)]
    assert [chart.title for chart in report.charts] == ["Loss and its terms", "Accuracy during training"]
    assert "40 queries, which are descriptions of 40 sets of 3 to 10 candidates" in page


def test_right_and_wrong_ones_go_from_end_to_end(make_sets):
    _, right, wrong = make_sets(extremes=4).sections
    assert all(card.is_right for card in right.cards) and not any(card.is_right for card in wrong.cards)
    lead = lambda card: float(np.subtract(*sorted((c.share for c in card.candidates), reverse=True)[:2]))
    leads, ranks = [lead(card) for card in right.cards], [card.rank for card in wrong.cards]
    assert leads == sorted(leads, reverse=True) and ranks == sorted(ranks) and len(leads) == len(ranks) == 4
    assert ranks[-1] == max(card.rank for card in make_sets(sample=COUNT).sections[0].cards)


def test_what_is_read_is_asked_for_once_and_shown_of_prediction_and_target(make_sets):
    system = FakeSets()
    report = make_sets(system=system)
    (asked,) = system.asked
    assert len(set(asked)) == len(asked), "a query in two sections is read once"
    cards = {card.id: card for card in cards_of(report)}
    assert len(asked) == sum(1 if card.is_right else 2 for card in cards.values())
    for card in cards.values():
        assert tuple(heat.label for heat in card.heats) == (
            ("prediction and target",) if card.is_right else ("prediction", "target")
        )
        assert len(card.heats) == (1 if card.is_right else 2)
        assert [phrase.label for phrase in card.phrases] == [" ".join(card.text.split()[-2:])]
        assert all(len(phrase.heats) == len(card.heats) for phrase in card.phrases)
        assert (card.masked.count, card.masked.n_patches) == (4, 16)
        assert card.masked.by.strip("“”") in card.text.split()


def test_without_phrases_tokens_are_shown(make_sets):
    report = make_sets(phrases_of=None)
    assert report.read_by == "token"
    assert [phrase.label for phrase in cards_of(report)[0].phrases][:3] == ["the", "small", "dog"]


def test_hostile_texts_stay_texts_and_nothing_comes_from_outside(make_sets):
    page = render(
        make_sets(
            text=HOSTILE, phrases_of=None, title=HOSTILE, split=HOSTILE, protocol=HOSTILE, captions=[HOSTILE] * COUNT
        )
    )
    tags = Tags(page)
    assert not tags.named("script") and not tags.named("a")
    assert all(image["src"].startswith("data:image/") and image["alt"].strip() for image in tags.named("img"))
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in page and "{{ 7*7 }}" in page
    assert not re.search(r"@import|url\(|https?://", page)


def test_a_system_whose_texts_read_no_picture_has_no_maps(make_sets):
    system = FakeSets(scores=("itc",))
    report = make_sets(system=system)
    assert not system.asked and not report.has_maps
    assert "Read by the text" not in render(report)


def test_scores_that_are_no_numbers_are_a_page_too(make_sets):
    report = make_sets(system=FakeSets(broken=True))
    assert report.rows[0].values == (0.0,)
    card = report.sections[0].cards[0]
    assert card.rank == len(card.candidates) and {c.share for c in card.candidates} == {0}
    assert "No query is answered right" in render(report)


@hypothesis.given(st.lists(st.sampled_from([-np.inf, np.inf, np.nan, -1e30, -1.0, 0.0, 2.0, 1e30]), min_size=1))
def test_shares_are_shares_whatever_the_scores(scores):
    found = shares(np.asarray(scores, np.float32))
    assert (found >= 0).all() and (found.sum() == pytest.approx(100) or not found.any())
    assert found.any() == np.isfinite(scores).any()
    best = predicted(np.asarray(scores))
    assert not any(score > scores[best] for score in scores)
    assert np.isnan(scores).all() or not np.isnan(scores[best]) or set(map(str, scores)) == {"nan", "-inf"}


@hypothesis.given(st.lists(st.integers(0, 9), min_size=0, max_size=40), st.integers(0, 12))
def test_spread_takes_both_ends_and_no_row_twice(values, count):
    values = np.asarray(values, int)
    found = spread(np.arange(len(values)), values, count)
    assert len(set(found.tolist())) == len(found) == min(count, len(values))
    if len(found) > 1:
        assert values[found[0]] == values.min() and values[found[-1]] == values.max()
    assert (np.diff(values[found]) >= 0).all()


def test_a_section_shows_a_set_once():
    records = [CandidateRecord(str(i), ("ab"[i % 2], "c"), "text", 0) for i in range(6)]
    assert first_of_sets(records, np.asarray([2, 3, 4, 5])).tolist() == [2, 3]
    assert first_of_sets(records, np.asarray([], int)).tolist() == []


@needs_chromium
def test_a_browser_shows_the_page_and_nothing_sticks_out(make_sets, tmp_path):
    page = render(make_sets(text=HOSTILE, title="t" * 200, sample=3, extremes=1))
    phone, desktop = measure(tmp_path, page)
    assert 370 <= phone[0] <= 390 and phone[1] <= phone[0], f"page, content, table box, table: {phone}"
    assert desktop[1] <= desktop[0], f"page, content, table box, table: {desktop}"
    assert not Tags(chromium(tmp_path, page)).named("script")


@pytest.mark.long
def test_a_real_systems_cards_hold_its_scores_and_what_masking_would_hide(blip, pictures):
    records = [
        CandidateRecord("0", tuple(pictures.ids[:3]), "dog left of the small tent", 1),
        CandidateRecord("1", (pictures.ids[2], pictures.ids[0]), "cat left of the small bus", 0),
    ]
    evaluation = evaluate_candidates(blip, records, pictures)
    cards = CandidateView(blip, evaluation, CaptionedPictures(pictures)).cards([0, 1])
    for card, record in zip(cards, records, strict=True):
        images = [pictures[pictures.row[name]] for name in record.images]
        scores = [candidate.score for candidate in card.candidates]
        np.testing.assert_allclose(scores, blip.score_candidates(images, record.text), rtol=1e-5)
        assert card.masked.count == 5 and card.heats and card.phrases
