"""Groups are similar, splits are disjoint, and the pictures alone say nothing about the target."""

import functools
import itertools
from collections import Counter
from random import Random

import numpy as np
import pytest

from data_pipelines.datasets.pictograms.edits import OPERATIONS, TWO_STEP, difference, kind_of
from data_pipelines.datasets.pictograms.groups import SPLITS, AllowedScenes, compose_groups
from data_pipelines.datasets.pictograms.names import choose
from data_pipelines.datasets.pictograms.scenes import draw, twemoji_pictograms
from data_pipelines.datasets.pictograms.text_parser import parse_modification

SEEN, HELD_OUT = choose(twemoji_pictograms())
COUNTS = {"train": 334, "val": 334, "test1": 334, "unseen": 60}


@functools.cache
def groups_of(split: str):
    allowed = AllowedScenes(split, SEEN, HELD_OUT if split == "unseen" else ())
    return list(compose_groups(allowed, Random(f"test/{split}"), count=COUNTS[split], unique=split != "train"))


@pytest.mark.parametrize("count", [60, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("split", SPLITS)
def test_every_two_members_are_one_or_two_edits_apart(split, count):
    for scenes, _ in groups_of(split)[:count]:
        assert len(set(scenes)) == 6
        assert all(1 <= len(scene.things) <= 4 for scene in scenes)
        assert all(difference(one, other) for one, other in itertools.permutations(scenes, 2))


@pytest.mark.parametrize("split", SPLITS)
def test_texts_lead_to_their_target_and_nowhere_else(split):
    for scenes, queries in groups_of(split):
        for query in queries:
            understood = parse_modification(query.text, scenes[query.reference])
            assert [i for i, scene in enumerate(scenes) if scene == understood] == [query.target]


@pytest.mark.parametrize("split", SPLITS)
def test_every_picture_is_equally_often_reference_and_target(split):
    per_picture = 4 if split == "train" else 1
    for _, queries in groups_of(split):
        assert Counter(q.reference for q in queries) == dict.fromkeys(range(6), per_picture)
        assert Counter(q.target for q in queries) == dict.fromkeys(range(6), per_picture)
        assert len({(q.reference, q.target) for q in queries}) == len(queries)
        assert all(q.reference != q.target for q in queries)


def test_no_combination_of_names_is_in_two_splits():
    names = {split: {scene.names for scenes, _ in groups_of(split) for scene in scenes} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        shared = names[one] & names[other]
        # Scenes of "unseen" without a held-out pictogram come from the range of test1.
        assert not shared if {one, other} != {"test1", "unseen"} else all(not set(s) & set(HELD_OUT) for s in shared)


def test_held_out_pictograms_are_in_every_unseen_group_and_nowhere_else():
    for split in SPLITS:
        for scenes, _ in groups_of(split):
            shown = {name for scene in scenes for name in scene.names} & set(HELD_OUT)
            assert bool(shown) == (split == "unseen")


@pytest.mark.parametrize("split", SPLITS[1:])
def test_no_two_pictures_of_a_gallery_are_equal(split):
    scenes = [scene for members, _ in groups_of(split) for scene in members]
    assert len(set(scenes)) == len(scenes)


@pytest.mark.parametrize("split", SPLITS[:3])
def test_the_mix_of_kinds(split):
    kinds = Counter(
        kind_of(difference(a, b)) for scenes, _ in groups_of(split) for a, b in itertools.permutations(scenes, 2)
    )
    total = sum(kinds.values())
    single = [kinds[operation] / total for operation in OPERATIONS]
    assert 0.25 <= kinds[TWO_STEP] / total <= 0.38
    assert max(single) <= 1.15 * np.mean(single)
    assert min(single) >= 0.85 * np.mean(single)


# ---- Scores that ignore the text: pictures [6, P] of a group, reference -> scores of the members


def nearest_to_reference(pictures, scenes, reference):
    return -np.square(pictures - pictures[reference]).mean(-1)


def farthest_from_reference(pictures, scenes, reference):
    return np.square(pictures - pictures[reference]).mean(-1)


def nearest_to_all(pictures, scenes, reference):
    return -np.square(pictures[:, None] - pictures[None]).mean((1, 2))


def most_things(pictures, scenes, reference):
    return np.array([len(scene.things) for scene in scenes])


def first_member(pictures, scenes, reference):
    return -np.arange(6)


def next_member(pictures, scenes, reference):
    return -((np.arange(6) - reference) % 6)


def most_ink(pictures, scenes, reference):
    return (1 - pictures).mean(-1)


def fewest_edits_to_all(pictures, scenes, reference):
    return np.array([-sum(len(difference(a, b) or ()) for b in scenes) for a in scenes])


@functools.cache
def pictures_of(split: str) -> list[np.ndarray]:
    art = twemoji_pictograms()
    pictures = [np.stack([draw(scene, art, canvas=32) for scene in scenes]) for scenes, _ in groups_of(split)]
    return [p.reshape(6, -1).astype(np.float32) / 255 for p in pictures]


@pytest.mark.parametrize(
    "score",
    [
        nearest_to_reference,
        farthest_from_reference,
        nearest_to_all,
        most_things,
        first_member,
        next_member,
        most_ink,
        fewest_edits_to_all,
    ],
)
@pytest.mark.parametrize("split", ["val", "test1"])
def test_scores_that_ignore_the_text_are_at_chance(split, score):
    hits, count = 0.0, 0
    for (scenes, queries), pictures in zip(groups_of(split), pictures_of(split), strict=True):
        for query in queries:
            scores = score(pictures, scenes, query.reference).astype(float)
            scores[query.reference] = -np.inf
            best = np.flatnonzero(scores == scores.max())  # ties count by share
            hits += (query.target in best) / len(best)
            count += 1
    # Queries of a group hang together (one offset), so the group counts as one draw in the worst case.
    groups = count / 6
    assert abs(hits / count - 0.2) < 4 * np.sqrt(0.2 * 0.8 / (groups if score is next_member else count))


@pytest.mark.parametrize("split", ["val", "test1"])
def test_texts_of_other_queries_leave_a_reader_at_chance(split):
    """Checks a scorer that follows the text, or else looks for what it names: shuffled texts leave it at chance."""
    queries = [(scenes, query) for scenes, queries in groups_of(split) for query in queries]
    shuffled = np.random.default_rng(0).permutation(len(queries))

    def hits(texts):
        found = 0.0
        for (scenes, query), text in zip(queries, texts, strict=True):
            try:
                understood = parse_modification(text, scenes[query.reference])
            except ValueError:  # it speaks of what is not there
                understood = None
            scores = np.array(
                [9.0 * (scene == understood) + sum(thing.name in text for thing in scene.things) for scene in scenes]
            )
            scores[query.reference] = -np.inf
            best = np.flatnonzero(scores == scores.max())
            found += (query.target in best) / len(best)
        return found / len(texts)

    texts = [query.text for _, query in queries]
    assert hits(texts) == 1.0
    assert abs(hits([texts[i] for i in shuffled]) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(texts))
