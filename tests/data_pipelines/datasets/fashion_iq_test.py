"""Fashion-IQ: categories, galleries, dead links, and two captions as one text."""

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.fashion_iq import FashionIqReader, joined
from data_pipelines.tables import load_split


def test_categories_are_apart_in_evaluation_and_together_in_training(written):
    reader = FashionIqReader(written)
    assert reader.splits == (
        "train", *(f"{category}.{split}" for split in ("val", "test") for category in ("dress", "shirt", "toptee")),
    )  # fmt: skip
    records = reader.records("train")
    assert [record.id for record in records] == ["dress/0", "dress/1", "shirt/0", "shirt/1", "toptee/0", "toptee/1"]
    assert [record.kinds for record in records[::2]] == [("dress",), ("shirt",), ("toptee",)]
    assert len(reader.pictures("train")) == 12
    for category in ("dress", "shirt", "toptee"):
        assert list(reader.pictures(f"{category}.val")) == [f"B0{category}val{i}" for i in range(4)]
        assert {record.kinds for record in reader.records(f"{category}.val")} == {(category,)}


def test_records_say_what_the_file_says(written):
    assert FashionIqReader(written).records("dress.val") == [
        ComposedRecord("dress/0", "B0dressval0", "Is darker and has sleeves", "B0dressval1", kinds=("dress",),
                       rewordings=("Has sleeves and is darker",)),
        ComposedRecord("dress/1", "B0dressval1", "Is red and is red", "B0dressval2", kinds=("dress",)),
    ]  # fmt: skip
    assert {record.target for record in FashionIqReader(written).records("shirt.test")} == {None}


JOINED = {
    ("is darker", "has sleeves"): "Is darker and has sleeves",
    (" is darker., ", "Has sleeves??"): "Is darker and Has sleeves",
    ("is darker.\n", ""): "Is darker",
    (" .", "has a V-neck"): "Has a V-neck",
    ("3/4 sleeves",): "3/4 sleeves",
    ("?", ""): "",
}


@pytest.mark.parametrize("captions", JOINED)
def test_joining(captions):
    assert joined(list(captions)) == JOINED[captions]


def test_either_ending_is_found(written):
    endings = [path.suffix for path in FashionIqReader(written).pictures("dress.val").values()]
    assert endings == [".jpg", ".png", ".jpg", ".png"]


def test_dead_links_are_named_where_a_gallery_is_evaluated(written):
    for name in ("B0dressval0.jpg", "B0dressval3.png"):
        (written / "images" / name).unlink()
    assert len(FashionIqReader(written).records("dress.val")) == 2
    with pytest.raises(UserError, match=r"2 problem\(s\).*B0dressval0.*B0dressval3"):
        load_split(FashionIqReader(written), written, "dress.val", size=8)


def test_a_set_of_one_category_is_read(written):
    for path in [*written.glob("captions/cap.shirt.*"), *written.glob("captions/cap.toptee.*")]:
        path.unlink()
    reader = FashionIqReader(written)
    assert reader.splits == ("train", "dress.val", "dress.test") and len(reader.records("train")) == 2


def test_faults_of_all_files_of_a_split_are_reported_at_once(written, edit_json):
    edit_json(written / "captions/cap.dress.train.json", lambda rows: [rows[0] | {"captions": ["", 3]}, *rows[1:]])
    edit_json(written / "captions/cap.shirt.train.json", lambda rows: [rows[0] | {"target": "B0"}, *rows[1:]])
    edit_json(written / "captions/cap.toptee.train.json", lambda rows: [rows[0] | {"captions": "red"}, *rows[1:]])
    with pytest.raises(UserError) as error:
        FashionIqReader(written).records("train")
    for said in ("3 problem(s)", "row 0 of cap.dress", "names the unknown picture B0", "row 0 of cap.toptee"):
        assert said in str(error.value)


def test_ids_that_are_none_are_reported(written, edit_json):
    edit_json(written / "image_splits/split.dress.val.json", lambda ids: [*ids, 3, "../x"])
    with pytest.raises(UserError, match=r"2 problem\(s\): row 4 of split.dress.val.json.*row 5"):
        FashionIqReader(written).pictures("dress.val")
