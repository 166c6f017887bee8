"""Paths of this machine and of object stores, and files that are written whole."""

from pathlib import Path

import pytest

from contextjax.files import is_remote, local_path, path_of, remove_partials, whole_file, whole_folder, write_whole
from contextjax.types import UserError


@pytest.mark.parametrize("place", ["runs/one", "/runs/one", "owner/name", ".", "gs:/bucket", "a:b", Path("runs/one")])
def test_a_path_without_scheme_is_local(place):
    assert not is_remote(place)
    assert path_of(place) == local_path(place) == Path(place) and isinstance(path_of(place), Path)


def test_a_store_that_no_checkpoint_is_written_to_is_refused():
    with pytest.raises(UserError, match=r"s3://bucket/run is in a store .*; expected gs://BUCKET/FOLDER"):
        path_of("s3://bucket/run")


def test_a_store_needs_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="gs://bucket/run needs the package gcsfs"):
        path_of("gs://bucket/run")


def test_a_path_that_has_to_be_local_is_refused_in_a_store():
    with pytest.raises(
        UserError, match="gs://bucket/data is in an object store; expected a folder or file that is local"
    ):
        local_path("gs://bucket/data")


def test_a_file_is_there_whole_and_nothing_beside_it(tmp_path):
    for content in ("1", b"2", "ä"):
        write_whole(tmp_path / "a" / "b.json", content)
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == "ä"


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_whole(tmp_path / "b.json", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "b.json", "new")
    assert (tmp_path / "b.json").read_text() == "old"


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    for name in (".config.json.12.partial", "config.json", ".hidden", "a.partial"):
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.partial", "config.json"]
    remove_partials(tmp_path / "none")


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="mine"), whole_file(tmp_path / "a") as partial:
        partial.write_text("new")
        raise ValueError("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_is_there_whole_and_nothing_beside_it(tmp_path, is_there):
    """An empty folder may be there; what a killed process left half written goes."""
    folder, left = tmp_path / "in" / "a", tmp_path / "in" / ".a.partial"
    (left / "half").mkdir(parents=True)
    (left / "file").touch()
    if is_there:
        folder.mkdir()
    with whole_folder(folder) as partial:
        assert partial == left and not any(partial.iterdir())
        (partial / "b").write_text("1")
        assert is_there == folder.exists()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["in", "in/a", "in/a/b"]


def test_a_folder_that_fails_leaves_nothing_and_what_is_there_is_never_overwritten(tmp_path):
    with pytest.raises(ValueError, match="mine"), whole_folder(tmp_path / "a") as partial:
        (partial / "b").touch()
        raise ValueError("mine")
    assert not any(tmp_path.iterdir())
    write_whole(tmp_path / "a" / "b", "mine")
    write_whole(tmp_path / "c", "mine")
    for name in ("a", "c"):
        said = f"{name} exists already, and nothing is overwritten"
        with pytest.raises(UserError, match=said), whole_folder(tmp_path / name):
            raise AssertionError
    with pytest.raises(UserError, match="exists already"), whole_folder(tmp_path / "d") as partial:
        write_whole(tmp_path / "d" / "b", "another's")  # meanwhile
    assert (tmp_path / "a" / "b").read_text() == (tmp_path / "c").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d"]


def test_two_processes_do_not_fill_one_folder(tmp_path):
    with whole_folder(tmp_path / "a") as partial:
        (partial / "b").touch()
        with pytest.raises(UserError, match="Another process is writing"), whole_folder(tmp_path / "a"):
            raise AssertionError
        assert (partial / "b").exists()
    assert (tmp_path / "a" / "b").exists()
