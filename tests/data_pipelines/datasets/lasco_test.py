"""LaSCo: the gallery's paths and the queries' are the same pictures."""

import shutil

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.lasco import LascoReader

PICTURE = "{0}2014/COCO_{0}2014_{1:012d}.jpg"


def test_records_say_what_the_file_says(written):
    reader = LascoReader(written)
    assert reader.splits == ("train", "val")
    a, b, c = (PICTURE.format("train", number) for number in (3, 42, 7))
    assert reader.records("train") == [
        ComposedRecord("3000/0", a, "Is it red?", b),
        ComposedRecord("42000/1", b, "Is it red?", c),
    ]
    assert list(reader.pictures("train")) == [a, b, c]


def test_the_gallery_of_val_is_its_corpus(written):
    names = [PICTURE.format("val", number) for number in (3, 42, 7, 99)]
    assert LascoReader(written).pictures("val") == {name: written / name for name in names}


def test_coco_may_lie_in_a_folder_of_its_own(written):
    (written / "coco").mkdir()
    shutil.move(written / "val2014", written / "coco" / "val2014")
    assert all(path.is_file() for path in LascoReader(written).pictures("val").values())


def test_faults_are_reported(written, edit_json):
    spoil = lambda rows: [
        rows[0] | {"query-image": [3, "../x.jpg"]}, rows[1] | {"target-image": "x.jpg"}, rows[1] | {"query-text": 3},
        rows[1] | {"target-image": [1, "val2014/x.jpg"]},
    ]  # fmt: skip
    edit_json(written / "lasco_val.json", spoil)
    with pytest.raises(
        UserError, match=r"4 problem\(s\).*row 0.*row 1.*'3' for its query-text.*unknown picture val2014/x"
    ):
        LascoReader(written).records("val")


def test_faults_of_the_gallery_are_reported(written, edit_json):
    edit_json(written / "lasco_val_corpus.json", lambda rows: [*rows, {"id": 1}, {"id": 2, "path": "/x.jpg"}])
    with pytest.raises(UserError, match=r"2 problem\(s\): row 4 of lasco_val_corpus.json has no path.*row 5"):
        LascoReader(written).pictures("val")
    (written / "lasco_val_corpus.json").unlink()
    with pytest.raises(UserError, match=r"lasco_val_corpus.json is missing"):
        LascoReader(written).pictures("val")
