"""Comparisons: each is true of one picture beside the others, needs them, and no shortcut finds it."""

import math
import re
from collections import Counter
from random import Random

import numpy as np
import pytest

from data_pipelines.datasets.pictograms.candidate_sets import RANGES
from data_pipelines.datasets.pictograms.comparison_parser import target_of
from data_pipelines.datasets.pictograms.comparisons import (
    FAMILIES,
    FORMS,
    comparative_set_of,
    comparison_bound,
    comparison_text,
    comparisons_of,
    make_comparative_set,
)
from data_pipelines.datasets.pictograms.names import PICTOGRAMS, a, choose, plural
from data_pipelines.datasets.pictograms.scenes import draw, share_of, twemoji_pictograms

SEEN, HELD_OUT = choose(PICTOGRAMS)


@pytest.fixture(scope="module")
def many():
    return [comparative_set_of("valid", index, SEEN, HELD_OUT) for index in range(400)]


def test_every_text_is_true_of_its_target_alone_by_the_independent_parser(many):
    for candidates, comparisons in many:
        assert len({target for target, _ in candidates.descriptions}) == len(candidates.descriptions) == 2
        for (target, text), comparison in zip(candidates.descriptions, comparisons, strict=True):
            assert target == comparison.target == target_of(text, candidates.scenes), text


def test_every_form_of_every_quantity_comes_up_and_reads_back_in_all_wordings(many):
    seen, rng = Counter(), Random(0)
    for candidates, _ in many[:150]:
        for comparison in comparisons_of(candidates.scenes):
            seen[comparison.quantity, comparison.form] += 1
            for _ in range(3):
                text = comparison_text(comparison, rng)
                assert target_of(text, candidates.scenes) == comparison.target, text
                assert text[0].isupper() and text.endswith(".") and 5 <= len(text.split()) <= 20
    assert set(seen) == {(quantity, form) for quantity in FAMILIES for form in FORMS}


def test_articles_and_plurals(many):
    names = {*PICTOGRAMS}
    for candidates, comparisons in many:
        for (_, text), comparison in zip(candidates.descriptions, comparisons, strict=True):
            assert not re.search(r"\ban? (?!size|place)", text), text
            for name in comparison.names:
                assert (
                    name in names
                    and (plural(name) if comparison.quantity == "count" else f"the {name}") in text.lower()
                )
    assert a("owl") == "an owl"


@pytest.mark.parametrize("canvas", [32, 64, 96, 128, 224, 256])
def test_things_lie_within_a_canvas_of_any_size(many, canvas):
    boxes = [thing["box"] for candidates, _ in many for scene in candidates.scenes for thing in scene.boxes(canvas)]
    assert min(map(min, boxes)) >= 0 and max(map(max, boxes)) <= canvas
    assert all(right - left == bottom - top > 0 for left, top, right, bottom in boxes)


def test_every_other_picture_differs_from_the_target(many):
    for candidates, comparisons in many[:60]:
        pictures = [draw(scene, twemoji_pictograms()) for scene in candidates.scenes]
        for comparison in comparisons:
            for other in range(10):
                if other != comparison.target:
                    assert (pictures[comparison.target] != pictures[other]).any()


def blind(name):
    """Returns a score of each picture that ignores the text."""
    return {
        "position": lambda scenes: -np.arange(10),
        "things": lambda scenes: [len(scene.things) for scene in scenes],
        "ink": lambda scenes: [sum(thing.spot[2] ** 2 for thing in scene.things) for scene in scenes],
        "least ink": lambda scenes: [-sum(thing.spot[2] ** 2 for thing in scene.things) for scene in scenes],
        "odd": lambda scenes: [sum(x.spot not in [y.spot for y in s.things] for s in scenes for x in scene.things)
                               for scene in scenes],
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "most"), [("position", 0.14), ("things", 0.16), ("ink", 0.16), ("least ink", 0.16), ("odd", 0.25)]
)
def test_scores_that_ignore_the_text_are_near_chance(many, name, most):
    points = []
    for candidates, _ in many:
        scores = np.asarray(blind(name)(candidates.scenes), float)
        best = np.isclose(scores, scores.max())
        points += [best[target] / best.sum() for target, _ in candidates.descriptions]
    assert np.mean(points) < most


@pytest.mark.parametrize("read", [str.split, lambda text: [str(len(text.split()))]], ids=["one word", "length"])
def test_neither_a_word_nor_the_length_says_where_the_target_is(many, read):
    """Guessed is where half of the sets have their target most often, by a feature of the text."""
    places = {}
    for candidates, _ in many[::2]:
        for target, text in candidates.descriptions:
            for feature in read(text):
                places.setdefault(feature, Counter())[target] += 1
    points = []
    for candidates, _ in many[1::2]:
        for target, text in candidates.descriptions:
            counts = [own for feature in read(text) if (own := places.get(feature)) and own.total() >= 20]
            if counts:
                best = max(counts, key=lambda own: max(own.values()) / own.total())
                points.append(best.most_common(1)[0][0] == target)
    assert len(points) > 300 and np.mean(points) < 0.15


def test_targets_are_anywhere_and_kinds_are_mixed(many):
    targets = np.bincount([t for candidates, _ in many for t, _ in candidates.descriptions], minlength=10) / (
        2 * len(many)
    )
    assert np.all(np.abs(targets - 0.1) < 4 * math.sqrt(0.09 / (2 * len(many))))
    kinds = Counter(kind for _, comparisons in many for each in comparisons for kind in each.kinds)
    assert kinds["comparative"] == 2 * len(many)
    for kind, least in {
        "superlative": 0.08,
        "ordinal": 0.12,
        "unlike": 0.4,
        "size": 0.2,
        "counting": 0.1,
        "relation": 0.2,
    }.items():
        assert kinds[kind] >= least * 2 * len(many), kind


def test_the_bound_is_that_of_one_candidate_at_a_time():
    """The right score of each form alone: a superlative is always right, and so the bound is above their share."""
    bound = comparison_bound(sets=400)
    assert bound == comparison_bound(sets=400) and 35 < bound < 60


def test_splits_share_no_pair_of_names_and_the_index_decides():
    for split, (low, high) in RANGES.items():
        for index in range(10):
            candidates, _ = comparative_set_of(split, index, SEEN, HELD_OUT)
            names = sorted({name for scene in candidates.scenes for name in scene.names})
            assert len(names) < 2 or low <= share_of(tuple(names)) < high
            assert len(candidates.descriptions) in ((2, 5) if split == "train" else (2,))
    again = comparative_set_of("train", 3, SEEN, HELD_OUT)
    assert (
        again
        == comparative_set_of("train", 3, SEEN, HELD_OUT)
        != comparative_set_of("train", 3, SEEN, HELD_OUT, seed=1)
    )


def test_too_few_names_and_unknown_texts_are_refused():
    with pytest.raises(ValueError, match="too few for sets that compare"):
        make_comparative_set(("dog", "cat"), Random(0), accept=lambda scene: False)
    scenes = make_comparative_set(("dog", "cat"), Random(0))[0].scenes
    for text in ("The dog is happy.", "The one where the dog is largest", "The one where the owl is largest."):
        with pytest.raises(ValueError, match=r"Can't parse|of which there are 0"):
            target_of(text, scenes)
