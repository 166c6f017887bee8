"""The census counts pictures and records, and its lines name what was left out."""

from contextjax.types import CaptionRecord
from data_pipelines import census


def test_pictures_are_counted_by_size_and_equal_ones_are_named():
    pictures = [("a", (4, 2), 10, b"1"), ("b", (2, 2), 20, b"2"), ("c", (4, 2), 10, b"1"), ("d", (9, 9), 5, b"3")]
    counted = census.about_pictures(pictures)
    assert (counted["pictures"], counted["bytes"], counted["duplicates"]) == (4, 45, [["a", "c"]])
    assert counted["sizes"] == {"smallest": [2, 2], "median": [4, 2], "largest": [9, 9], "different": 3}


def test_records_are_counted_by_words_and_equal_ones_apart_from_their_id():
    texts = ["a cat", "a big dog", "a cat"]
    counted = census.about_records([CaptionRecord(str(i), "x.png", text) for i, text in enumerate(texts)])
    assert (counted["records"], counted["different_texts"], counted["duplicates"]) == (3, 2, 1)
    assert counted["words"] == {"min": 2, "median": 2, "max": 3} and counted["longest"] == "a big dog"


def test_the_lines_name_what_was_left_out():
    split = {
        "pictures": census.about_pictures([(f"p{i}", (4, 4), 1, b"same") for i in range(12)]),
        "records": census.about_records([CaptionRecord("0", "p0", "word " * 60)]),
        "left_out": {"bad.png": "bad.png has no file"},
        "records_left_out": 3,
        "odd": {"repeated": [f"q{i}\x1b[31m" for i in range(5000)]},
        "unknown": [f"query {i} names the unknown picture x" for i in range(99)],
    }
    text = "\n".join(census.lines("val", split))
    for said in ("split val: 1 records, 12 pictures", "60 to 60 words", "left out: 3 records; 1 pictures: bad.png",
                 "bad.png has no file", "…"):  # fmt: skip
        assert said in text
    assert "5,000 records repeated: q0\\x1b[31m" in text and "\x1b" not in text and "and 4,990 more" in text
    assert "99 more records that can't be asked: query 0" in text


def test_the_lines_are_short_however_much_there_is_to_name():
    split = {
        "pictures": census.about_pictures([(f"p{i}", (4, 4), 1, b"same") for i in range(9000)]),
        "records": census.about_records([CaptionRecord("0", "p0", "word " * 60)]),
        "left_out": {f"{i}.png": f"{i}.png has no file" for i in range(500)},
        "records_left_out": 3,
        "odd": {},
        "unknown": [],
    }
    lines = census.lines("val", split)
    assert len(lines) < 20 and max(map(len, lines)) < 600 and lines[-1].strip() == "and 490 more"
