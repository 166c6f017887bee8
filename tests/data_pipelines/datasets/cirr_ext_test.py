"""CIRR's auxiliary annotations: which answers become texts."""

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.cirr_ext import CirrExtReader


def test_answers_that_say_a_change_are_records(written):
    reader = CirrExtReader(written)
    assert reader.splits == ("train", "val")
    group = CirrReader(written).records("val")[0].subset
    assert len(group) == 5 and reader.records("val")[:2] == [
        ComposedRecord("10/1", "val-0-0-img0", "add a big dog", "val-1-0-img0", group),
        ComposedRecord("10/3", "val-0-0-img0", "grass", "val-1-0-img0", group),
    ]
    assert len(reader.records("val")) == 6
    assert reader.pictures("val") == CirrReader(written).pictures("val")


@pytest.mark.parametrize(
    "mark", ["[c] None existed", "[cr0] Nothing worth mentioning", "[cr1] Covered in query", "", "."]
)
def test_marks_are_no_texts(written, edit_json, mark):
    file = written / "captions_ext/cap.ext.rc2.val.json"
    edit_json(file, lambda rows: [rows[0] | {"caption_extend": {"0": "dogs", "1": mark, "2": "closer"}}, *rows[1:]])
    assert CirrExtReader(written).records("val")[0].text == "closer"


def test_faults_are_reported(written, edit_json):
    spoil = lambda rows: [
        rows[0] | {"caption_extend": ["add a dog"]}, rows[1] | {"reference": "nobody"}, rows[2], rows[2],
    ]  # fmt: skip
    edit_json(written / "captions_ext/cap.ext.rc2.val.json", spoil)
    with pytest.raises(UserError) as error:
        CirrExtReader(written).records("val")
    for said in ("row 0 of cap.ext.rc2.val.json", "unknown picture nobody"):
        assert said in str(error.value)
