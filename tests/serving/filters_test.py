"""Tests of filters: what they select, how Milvus is asked, and what is refused."""

import pytest

from contextjax.serving.filters import expression, mask, parse
from contextjax.types import UserError

COLUMNS = {
    "price": [1, 2.5, 30, None, -1], "colour": ["red", "it's", None, None, "Red"],
    "ok": [True, False, None, None, True], "shop no": ["a", "b", "a", None, "c"],
}  # fmt: skip
KINDS = {"price": "number", "colour": "text", "ok": "truth value", "shop no": "text"}
QUOTED = lambda text: "'" + text.replace("'", "\\'") + "'"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("price < 20", [0, 1, 4]),
        ("price<=2.5", [0, 1, 4]),
        ("price > -1e0 AND price != 30", [0, 1]),
        ("price != 1", [1, 2, 4]),
        ("colour = 'red'", [0]),
        ('colour == "it\'s"', [1]),
        ("colour = 'it''s' or colour = 'it\\'s'", [1]),
        ("colour <> 'red'", [1, 4]),
        ("colour in ('red', 'Red')", [0, 4]),
        ("colour not in ('red', 'Red')", [1]),
        ("ok = true", [0, 4]),
        ("ok != TRUE", [1]),
        ("`shop no` = 'a'", [0, 2]),
        ("ok = true or price = 30 and colour = 'red'", [0, 4]),
        ("(ok = true or price = 30) and (`shop no` = 'a')", [0, 2]),
        ("colour >= 'a'", [0, 1]),
    ],
)
def test_a_filter_selects_rows_and_missing_values_fit_none(text, rows):
    assert mask(parse(text, KINDS), COLUMNS, 5).nonzero()[0].tolist() == rows


def test_milvus_is_asked_in_its_own_words():
    written = lambda text: expression(parse(text, KINDS), "a", QUOTED)
    assert written("price < 20 and ok = false") == "(a['price'] < 20 and a['ok'] == false)"
    assert written("colour not in ('x', 'it''s')") == (
        "((exists a['colour'] and a['colour'] != 'x') and (exists a['colour'] and a['colour'] != 'it\\'s'))"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the name of an attribute is expected at its end"),
        ("size = 1", "'size', and there are price, colour, ok, shop no; embed with --attributes"),
        ("price = 'a'", "price is a number, but 'a' is a text"),
        ("price = true", "price is a number, but true is a truth value"),
        ("colour = 5", "colour is a text, but 5 is a number"),
        ("ok < true", "a truth value, which < can't compare"),
        ("colour = red", r"red is no value; expected .* a text in quotes: 'red'"),
        ("price 5", "'5' stands where =, !="),
        ("price <", "a value is expected at its end"),
        ("5 < price", "5 stands where the name of an attribute is expected"),
        ("(price < 5", r"'\)' is expected at its end"),
        ("price < 5)", "comes after what is whole"),
        ("price < 5 price > 1", "'price' comes after"),
        ("price in 5", r"'\(' is expected before 5"),
        ("not price < 5", "attribute 'not'"),
        ("price < 5; drop", "'; drop' can't be read"),
        ("colour = 'red", "can't be read"),
        ("(" * 30 + "price < 5" + ")" * 30, "more than 20 parentheses"),
        ("price in (" + ",".join(["1"] * 300) + ")", "more than 200 values"),
        ("x" * 5000, "5,000 characters"),
        ("colour = '\ud800", "can't be read"),
    ],
)
def test_another_text_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(text, KINDS)


def test_an_index_without_attributes_says_so():
    with pytest.raises(UserError, match="the index has none; embed with --attributes=TABLE"):
        parse("price < 5", {})
