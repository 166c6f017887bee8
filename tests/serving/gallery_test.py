"""A folder, embedded once: names, ties, the query's own picture, and bad files."""

import numpy as np
import pytest
from PIL import Image

from contextjax.serving.gallery import Gallery, embed_folder
from contextjax.types import UserError


class Colours:
    """Embeds a picture as its mean colour; counts the pictures it is given."""

    image_size, fit, fingerprint = 8, "crop", "colours-1"

    def __init__(self):
        self.encoded = 0

    def encode_gallery(self, images):
        self.encoded += len(images)
        means = np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "gallery"
    (place / "deep").mkdir(parents=True)
    for name, colour in {"b": (255, 0, 0), "a": (0, 255, 0), "deep/c": (0, 0, 255), "d": (250, 5, 0)}.items():
        Image.new("RGB", (10, 12), colour).save(place / f"{name}.png")
    (place / "notes.txt").write_text("no picture")
    return place


def test_search_ranks_and_leaves_the_query_out(folder):
    gallery = embed_folder(Colours(), folder)
    assert len(gallery) == 4
    red = np.asarray([1, 0, 0], np.float32)
    names = [name.rsplit("/", 1)[-1] for name, _ in gallery.search(red, 10)]
    assert names[:2] == ["b.png", "d.png"]
    without = gallery.search(red, 10, without=folder / "deep" / ".." / "b.png")
    assert len(without) == 3 and all(not name.endswith("/b.png") for name, _ in without)


def test_ties_break_by_name():
    gallery = Gallery(["a", "b", "c"], np.ones((3, 2), np.float32))
    assert [name for name, _ in gallery.search(np.ones(2, np.float32), 2)] == ["a", "b"]


def test_a_folder_is_embedded_once_until_it_changes(folder, tmp_path):
    system, cache = Colours(), tmp_path / "cache"
    first = embed_folder(system, folder, cache=cache)
    again = embed_folder(system, folder, cache=cache)
    assert system.encoded == 4 and np.array_equal(first.embeddings, again.embeddings)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(folder / "e.png")
    assert len(embed_folder(system, folder, cache=cache)) == 5 and system.encoded == 9
    system.fingerprint = "colours-2"
    embed_folder(system, folder, cache=cache)
    assert system.encoded == 14


def test_bad_files_are_named_together_and_nothing_is_kept(folder, tmp_path):
    (folder / "x.png").write_bytes(b"")
    (folder / "y.jpg").write_bytes((folder / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"2 picture\(s\).*x\.png.*y\.jpg"):
        embed_folder(Colours(), folder, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        embed_folder(Colours(), tmp_path)
    with pytest.raises(UserError, match="no folder"):
        embed_folder(Colours(), tmp_path / "none")
