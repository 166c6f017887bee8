"""Karpathy's files of COCO and Flickr30k: splits, captions, places of pictures, and faults."""

import json

import pytest
from PIL import Image

from contextjax.types import CaptionRecord, UserError
from data_pipelines import protocols
from data_pipelines.datasets.karpathy import KarpathyReader
from experiments.shared.data import load_parts


def row(name, split, *texts, **more):
    sentences = [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": i} for i, text in enumerate(texts)]
    return {"filename": name, "split": split, "sentences": sentences, "sentids": [0], "imgid": 0, **more}


COCO = [
    row("COCO_val2014_000000391895.jpg", "test", "A man.", "a bike", *"bcdef", filepath="val2014", cocoid=391895),
    row("COCO_train2014_000000000001.jpg", "train", "One dog.", filepath="train2014"),
    row("COCO_val2014_000000000002.jpg", "restval", "Two dogs.", filepath="val2014"),
    row("COCO_val2014_000000000003.jpg", "val", "", "a tree\n", filepath="val2014"),
    row("COCO_val2014_000000000004.jpg", "test", "a cat", filepath="val2014"),
]


def write(folder, rows, place="", file="dataset_coco.json"):
    (folder / file).write_text(json.dumps({"images": rows, "dataset": "coco"}))
    for number, each in enumerate(rows):
        path = folder / place / each.get("filepath", "") / each["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)


def test_coco_is_read_and_restval_is_trained_on(tmp_path):
    write(tmp_path, COCO)
    reader = KarpathyReader(tmp_path)
    assert reader.splits == ("train", "val", "test")
    dog, dogs = "train2014/COCO_train2014_000000000001.jpg", "val2014/COCO_val2014_000000000002.jpg"
    assert reader.records("train") == [
        CaptionRecord(f"{dog}/0", dog, "One dog."),
        CaptionRecord(f"{dogs}/0", dogs, "Two dogs."),
    ]
    assert reader.pictures("train") == {dog: tmp_path / dog, dogs: tmp_path / dogs}
    assert [record.text for record in reader.records("val")] == ["", "a tree\n"]
    assert reader.read("val").odd == {"without a text": [reader.records("val")[0].id]}
    assert len(reader.records("test")) == 8


@pytest.mark.parametrize("place", ["", "images", "flickr30k-images"])
def test_flickrs_pictures_are_found_where_they_lie(tmp_path, place):
    write(tmp_path, [row("1.jpg", "train", "a"), row("2.jpg", "test", "b")], place, "dataset_flickr30k.json")
    reader = KarpathyReader(tmp_path)
    assert reader.splits == ("train", "test")
    assert (
        reader.pictures("test") == {"2.jpg": tmp_path / place / "2.jpg"} and reader.pictures("test")["2.jpg"].exists()
    )


def test_the_protocol_asks_the_first_five_captions(tmp_path):
    write(tmp_path, COCO)
    (data,) = load_parts(protocols.KARPATHY, tmp_path, "test", size=8, fit="squash").values()
    assert [record.text for record in data.records] == ["A man.", "a bike", "b", "c", "d", "a cat"]
    assert all(record.reference == record.target for record in data.records) and len(data.pictures) == 2


def test_all_faults_are_reported_at_once(tmp_path):
    faulty = [
        COCO[0], {**COCO[1], "filename": "../x.jpg"}, {**COCO[1], "filepath": "/etc"}, {**COCO[1], "sentences": []},
        {**COCO[1], "sentences": [{"tokens": []}]}, {**COCO[1], "sentences": "a dog"}, {"filename": "x.jpg"}, 3,
    ]  # fmt: skip
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": faulty}))
    with pytest.raises(UserError, match=r"7 problem\(s\): row 1 .* filename.*row 2 .* filepath.*row 3 .* no sentence"):
        KarpathyReader(tmp_path).records("test")


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": 3}', "{"])
def test_files_of_another_shape_are_reported(tmp_path, content):
    (tmp_path / "dataset_coco.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset_coco\.json"):
        KarpathyReader(tmp_path).records("test")


def test_a_folder_has_one_file(tmp_path):
    with pytest.raises(UserError, match=r"holds no dataset_\*\.json; expected one of Karpathy's"):
        KarpathyReader(tmp_path)
    for name in ("coco", "flickr30k"):
        (tmp_path / f"dataset_{name}.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds dataset_coco\.json, dataset_flickr30k\.json; expected one"):
        KarpathyReader(tmp_path)
