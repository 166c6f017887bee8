"""Wordings of statements: to the independent parser each means what the statement means."""

import re
from random import Random

from data_pipelines.datasets.pictograms import description_parser as parser
from data_pipelines.datasets.pictograms.description_wording import say
from data_pipelines.datasets.pictograms.scenes import PLACES
from data_pipelines.datasets.pictograms.statements import holds, statements_about


def test_every_wording_of_a_statement_means_to_the_parser_what_the_statement_means(sets):
    rng = Random(0)
    for candidates in sets[:10]:
        target, *others = candidates.scenes
        for statement in statements_about(target, others):
            text = say([statement], rng)
            for scene in candidates.scenes:
                assert parser.all_true(parser.parse(text), scene) == holds(statement, scene), (text, scene)


# Words -> the test of (how many rows the second is lower, how many columns further right), as a reader sees them.
READINGS = {
    "left of|to the left of": lambda down, right: right > 0,
    "right of|to the right of": lambda down, right: right < 0,
    "above": lambda down, right: down > 0,
    "below": lambda down, right: down < 0,
    "directly above": lambda down, right: (down, right) == (1, 0),
    "directly below": lambda down, right: (down, right) == (-1, 0),
    "next to|right beside": lambda down, right: down == 0 and abs(right) == 1,
    "diagonally across from|diagonally opposite": lambda down, right: abs(down) == abs(right) == 1,
    "in opposite corners": lambda down, right: abs(down) == abs(right) == 1,
}
WORDS = sorted((words for key in READINGS for words in key.split("|")), key=len, reverse=True)
THING = r"(?:(small|large) )?(.+?)"
PAIR = re.compile(rf"The {THING} (is not|isn't|is) ({'|'.join(WORDS)}) the {THING}\.")
TOGETHER = re.compile(rf"The {THING} and the {THING} are (not )?(in opposite corners)\.")


def test_spatial_words_are_true_as_people_read_them(sets):
    """Reads sentences by patterns and the scene graph alone, and knows neither the statements nor the parser."""
    rng, read, graph = Random(1), [], lambda scene: [(t["name"], t["size"], t["place"]) for t in scene.to_json()]

    def place(scene, size, name):
        ((_, _, words),) = [thing for thing in graph(scene) if thing[0] == name and size in (None, thing[1])]
        assert words in PLACES
        return "bottom" in words, "right" in words

    for candidates in sets[:60]:
        target, *others = candidates.scenes
        for statement in statements_about(target, others):
            if "relation" not in statement.families:
                continue
            text = say([statement], rng).replace("In this picture, the", "The").replace("Here, the", "The")
            if match := TOGETHER.fullmatch(text):
                size, name, size2, name2, no, words = match.groups()
            else:
                size, name, be, words, size2, name2 = PAIR.fullmatch(text).groups()
                no = be != "is"
            (row, column), (row2, column2) = place(target, size, name), place(target, size2, name2)
            test = next(test for key, test in READINGS.items() if words in key.split("|"))
            assert test(row2 - row, column2 - column) != bool(no), (text, target)
            if words in ("next to", "right beside"):
                assert row == row2 or column != column2, text  # of one above the other, nothing is said
            read.append((words, bool(no)))
    assert set(read) == {(words, no) for words in WORDS for no in (False, True)}
