"""Descriptions: each is true of its target alone, of a proper length, and takes several statements together."""

import re
from random import Random

from data_pipelines.datasets.pictograms import description_parser as parser
from data_pipelines.datasets.pictograms import descriptions
from data_pipelines.datasets.pictograms.names import a
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene

DOG_AND_APPLE = make_scene([Thing(0, "dog", "large"), Thing(3, "apple", "small")])


def test_every_description_is_true_of_its_target_alone(sets):
    for candidates in sets:
        for index, text in candidates.descriptions:
            truths = [parser.all_true(parser.parse(text), scene) for scene in candidates.scenes]
            assert truths == [i == index for i in range(10)], text


def test_descriptions_have_20_to_40_words_and_at_most_3_sentences(sets):
    for candidates in sets:
        for _, text in candidates.descriptions:
            assert 20 <= len(text.split()) <= 40
            assert 1 <= text.count(".") <= 3


def test_articles_agree(sets):
    for candidates in sets:
        for _, text in candidates.descriptions:
            for article, word in re.findall(r"\b(an?) (\w+)", text.lower()):
                assert f"{article} {word}" in (a(word), "a small", "a large")


def test_mix(sets):
    """Shares of the descriptions with a negation, a relation, a size, a number, by the parser's predicates."""
    families = [set().union(*(p.kinds for p in parser.parse(text))) for s in sets for _, text in s.descriptions]
    for kind, least in {"negation": 0.6, "relation": 0.6, "size": 0.5, "count": 0.2}.items():
        assert sum(kind in kinds for kinds in families) / len(families) >= least, kind


def test_single_clauses_seldom_exclude_all_other_scenes(sets):
    """Checks that descriptions are contextual."""
    alone, total = 0, 0
    for candidates in sets:
        for index, text in candidates.descriptions:
            others = [scene for i, scene in enumerate(candidates.scenes) if i != index]
            alone += any(not any(p.holds(scene) for scene in others) for p in parser.parse(text))
            total += 1
    assert alone / total < 0.2


def test_no_description_of_twins():
    assert descriptions.describe(DOG_AND_APPLE, [DOG_AND_APPLE], Random(0)) is None
