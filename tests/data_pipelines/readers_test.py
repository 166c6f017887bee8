"""Properties that hold for every reader of composed queries."""

import contextlib
import copy
import dataclasses
import json
import random

import pytest

from contextjax.types import ComposedRecord, UserError
from data_pipelines.records import named_pictures
from data_pipelines.tables import load_split

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


def test_junk_is_read_or_reported_and_never_breaks_a_reader(layout):
    """Puts junk in place of any value: the records are sound, or the folder is refused."""
    make, folder = layout
    rng = random.Random(0)
    files = [file for file in make(folder).annotation_files() if file.suffix == ".json"]
    for file in files:
        whole = file.read_text()
        found = json.loads(whole)
        every = list(places(found))
        for path in rng.sample(every, min(len(every), 100 // len(files))):
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
    return bool(record.text.strip()) and all(text == text.encode(errors="replace").decode() for text in texts)


def _file(source):
    return getattr(source, "path", source)
