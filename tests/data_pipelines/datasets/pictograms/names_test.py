"""The chosen pictograms exist, and their articles and plurals are right."""

import pytest

from data_pipelines.datasets.pictograms.names import PICTOGRAMS, a, choose, countable, plural, read_units
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
    [
        (OWN[:5], "Got 5 pictograms"),
        ([*OWN, "small dog"], "name 'small dog', but"),
        (
            [*OWN, "cat&dog", "small dog", "café", "left of centre"],
            "names 'café', 'cat&dog', 'left of centre', 'small dog'",
        ),
    ],
)
def test_names_that_cannot_be_composed_are_refused_in_one_sentence(names, said):
    with pytest.raises(ValueError, match=said):
        choose(names)


def test_articles():
    an = {name for name in PICTOGRAMS if a(name).startswith("an ")}
    assert an == {"owl", "octopus", "elephant", "avocado", "eggplant", "umbrella", "anchor"}
    for name in "unicorn uniform ufo ewe one house euro kangaroo".split():
        assert a(name) == f"a {name}"
    for name in ("hourglass", "heirloom", "x ray", "mp3 player", "8 ball", "ice cream", "oncoming bus"):
        assert a(name) == f"an {name}"


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
        ("moose", "moose"),
        ("game die", "game dice"),
        ("squid", "squid"),
        ("tropical fish", "tropical fish"),
        ("goose", "geese"),
        ("kitchen knife", "kitchen knives"),
        ("roof", "roofs"),
        ("burrito", "burritos"),
        ("mango", "mangoes"),
        ("piano", "pianos"),
        ("box", "boxes"),
        ("ox", "oxen"),
        ("church", "churches"),
        ("lens", "lenses"),
        ("pair of scissors", "pairs of scissors"),
        ("bunch of grapes", "bunches of grapes"),
    ],
)
def test_plurals(one, many):
    assert plural(one) == many


def test_names_that_are_plurals_count_as_one():
    for name, known in {
        "grapes": "bunch of grapes",
        "cherries": "pair of cherries",
        "scissors": "pair of scissors",
        "french fries": "bunch of french fries",
        "mice": "bunch of mice",
    }.items():
        assert countable(name, {}) == known
    singular = "bus walrus cactus compass glass lens iris gas canvas tennis chess rhinoceros series moose fish house x"
    for name in (*PICTOGRAMS, *singular.split()):
        assert countable(name, {}) == name


def test_a_folder_says_which_names_are_plurals():
    names = {"grapes", "jeans", "news", "glasses", "rice"}
    units = read_units("# mine\n\nGrapes: cluster\njeans\nglasses: -\nrice: bowl\n", names, place="plural.txt")
    assert {name: countable(name, units) for name in names} == {
        "grapes": "cluster of grapes",
        "jeans": "pair of jeans",
        "news": "news",
        "glasses": "glasses",
        "rice": "bowl of rice",
    }
    with pytest.raises(
        ValueError, match=r"plural.txt has 'dogs', 'rice: small bowl', 'jeans: left'; expected lines such"
    ):
        read_units("dogs\nrice: small bowl\njeans: left\nnews: -", names, place="plural.txt")
