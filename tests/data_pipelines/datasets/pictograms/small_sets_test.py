"""Comparisons of a few pictures of a set: each is true of one of them alone, and each form is drawn as often."""

from collections import Counter
from random import Random

import pytest

from data_pipelines.datasets.pictograms.comparison_parser import target_of
from data_pipelines.datasets.pictograms.comparisons import comparative_set_of
from data_pipelines.datasets.pictograms.names import PICTOGRAMS, choose
from data_pipelines.datasets.pictograms.small_sets import FEW, SIZES, TEXTS, small_sets

SEEN, HELD_OUT = choose(PICTOGRAMS)


@pytest.fixture(scope="module")
def many():
    return [comparative_set_of("train", index, SEEN, HELD_OUT)[0].scenes for index in range(80)]


@pytest.mark.parametrize("size", SIZES)
def test_each_text_is_true_of_one_of_the_scenes_by_the_independent_parser(many, size):
    rows = 0
    for number, scenes in enumerate(many):
        for right, wrong, text in small_sets(scenes, size, Random(number)):
            rows += 1
            assert len({right, *wrong}) == size and target_of(text, [scenes[i] for i in (right, *wrong)]) == 0, text
    assert rows > 0.9 * TEXTS * len(many)


def test_a_third_of_the_texts_of_five_has_each_form(many):
    texts = [text.lower() for n, scenes in enumerate(many) for _, _, text in small_sets(scenes, FEW, Random(n))]
    forms = Counter(
        "ordinal" if "second" in text or "only one other" in text
        else "unlike" if " same " in text or ("no other picture" in text and "has" in text) else "superlative"
        for text in texts
    )  # fmt: skip
    assert all(0.25 < count / len(texts) < 0.42 for count in forms.values()) and len(forms) == 3, forms


def test_texts_of_two_are_superlatives(many):
    texts = [text.lower() for n, scenes in enumerate(many) for _, _, text in small_sets(scenes, 2, Random(n))]
    assert texts and not any("second" in text or "only one other" in text or "same" in text for text in texts)


def test_the_same_seed_draws_the_same(many):
    draw = lambda seed: small_sets(many[0], FEW, Random(seed))
    assert draw(1) == draw(1) != draw(2)
