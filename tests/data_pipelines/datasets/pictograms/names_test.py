"""The chosen pictograms exist, and their articles and plurals are right."""

import pytest

from data_pipelines.datasets.pictograms.names import PICTOGRAMS, a, choose, plural
from data_pipelines.datasets.pictograms.scenes import twemoji_pictograms

OWN = [f"thing{letter}" for letter in "abcdefghijklmnopqr"]


def test_the_curated_names_are_distinct_pictograms():
    assert len(PICTOGRAMS) == len(set(PICTOGRAMS)) == 80
    assert set(PICTOGRAMS) <= set(twemoji_pictograms())


def test_choose_splits_all_names_and_does_not_depend_on_order():
    seen, held_out = choose(twemoji_pictograms())
    assert (len(seen), len(held_out)) == (66, 14)
    assert set(seen) | set(held_out) == set(PICTOGRAMS)
    assert choose(reversed(list(twemoji_pictograms()))) == (seen, held_out)


def test_a_folder_of_ones_own_is_used_whole_and_changes_little_when_it_grows():
    seen, held_out = choose(OWN)
    assert set(seen) | set(held_out) == set(OWN)
    assert len(held_out) == 3
    grown, _ = choose([*OWN, "thingz"])
    assert len(set(seen) - set(grown)) <= 1


@pytest.mark.parametrize(
    ("names", "said"),
    [(OWN[:5], "Got 5 pictograms"), ([*OWN, "small dog"], "'small dog'"), ([*OWN, "cat&dog"], "'cat&dog'")],
)
def test_names_that_cannot_be_composed_are_refused_in_one_sentence(names, said):
    with pytest.raises(ValueError, match=said):
        choose(names)


def test_articles():
    an = {name for name in PICTOGRAMS if a(name).startswith("an ")}
    assert an == {"owl", "octopus", "elephant", "avocado", "eggplant", "umbrella", "anchor"}
    assert a("unicorn") == "a unicorn" and a("hourglass") == "an hourglass"


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("fox", "foxes"),
        ("butterfly", "butterflies"),
        ("wolf", "wolves"),
        ("mouse", "mice"),
        ("octopus", "octopuses"),
        ("bus", "buses"),
        ("taxi", "taxis"),
        ("key", "keys"),
        ("tomato", "tomatoes"),
        ("cactus", "cacti"),
        ("snowman", "snowmen"),
        ("house", "houses"),
        ("fish", "fish"),
        ("trophy", "trophies"),
        ("teddy bear", "teddy bears"),
        ("top hat", "top hats"),
    ],
)
def test_plurals(one, many):
    assert plural(one) == many
