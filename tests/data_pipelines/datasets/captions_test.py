"""Captions of pictures, in a list or beside CIRR's triplets, and what is said where there are none."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from contextjax.types import CaptionRecord, UserError
from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.datasets.cirr import CirrCaptionsReader, CirrReader
from data_pipelines.tables import load_split

ROWS = [
    {"image": "coco/b.png", "caption": "A dog.", "image_id": "coco_1"},
    {"image": "vg/a.png", "caption": "a cat"},
    {"image": "./coco/b.png", "caption": "A dog runs."},
    {"image": "coco//c.png", "caption": ["one tree", "a green tree"]},
]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("coco/b.png", "vg/a.png", "coco/c.png", "coco/unused.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    write(tmp_path, ROWS)
    write(tmp_path, ROWS[1:2], "val")
    return tmp_path


def write(folder, rows, split="train"):
    (folder / f"{split}.json").write_text(json.dumps(rows))


def test_records_say_what_the_file_says(folder):
    reader = CaptionsReader(folder)
    assert reader.splits == ("train", "val")
    assert [path.name for path in reader.annotation_files()] == ["train.json", "val.json"]
    assert reader.records("train") == [
        CaptionRecord("coco/b.png/0", "coco/b.png", "A dog."),
        CaptionRecord("vg/a.png/0", "vg/a.png", "a cat"),
        CaptionRecord("coco/b.png/1", "coco/b.png", "A dog runs."),
        CaptionRecord("coco/c.png/0", "coco/c.png", "one tree"),
        CaptionRecord("coco/c.png/1", "coco/c.png", "a green tree"),
    ]
    assert list(reader.pictures("train")) == ["coco/b.png", "vg/a.png", "coco/c.png"]
    assert all(path.is_file() for path in reader.pictures("train").values())
    assert list(reader.pictures("val")) == ["vg/a.png"] and reader.captions("val") == {}


def test_a_picture_is_kept_once_whatever_its_captions(folder):
    data = load_split(CaptionsReader(folder), folder, "train", size=8)
    assert list(data.records) == CaptionsReader(folder).records("train")
    assert data.pictures.ids == ["coco/b.png", "vg/a.png", "coco/c.png"]
    assert [data.pictures[row][0, 0, 0] for row in range(3)] == [0, 1, 2]


def test_all_problems_come_at_once(folder):
    write(
        folder,
        [
            *ROWS,
            {"image": "../x.png", "caption": "out"},
            {"image": "/etc/x.png", "caption": "out"},
            {"image": "a\\..\\..\\x.png", "caption": "out"},
            {"image": "C:/x.png", "caption": "out"},
            {"image": "vg/a.png", "caption": ["fine", 3]},
            {"image": "vg/a.png", "caption": []},
            {"image": "vg/a.png"},
            {"image": None, "caption": "x"},
            "no row",
        ],
    )
    with pytest.raises(UserError) as error:
        CaptionsReader(folder).records("train")
    faults = (
        "has '../x.png' for its image, which is no path inside the folder", "has '/etc/x.png' for its image", "has 'a",
        "has 'C:/x.png' for its image",
        "has ['fine', 3] for its caption", "has no caption for vg/a.png", "has no caption",
        "has 'None' for its image", "has no image",
    )  # fmt: skip
    assert "train.json has 9 problem(s)" in str(error.value)
    for number, fault in enumerate(faults, 4):
        assert f"row {number} of train.json {fault}" in str(error.value)
    assert list(CaptionsReader(folder).pictures("train")) == ["coco/b.png", "vg/a.png", "coco/c.png"]


def test_missing_pictures_and_bad_rows_are_reported_at_once(folder):
    (folder / "vg" / "a.png").unlink()
    write(folder, [*ROWS, {"image": "vg/a.png", "caption": 3}])
    with pytest.raises(
        UserError, match=r"2 problem\(s\): vg/a.png has no file .*row 4 of train.json has '3' for its caption"
    ):
        load_split(CaptionsReader(folder), folder, "train", size=8)


@pytest.mark.parametrize(
    ("content", "said"), [("[]", "holds no captions"), ("{}", "holds a dict; expected"), ("[", "is not JSON")]
)
def test_files_of_another_shape_are_reported(folder, content, said):
    (folder / "train.json").write_text(content)
    with pytest.raises(UserError, match=said):
        CaptionsReader(folder).records("train")


def test_another_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"holds no <split>\.json"):
        CaptionsReader(tmp_path)


# ----------------------------------------------------------------------------------- COCO's own files


@pytest.fixture
def coco(tmp_path):
    images = [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}, {"id": 3, "file_name": "x.jpg", "width": 8}]
    captions = [(9, "A dog."), (3, "a cat\n"), (9, "A dog runs."), (3, " ")]
    annotations = [{"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(captions)]
    write_coco(tmp_path, {"info": {}, "images": images, "annotations": annotations})
    for image in images:
        (tmp_path / "train2014").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train2014" / image["file_name"])
    return tmp_path


def write_coco(folder, found):
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "captions_train2014.json").write_text(json.dumps(found))


def test_cocos_own_file_is_read(coco):
    reader = CaptionsReader(coco)
    assert reader.splits == ("train2014",)
    dog, cat = "train2014/COCO_train2014_000000000009.jpg", "train2014/x.jpg"
    assert reader.records("train2014") == [
        CaptionRecord(f"{dog}/0", dog, "A dog."),
        CaptionRecord(f"{cat}/0", cat, "a cat\n"),
        CaptionRecord(f"{dog}/1", dog, "A dog runs."),
        CaptionRecord(f"{cat}/1", cat, " "),
    ]
    assert all(path.is_file() for path in reader.pictures("train2014").values())


def test_faults_of_cocos_file_are_reported_at_once(coco):
    images = [{"id": 9, "file_name": "../x.jpg"}, {"id": 3, "file_name": "y.jpg"}, {"id": 4}]
    rows = [{"image_id": 9, "caption": "a"}, {"image_id": 4, "caption": "b"}, {"image_id": 3}, 7]
    write_coco(coco, {"images": images, "annotations": [*rows, {"image_id": 3, "caption": "fine"}]})
    with pytest.raises(
        UserError,
        match=r"4 problem\(s\): row 0 of .* no path.*row 2 of .* has.*row 3 of .* has.*annotation 1 .*unknown",
    ):
        CaptionsReader(coco).records("train2014")
    write_coco(coco, {"images": images, "annotations": {}})
    with pytest.raises(UserError, match="holds no list of annotations"):
        CaptionsReader(coco).records("train2014")


# ------------------------------------------------------------------------------------ CIRR's layout


def test_the_captions_of_cirr_are_records(pictograms):
    reader, cirr = CirrCaptionsReader(pictograms), CirrReader(pictograms)
    assert reader.splits == cirr.splits
    found = reader.records("val")
    assert {record.image: record.text for record in found} == cirr.captions("val")
    assert len(found) == len(cirr.pictures("val")) and all(record.id == record.image for record in found)


def test_both_readings_of_cirr_share_their_pictures_and_no_records(pictograms_copy):
    captions = load_split(CirrCaptionsReader(pictograms_copy), pictograms_copy, "val", size=32)
    times = {path: path.stat().st_mtime_ns for path in (pictograms_copy / "prepared").rglob("*.array_record*")}
    triplets = load_split(CirrReader(pictograms_copy), pictograms_copy, "val", size=32)
    new = {path for path in (pictograms_copy / "prepared").rglob("*.array_record*") if path not in times}
    assert len(times) == 2 and len(new) == 1  # pictures and captions, then triplets alone
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert list(captions.records) == CirrCaptionsReader(pictograms_copy).records("val")
    assert list(triplets.records) == CirrReader(pictograms_copy).records("val")
    assert captions.pictures.ids == triplets.pictures.ids
    np.testing.assert_array_equal(captions.pictures[3], triplets.pictures[3])
    again = load_split(CirrCaptionsReader(pictograms_copy), pictograms_copy, "val", size=32)
    assert again.records == captions.records


def test_pictures_without_a_caption_have_no_record(pictograms_copy, edit_json):
    edit_json(pictograms_copy / "image_captions" / "captions.val.json", lambda rows: rows[:3])
    data = load_split(CirrCaptionsReader(pictograms_copy), pictograms_copy, "val", size=32)
    assert len(data.records) == 3 and len(data.pictures) == 12


def test_bad_captions_of_cirr_are_reported_at_once(pictograms_copy, edit_json):
    spoil = lambda rows: [{**rows[0], "caption": 3}, {**rows[1], "caption": []}, {"image": "y.png"}]
    edit_json(pictograms_copy / "image_captions" / "captions.val.json", spoil)
    with pytest.raises(UserError, match=r"3 problem\(s\).*'3' for its caption.*has no caption"):
        CirrCaptionsReader(pictograms_copy).records("val")
    edit_json(pictograms_copy / "image_captions" / "captions.val.json", lambda rows: [])
    with pytest.raises(UserError, match="holds no captions"):
        CirrCaptionsReader(pictograms_copy).records("val")


def test_splits_without_captions_are_left_out(pictograms_copy):
    (pictograms_copy / "image_captions" / "captions.val.json").unlink()
    assert CirrCaptionsReader(pictograms_copy).splits == ("test1", "train", "unseen")
    shutil.rmtree(pictograms_copy / "image_captions")
    with pytest.raises(UserError, match=r"holds no image_captions/captions\.<split>\.json"):
        CirrCaptionsReader(pictograms_copy)
