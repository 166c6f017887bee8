"""A report says what the evaluation says."""

import base64
import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from contextjax.reports.pictures import data_uri, overlay, scaled
from tests.reports.conftest import FakeSystem


def cards_of(report):
    return [card for section in report.sections for card in section.cards]


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


def test_the_target_is_marked_once_and_comes_last_where_it_is_not_among_the_first_five(make_report):
    cards = cards_of(make_report(sample=40))
    assert any(card.rank > 5 for card in cards)
    for card in cards:
        marked = [found for found in card.found if found.is_target]
        assert len(marked) == 1
        assert marked[0].rank == card.rank
        assert len(card.found) == (5 if card.rank <= 5 else 6)
        scores = [found.score for found in card.found]
        assert scores == sorted(scores, reverse=True), "the target's own score fits its rank"


def test_the_sample_is_a_function_of_the_seed(make_report):
    ids = lambda **arguments: [card.id for card in make_report(**arguments).sections[0].cards]
    assert ids(seed=3) == ids(seed=3)
    assert ids(seed=3) != ids(seed=4)
    assert len(ids()) == 12


def test_best_cases_are_right_and_worst_cases_are_the_furthest_down(make_report):
    everything, best, worst = make_report(sample=40).sections
    assert {card.rank for card in best.cards} == {1}
    leads = [card.found[0].score - card.found[1].score for card in best.cards]
    assert leads == sorted(leads, reverse=True)
    assert [card.rank for card in worst.cards] == sorted((card.rank for card in everything.cards), reverse=True)[:6]


def test_phrases_have_two_maps_each_and_without_phrases_tokens_do(make_report):
    card = make_report().sections[0].cards[0]
    (phrase,) = card.phrases
    assert (card.read_by, phrase.label) == ("phrase", f"picture {card.id}")
    assert phrase.in_context.weights == "0.100–0.400"  # patches read one of two tokens at 0.7, or neither
    assert phrase.alone.weights == "0.400–0.400"  # each reads one of two
    assert phrase.in_context.picture != phrase.alone.picture
    card = make_report(phrases_of=None).sections[0].cards[0]
    assert card.read_by == "token"
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
    assert {card.read_by for card in cards_of(report)} == {""}


def test_captions_are_the_alternative_texts(make_report):
    card = make_report(captions=[f"scene {row}" for row in range(40)]).sections[0].cards[0]
    assert card.reference_alt == f"Reference: scene {(int(card.id) + 1) % 40}"
    assert card.found[0].alt.startswith("Rank 1")


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_pictures_are_made_smaller_and_keep_their_shape():
    assert decoded(data_uri(np.zeros((300, 600, 3), np.uint8))).shape == (64, 128, 3)
    assert decoded(data_uri(np.zeros((48, 48, 3), np.uint8))).shape == (48, 48, 3)


def test_heat_lies_where_the_map_says_and_scales_to_its_own_range():
    white = np.full((64, 64, 3), 255, np.uint8)
    heated = overlay(white[:8, :8], np.asarray([[0.0, 0.02], [0.0, 0.0]]))
    assert (heated[4:] == 255).all() and (heated[:, :4] == 255).all()
    assert (heated[:4, 4:] == heated[0, 4]).all()
    assert heated[0, 4, 0] > heated[0, 4, 2] + 100  # warm
    assert (overlay(white, np.zeros((2, 2))) == 255).all()


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_the_warmest_patch_is_the_maps_largest_and_the_rest_of_the_picture_stays_grey(data):
    rows, columns = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    height, width = data.draw(st.tuples(st.integers(rows, 90), st.integers(columns, 90)))
    left, top = data.draw(st.tuples(st.integers(0, width - columns), st.integers(0, height - rows)))
    right, bottom = data.draw(st.tuples(st.integers(left + columns, width), st.integers(top + rows, height)))
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    row, column = data.draw(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)))
    heat = np.random.default_rng(1).uniform(0.1, 0.3, (rows, columns))
    heat[row, column] = 0.4
    heated = overlay(picture, heat, seen=(left, top, right, bottom))
    assert heated.shape == picture.shape and heated.dtype == np.uint8
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    assert (heated[outside] == heated[outside][:, :1]).all()
    if rows * columns > 1:
        y = top + (2 * row + 1) * (bottom - top) // (2 * rows)
        x = left + (2 * column + 1) * (right - left) // (2 * columns)
        warmth = heated[..., 0].astype(int) - heated[..., 2]
        assert warmth[y, x] >= max(100, warmth.max() - 1)  # rounding


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (300, 200), (1, 100)])
def test_pictures_are_scaled_by_their_longer_side(shape):
    height, width = scaled(np.zeros((*shape, 3), np.uint8), 60).shape[:2]
    assert max(height, width) == 60 and (height > width) == (shape[0] > shape[1])


def test_faint_and_flat_maps_are_paler():
    white = np.full((64, 64, 3), 255, np.uint8)
    green = lambda low, peak: int(overlay(white, np.asarray([[low, peak]]))[0, 63, 1])
    clear = green(0.1, 0.4)
    assert green(0.0, 0.05) == clear, "the level does not count, once it is not faint"
    assert clear < green(0.0, 0.002) < 255
    assert clear < green(0.38, 0.4) < 255
