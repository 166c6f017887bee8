"""Cards of composed queries say what the evaluation says."""

import dataclasses

from contextjax.reports.report import render
from tests.reports.conftest import FakeSystem, cards_of


def test_the_target_is_marked_once_and_comes_last_where_it_is_not_among_the_first_five(make_report):
    cards = cards_of(make_report(sample=40))
    assert any(card.rank > 5 for card in cards)
    for card in cards:
        marked = [picture for picture in card.ranked if picture.is_target]
        assert len(marked) == 1
        assert marked[0].rank == card.rank
        assert len(card.ranked) == (5 if card.rank <= 5 else 6)
        scores = [picture.score for picture in card.ranked]
        assert scores == sorted(scores, reverse=True), "the target's own score fits its rank"


def test_best_cases_are_right_and_worst_cases_are_the_furthest_down(make_report):
    everything, best, worst = make_report(sample=40).sections
    assert {card.rank for card in best.cards} == {1}
    leads = [card.ranked[0].score - card.ranked[1].score for card in best.cards]
    assert leads == sorted(leads, reverse=True)
    assert [card.rank for card in worst.cards] == sorted((card.rank for card in everything.cards), reverse=True)[:6]


def test_phrases_have_two_maps_each_and_without_phrases_tokens_do(make_report):
    report = make_report()
    card = report.sections[0].cards[0]
    (phrase,) = card.phrases
    assert (report.read_by, phrase.label) == ("phrase", f"picture {card.id}")
    in_context, alone = phrase.heats
    assert (in_context.label, alone.label) == ("in context", "alone")
    assert in_context.weights == "0.100–0.400"  # patches read one of two tokens at 0.7, or neither
    assert alone.weights == "0.400–0.400"  # each reads one of two
    assert in_context.picture != alone.picture
    report = make_report(phrases_of=None)
    card = report.sections[0].cards[0]
    assert report.read_by == "token"
    assert [phrase.label for phrase in card.phrases] == ["make", "it", "picture", card.id]


def test_all_queries_of_a_report_are_encoded_in_one_batch_and_all_their_phrases_in_another(make_report, monkeypatch):
    given = []
    maps = FakeSystem.attention_maps
    monkeypatch.setattr(FakeSystem, "attention_maps", lambda *a: given.append(a[2]) or maps(*a))
    report = make_report()
    assert len(given) == 2
    texts = {card.text for card in cards_of(report)}
    assert len(given[0]) == len(texts) and set(given[0]) == texts, "a query in two sections is encoded once"
    assert sorted(given[1]) == sorted(text[len("make it ") :] for text in texts)


def test_a_phrase_that_the_encoder_did_not_read_has_no_map(make_report):
    report = make_report(phrases_of=lambda text: [(1000, 1010)])
    assert not report.has_maps
    assert {card.phrases for card in cards_of(report)} == {()}


def test_a_system_without_fusion_has_no_maps(make_report):
    report = make_report(query="sum")
    assert not report.has_maps
    assert report.read_by == "" and not any(card.phrases for card in cards_of(report))


def test_captions_are_the_alternative_texts(make_report):
    card = make_report(captions=[f"scene {row}" for row in range(40)]).sections[0].cards[0]
    assert card.reference_alt == f"Reference: scene {(int(card.id) + 1) % 40}"
    assert card.ranked[0].alt.startswith("Rank 1")


def test_the_page_says_whether_the_target_or_any_right_picture_counts(make_report):
    report = make_report()
    said = [render(dataclasses.replace(report, any_truth=any_truth)) for any_truth in (False, True)]
    assert ["R@K: the target is among" in page for page in said] == [True, False]
    assert "R@K: a right picture is among" in said[1]
