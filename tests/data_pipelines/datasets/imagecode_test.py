"""ImageCoDe's layout as it comes, and what is said where it does not."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from contextjax.types import CandidateRecord, UserError
from data_pipelines.datasets.imagecode import ImageCodeReader

VIDEO, STATIC, OTHER = "MSR-VTT-videoTestVideo_video7047-shot1_0", "open-images-1815_f91d6f546e63f20d", "YouCook-1_0"
NUMBERS = {VIDEO: (2, 10, 9), STATIC: (0, 1, 2, 3), OTHER: (0, 1)}


def write_pictures(folder: Path, name: str, numbers, suffix=".jpg") -> None:
    (folder / "image-sets" / name).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (4, 4)).save(folder / "image-sets" / name / f"img{number}{suffix}")


def write(folder: Path, file: str, value) -> None:
    (folder / file).write_text(json.dumps(value))


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, numbers in NUMBERS.items():
        write_pictures(tmp_path, name, numbers)
    write(tmp_path, "valid_data.json", {VIDEO: {"2": "the last frame", "0": "the first"}, STATIC: {"3": "a deer head"}})
    write(tmp_path, "train_data.json", {OTHER: {"1": "some grass"}})
    write(tmp_path, "test_data_unlabeled.json", {STATIC: ["a lady", "a lady in blue"]})
    write(tmp_path, "train_simple.json", [{"directory": OTHER, "pos_idx": 0, "neg_idx": 1, "caption": "grass"}])
    return tmp_path


def test_records_say_what_the_files_say(folder):
    reader = ImageCodeReader(folder)
    video = tuple(f"{VIDEO}/img{n}" for n in (2, 9, 10))  # by number, not by name
    static = tuple(f"{STATIC}/img{n}" for n in range(4))
    assert reader.splits == ("test", "train", "val")
    assert reader.records("val") == [
        CandidateRecord(f"{VIDEO}/0", video, "the last frame", 2, "video"),
        CandidateRecord(f"{VIDEO}/1", video, "the first", 0, "video"),
        CandidateRecord(f"{STATIC}/0", static, "a deer head", 3, "static"),
    ]
    assert [(r.text, r.target) for r in reader.records("test")] == [("a lady", None), ("a lady in blue", None)]
    assert reader.captions("val") == {}
    assert [path.name for path in reader.annotation_files()] == [
        "test_data_unlabeled.json", "train_data.json", "valid_data.json",
    ]  # fmt: skip


def test_pictures_are_those_of_the_splits_sets(folder):
    shutil.rmtree(folder / "image-sets" / OTHER)  # of the training split: not asked for
    write_pictures(folder, VIDEO, ("", "x3"))  # no candidates
    (folder / "image-sets" / VIDEO / "img4.txt").write_text("no picture")
    found = ImageCodeReader(folder).pictures("val")
    assert list(found) == [*(f"{VIDEO}/img{n}" for n in (2, 9, 10)), *(f"{STATIC}/img{n}" for n in range(4))]
    assert all(path.is_file() for path in found.values())


def test_pictograms_are_read_as_they_are_written(pictogram_sets):
    reader = ImageCodeReader(pictogram_sets)
    assert reader.splits == ("test", "train", "unseen", "val")
    for split, count in {"train": 1, "val": 2, "test": 1, "unseen": 1}.items():
        written = json.loads((pictogram_sets / f"{'valid' if split == 'val' else split}_data.json").read_text())
        records = reader.records(split)
        told = {record.images[0].split("/")[0]: {} for record in records}
        for record in records:
            told[record.images[0].split("/")[0]][str(record.target)] = record.text
            assert [image.split("/")[1] for image in record.images] == [f"img{n}" for n in range(10)]
        assert told == written and len(told) == count
        assert set(reader.pictures(split)) == {image for record in records for image in record.images}


def test_published_targets_go_before_secret_ones(folder):
    write(folder, "test_data.json", {STATIC: {"1": "a lady"}})
    reader = ImageCodeReader(folder)
    assert [record.target for record in reader.records("test")] == [1]
    assert folder / "test_data_unlabeled.json" not in reader.annotation_files()


def test_all_problems_come_at_once(folder):
    write_pictures(folder, "one", [5])
    write_pictures(folder, "twins", [1, 2])
    write_pictures(folder, "twins", [1], ".png")
    spoilt = {
        VIDEO: {"3": "too far", "-1": "too near", "x": "nowhere", "0": " \n", "1": ["no text"], "2": "fine"},
        "gone": {"0": "a lost set"},
        "one": {"0": "alone", "7": ""},
        "twins": {"0": "a or b"},
        STATIC: "a text without its index",
    }
    write(folder, "valid_data.json", spoilt)
    with pytest.raises(UserError) as error:
        ImageCodeReader(folder).records("val")
    for part in (
        "valid_data.json has 10 problem(s)",
        "candidate '3', but 3 pictures",
        "candidate '-1'",
        "candidate 'x'",
        f"set {VIDEO} has an empty text",
        "no text (['no text'])",
        "set gone has 0 picture(s) in image-sets/, expected at least 2",
        "set one has 1 picture(s)",
        "set one has an empty text",
        "set twins has several pictures of the number 1",
        f"set {STATIC} has a str for its descriptions",
    ):
        assert part in str(error.value)


def test_a_set_that_is_mended_is_read(folder):
    write(folder, "valid_data.json", {"new": {"1": "the second"}})
    with pytest.raises(UserError, match=r"set new has 0 picture\(s\)"):
        ImageCodeReader(folder).records("val")
    write_pictures(folder, "new", [0, 40])
    assert ImageCodeReader(folder).records("val")[0].images == ("new/img0", "new/img40")


def test_another_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="expected a folder in ImageCoDe's layout"):
        ImageCodeReader(tmp_path)


def test_annotations_without_pictures_are_told(folder):
    shutil.rmtree(folder / "image-sets")
    with pytest.raises(UserError, match="holds no folder image-sets; expected"):
        ImageCodeReader(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": ', "valid_data.json is not JSON"),
        (b"\xff\xfe\x00", "valid_data.json is not JSON"),
        (b"[]", "holds a list; expected ImageCoDe's dict"),
        (b"{}", "holds no descriptions; expected at least one"),
    ],
)
def test_files_of_another_shape_are_told(folder, content, said):
    (folder / "valid_data.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        ImageCodeReader(folder).records("val")


def test_a_split_that_went_away_is_told(folder):
    reader = ImageCodeReader(folder)
    (folder / "valid_data.json").unlink()
    for split in ("val", "dev"):
        with pytest.raises(UserError, match=r"_data\.json is missing; expected ImageCoDe's layout"):
            reader.records(split)
