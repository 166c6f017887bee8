"""What can be embedded: pictures by name, and what tells that one has changed."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contextjax import images
from contextjax.files import is_utf8
from contextjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures by name; none of them is read before it is asked for."""

    place: str  # which gallery it is
    names: list[str]
    stamps: np.ndarray  # int64 [N, 2]: another one where a picture has changed
    picture: Callable[[str], Any]  # of a name, as images.load takes it; raises a UserError where it is a bad one
    left_out: int = 0  # files whose names are not UTF-8: no answer could name them


def folder_gallery(folder: Path) -> Gallery:
    """The pictures of a folder and its subfolders, called by their paths within it, where those are text.

    Raises:
      UserError: the folder is missing or holds no pictures.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give a folder of PNG, JPEG or WebP files as the gallery.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES and path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    kept = [name for name in names if is_utf8(name)]
    if not kept:
        raise UserError(f"{folder} holds no pictures; expected PNG, JPEG or WebP files with names in UTF-8.")
    return dataclasses.replace(_of_files(folder, folder, kept), left_out=len(names) - len(kept))


def listed_gallery(file: Path) -> Gallery:
    """The pictures that a text file lists, a path a line, as seen from the file's folder; called by their lines.

    Raises:
      UserError: the file is missing, no text, empty, or lists a path twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} can't be read ({error}); expected a text file with a path of a picture a line."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{file} lists no pictures; expected a path of a picture a line.")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        more = f" and {len(repeated) - 10} more" if len(repeated) > 10 else ""
        raise UserError(f"{file} lists {', '.join(repeated[:10])}{more} more than once; list each picture once.")
    return _of_files(file, file.parent, names)


class Searched(Protocol):
    """What is asked of an index, an Index or a MilvusIndex."""

    def __len__(self) -> int: ...

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of some names that are there, in any order."""
        ...

    def search(self, queries: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        """The best k (name, cosine) of each query [B, D]."""
        ...


def search_others(index: Searched, query: np.ndarray, k: int, *, place: str, without: Path) -> list[tuple[str, float]]:
    """The best k (name, cosine) of a query [D] that are not the file `without`, by whatever way it is reached.

    Args:
      index: of a gallery.
      query: an embedding.
      k: how many.
      place: of the gallery, from which names are seen.
      without: the file, say the query's own picture.
    """
    own, wanted = os.path.realpath(without), k + 1
    while True:
        wanted = min(wanted, len(index))
        found = [
            hit
            for hit in index.search(query[None], max(wanted, 1))[0]
            if os.path.realpath(file_of(place, hit[0])) != own
        ]
        if len(found) >= k or wanted == len(index):
            return found[:k]
        wanted *= 2


def file_of(place: str, name: str) -> Path:
    """The file of a picture of a folder or a list; of another gallery, one that isn't there."""
    root = Path(place)
    return (root if root.is_dir() else root.parent) / name


def _of_files(place: Path, root: Path, names: list[str]) -> Gallery:
    """Files by their paths from `root`; their stamps are size and time."""
    sizes = np.asarray([_stamp(root / name) for name in names], np.int64)
    return Gallery(str(place.resolve()), names, sizes, lambda name: _checked(root / name, name))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _checked(path: Path, name: str) -> Path:
    size, _ = _stamp(path)
    if size > images.MAX_BYTES:
        raise UserError(f"{name} has {size:,} bytes; at most {images.MAX_BYTES:,} are read: shrink or remove it.")
    return path
