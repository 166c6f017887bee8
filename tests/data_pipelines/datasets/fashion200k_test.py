"""Fashion200k: descriptions in files of labels, TIRG's queries, all pictures of the asked description are right."""

import numpy as np
import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines import protocols
from data_pipelines.datasets.fashion200k import TRAINED, Fashion200kReader
from data_pipelines.tables import load_split
from tests.data_pipelines.layouts import GARMENTS, fashion200k


@pytest.fixture
def folder(tmp_path):
    """A folder in the layout."""
    fashion200k(tmp_path)
    return tmp_path


def test_a_test_query_asks_for_one_other_word_and_every_picture_of_that_description_is_right(folder):
    reader = Fashion200kReader(folder)
    right = ("women/c/8/8_1.jpeg", "women/c/8/8_0.jpeg")
    assert reader.splits == ("train", "test")
    assert reader.records("test") == [
        ComposedRecord("0", "women/c/7/7_0.jpeg", "replace black with white", right[0], kinds=("dress",), truths=right)
    ]
    assert list(reader.pictures("test")) == [picture for pictures in GARMENTS["test"].values() for picture in pictures]
    assert reader.captions("test")["women/d/9/9_0.jpeg"] == "white slim pants"


def test_training_pairs_differ_in_one_word_that_the_text_names(folder):
    reader = Fashion200kReader(folder)
    records, text_of = reader.records("train"), reader.captions("train")
    assert {record.reference for record in records} == set(text_of) - {"women/a/4/4_0.jpeg", "women/a/6/6_0.jpeg"}
    for record in records:  # two descriptions that differ in the order of their words are no pair
        own, asked = text_of[record.reference].split(), text_of[record.target].split()
        _, old, _, new = record.text.split()
        at = own.index(old)
        assert [*own[:at], new, *own[at + 1 :]] == asked and old != new
    asked = [(record.reference, text_of[record.target]) for record in records]
    assert len(set(asked)) == len(asked)  # each other description once
    assert max(sum(record.reference == picture for record in records) for picture in text_of) <= TRAINED
    assert {text_of[r.target] for r in records if r.reference == "women/b/6/6_0.jpeg"} == {"red lace dress"}
    assert Fashion200kReader(folder).records("train") == records


def test_the_tables_hold_the_pictures_and_the_protocol_takes_any_of_them(folder):
    data = load_split(Fashion200kReader(folder), folder, "test", size=8)
    assert len(data.records) == 1 and np.asarray(data.pictures[0]).shape == (8, 8, 3)
    protocol = protocols.of_reader("fashion200k")
    assert protocol.recall_at == (1, 10, 50) and protocol.any_truth and protocol.excludes_reference


def test_every_fault_is_listed_at_once(folder):
    with (folder / "labels/dress_test_detect_all.txt").open("a") as file:
        file.write("women/x.jpeg\twithout a description\n../../x.jpeg\t1\tred dress\n")
    with pytest.raises(UserError, match=r"2 problem\(s\).*row 3.*2 columns.*row 4.*no path inside the folder"):
        Fashion200kReader(folder).records("test")


def test_faulty_queries_are_listed(folder):
    file = folder / "test_queries.txt"
    file.write_text("women/c/7/7_0.jpeg\nwomen/c/8/8_0.jpeg women/c/8/8_1.jpeg\nwomen/c/7/7_0.jpeg women/no.jpeg\n")
    with pytest.raises(UserError, match=r"row 0 of test_queries.txt has 1 names"):
        Fashion200kReader(folder).records("test")
    file.write_text("women/c/7/7_0.jpeg women/c/8/8_0.jpeg\nwomen/c/7/7_0.jpeg women/no.jpeg\n")
    found = Fashion200kReader(folder).read("test")
    assert len(found.records) == 1 and found.unknown == ["query 1 names the unknown picture women/no.jpeg"]
    file.write_text("women/c/8/8_0.jpeg women/c/8/8_1.jpeg\n")
    with pytest.raises(UserError, match="two pictures of 'white mini dress', expected descriptions that differ"):
        Fashion200kReader(folder).records("test")
    file.unlink()
    with pytest.raises(UserError, match=r"test_queries.txt.*github.com/google/tirg"):
        Fashion200kReader(folder).records("test")


def test_another_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"holds no labels/\*_\{train,test\}_detect_all.txt; expected a folder"):
        Fashion200kReader(tmp_path)
