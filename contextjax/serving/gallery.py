"""A gallery: pictures by name, and stamps of their contents, which tell when one has changed."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.contents import content_hashes, file_state
from contextjax.files import existing, is_utf8
from contextjax.serving.interface import Hits, VectorIndex
from contextjax.types import UserError, listed


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures by name. None of them is read before it is asked for."""

    place: str  # the folder or file that holds or lists the pictures
    names: list[str]
    picture: Callable[[str], Any]  # by name, as images.load takes it; raises a UserError for a bad one
    stamps: np.ndarray | None = None  # int64 [N, 2], another one for other contents; None: they are of files
    left_out: Sequence[str] = ()  # other files of the folder, which are no pictures by their names

    def stamp_of(self, cache: Path) -> dict[str, list[int]]:
        """Returns the stamp of each picture. That of a file is a hash of its contents, kept in the file `cache`."""
        stamps = self.stamps
        if stamps is None:
            hashes = content_hashes({name: file_of(self.place, name) for name in self.names}, cache)
            stamps = np.frombuffer(b"".join(hashes), np.int64).reshape(-1, 2)
        return dict(zip(self.names, stamps.tolist(), strict=True))


def folder_gallery(folder: Path) -> Gallery:
    """Returns the pictures of a folder and its subfolders, named by their paths within it, where those are UTF-8.

    Raises:
      UserError: the folder is missing or holds no pictures.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give a folder of pictures as the gallery.")
    names, others = images.find_pictures(folder)
    kept = [name for name in names if is_utf8(name)]
    others += [name for name in names if not is_utf8(name)]
    if not kept:
        raise UserError(f"{folder} holds no pictures; expected files as cat.png or cat.jpg, with names in UTF-8.")
    return _file_gallery(folder, kept, others)


def listed_gallery(file: Path) -> Gallery:
    """Returns the pictures that a text file lists, a path a line, relative to the file's folder and named by the lines.

    Raises:
      UserError: the file is missing, no text, empty, or lists a path twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} can't be read ({error}); expected a text file with a path of a picture a line."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{file} lists no pictures; expected a path of a picture a line.")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file} lists {listed(repeated)} more than once; list each picture once.")
    return _file_gallery(file, names)


def search_others(
    index: VectorIndex, query: np.ndarray, k: int, *, place: str, without: Path | None = None, **options: Any
) -> Hits:
    """Returns the k best (name, cosine) of a query that are not one file, under whatever name the gallery has it.

    Args:
      index: an index of the gallery.
      query: an embedding [D].
      k: how many pictures to return.
      place: the gallery's place, from which names are seen.
      without: the file to leave out, such as the query's own picture; None: there is none.
      options: those of the index's search.
    """
    if without is None:
        return index.search(query[None], k, **options)[0]
    own, wanted = os.path.realpath(without), k + 1
    while True:
        wanted = min(wanted, len(index))
        hits = index.search(query[None], max(wanted, 1), **options)[0]
        others = [hit for hit in hits if os.path.realpath(file_of(place, hit[0])) != own]
        if len(others) >= k or len(hits) < wanted or wanted == len(index):
            return others[:k]
        wanted *= 2


def file_of(place: str, name: str) -> Path:
    """Returns the file of a picture of a folder or a list; for another gallery, a path that does not exist."""
    root = Path(place)
    return existing((root if root.is_dir() else root.parent) / name)


def _file_gallery(place: Path, names: list[str], left_out: Sequence[str] = ()) -> Gallery:
    """Returns files by their paths from a folder, or from that of a list."""
    whole = str(place.resolve())
    return Gallery(whole, names, lambda name: _checked(file_of(whole, name), name), left_out=left_out)


def _checked(path: Path, name: str) -> Path:
    size, *_ = file_state(path)
    if size > images.MAX_BYTES:
        raise UserError(f"{name} has {size:,} bytes; at most {images.MAX_BYTES:,} are read: shrink or remove it.")
    return path
