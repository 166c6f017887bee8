"""Hashes of contents, and the file that saves taking them again."""

import os
import shutil

import pytest

from contextjax import contents
from contextjax.contents import ABSENT, content_hash, content_hashes, file_state, keep_hashes


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(300):
        (folder / str(number)).write_bytes(b"%d" % number)
        os.utime(folder / str(number), (1, 1))
    return {str(number): folder / str(number) for number in range(300)}


@pytest.fixture
def hashed(monkeypatch):
    """The files that are read."""
    read, file_hash = [], contents.file_hash
    monkeypatch.setattr(contents, "file_hash", lambda file: read.append(file.name) or file_hash(file))
    monkeypatch.setattr(contents, "RECENT", 0)
    return read


def test_a_file_is_hashed_again_only_where_its_state_has_changed(files, tmp_path, hashed):
    cache, expected = tmp_path / "cache", [content_hash(b"%d" % number) for number in range(300)]
    assert content_hashes(files, cache) == expected and len(hashed) == 300
    hashed.clear()
    assert content_hashes(files, cache) == expected and not hashed
    os.utime(files["7"], (2, 2))
    assert content_hashes(files, cache) == expected and hashed == ["7"]
    files["7"].write_bytes(b"8")
    os.utime(files["7"], (2, 2))  # of the same size and time
    assert content_hashes(files, cache)[7] == expected[8]


def test_other_names_moved_files_and_absent_ones(files, tmp_path, hashed):
    cache, expected = tmp_path / "cache", content_hashes(files, tmp_path / "cache")
    moved = files["0"].parent.rename(tmp_path / "moved")
    hashed.clear()
    chosen = {name: moved / name for name in ("200", "5", "none", "100")}
    assert content_hashes(chosen, cache) == [expected[200], expected[5], ABSENT, expected[100]] and not hashed
    copied = shutil.copytree(moved, tmp_path / "copied", copy_function=shutil.copyfile)
    assert content_hashes({name: copied / name for name in files}, cache) == expected
    os.mkfifo(tmp_path / "pipe")
    assert content_hashes({"pipe": tmp_path / "pipe", "folder": tmp_path}, cache) == [ABSENT] * 2


@pytest.mark.parametrize("damage", [b"", b"junk", None, "flipped"])
def test_a_damaged_cache_counts_as_none(files, tmp_path, hashed, damage):
    cache, expected = tmp_path / "cache", content_hashes(files, tmp_path / "cache")
    whole = bytearray(cache.read_bytes())
    whole[-3] ^= 1
    cache.write_bytes(whole[:-9] if damage is None else whole if damage == "flipped" else damage)
    assert content_hashes(files, cache) == expected == content_hashes(files, cache)


def test_a_file_of_the_last_moments_is_hashed_again(files, tmp_path, hashed, monkeypatch):
    """Such a file may change once more within the resolution of the clock."""
    monkeypatch.setattr(contents, "RECENT", 3600 * 10**9)
    for _ in range(2):
        content_hashes(files, tmp_path / "cache")
    assert len(hashed) == 600


def test_hashes_that_a_caller_has_taken_are_kept(files, tmp_path, hashed):
    keep_hashes(tmp_path / "cache", {name: (file_state(path), b"x" * 16) for name, path in files.items()})
    assert content_hashes(files, tmp_path / "cache") == [b"x" * 16] * 300 and not hashed


def test_a_cache_that_can_not_be_written_changes_nothing(files, tmp_path):
    (tmp_path / "file").write_text("")
    assert content_hashes(files, tmp_path / "file" / "cache")[3] == content_hash(b"3")
