"""CIRR's layout as it comes, and what is said where it does not."""

import json
import shutil

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.readers import REPEATED, TRIMMED, for_training


def test_splits_and_files(pictograms):
    reader = CirrReader(pictograms)
    assert reader.splits == ("test1", "train", "unseen", "val")
    assert len(reader.annotation_files()) == 12
    pictures = reader.pictures("train")
    assert len(pictures) == 18 and all(path.is_file() for path in pictures.values())


def test_records_say_what_the_file_says(pictograms):
    items = json.loads((pictograms / "captions" / "cap.rc2.val.json").read_text())
    for item, record in zip(items, CirrReader(pictograms).records("val"), strict=True):
        assert (record.id, record.reference, record.text, record.target, record.kinds) == (
            str(item["pairid"]), item["reference"], item["caption"], item["target_hard"], (item["edit"],),
        )  # fmt: skip
        assert record.reference not in record.subset and record.target in record.subset
        assert {record.reference, *record.subset} == set(item["img_set"]["members"])


def test_both_folder_layouts_are_read(pictograms, pictograms_copy):
    for path in (pictograms_copy / "img_raw").iterdir():
        shutil.move(path, pictograms_copy / path.name)
    (pictograms_copy / "img_raw").rmdir()
    nested, flat = CirrReader(pictograms), CirrReader(pictograms_copy)
    for split in nested.splits:
        a, b = nested.pictures(split), flat.pictures(split)
        assert list(a) == list(b) and all(path.is_file() for path in b.values())
    assert flat.records("val") == nested.records("val")


def test_captions_are_optional(pictograms, pictograms_copy):
    captions = CirrReader(pictograms).captions("val")
    assert set(captions) == set(CirrReader(pictograms).pictures("val")) and all(captions.values())
    shutil.rmtree(pictograms_copy / "image_captions")
    assert CirrReader(pictograms_copy).captions("val") == {}


def test_what_the_official_files_lack_is_left_empty(pictograms_copy, edit_json):
    """CIRR's own items have no `edit`, and test items no target."""
    strip = lambda items: [
        {k: v for k, v in i.items() if k not in ("edit", "target_hard", "target_soft")} for i in items
    ]
    edit_json(pictograms_copy / "captions" / "cap.rc2.test1.json", strip)
    assert {(r.target, r.kinds) for r in CirrReader(pictograms_copy).records("test1")} == {(None, ())}


def test_another_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match="expected a folder in CIRR's layout"):
        CirrReader(tmp_path)


def test_all_problems_of_the_records_come_at_once(pictograms_copy, edit_json):
    file = pictograms_copy / "captions" / "cap.rc2.val.json"

    def spoil(items):
        items[0]["reference"] = "nobody"
        items[1]["target_hard"] = "nothing"
        items[2]["img_set"]["members"].append("nowhere")
        items[3]["caption"] = 3
        return items

    edit_json(file, spoil)
    with pytest.raises(UserError) as error:
        CirrReader(pictograms_copy).records("val")
    for part in ("3 problem(s)", "nobody", "nothing", "'3' for its caption"):
        assert part in str(error.value)


def test_many_problems_are_counted_and_ten_are_named(pictograms_copy, edit_json):
    edit_json(pictograms_copy / "captions" / "cap.rc2.val.json", lambda items: [{**i, "caption": 3} for i in items])
    with pytest.raises(UserError, match=r"12 problem\(s\).*and 2 more"):
        CirrReader(pictograms_copy).records("val")


def cap(change):
    return "captions/cap.rc2.val.json", change, lambda reader: reader.records("val")


def split(change):
    return "image_splits/split.rc2.val.json", change, lambda reader: reader.pictures("val")


def caption(change):
    return "image_captions/captions.val.json", change, lambda reader: reader.captions("val")


CASES = {
    "an empty list": cap(lambda items: []),
    "a table where a list is expected": cap(lambda items: {"a": 1}),
    "no reference": cap(lambda items: [{k: v for k, v in items[0].items() if k != "reference"}]),
    "a text that is no text": cap(lambda items: [{**items[0], "caption": 3}]),
    "a reference that is no name": cap(lambda items: [{**items[0], "reference": ["a"]}]),
    "a split that is a list": split(lambda names: list(names)),
    "a caption without its picture": caption(lambda rows: [{"caption": "x"}]),
    "captions as a table": caption(lambda rows: {"a": "b"}),
}


@pytest.mark.parametrize("case", CASES)
def test_json_of_another_shape_is_a_users_mistake(pictograms_copy, edit_json, case):
    file, change, read = CASES[case]
    edit_json(pictograms_copy / file, change)
    with pytest.raises(UserError, match="expected"):
        read(CirrReader(pictograms_copy))


@pytest.mark.parametrize("file", ["captions/cap.rc2.val.json", "image_splits/split.rc2.val.json"])
@pytest.mark.parametrize("content", [b'[{"pairid": 1', b"", b"\xff\xfe\x00"])
def test_broken_json_names_its_file(pictograms_copy, file, content):
    (pictograms_copy / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file.split('/')[1]} is not (JSON|UTF-8)"):
        CirrReader(pictograms_copy).records("val")


def test_a_missing_split_file_is_reported(pictograms_copy):
    (pictograms_copy / "image_splits" / "split.rc2.val.json").unlink()
    with pytest.raises(UserError, match=r"split.rc2.val.json is missing"):
        CirrReader(pictograms_copy).records("val")


def test_files_outside_the_folder_are_reported(pictograms_copy, edit_json):
    edit_json(pictograms_copy / "image_splits" / "split.rc2.val.json", lambda names: names | {"a": "../x.png", "b": 3})
    with pytest.raises(UserError, match=r"2 problem\(s\).*\.\./x\.png.*no path inside the folder"):
        CirrReader(pictograms_copy).pictures("val")


def test_a_pair_that_comes_twice_counts_twice_and_is_trained_on_once(pictograms_copy, edit_json):
    edit_json(pictograms_copy / "captions" / "cap.rc2.val.json", lambda items: [*items, items[0]])
    read = CirrReader(pictograms_copy).read("val")
    assert read.odd == {REPEATED: [read.records[0].id]} and for_training(read.records) == read.records[:-1]


def test_a_group_loses_members_that_are_unknown(pictograms_copy, edit_json):
    def spoil(items):
        items[1]["img_set"]["members"].append("nowhere")
        return items

    expected = CirrReader(pictograms_copy).records("val")
    edit_json(pictograms_copy / "captions" / "cap.rc2.val.json", spoil)
    read = CirrReader(pictograms_copy).read("val")
    assert read.records == expected and read.odd == {TRIMMED: [expected[1].id]}
