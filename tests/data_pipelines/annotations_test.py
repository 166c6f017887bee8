"""Rows of annotation files: values by key and type, relative paths, and every fault with the place of its row."""

import pytest

from data_pipelines import annotations
from data_pipelines.annotations import Fault, stays_inside

ROW = {
    "text": "a dög",
    "number": 7,
    "none": None,
    "list": ["a", "b"],
    "path": "./a//b.png",
    "half": "\ud800",
    "yes": True,
}


def test_values_come_by_key_and_type():
    assert annotations.text(ROW, "text") == "a dög"
    assert annotations.name(ROW, "number") == "7" and annotations.name(ROW, "text") == "a dög"
    assert annotations.optional_name(ROW, "none") is None and annotations.optional_name(ROW, "absent") is None
    assert annotations.items(ROW, "list") == ["a", "b"]
    assert annotations.path(ROW, "path") == "a/b.png"
    assert annotations.has(ROW, "text") and not annotations.has(ROW, "none") and not annotations.has(3, "text")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: annotations.text(ROW, "absent"), "has no absent, expected a text"),
        (lambda: annotations.text([ROW], "text"), "has no text, expected a text"),
        (lambda: annotations.text(ROW, "number"), "has '7' for its number, expected a text"),
        (lambda: annotations.name(ROW, "yes"), "has 'True' for its yes"),  # a boolean is no number
        (lambda: annotations.text(ROW, "half"), "expected whole characters"),
        (lambda: annotations.items(ROW, "list", int, "a list of numbers"), "expected a list of numbers"),
        (lambda: annotations.items(ROW, "text"), "expected a list of texts"),
        (lambda: annotations.path({"path": "../x"}, "path"), "which is no path inside the folder"),
        (lambda: annotations.plain_path(3, "path"), "has '3' for its path"),
    ],
)
def test_a_fault_says_what_was_expected(read, said):
    with pytest.raises(Fault) as error:
        read()
    assert said in str(error.value)


def test_faults_are_collected_with_the_place_of_their_row():
    make = lambda number, row: [(number, annotations.text(row, "a"))]
    results, problems = annotations.parse([{"a": "x"}, {}, {"a": "y"}, 3], make, file="train.json")
    assert results == [(0, "x"), (2, "y")]
    assert [problem.partition(" has")[0] for problem in problems] == ["row 1 of train.json", "row 3 of train.json"]


@pytest.mark.parametrize("path", ["a.png", "a/b", "./a", "a/./b", "..."])
def test_paths_inside_the_folder(path):
    assert stays_inside(path)


@pytest.mark.parametrize("path", ["", "..", "../a", "a/../../b", "/etc", "C:/x", "a\\..\\..\\x", "\\\\host\\x", "a\0b"])
def test_paths_that_leave_the_folder(path):
    assert not stays_inside(path)
