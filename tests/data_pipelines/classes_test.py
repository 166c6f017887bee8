"""Folders of classes, with splits and without, the names of classes, and what is no such folder."""

import json

import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.classes import class_names, find_splits, read_classes


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def test_classes_stand_in_a_folder_or_in_splits(tmp_path):
    write(tmp_path, "cat/1.jpg", "cat/more/2.png", "a_dog/1.jpg")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    pictures = read_classes(tmp_path)
    assert find_splits(tmp_path) == () and pictures.classes == ("a_dog", "cat")
    assert [path.relative_to(tmp_path).as_posix() for path in pictures.files] == [
        "a_dog/1.jpg",
        "cat/1.jpg",
        "cat/more/2.png",
    ]
    assert pictures.labels.tolist() == [0, 1, 1]
    split = tmp_path / "split"
    write(split, "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    assert find_splits(split) == ("train", "test") and read_classes(split, "test").classes == ("cat", "dog")


def test_classes_that_are_called_as_splits_are_classes(tmp_path):
    write(tmp_path, "train/1.jpg", "bus/1.jpg")  # vehicles
    assert find_splits(tmp_path) == () and read_classes(tmp_path).classes == ("bus", "train")


def test_names_are_the_folders_or_a_files(tmp_path):
    assert class_names(("a_big__dog", "cat")) == ["a big dog", "cat"]
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"n01": "tench", "n02": "shark", "n03": "more"}))
    assert class_names(("n01", "n02"), file) == ["tench", "shark"]
    for content, said in (({"n01": "tench"}, "no words for n02"), ({"n01": 3, "n02": " "}, "no words for n01, n02")):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=said):
            class_names(("n01", "n02"), file)
    file.write_text("[]")
    with pytest.raises(UserError, match="holds a list"):
        class_names(("n01",), file)


def test_other_folders_are_reported(tmp_path):
    write(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "flat/1.jpg", "empty/cat/1.jpg")
    (tmp_path / "empty" / "dog").mkdir()
    for folder, split, said in (
        (tmp_path / "train", "test", "no split 'test'; it has classes alone"),
        (tmp_path / "flat", "", "holds 0 folders; expected a folder of pictures for each class"),
        (tmp_path / "empty", "", r"classes without a picture \(dog\)"),
    ):
        with pytest.raises(UserError, match=said):
            read_classes(folder, split)
    write(tmp_path / "splits", "train/cat/1.jpg", "train/dog/1.jpg")
    with pytest.raises(UserError, match="has the splits train; name one"):
        read_classes(tmp_path / "splits")
