"""Cleaning removes and keeps what the published recipes do, and sentences are negated by the stated rule."""

import random

import pytest

from data_pipelines.texts import clean_caption, clean_description, has_words, is_negated

DELETED = set(",.'!?\"()*#:;~")


def draw(seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choices("aB3 \t\n-/,.'!?\"()*#:;~é", k=rng.randrange(0, 200)))


@pytest.mark.parametrize("seed", range(30))
def test_a_description_loses_its_punctuation_and_nothing_else(seed):
    text = draw(seed)
    cleaned = clean_description(text, max_words=None)
    assert not DELETED & set(cleaned) and not set("-/\t\n") & set(cleaned) and "  " not in cleaned
    kept = [c for c in text if c not in DELETED and c not in "-/" and not c.isspace()]
    assert [c for c in cleaned if c != " "] == kept
    assert clean_description(cleaned, max_words=None) == cleaned == cleaned.strip()


@pytest.mark.parametrize("seed", range(30))
def test_a_caption_is_lower_case_and_keeps_commas_and_apostrophes(seed):
    text = draw(seed)
    cleaned = clean_caption(text, max_words=None)
    assert not set('.!"()*#:;~\t\n') & set(cleaned) and "  " not in cleaned
    kept = [c for c in text.lower() if c not in '.!"()*#:;~' and not c.isspace()]
    assert [c for c in cleaned if c != " "] == kept
    assert clean_caption(cleaned, max_words=None) == cleaned == cleaned.strip()


def test_cleaning_by_hand():
    text = "The man's left-hand/side (red) shirt.It  isn't\tBlue!"
    assert clean_description(text) == "The mans left hand side red shirtIt isnt Blue"
    assert clean_caption(text) == "the man's left-hand/side red shirt it isn't blue"


@pytest.mark.parametrize("clean", [clean_description, clean_caption])
def test_thirty_words_are_kept_unless_asked(clean):
    words = [f"w{i}" for i in range(40)]
    assert clean(" ".join(words)).split() == words[:30]
    assert clean(" ".join(words), max_words=3).split() == words[:3]
    assert clean(" ".join(words), max_words=None).split() == words


WORDS = {"": False, " \n": False, "?!": False, "\u200b": False, "a": True, "3.": True, "é": True}


@pytest.mark.parametrize(("text", "expected"), WORDS.items())
def test_words_are_letters_and_digits(text, expected):
    assert has_words(text) == expected


NEGATED = """The dog is not on the left|There is no hat|Nobody is seen|She isn't smiling|she isnt smiling|
It doesn’t rain|without a bag|neither cup is red|NO PEOPLE|he cannot be seen|There are none|nothing but grass"""
AFFIRMATIVE = """A dog on the left|a notable knot|Nora stands next to a canoe|Track no. 5 is empty|no 5 leads|
Not only the man smiles|a northern town|the plant is in front|nonetheless red"""


@pytest.mark.parametrize("text", NEGATED.replace("\n", "").split("|"))
def test_negated_sentences(text):
    assert is_negated(text)
    assert is_negated(clean_description(text))


@pytest.mark.parametrize("text", AFFIRMATIVE.replace("\n", "").split("|"))
def test_other_sentences(text):
    assert not is_negated(text)
