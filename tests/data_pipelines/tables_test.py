"""The prepared tables: written once, whole or not at all."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.prepare import fingerprint
from data_pipelines.tables import PictureTable, all_texts, load_split, rows_by_reference


@pytest.fixture(scope="module")
def val(pictograms):
    return load_split(CirrReader(pictograms), pictograms, "val", size=32)


def load(folder, split="val", **options):
    return load_split(CirrReader(folder), folder, split, size=32, **options)


def test_the_tables_are_what_the_reader_reads(pictograms, val):
    reader = CirrReader(pictograms)
    assert list(val.records) == reader.records("val")
    assert val.pictures.ids == list(reader.pictures("val"))
    assert dict(zip(val.pictures.ids, val.captions, strict=True)) == reader.captions("val")
    assert val.has_captions
    for row in (0, 5, 11):
        expected = np.asarray(Image.open(reader.pictures("val")[val.pictures.ids[row]]))
        np.testing.assert_array_equal(val.pictures[row], expected)
        np.testing.assert_array_equal(val.pictures[np.int32(row)], expected)
    assert val.pictures.row[val.pictures.ids[3]] == 3 and len(val.pictures) == 12


def test_candidate_sets_are_kept_in_the_same_two_tables(pictogram_sets):
    reader = ImageCodeReader(pictogram_sets)
    found = load_split(reader, pictogram_sets, "val", size=32)
    assert list(found.records) == reader.records("val")
    assert {type(record.target) for record in found.records} == {int}
    assert found.pictures.ids == list(reader.pictures("val")) and len(found.pictures) == 20
    last = found.records[-1].images[-1]
    expected = np.asarray(Image.open(reader.pictures("val")[last]))
    np.testing.assert_array_equal(found.pictures[found.pictures.row[last]], expected)
    assert not found.has_captions and all_texts(found) == [record.text for record in found.records]


def test_preparing_again_writes_nothing(pictograms, val):
    times = {path: path.stat().st_mtime_ns for path in (pictograms / "prepared").rglob("*")}
    again = load(pictograms)
    assert again.records == val.records
    assert {path: path.stat().st_mtime_ns for path in (pictograms / "prepared").rglob("*")} == times


def test_changed_annotations_are_prepared_again(pictograms_copy, edit_json):
    before = fingerprint(CirrReader(pictograms_copy))
    first = load(pictograms_copy)
    rename = lambda items: [{**items[0], "caption": "make it new"}, *items[1:]]
    edit_json(pictograms_copy / "captions" / "cap.rc2.val.json", rename)
    assert fingerprint(CirrReader(pictograms_copy)) != before
    second = load(pictograms_copy)
    assert second.records[0].text == "make it new" and second.records[1:] == first.records[1:]


def test_an_unknown_split_is_reported(pictograms):
    with pytest.raises(UserError, match=r"no split 'dev'; it has test1, train, unseen, val"):
        load(pictograms, "dev")


def test_all_bad_pictures_are_reported_at_once_and_a_mended_set_is_read(pictograms_copy):
    reader = CirrReader(pictograms_copy)
    (missing, first), (cut, second), (junk, third), *_ = reader.pictures("val").items()
    kept = {path: path.read_bytes() for path in (first, second, third)}
    first.unlink()
    second.write_bytes(kept[second][:100])
    third.write_bytes(b"no picture")
    with pytest.raises(UserError) as error:
        load(pictograms_copy)
    message = str(error.value)
    assert "3 problem(s)" in message
    assert f"{missing} has no file" in message and cut in message and junk in message
    with pytest.raises(UserError, match="3 problem"):  # nothing of it is taken for a prepared table
        load(pictograms_copy)
    for path, content in kept.items():
        path.write_bytes(content)
    assert len(load(pictograms_copy).pictures) == 12


def test_bad_pictures_and_bad_records_are_reported_at_once(pictograms_copy, edit_json):
    reader = CirrReader(pictograms_copy)
    name, path = next(iter(reader.pictures("val").items()))
    path.unlink()
    spoil = lambda items: [{**items[0], "reference": "nobody"}, {**items[1], "caption": 3}, *items[2:]]
    edit_json(pictograms_copy / "captions" / "cap.rc2.val.json", spoil)
    with pytest.raises(UserError) as error:
        load(pictograms_copy)
    message = str(error.value)
    assert f"{name} has no file" in message and "nobody" in message and "'3' for its caption" in message


def test_bad_records_are_reported_and_mended(pictograms_copy, edit_json):
    captions = pictograms_copy / "captions" / "cap.rc2.val.json"
    whole = captions.read_text()
    spoil = lambda items: [{**items[0], "target_hard": "nobody"}, {**items[1], "caption": 3}, *items[2:]]
    edit_json(captions, spoil)
    for _ in range(2):
        with pytest.raises(UserError, match=r"2 problem\(s\).*'3' for its caption.*unknown picture nobody"):
            load(pictograms_copy)
    captions.write_text(whole)
    assert len(load(pictograms_copy).records) == 12


def test_a_bad_split_leaves_the_others_alone(pictograms_copy):
    next(iter(CirrReader(pictograms_copy).pictures("val").values())).unlink()
    with pytest.raises(UserError):
        load(pictograms_copy)
    assert len(load(pictograms_copy, "test1").pictures) == 6


def test_a_secret_target_stays_none(pictograms_copy, edit_json):
    hide = lambda items: [{k: v for k, v in item.items() if k != "target_hard"} for item in items]
    edit_json(pictograms_copy / "captions" / "cap.rc2.test1.json", hide)
    assert {record.target for record in load(pictograms_copy, "test1").records} == {None}


def write_set(folder, count):
    """The set "a" of `count` pictures, with a text of each of the first two; which is which is secret in test."""
    (folder / "image-sets" / "a").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8)).save(folder / "image-sets" / "a" / f"img{number}.png")
    (folder / "valid_data.json").write_text('{"a": {"0": "first", "1": "second"}}')
    (folder / "test_data_unlabeled.json").write_text('{"a": ["first", "second"]}')


def test_no_pictures_are_kept_of_a_split_with_bad_records(tmp_path):
    """When a set gets its missing pictures, the annotations, whose fingerprint names the tables, stay as they are."""
    write_set(tmp_path, 1)
    with pytest.raises(UserError, match=r"1 picture\(s\)"):
        load_split(ImageCodeReader(tmp_path), tmp_path, "val", size=8)
    write_set(tmp_path, 2)
    assert load_split(ImageCodeReader(tmp_path), tmp_path, "val", size=8).pictures.ids == ["a/img0", "a/img1"]


def test_a_secret_index_stays_none_and_nought_stays_nought(tmp_path):
    write_set(tmp_path, 2)
    targets = lambda split: [r.target for r in load_split(ImageCodeReader(tmp_path), tmp_path, split, size=8).records]
    assert (targets("test"), targets("val")) == ([None, None], [0, 1])


def test_missing_captions_are_seen(pictograms_copy):
    shutil.rmtree(pictograms_copy / "image_captions")
    found = load(pictograms_copy, "test1")
    assert not found.has_captions
    assert all_texts(found) == [record.text for record in found.records]


def test_texts_and_rows(val):
    assert len(all_texts(val)) == len(val.records) + 12
    groups = rows_by_reference(val)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(val.records)))
    references = [{val.records[row].reference for row in rows} for rows in groups]
    assert all(len(names) == 1 for names in references) and len({min(names) for names in references}) == len(groups)
    shuffled = dataclasses.replace(val, records=tuple(ComposedRecord(str(i), r, "t") for i, r in enumerate("abacb")))
    assert [rows.tolist() for rows in rows_by_reference(shuffled)] == [[0, 2], [1, 4], [3]]


class Counting:
    def __init__(self, content):
        self.content, self.reads = content, 0

    def __getitem__(self, row):
        self.reads += 1
        return {"image": self.content}


@pytest.mark.parametrize(("room", "reads"), [(0, 4), (1, 3), (2, 2)])
def test_decoded_pictures_are_kept_while_there_is_room(pictograms, room, reads):
    path = next(iter(CirrReader(pictograms).pictures("val").values()))
    source = Counting(path.read_bytes())
    table = PictureTable(source, ["a", "b"], size=8, cache_bytes=room * 8 * 8 * 3)
    for row in (0, 1, 0, 1):
        assert table[row].shape == (8, 8, 3)
    assert source.reads == reads


def test_a_bad_picture_in_a_table_names_itself():
    with pytest.raises(UserError, match="Picture kitten"):
        PictureTable(Counting(b"junk"), ["kitten"], size=8)[0]
