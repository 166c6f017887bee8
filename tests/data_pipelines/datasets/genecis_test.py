"""GeneCIS: a gallery for each query, and crops of pictures."""

import shutil

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.genecis import TASKS, GenecisReader
from data_pipelines.records import Crop
from data_pipelines.tables import load_split


def test_every_query_has_its_own_gallery(written):
    reader = GenecisReader(written)
    assert reader.splits == TASKS
    assert reader.records("focus_object") == [
        ComposedRecord("0", "139", "red", "285", subset=("285", "632", "724")),
        ComposedRecord("1", "724", "red", "285", subset=("285", "632", "724")),
    ]
    assert reader.pictures("focus_object")["139"] == written / "val2017" / "000000000139.jpg"


def test_pictures_of_attributes_are_crops(written):
    reader = GenecisReader(written)
    first, second = "2345/1,2,3.5,4", "61/5,2,3.5,4"
    assert reader.records("change_attribute")[0].reference == first
    found = reader.pictures("change_attribute")
    assert len(found) == 4
    assert found[first] == Crop(written / "VG_100K" / "2345.jpg", (1, 2, 3.5, 4), dilation=0.7)
    assert found[second] == Crop(written / "VG_100K_2" / "61.jpg", (5, 2, 3.5, 4), dilation=0.7)
    data = load_split(reader, written, "change_attribute", size=8)
    assert data.pictures.ids == list(found)


def test_other_folders_are_found(written):
    expected = GenecisReader(written).records("focus_attribute")
    for source, target in {
        "val2017": "coco/val2017", "VG_100K": "visual_genome/VG_100K_all", "VG_100K_2": "visual_genome/VG_100K_2",
    }.items():  # fmt: skip
        (written / target).parent.mkdir(exist_ok=True)
        shutil.move(written / source, written / target)
    for path in (written / "genecis").iterdir():
        shutil.move(path, written / path.name)
    reader = GenecisReader(written)
    assert reader.splits == TASKS and reader.records("focus_attribute") == expected
    assert all(source.read_bytes() for task in TASKS for source in reader.pictures(task).values())


def test_a_task_without_its_file_is_no_split(written):
    (written / "genecis" / "focus_object.json").unlink()
    assert GenecisReader(written).splits == tuple(task for task in TASKS if task != "focus_object")


BOXES = [[1, 2, 3], [1, 2, 0, 4], [1, 2, 3, -1], [1, "2", 3, 4], [1, 2, 3, 1e300], [True, 2, 3, 4]]


@pytest.mark.parametrize("box", BOXES)
def test_boxes_that_are_none_are_reported(written, edit_json, box):
    spoil = lambda rows: [rows[0] | {"target": {"image_id": 61, "instance_bbox": box}}, *rows[1:]]
    edit_json(written / "genecis/focus_attribute.json", spoil)
    with pytest.raises(UserError, match=r"1 problem\(s\): row 0 of focus_attribute.json"):
        GenecisReader(written).records("focus_attribute")


def test_an_empty_gallery_is_reported(written, edit_json):
    edit_json(written / "genecis/focus_object.json", lambda rows: [rows[0] | {"gallery": []}, *rows[1:]])
    with pytest.raises(UserError, match=r"row 0 of focus_object.json has an empty gallery"):
        GenecisReader(written).records("focus_object")
