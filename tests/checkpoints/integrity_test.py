"""Every byte of a folder that changes is noticed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from contextjax.checkpoints import integrity
from contextjax.types import UserError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {"meta/a.json": 40, "state/d/0": 5000, "state/d/empty": 0, "_META": 7}.items():
        path = tmp_path / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(size))
    integrity.write(tmp_path / "one")
    return tmp_path / "one"


def test_an_untouched_folder_is_sound_wherever_it_lies(folder):
    assert integrity.damage(folder) == ""
    folder.rename(folder.with_name("two"))
    assert integrity.damage(folder.with_name("two")) == ""


def test_flips_and_cuts_are_noticed_the_list_of_checksums_included(folder):
    rng = np.random.default_rng(1)
    paths = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    for number in range(400):
        path = paths[number % len(paths)]
        whole = path.read_bytes()
        place = int(rng.integers(len(whole)))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :]
        for changed in (flipped, whole[:place]):
            path.write_bytes(changed)
            assert path.name in integrity.damage(folder), (path, place)
        path.write_bytes(whole)
    assert integrity.damage(folder) == ""


def test_a_file_is_read_as_it_was_written_or_not_at_all(folder):
    path = folder / "meta/a.json"
    data = path.read_bytes()
    assert integrity.read_file(folder, "meta/a.json") == data
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"meta/a.json is not what was written"):
        integrity.read_file(folder, "meta/a.json")
    path.write_bytes(data)
    (folder / "more").write_bytes(b"x")
    with pytest.raises(ValueError, match="more is not what was written"):
        integrity.read_file(folder, "more")
    (folder / integrity.NAME).write_text("{}")
    with pytest.raises(ValueError, match="no list of checksums"):
        integrity.read_file(folder, "meta/a.json")


def test_files_and_folders_are_on_the_disk_before_the_report_that_they_are(folder, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())) or sync(handle)
    )
    integrity.write(folder)
    report = next(number for number, name in enumerate(synced) if "checksums" in name)
    before = {str(path) for path in folder.rglob("*") if path.name != integrity.NAME} | {
        str(folder),
        str(folder.parent),
    }
    assert set(synced[:report]) == before
    assert synced[-1] == str(folder)  # its name, too


def test_lost_and_added_files_are_named(folder):
    (folder / "state/d/more").write_bytes(b"x")
    assert integrity.damage(folder) == "state/d/more is not one of its files"
    assert integrity.damage(folder, allow_more=True) == ""
    (folder / "state/d/more").unlink()
    (folder / "state/d/0").unlink()
    assert integrity.damage(folder) == "state/d/0 is missing"
    (folder / integrity.NAME).unlink()
    assert integrity.damage(folder) == "it has no checksums.json"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 3, "sha256": "x"}', '{"files": {"a": 1}, "sha256": 2}', "\xff"]
)
def test_a_list_of_checksums_of_another_shape_is_no_traceback(folder, text):
    (folder / integrity.NAME).write_bytes(text.encode("latin-1"))
    assert integrity.NAME in integrity.damage(folder)


def test_digests_are_of_the_bytes(folder):
    import hashlib

    known = json.loads((folder / integrity.NAME).read_text())["files"]["state/d/0"]
    assert known == [5000, hashlib.sha256((folder / "state/d/0").read_bytes()).hexdigest()]


def test_files_beside_a_checkpoint_are_those_that_it_was_trained_with(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    expected = integrity.digests(tmp_path, ("tokenizer.json", "system.json"))
    assert list(expected) == ["tokenizer.json"]  # of those that are there
    integrity.check_digests(tmp_path, expected, made="the checkpoint of step 3")
    integrity.check_digests(tmp_path, {}, made="a checkpoint of an earlier version")
    (tmp_path / "tokenizer.json").write_text("{ }")
    with pytest.raises(
        UserError, match=r"tokenizer\.json is not the file that the checkpoint of step 3 was trained with"
    ):
        integrity.check_digests(tmp_path, expected, made="the checkpoint of step 3")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        integrity.check_digests(tmp_path, expected, made="the checkpoint of step 3")
