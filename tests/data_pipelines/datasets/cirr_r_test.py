"""CIRR_R: names from addresses, sentences for training, whole texts elsewhere, CIRR's groups."""

import shutil

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.cirr_r import CirrRewrittenReader


def test_every_sentence_is_trained_on_and_a_pair_is_asked_once(written):
    reader = CirrRewrittenReader(written)
    texts = lambda split: [(record.id, record.text) for record in reader.records(split)]
    assert texts("train") == [
        ("0/0", "One text."), ("1/0", "Add a dog."), ("1/1", "Remove the cat"),
        ("2/0", "Add a dog."), ("2/1", "Remove the cat"),
    ]  # fmt: skip
    assert texts("val") == [
        ("0", "One text."), ("1", "Add a dog. Remove the cat."), ("2", "Add a dog. Remove the cat."),
    ]  # fmt: skip


def test_pairs_and_their_groups_are_those_of_cirr(written):
    pairs = lambda reader: [(r.reference, r.target, r.subset) for r in reader(written).records("val")]
    assert pairs(CirrRewrittenReader) == pairs(CirrReader)
    assert CirrRewrittenReader(written).pictures("val") == CirrReader(written).pictures("val")


def test_a_pair_that_cirr_lacks_has_no_group(written, edit_json):
    file = written / "rewritten_captions/rewritten_val.json"
    turned = lambda rows: [rows[0] | {"query_image_url": "x/val-5-0-img0.png"}, *rows[1:]]
    edit_json(file, turned)
    assert [len(record.subset) for record in CirrRewrittenReader(written).records("val")] == [0, 5, 5]


@pytest.mark.parametrize("name", ["dev-ping", "png", "a.png", "gnp.", "val-1-0-img1"])
def test_the_ending_is_taken_off_once_and_nothing_else(written, edit_json, name):
    """`strip` would take letters off the name itself."""
    edit_json(written / "image_splits/split.rc2.val.json", lambda names: names | {name: "./dev/x.png"})
    file = written / "rewritten_captions/rewritten_val.json"
    edit_json(file, lambda rows: [rows[0] | {"query_image_url": f"https://example.org/png/{name}.png"}])
    assert CirrRewrittenReader(written).records("val")[0].reference == name


def test_faults_are_reported(written, edit_json):
    spoil = lambda rows: [
        rows[0] | {"difference_captions": [3]},
        rows[1] | {"retrieved_image_url": "a/b.png"},
        rows[2],
    ]
    edit_json(written / "rewritten_captions/rewritten_val.json", spoil)
    with pytest.raises(
        UserError, match=r"row 0 of rewritten_val.json has \[3\] for its difference_captions.*picture b"
    ):
        CirrRewrittenReader(written).records("val")


def test_cirr_itself_is_needed(written):
    shutil.rmtree(written / "captions")
    with pytest.raises(UserError, match=r"holds no captions/cap\.rc2"):
        CirrRewrittenReader(written)
