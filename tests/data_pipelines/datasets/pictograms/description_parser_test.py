"""The independent parser of descriptions: words mean what they say, and unknown forms are refused."""

import pytest

from data_pipelines.datasets.pictograms import description_parser as parser
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene

DOG_AND_APPLE = make_scene([Thing(0, "dog", "large"), Thing(3, "apple", "small")])
TWO_OWLS = make_scene([Thing(0, "owl", "large"), Thing(1, "owl", "small"), Thing(2, "key", "small")])


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
def test_words_mean_what_they_say(text, scene, truth):
    assert parser.all_true(parser.parse(text), scene) == truth


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
def test_unknown_forms_are_refused(text):
    with pytest.raises(ValueError, match="Can't parse"):
        parser.parse(text)


def test_kinds_come_from_the_words():
    kinds = [p.kinds for p in parser.parse("The large owl is not above the key. There are exactly two owls.")]
    assert kinds == [{"negation", "relation", "size"}, {"count"}]
