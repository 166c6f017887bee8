"""Tests of questions: pairs of pictures and texts, and the input of a request for embeddings."""

import base64

import pytest

from contextjax.serving.questions import Question, pair, read_base64, read_input
from contextjax.types import UserError

DATA = bytes(range(256))
CODED = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    ("images", "texts", "questions"),
    [
        ("ab", "xy", [("a", "x"), ("b", "y")]),
        ("a", "xyz", [("a", "x"), ("a", "y"), ("a", "z")]),
        ("ab", "x", [("a", "x"), ("b", "x")]),
        ("ab", "", [("a", None), ("b", None)]),
        ("", "x", [(None, "x")]),
    ],
)
def test_pictures_and_texts_are_paired(images, texts, questions):
    assert pair(images, texts) == questions


def test_other_numbers_of_both_and_none_are_refused():
    with pytest.raises(UserError, match="3 pictures and 2 texts; expected as many of both"):
        pair("abc", "xy")
    with pytest.raises(UserError, match="neither a picture nor a text"):
        pair([], [])


@pytest.mark.parametrize(
    "text",
    [
        CODED, f"data:image/png;base64,{CODED}", f"DATA:image/jpeg;name=a.jpg;BASE64,{CODED}", CODED.rstrip("="),
        base64.encodebytes(DATA).decode(), base64.urlsafe_b64encode(DATA).decode(),
    ],
)  # fmt: skip
def test_base64_and_data_urls_are_read(text):
    assert read_base64(text, "x") == DATA


def test_input_is_texts_pictures_and_both():
    read = lambda given: read_input(given, most=3, text_limit=20)
    assert read("a dog") == [Question(None, "a dog")]
    assert read({"image": CODED}) == read(f"data:image/png;base64,{CODED}") == [Question(DATA, None)]
    both = read(["a", {"text": "b", "image": CODED}, {"text": "data"}])
    assert both == [Question(None, "a"), Question(DATA, "b"), Question(None, "data")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "input has 0 entries; expected 1 to 3"),
        (["a"] * 4, "4 entries"),
        ([5, 6], r"input\[0\] is a number; expected a text, or"),
        ([["a"]], "is a list"),
        (None, "is a null"),
        ({"text": "a", "picture": "b"}, r"keys \['picture', 'text'\]; expected"),
        ({}, r"keys \[\]"),
        ({"text": 5}, "The text of input is a number"),
        ({"image": ""}, "The image of input is empty; expected text in base64"),
        ([{"text": " "}], "The text is empty"),
        ("x" * 21, "has 21 characters; at most 20"),
        ({"image": "https://example.org/a.png"}, "is an address, and nothing is fetched"),
        ({"image": "no base64!"}, "is no base64"),
        ({"image": "data:image/png,abc"}, "not in base64"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_other_input_is_refused_with_a_sentence(given, sentence):
    with pytest.raises(UserError, match=sentence):
        read_input(given, most=3, text_limit=20)
