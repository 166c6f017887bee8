"""Tests of galleries, and of the search that leaves the query's own picture out."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from contextjax.serving.gallery import file_of, folder_gallery, listed_gallery, search_others
from contextjax.serving.index import Index
from contextjax.types import UserError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "gallery"
    (place / "deep").mkdir(parents=True)
    for name, colour in {"b": (255, 0, 0), "a": (0, 255, 0), "deep/c": (0, 0, 255), "d": (250, 5, 0)}.items():
        Image.new("RGB", (10, 12), colour).save(place / f"{name}.png")
    (place / "notes.txt").write_text("no picture")
    return place


def test_a_folder_s_names_are_its_paths_and_stamps_tell_changes_of_contents(folder, tmp_path):
    gallery, cache = folder_gallery(folder), tmp_path / "cache"
    assert gallery.names == ["a.png", "b.png", "d.png", "deep/c.png"] and gallery.left_out == ["notes.txt"]
    assert gallery.picture("deep/c.png") == folder / "deep/c.png" == file_of(str(folder), "deep/c.png")
    before = gallery.stamp_of(cache)
    os.utime(folder / "a.png", (5, 5))
    assert gallery.stamp_of(cache) == before == gallery.stamp_of(tmp_path / "other")
    size, times = (status := (folder / "b.png").stat()).st_size, (status.st_atime_ns, status.st_mtime_ns)
    (folder / "b.png").write_bytes(b"x" * size)
    os.utime(folder / "b.png", ns=times)
    after = gallery.stamp_of(cache)
    assert [name for name in before if before[name] != after[name]] == ["b.png"]


def test_pictures_behind_links_and_of_other_endings_are_found_and_the_rest_is_named(folder, tmp_path):
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    for name in ("x.jfif", "deep/y.jpe", "z.TIF"):
        shutil.copy(folder / "a.png", other / name)
    (folder / "linked").symlink_to(other)
    (other / "deep" / "loop").symlink_to(other)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "__MACOSX").mkdir()
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/b.png", "e.heic", ".hidden.png"):
        (folder / name).write_bytes(b"")
    gallery = folder_gallery(folder)
    assert gallery.names == [
        "a.png", "b.png", "d.png", "deep/c.png", "linked/deep/y.jpe", "linked/x.jfif", "linked/z.TIF"
    ]  # fmt: skip
    assert gallery.left_out == [".hidden.png", "e.heic", "gone.png", "notes.txt"]


def test_names_that_are_no_text_are_left_out_and_named(folder):
    """The name of a file may be any bytes."""
    bad = folder / os.fsdecode(b"\xff.png")
    shutil.copy(folder / "a.png", bad)
    (folder / "deep").rename(folder / os.fsdecode(b"deep\xe9"))
    gallery = folder_gallery(folder)
    assert gallery.names == ["a.png", "b.png", "d.png"] and len(gallery.left_out) == 3
    for name in gallery.names:
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"no pictures; expected .* names in UTF-8"):
        folder_gallery(folder)


def test_a_list_names_files_from_where_it_is(folder, tmp_path):
    file = folder / "list.txt"
    file.write_text("deep/c.png\n\n b.png \nnone.png\n")
    gallery = listed_gallery(file)
    assert gallery.names == ["deep/c.png", "b.png", "none.png"]
    assert gallery.stamp_of(tmp_path / "cache")["none.png"] == [0, 0]
    assert gallery.picture("b.png") == folder / "b.png" == file_of(str(file), "b.png")


@pytest.mark.parametrize(("written", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_list_finds_names_composed_in_another_way(folder, tmp_path, written, on_disk):
    name = lambda form: unicodedata.normalize(form, "café/é.png")
    (folder / name(on_disk)).parent.mkdir()
    shutil.copy(folder / "a.png", folder / name(on_disk))
    (folder / "list.txt").write_text(name(written), encoding="utf-8")
    gallery = listed_gallery(folder / "list.txt")
    assert gallery.picture(name(written)) == folder / name(on_disk)
    assert any(gallery.stamp_of(tmp_path / "cache")[name(written)])


def test_bad_galleries_are_refused(folder, tmp_path):
    repeated, empty = tmp_path / "repeated.txt", tmp_path / "empty.txt"
    repeated.write_text("a.png\nb.png\na.png\n")
    empty.write_text("\n")
    (tmp_path / "void").mkdir()
    for call, sentence in (
        (lambda: listed_gallery(repeated), r"lists a\.png more than once"),
        (lambda: listed_gallery(empty), "lists no pictures"),
        (lambda: listed_gallery(tmp_path / "none.txt"), "can't be read"),
        (lambda: listed_gallery(folder / "a.png"), "can't be read"),
        (lambda: folder_gallery(tmp_path / "void"), "holds no pictures"),
        (lambda: folder_gallery(tmp_path / "none"), "no folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()


def test_the_query_s_own_picture_is_left_out_by_whatever_name(folder, tmp_path):
    (folder / "link.png").symlink_to(folder / "b.png")
    index = Index.create(tmp_path / "index", 3, fingerprint="f")
    names, rows = ["a.png", "b.png", "link.png", "d.png"], np.asarray([[0, 1, 0], [1, 0, 0], [1, 0, 0], [0.8, 0.6, 0]])
    index.add(names, rows)
    red = np.asarray([1, 0, 0], np.float32)
    options = {"place": str(folder), "without": folder / "deep" / ".." / "b.png"}
    assert [name for name, _ in search_others(index, red, 1, **options)] == ["d.png"]
    assert [name for name, _ in search_others(index, red, 10, **options)] == ["d.png", "a.png"]
    assert [name for name, _ in index.search(red[None], 2)[0]] == ["b.png", "link.png"]
