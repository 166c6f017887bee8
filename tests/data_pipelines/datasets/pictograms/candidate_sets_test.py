"""Candidate sets: fair, small edits of a base, split by combination, and a function of the seed."""

import functools
import math

import numpy as np
import pytest

from data_pipelines.datasets.pictograms import candidate_sets
from data_pipelines.datasets.pictograms.candidate_sets import set_of
from data_pipelines.datasets.pictograms.description_parser import all_true, parse
from data_pipelines.datasets.pictograms.names import choose
from data_pipelines.datasets.pictograms.scenes import EXTENT, share_of, twemoji_pictograms

SEEN, HELD_OUT = choose(twemoji_pictograms())


@functools.cache
def made(count):
    return [set_of("valid", index, SEEN, HELD_OUT) for index in range(count)]


@pytest.fixture(scope="module")
def many():
    return made(301)


def _features(candidates):
    """The ten scenes as vectors [10, features]: what is where, and how much ink it leaves."""
    names = sorted({name for scene in candidates.scenes for name in scene.names})
    vectors = np.zeros((10, 4, len(names)))
    for row, scene in zip(vectors, candidates.scenes, strict=True):
        for thing in scene.things:
            row[thing.place, names.index(thing.name)] = EXTENT[thing.size] ** 2
    return vectors.reshape(10, -1)


def _distances(candidates):
    features = _features(candidates)
    return np.abs(features[:, None] - features[None]).sum((1, 2))


SCORERS = {
    "first": lambda candidates: -np.arange(10),
    "hub": lambda candidates: -_distances(candidates),
    "odd one out": _distances,
    "most ink": lambda candidates: _features(candidates).sum(1),
    "least ink": lambda candidates: -_features(candidates).sum(1),
    "most things": lambda candidates: np.array([len(scene.things) for scene in candidates.scenes]),
    "fewest things": lambda candidates: -np.array([len(scene.things) for scene in candidates.scenes]),
    "base": lambda candidates: np.arange(10) == candidates.base,
}


@pytest.mark.parametrize("count", [301, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SCORERS)
def test_scores_that_ignore_the_text_are_at_chance(name, count):
    """Picking by the pictures alone hits 10 %, within 4 sigma; ties share the point."""
    points = []
    for candidates in made(count):
        scores = np.asarray(SCORERS[name](candidates), dtype=float)
        best = np.isclose(scores, scores.max())
        points += [best[index] / best.sum() for index, _ in candidates.descriptions]
    assert abs(np.mean(points) - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(points))


def test_the_parser_finds_the_target_by_its_own_text_and_guesses_by_that_of_another_set(many):
    """Picks the scene of which most clauses are true; ties share the point."""

    def accuracy(shift):
        points = []
        for candidates, other in zip(many[:300], many[shift : 300 + shift], strict=True):
            for (index, _), (_, text) in zip(candidates.descriptions, other.descriptions, strict=True):
                true = np.asarray([sum(all_true([one], scene) for one in parse(text)) for scene in candidates.scenes])
                points.append((true[index] == true.max()) / np.sum(true == true.max()))
        return np.mean(points)

    assert accuracy(0) == 1
    assert accuracy(1) <= 0.13


def test_sets_have_ten_different_scenes_and_different_targets(many):
    for candidates in many[:200]:
        assert len(set(candidates.scenes)) == 10
        assert len({index for index, _ in candidates.descriptions}) == 2


def test_pairs_are_true_of_the_one_and_false_of_the_other(many):
    """Checks them with the independent parser; every kind of statement comes up."""
    texts = []
    for candidates in many[:200]:
        assert {right for right, _, _ in candidates.pairs} <= {index for index, _ in candidates.descriptions}
        for right, wrong, text in candidates.pairs:
            predicates = parse(text)
            assert all_true(predicates, candidates.scenes[right])
            assert not all_true(predicates, candidates.scenes[wrong])
            texts.append(text)
    assert len(texts) >= 1900
    for word in ("not", "exactly", "no", "left", "above", "large", "same size", "both", "nothing", "one of the"):
        assert any(word in text for text in texts), word


def test_statements_about_one_of_five_are_true_of_it_alone(many):
    rows = 0
    for candidates in many[:200]:
        for right, wrong, text in candidates.few:
            rows += 1
            assert len({right, *wrong}) == 5
            true = [all_true(parse(text), candidates.scenes[index]) for index in (right, *wrong)]
            assert true == [True, False, False, False, False], text
    assert rows >= 760


def test_the_base_may_be_anywhere(many):
    counts = np.bincount([candidates.base for candidates in many], minlength=10) / len(many)
    assert np.all(np.abs(counts - 0.1) < 4 * math.sqrt(0.1 * 0.9 / len(many)))


def test_members_differ_little_from_the_base(many):
    for candidates in many[:200]:
        base = candidates.scenes[candidates.base]
        for scene in candidates.scenes:
            changed = set(scene.things) ^ set(base.things)
            assert len({thing.place for thing in changed}) <= 4
            assert 1 <= len(scene.things) <= 4


def test_splits_share_no_combination_of_names():
    for split in candidate_sets.SPLITS:
        for index in range(10 if split == "train" else 30):  # a set of "train" has five times as many descriptions
            for scene in set_of(split, index, SEEN, HELD_OUT).scenes:
                if split == "unseen":
                    assert set(scene.names) <= set(HELD_OUT)
                    continue
                low, high = candidate_sets.RANGES[split]
                assert low <= share_of(scene.names) < high
                assert set(scene.names) <= set(SEEN)


def test_sets_depend_on_the_seed_and_on_nothing_else():
    assert set_of("test", 3, SEEN, HELD_OUT) == set_of("test", 3, SEEN, HELD_OUT)
    assert set_of("test", 3, SEEN, HELD_OUT) != set_of("test", 3, SEEN, HELD_OUT, seed=1)
