"""The independent parser: hand-written texts mean what they say, unclear and untrue ones are refused."""

import pytest

from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from data_pipelines.datasets.pictograms.text_parser import parse_caption, parse_modification

DOG = Thing(0, "dog", "small")
CAT = Thing(1, "cat", "large")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remove the dog", [CAT]),
        ("Replace the cat with an owl.", [DOG, Thing(1, "owl", "large")]),
        ("move the dog below the cat", [Thing(3, "dog", "small"), CAT]),
        ("swap the dog and the cat and make the cat smaller", [Thing(0, "cat", "small"), Thing(1, "dog", "small")]),
        ("move the dog down and enlarge it", [Thing(2, "dog", "large"), CAT]),
        ("clear the top left, then add a big fox in the bottom right", [CAT, Thing(3, "fox", "large")]),
    ],
)
def test_hand_written_texts_mean_what_they_say(text, expected):
    assert parse_modification(text, make_scene([DOG, CAT])) == make_scene(expected)


@pytest.mark.parametrize(
    "text",
    [
        "remove the fox",  # not there
        "remove the large dog",  # it is small
        "move the dog above the cat",  # outside
        "add a small fox in the top left",  # taken
        "put a small fox next to the dog and the cat",
        "make the dog small",  # it is
        "shiny happy pictures",
        "make it big",
    ],
)
def test_untrue_and_unclear_texts_are_refused(text):
    with pytest.raises(ValueError, match="Can't parse"):
        parse_modification(text, make_scene([DOG, CAT]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A small dog in the top left and a large cat to the right of it.", [DOG, CAT]),
        ("in the top right there is a big cat", [CAT]),
        ("we see a large cat in the top right corner", [CAT]),
    ],
)
def test_hand_written_captions_mean_what_they_say(text, expected):
    assert parse_caption(text) == make_scene(expected)


def test_captions_of_another_form_are_refused():
    with pytest.raises(ValueError, match="Can't parse"):
        parse_caption("a dog somewhere")
