"""Properties that hold for every reader of composed queries."""

import contextlib
import copy
import dataclasses
import json
import random
from pathlib import Path

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.datasets.captions import CaptionsReader
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.fashion_iq import FashionIqReader
from data_pipelines.datasets.mmvp import MmvpReader
from data_pipelines.readers import BLANK, HALF, REPEATED, for_training
from data_pipelines.records import named_pictures
from data_pipelines.tables import load_split
from tests.data_pipelines.layouts import LAYOUTS, write_json

JUNK = [None, 3, -1.5, True, "", " ", "\ud800", "nobody", "../../etc", "/etc/passwd", [], ["x"], [None], {}, {"a": 1}]


def query_files(folder, reader):
    return [file for file in reader.annotation_files() if file.suffix == ".json" and _rows(file)]


def _rows(file):
    found = json.loads(file.read_text())
    return isinstance(found, list) and isinstance(found[0], dict)


def test_records_name_pictures_that_are_there_and_are_prepared_as_they_are(layout):
    make, folder = layout
    reader = make(folder)
    for split in reader.splits:
        records, pictures = reader.records(split), reader.pictures(split)
        assert records and {name for record in records for name in named_pictures(record)} <= pictures.keys()
        assert len({record.id for record in records}) == len(records)
        assert all(record.text.strip() and record.target != record.reference for record in records)
        assert all(record.truths[0] == record.target for record in records if record.truths)
        data = load_split(reader, folder, split, size=8)
        assert list(data.records) == records and data.pictures.ids == list(pictures)
        assert all(data.pictures[row].shape == (8, 8, 3) for row in range(len(pictures)))


def test_nothing_but_the_prepared_tables_is_written(layout):
    make, folder = layout
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    load_split(make(folder), folder, make(folder).splits[0], size=8)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if "prepared" not in path.parts} == before


def test_unknown_keys_are_tolerated(layout, edit_json):
    make, folder = layout
    expected = {split: make(folder).records(split) for split in make(folder).splits}
    for file in query_files(folder, make(folder)):
        edit_json(file, lambda rows: [row | {"else": [1]} for row in rows])
    assert {split: make(folder).records(split) for split in expected} == expected


def test_a_missing_picture_is_named(layout):
    make, folder = layout
    reader = make(folder)
    split = reader.splits[0]
    name, source = next(iter(reader.pictures(split).items()))
    (source if hasattr(source, "unlink") else source.path).unlink()
    with pytest.raises(UserError, match=name):
        load_split(make(folder), folder, split, size=8)


def test_every_fault_is_reported_at_once(layout, edit_json):
    make, folder = layout
    reader = make(folder)
    split = reader.splits[0]
    file = reader._files(split)[0]
    if file.suffix == ".json":
        edit_json(file, lambda rows: [3, *rows, {}, "row"])
        with pytest.raises(UserError) as error:
            reader.records(split)
        count = len(json.loads(file.read_text()))
        for number in (0, count - 2, count - 1):
            assert f"row {number} of {file.name} has no " in str(error.value)


def test_a_split_without_queries_is_reported(layout):
    make, folder = layout
    reader = make(folder)
    for file in reader._files(reader.splits[0]):
        file.write_text("[]")
    with pytest.raises(UserError, match="holds no queries; expected at least one"):
        reader.records(reader.splits[0])


def test_another_folder_is_reported(layout, tmp_path_factory):
    make, _ = layout
    with pytest.raises(UserError, match=r"holds no.*expected"):
        make(tmp_path_factory.mktemp("empty"))


def places(value, path=()):
    """The path of every value in a tree."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


def replaced(value, path, junk):
    """A copy of a tree with another value at a path."""
    if not path:
        return junk
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], junk)
    return changed


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.long)])
def test_junk_is_read_or_reported_and_never_breaks_a_reader(layout, count):
    """Puts junk in place of any value: the records are sound, or the folder is refused."""
    make, folder = layout
    rng = random.Random(0)
    files = [file for file in make(folder).annotation_files() if file.suffix == ".json"]
    for file in files:
        whole = file.read_text()
        found = json.loads(whole)
        every = list(places(found))
        for path in rng.sample(every, min(len(every), max(count // len(files), 1))):
            for junk in rng.sample(JUNK, 2):
                file.write_text(json.dumps(replaced(found, path, junk)))
                check_all(make(folder), folder)
        file.write_text(whole)


def check_all(reader, folder):
    """Checks that each split has sound records or is refused; its pictures lie in the folder either way."""
    for split in reader.splits:
        with contextlib.suppress(UserError):
            sources = reader.pictures(split).values()
            assert all(_file(source).resolve().is_relative_to(folder) for source in sources)
        with contextlib.suppress(UserError):
            records = reader.records(split)
            assert all(map(_is_sound, records))
            assert {name for record in records for name in named_pictures(record)} <= set(reader.pictures(split))


def _is_sound(record: ComposedRecord) -> bool:
    texts = [value for value in dataclasses.astuple(record) if isinstance(value, str)]
    return all(text == text.encode(errors="replace").decode() for text in texts)


def _file(source):
    return getattr(source, "path", source)


def blanked(row):
    """The row of a file of composed queries with another text for each that it asks."""
    keys = {"caption", "query-text", "difference", "condition", "relative_caption", "shared_concept"}
    blank = dict.fromkeys(row.keys() & keys, " ")
    blank |= {"captions": ["", "?"]} if "captions" in row else {}
    return row | blank | ({"difference_captions": [None, " "]} if "difference_captions" in row else {})


def test_blank_repeated_and_unknown_records(layout, edit_json):
    """A blank text and a record that comes again are asked; training leaves them out; an unknown picture is listed."""
    make, folder = layout
    reader = make(folder)
    for split in reader.splits:
        file = reader._files(split)[0]
        expected = reader.records(split)
        if file.suffix == ".json" and reader.name != "cirr_ext":  # whose blank answers are no queries
            edit_json(file, lambda rows: [*rows, blanked(rows[0]), rows[-1]])
            read = make(folder).read(split)
            blank = [record.id for record in read.records if not record.text.strip()]
            assert len(blank) == len(read.odd[BLANK]) == 1, (split, read.odd)
            assert len(read.odd[REPEATED]) >= 1 and len(read.records) > len(expected) + 1
            assert {record.text for record in for_training(read.records)} == {record.text for record in expected}
            assert len(for_training(read.records)) == len(for_training(expected))
            data = load_split(make(folder), folder, split, size=8)
            assert list(data.records) == read.records and data.census["odd"] == read.odd


@pytest.mark.parametrize("captions", [["is red", ""], [" ", "is red."], ["?", "is red"], [None, "is red"]])
def test_half_a_text_is_asked_and_trained_on(tmp_path, edit_json, captions):
    LAYOUTS["fashion_iq"](tmp_path)
    edit_json(tmp_path / "captions/cap.dress.val.json", lambda rows: [rows[0] | {"captions": captions}, *rows[1:]])
    read = FashionIqReader(tmp_path).read("dress.val")
    assert read.records[0].text == "Is red" and read.odd == {HALF: ["dress/0"]} and for_training(read.records)


def test_captions_and_statements_may_be_blank_or_repeated(tmp_path):
    rows = [{"image": "a.png", "caption": text} for text in ("a cat", " ", "a cat", None, "?", ["a dog", None])]
    write_json(tmp_path / "train.json", rows)
    read = CaptionsReader(tmp_path).read("train")
    assert read.odd == {BLANK: ["a.png/1", "a.png/3", "a.png/4", "a.png/6"], REPEATED: ["a.png/2"]}
    assert [record.id for record in for_training(read.records)] == ["a.png/0", "a.png/5"]
    write_json(
        tmp_path / "coco/annotations/captions_val.json",
        {"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": [
            {"image_id": 1, "caption": ""}, {"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a man"},
            {"image_id": 1, "caption": None},
        ]},
    )  # fmt: skip
    read = CaptionsReader(tmp_path / "coco").read("val")
    assert [record.text for record in read.records] == ["", "a dog", ""] and read.unknown == [
        "annotation 2 is of the unknown picture 2"
    ]
    (tmp_path / "MLLM_VLM Images").mkdir()
    rows = ["Question ID,Type,Statement", "1,Color,red", "2,Color,", "1,Color,red", "2,Color,blue"]
    (tmp_path / "Questions.csv").write_text("\n".join(rows))
    read = MmvpReader(tmp_path).read("test")
    assert len(read.records) == 4 and read.odd == {BLANK: ["1-2/1"], REPEATED: ["1-2/0"]}


def test_published_files_are_read_as_they_are():
    """Reads the published files at hand, which are no part of the repository."""
    place = Path(__file__).parents[3] / "shared" / "annotations"
    if not place.is_dir():
        pytest.skip("no published files")
    assert len(CirrReader(place / "cirr").read("val").records) == 4181
    assert len(FashionIqReader(place / "fashion_iq").read("dress.val").records) == 2017
