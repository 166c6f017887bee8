"""The slice of three-step edits: every text asks for three edits, and the other pictures lack some of them."""

import functools
import itertools
from collections import Counter
from random import Random

from data_pipelines.datasets.pictograms.edits import OPERATIONS, difference, kind_of
from data_pipelines.datasets.pictograms.groups import AllowedScenes
from data_pipelines.datasets.pictograms.names import choose
from data_pipelines.datasets.pictograms.scenes import twemoji_pictograms
from data_pipelines.datasets.pictograms.text_parser import parse_modification
from data_pipelines.datasets.pictograms.three_steps import MULTI, compose_three_step_groups
from data_pipelines.datasets.pictograms.wording import MAX_WORDS, MIN_WORDS

SEEN, _ = choose(twemoji_pictograms())
ALLOWED = AllowedScenes(MULTI, SEEN)


@functools.cache
def groups():
    return list(compose_three_step_groups(ALLOWED, Random("test"), count=40))


def test_a_query_asks_for_three_edits_and_leads_to_its_target_alone():
    seen = Counter()
    for scenes, queries in groups():
        assert len({*scenes}) == len(queries) == 6
        assert {query.target for query in queries} == {query.reference for query in queries} == set(range(6))
        for query in queries:
            reference, target = scenes[query.reference], scenes[query.target]
            edits = difference(reference, target, most=3)
            assert len(edits) == 3 and query.kind == kind_of(edits) == "three-step"
            assert difference(reference, target) is None  # no shorter way
            assert MIN_WORDS <= len(query.text.split()) <= 1.5 * MAX_WORDS
            understood = parse_modification(query.text, reference)
            assert [i for i, scene in enumerate(scenes) if scene == understood] == [query.target]
            seen.update(edit.operation for edit in edits)
    assert set(seen) == set(OPERATIONS)


def test_the_other_pictures_of_a_group_are_one_or_two_edits_away():
    for scenes, queries in groups():
        for query in queries:
            others = [scene for i, scene in enumerate(scenes) if i not in (query.reference, query.target)]
            assert all(1 <= len(difference(scenes[query.reference], other)) <= 2 for other in others)


def test_scenes_are_new_and_of_combinations_that_training_never_shows():
    scenes = [scene for members, _ in groups() for scene in members]
    assert len({*scenes}) == len(scenes)
    train = AllowedScenes("train", SEEN)
    assert all(ALLOWED.allows(scene.names) and not train.allows(scene.names) for scene in scenes)


def test_the_same_seed_gives_the_same_groups_and_few_pictograms_fewer():
    again = list(compose_three_step_groups(ALLOWED, Random("test"), count=5))
    assert again == groups()[:5]
    few = list(itertools.islice(compose_three_step_groups(AllowedScenes(MULTI, SEEN[:8]), Random(0), count=2000), 2000))
    assert len(few) < 2000
