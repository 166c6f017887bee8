"""Descriptions: statements, their wording, and the independent reader."""

import re
from random import Random

import pytest

from data_pipelines.datasets.pictograms import description_reading as reading
from data_pipelines.datasets.pictograms import descriptions
from data_pipelines.datasets.pictograms.candidate_sets import set_of
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from data_pipelines.datasets.pictograms.names import PICTOGRAMS, a, choose

SEEN, HELD_OUT = choose(PICTOGRAMS)
DOG_AND_APPLE = make_scene([Thing(0, "dog", "large"), Thing(3, "apple", "small")])
TWO_OWLS = make_scene([Thing(0, "owl", "large"), Thing(1, "owl", "small"), Thing(2, "key", "small")])


@pytest.fixture(scope="module")
def sets():
    return [set_of("valid", index, SEEN, HELD_OUT) for index in range(150)]


@pytest.mark.parametrize(
    ("text", "scene", "truth"),
    [
        ("A large dog is in the top left.", DOG_AND_APPLE, True),
        ("A small dog is in the top left.", DOG_AND_APPLE, False),
        ("There is a dog in the upper half, and it is large.", DOG_AND_APPLE, True),
        ("There is a dog in the upper half, and it is not large.", DOG_AND_APPLE, False),
        ("There is no fox.", DOG_AND_APPLE, True),
        ("Neither a fox nor a dog can be seen.", DOG_AND_APPLE, False),
        ("Nothing is in the bottom left corner.", DOG_AND_APPLE, True),
        ("The bottom half is empty.", DOG_AND_APPLE, False),
        ("The dog is not next to the apple.", DOG_AND_APPLE, True),
        ("The dog is diagonally across from the apple and is larger than the apple.", DOG_AND_APPLE, True),
        ("The dog is directly above the apple.", DOG_AND_APPLE, False),
        ("The dog is above the apple; the dog is left of the apple.", DOG_AND_APPLE, True),
        ("The apple and the dog are the same size.", DOG_AND_APPLE, False),
        ("Exactly two things can be seen.", DOG_AND_APPLE, True),
        ("The dog is not next to the fox.", DOG_AND_APPLE, False),  # no fox to speak of
        ("The owl is large.", TWO_OWLS, False),  # which owl?
        ("The large owl is directly above the key.", TWO_OWLS, True),
        ("One of the two owls is in the top right.", TWO_OWLS, True),
        ("One of the two owls is in the bottom left.", TWO_OWLS, False),
        ("There are exactly two owls, but there is only one key.", TWO_OWLS, True),
        ("Both owls are small.", TWO_OWLS, False),
        ("Exactly two of the things are small.", TWO_OWLS, True),
        ("Just one thing is in the right half.", TWO_OWLS, True),
    ],
)
def test_reader_knows_what_words_mean(text, scene, truth):
    assert reading.true_of(text, scene) == truth


@pytest.mark.parametrize(
    "text",
    [
        "The dog is happy.",
        "It is large.",
        "The dog is above the apple, and it is small.",  # "it" could be either
        "There is a dog in the top left. It is large.",
        "A dog sits somewhere.",
        "There is no fox",
        "",
    ],
)
def test_reader_rejects_what_it_cannot_parse(text):
    with pytest.raises(ValueError, match="Can't read"):
        reading.read(text)


def test_kinds_come_from_the_words():
    kinds = [p.kinds for p in reading.read("The large owl is not above the key. There are exactly two owls.")]
    assert kinds == [{"negation", "relation", "size"}, {"count"}]


def test_every_description_is_true_of_its_target_alone(sets):
    for candidates in sets:
        for index, text in candidates.descriptions:
            truths = [reading.true_of(text, scene) for scene in candidates.scenes]
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
    """Shares of the descriptions with a negation, a relation, a size, a number, by the reader's predicates."""
    found = [set().union(*(p.kinds for p in reading.read(text))) for s in sets for _, text in s.descriptions]
    for kind, least in {"negation": 0.6, "relation": 0.6, "size": 0.5, "count": 0.2}.items():
        assert sum(kind in kinds for kinds in found) / len(found) >= least, kind


def test_seldom_one_statement_says_it_all(sets):
    """Descriptions are contextual: single clauses seldom exclude the nine other scenes."""
    alone, total = 0, 0
    for candidates in sets:
        for index, text in candidates.descriptions:
            others = [scene for i, scene in enumerate(candidates.scenes) if i != index]
            alone += any(not any(p.holds(scene) for scene in others) for p in reading.read(text))
            total += 1
    assert alone / total < 0.2


def test_statements_and_their_wordings_agree_with_the_reader(sets):
    """Every single statement, said alone, means to the reader what `holds` says, wherever both speak plainly."""
    rng = Random(0)
    for candidates in sets[:10]:
        target, *others = candidates.scenes
        for statement in descriptions.statements_about(target, others):
            text = descriptions.say([statement], rng)
            for scene in candidates.scenes:
                assert reading.true_of(text, scene) == descriptions.holds(statement, scene), (text, scene)


def test_no_description_of_twins():
    assert descriptions.describe(DOG_AND_APPLE, [DOG_AND_APPLE], Random(0)) is None
