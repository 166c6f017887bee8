"""CIRCO: several right pictures, one gallery, one template."""

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.circo import IMAGES, CircoReader

TEXT = "Find a picture that also a red umbrella, but has two people."


def test_records_say_what_the_file_says(written):
    reader = CircoReader(written)
    assert reader.splits == ("test", "val")
    assert reader.records("val")[0] == ComposedRecord(
        "0", "1", TEXT, "2", kinds=("cardinality", "addition"), truths=("2", "7")
    )
    assert reader.records("test") == [ComposedRecord("0", "1", TEXT), ComposedRecord("1", "1", TEXT)]


def test_the_gallery_is_all_of_coco_and_may_lie_in_data(written):
    names = {str(i): f"{i:012d}.jpg" for i in (1, 2, 7, 9)}
    coco = written / "COCO2017_unlabeled"
    for split in ("val", "test"):
        assert CircoReader(written).pictures(split) == {id: coco / "unlabeled2017" / names[id] for id in names}
    (coco / "unlabeled2017").rename(coco / "data")
    assert CircoReader(written).pictures("val") == {id: coco / "data" / names[id] for id in names}


def test_faults_are_reported_at_once(written, edit_json):
    spoil = lambda rows: [
        rows[0] | {"gt_img_ids": ["2"]}, rows[0] | {"shared_concept": 3}, rows[0] | {"id": 5, "reference_img_id": 8},
        rows[1], rows[1],
    ]  # fmt: skip
    edit_json(written / "annotations/val.json", spoil)
    with pytest.raises(UserError) as error:
        CircoReader(written).records("val")
    for said in (
        "3 problem(s)",
        "row 0 of val.json",
        "row 1 of val.json",
        "unknown picture 8",
    ):
        assert said in str(error.value)


def test_faults_of_the_gallery_are_reported(written, edit_json):
    more = [{"id": 1, "file_name": "x.jpg"}, {"id": 3}, {"id": 4, "file_name": "/x.jpg"}]
    edit_json(written / IMAGES, lambda found: {"images": [*found["images"], *more]})
    with pytest.raises(UserError, match=r"3 problem\(s\).*has no file_name.*/x.jpg.*picture 1 comes 2 times"):
        CircoReader(written).pictures("val")
    edit_json(written / IMAGES, lambda found: {"images": 3})
    with pytest.raises(UserError, match="holds no list of images"):
        CircoReader(written).pictures("val")
