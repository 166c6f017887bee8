"""ImageCoDe's layout as it comes, and what is said where it does not."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from contextjax.types import CandidateRecord, UserError
from data_pipelines.datasets.imagecode import ImageCodeReader, read_bounds, read_propositions
from data_pipelines.readers import BLANK, REPEATED, for_training

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
    assert reader.splits == ("test", "train", "train_simple", "val")
    assert reader.records("val") == [
        CandidateRecord(f"{VIDEO}/0", video, "the last frame", 2, "video", VIDEO),
        CandidateRecord(f"{VIDEO}/1", video, "the first", 0, "video", VIDEO),
        CandidateRecord(f"{STATIC}/0", static, "a deer head", 3, "static", STATIC),
    ]
    assert [(r.text, r.target) for r in reader.records("test")] == [("a lady", None), ("a lady in blue", None)]
    assert reader.captions("val") == {}
    assert [path.name for path in reader.annotation_files()] == [
        "test_data_unlabeled.json", "train_data.json", "train_simple.json", "valid_data.json",
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
    assert reader.splits == ("test", "train", "train_few", "train_simple", "unseen", "val", "val_few", "val_simple")
    for split, count in {"train": 1, "val": 2, "test": 1, "unseen": 1}.items():
        written = json.loads((pictogram_sets / f"{'valid' if split == 'val' else split}_data.json").read_text())
        records = reader.records(split)
        read = {record.images[0].split("/")[0]: {} for record in records}
        for record in records:
            read[record.images[0].split("/")[0]][str(record.target)] = record.text
            assert [image.split("/")[1] for image in record.images] == [f"img{n}" for n in range(10)]
        assert read == written and len(read) == count
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
        "valid_data.json has 8 problem(s)",
        "candidate '3', but 3 pictures",
        "candidate '-1'",
        "candidate 'x'",
        "no text (['no text'])",
        "set gone has 0 picture(s) in image-sets/, expected at least 2",
        "set one has 1 picture(s)",
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


def test_another_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match="expected a folder in ImageCoDe's layout"):
        ImageCodeReader(tmp_path)


def test_annotations_without_pictures_are_reported(folder):
    shutil.rmtree(folder / "image-sets")
    with pytest.raises(UserError, match="holds no folder image-sets; expected"):
        ImageCodeReader(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": ', "valid_data.json is not JSON"),
        (b"\xff\xfe\x00", "valid_data.json is not UTF-8"),
        (b"[]", "holds a list; expected ImageCoDe's dict"),
        (b"{}", "holds no descriptions; expected at least one"),
    ],
)
def test_files_of_another_shape_are_reported(folder, content, said):
    (folder / "valid_data.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        ImageCodeReader(folder).records("val")


def test_a_split_that_went_away_is_reported(folder):
    reader = ImageCodeReader(folder)
    (folder / "valid_data.json").unlink()
    for split in ("val", "dev"):
        with pytest.raises(UserError, match=r"_data\.json is missing; expected ImageCoDe's layout"):
            reader.records(split)


def test_any_number_of_pictures_from_two_on_is_a_set(folder):
    for count in (2, 9, 10, 11, 30):
        write_pictures(folder, f"of {count}", range(count))
        write(folder, "valid_data.json", {f"of {count}": {str(count - 1): "the last"}})
        record = ImageCodeReader(folder).records("val")[0]
        assert (len(record.images), record.target) == (count, count - 1)
        write(folder, "valid_data.json", {f"of {count}": {str(count): "beyond"}})
        with pytest.raises(UserError, match=f"candidate '{count}', but {count} pictures"):
            ImageCodeReader(folder).records("val")


def test_one_text_of_two_candidates_is_asked_and_trained_on_once(folder):
    write(folder, "valid_data.json", {VIDEO: {"0": "a man", "2": "a man", "1": "a dog"}, STATIC: {"0": "a man"}})
    read = ImageCodeReader(folder).read("val")
    assert len(read.records) == 4 and read.odd == {REPEATED: [f"{VIDEO}/1"]}
    assert [record.id for record in for_training(read.records)] == [f"{VIDEO}/0", f"{VIDEO}/2", f"{STATIC}/0"]
    write(folder, "test_data_unlabeled.json", {STATIC: ["a lady", "a lady"]})  # which may be two people's of one
    assert len(ImageCodeReader(folder).records("test")) == 2


@pytest.mark.parametrize("text", ["...", "\u200b", "-/?"])
def test_a_text_without_a_word_is_asked_and_not_trained_on(folder, text):
    write(folder, "valid_data.json", {VIDEO: {"0": text, "1": "é", "2": "3"}})
    read = ImageCodeReader(folder).read("val")
    assert len(read.records) == 3 and read.odd == {BLANK: [f"{VIDEO}/0"]} and len(for_training(read.records)) == 2


def test_a_set_outside_the_folder_is_no_set(folder):
    write_pictures(folder, "../outside", (0, 1))
    write(folder, "valid_data.json", {"../outside": {"0": "a man"}})
    with pytest.raises(UserError, match=r"set \.\./outside has 0 picture"):
        ImageCodeReader(folder).records("val")
    assert ImageCodeReader(folder).pictures("val") == {}


# --------------------------------------------------------------------------------- simple, of two


def simple(count):
    pairs = [(0, 2), (2, 1), (1, 0)]
    return [
        {"directory": VIDEO, "pos_idx": pairs[i % 3][0], "neg_idx": pairs[i % 3][1], "caption": f"text {i}"}
        for i in range(count)
    ]


def test_simple_rows_are_sets_of_two(folder):
    write(folder, "valid_simple.json", [*simple(60), {**simple(1)[0], "directory": STATIC, "pos_idx": 3}])
    reader = ImageCodeReader(folder)
    assert reader.splits == ("test", "train", "train_simple", "val", "val_simple")
    records = reader.records("val_simple")
    images = [f"{VIDEO}/img{n}" for n in (2, 9, 10)]  # by rank, as in the full files
    for record, row in zip(records[:60], simple(60), strict=True):
        assert record.images[record.target] == images[row["pos_idx"]]
        assert record.images[1 - record.target] == images[row["neg_idx"]]
        assert (record.text, record.kind) == (row["caption"], "video")
    assert (records[60].kind, set(records[60].images)) == ("static", {f"{STATIC}/img3", f"{STATIC}/img2"})
    assert len({record.id for record in records}) == 61
    assert 0.3 < sum(record.target for record in records) / 61 < 0.7
    assert records == reader.records("val_simple")
    assert list(reader.pictures("val_simple")) == [*images, *(f"{STATIC}/img{n}" for n in range(4))]


def test_the_order_of_two_does_not_depend_on_the_other_rows(folder):
    targets = []
    for count in (10, 20):
        write(folder, "valid_simple.json", simple(count))
        targets.append([record.target for record in ImageCodeReader(folder).records("val_simple")])
    assert targets[1][:10] == targets[0]


def test_all_problems_of_simple_rows_come_at_once(folder):
    row = simple(1)[0]
    rows = [
        row,
        {**row, "pos_idx": 2},
        {**row, "pos_idx": -1},
        {**row, "pos_idx": "0"},
        {**row, "caption": 3},
        {k: v for k, v in row.items() if k != "neg_idx"},
        7,
    ]
    write(folder, "valid_simple.json", rows)
    with pytest.raises(UserError) as error:
        ImageCodeReader(folder).records("val_simple")
    faults = (
        "has the indices (2, 2)", "has the indices (-1, 2)",
        "has the indices ('0', 2)", "has '3' for its caption",
        "has no neg_idx", "has no directory",
    )  # fmt: skip
    assert "valid_simple.json has 6 problem(s)" in str(error.value)
    for number, fault in enumerate(faults, 1):
        assert f"row {number} of valid_simple.json {fault}" in str(error.value)
    assert len(ImageCodeReader(folder).pictures("val_simple")) == 3


def test_simple_rows_of_unknown_candidates_are_listed(folder):
    row = simple(1)[0]
    rows = [row, {**row, "neg_idx": 3}, {**row, "directory": "gone"}, {**row, "directory": "../x"}]
    write(folder, "valid_simple.json", rows)
    read = ImageCodeReader(folder).read("val_simple")
    assert len(read.records) == 1 and len(read.unknown) == 3
    assert (
        read.unknown[0] == "row 1 has the candidate 3, but 3 pictures" and "row 3 has 0 picture(s)" in read.unknown[2]
    )


# ------------------------------------------------------------------------------------ propositions


def test_propositions_are_read_from_a_file_or_its_folder(tmp_path):
    found = {"a man, no hat": ["There is a man.", "He has no hat."], "one": ["One."]}
    write(tmp_path, "propositions.json", found)
    write(tmp_path, "other.json", {"x": ["y"] * 6})
    expected = {text: tuple(sentences) for text, sentences in found.items()}
    assert read_propositions(tmp_path) == read_propositions(str(tmp_path / "propositions.json")) == expected
    assert read_propositions(tmp_path / "other.json") == {"x": ("y",) * 6}


def test_all_problems_of_propositions_come_at_once(tmp_path):
    spoilt = {"none": [], "many": ["a"] * 7, "empty": ["a", " "], "number": ["a", 3], "text": "a", "fine": ["a"]}
    write(tmp_path, "propositions.json", spoilt)
    with pytest.raises(UserError) as error:
        read_propositions(tmp_path)
    assert "5 problem(s)" in str(error.value) and "fine" not in str(error.value)
    for said in ("'none' has 0 sentences, expected 1 to 6", "'many' has 7", "'empty' has no", "'number'", "'text'"):
        assert said in str(error.value)
    with pytest.raises(UserError, match=r"propositions\.json is missing"):
        read_propositions(tmp_path / "gone" / "propositions.json")


def test_a_comparative_text_of_two_pictures_is_refused(folder):
    """With two pictures there is nothing to be second to, or unlike the others."""
    for path in sorted((folder / "image-sets" / STATIC).iterdir())[2:]:
        path.unlink()
    write(folder, "valid_data.json", {STATIC: {"1": "The larger dog."}})
    write(folder, "kinds.json", {STATIC: {"1": ["absolute"]}})
    assert len(ImageCodeReader(folder).records("val")) == 1
    write(folder, "kinds.json", {STATIC: {"1": ["comparative"]}})
    with pytest.raises(UserError, match=rf"set {STATIC} has a comparative description, but only 2 pictures"):
        ImageCodeReader(folder).records("val")


def test_texts_have_the_kinds_of_a_file(folder):
    write(folder, "kinds.json", {STATIC: {"3": ["absolute", "size"]}})
    reader = ImageCodeReader(folder)
    assert [record.kinds for record in reader.records("val")] == [
        ("video",),
        ("video",),
        ("static", "absolute", "size"),
    ]
    assert folder / "kinds.json" in reader.annotation_files()
    for wrong in ({STATIC: ["size"]}, {STATIC: {"3": "size"}}, {STATIC: {"3": [1]}}):
        write(folder, "kinds.json", wrong)
        with pytest.raises(UserError, match=rf"kinds.json.*'{STATIC}' has no kinds"):
            reader.records("val")
    write(folder, "bounds.json", {"comparative": 45.5, "x": "y"})
    assert read_bounds(folder) == {"comparative": 45.5} and read_bounds(folder / "image-sets") == {}


def few(**changes):
    return {"directory": STATIC, "pos_idx": 3, "neg_idx": [0, 2], "caption": "a text", **changes}


def test_rows_of_a_few_name_several_others(folder):
    write(folder, "train_few.json", [few()] * 40 + [few(directory=VIDEO, pos_idx=0, neg_idx=[2, 1])])
    reader = ImageCodeReader(folder)
    assert "train_few" in reader.splits
    records = reader.records("train_few")
    for record in records[:40]:
        assert record.images[record.target] == f"{STATIC}/img3" and len(record.images) == 3
        assert [image for image in record.images if image[-1] != "3"] == [f"{STATIC}/img0", f"{STATIC}/img2"]
    assert {record.target for record in records[:40]} == {0, 1, 2}
    assert sorted(records[40].images) == sorted(f"{VIDEO}/img{n}" for n in (2, 9, 10))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"neg_idx": 0}, "has '0' for its neg_idx, expected a list of indices"),
        ({"neg_idx": []}, "has the indices (3,), expected two or more of different candidates"),
        ({"neg_idx": [1, 1]}, "has the indices (3, 1, 1), expected two or more of different candidates"),
        ({"neg_idx": [1, "2"]}, "has the indices (3, 1, '2'), expected two or more of different candidates"),
    ],
)
def test_faults_of_rows_of_a_few(folder, changes, fault):
    write(folder, "train_few.json", [few(), few(**changes)])
    with pytest.raises(UserError) as error:
        ImageCodeReader(folder).records("train_few")
    assert f"row 1 of train_few.json {fault}" in str(error.value)
