"""Hotel-CIR: paths of another machine, and distractors."""

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.hotel_cir import HotelCirReader


def test_records_say_what_the_file_says(written):
    reader = HotelCirReader(written)
    assert reader.splits == ("test", "train", "val")
    name = "{0}/travel/val{0}.jpg".format
    assert reader.records("val") == [
        ComposedRecord("0", name(0), "a red bed", name(1)),
        ComposedRecord("1", name(2), "a red bed", name(1), subset=(name(1), name(2), name(3))),
    ]
    assert reader.pictures("val") == {name(i): written / "images" / "val_test" / name(i) for i in range(4)}
    assert set(reader.pictures("train").values()) <= set((written / "images" / "train").rglob("*.jpg"))


@pytest.mark.parametrize("path", ["1/travel/val1.jpg", "a/b/c/d/1/travel/val1.jpg", "./1/travel/val1.jpg"])
def test_the_last_three_parts_of_a_path_count(written, edit_json, path):
    edit_json(written / "captions/hotel_val_data.json", lambda rows: [rows[0] | {"result_image": path}])
    assert HotelCirReader(written).records("val")[0].target == "1/travel/val1.jpg"


@pytest.mark.parametrize("path", ["", "/", "../..", "a/../../../x.jpg", "/etc/../.."])
def test_paths_that_leave_the_folder_are_reported(written, edit_json, path):
    edit_json(written / "captions/hotel_val_data.json", lambda rows: [rows[0] | {"result_image": path}])
    with pytest.raises(UserError, match="result_image, which is no path inside the folder"):
        HotelCirReader(written).records("val")
