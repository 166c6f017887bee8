"""The files of an index: immutable segments of rows, and a manifest that names the segments in use.

A change writes new segments, then the manifest in one move, and flushes each to the disk before the next. Whatever
happens to the process or the power, the index is as it was before the change or as it should be after it. Replaced
segments stay until the next change, for readers that opened the index before this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextjax.files import write_whole
from contextjax.json_files import parse_json, read_json
from contextjax.serving.storage import DTYPES, Packed
from contextjax.types import UserError

MANIFEST, FOLDER, VERSION = "index.json", "segments", 2


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of index.json: what an index is made for, and the files of its segments in the order of rows."""

    dimension: int
    storage: str
    fingerprint: str  # of the system that made the embeddings
    gallery: str = ""  # whose pictures were embedded, where it was a gallery
    near: str = ""  # the gallery's path from the folder of the index
    segments: tuple[str, ...] = ()


def path_between(folder: Path, gallery: str) -> str:
    """Returns the path of a gallery from the folder of an index, "" where there is none."""
    return os.path.relpath(Path(gallery).resolve(), folder.resolve()) if gallery else ""


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest of the index in `folder`.

    Raises:
      UserError: there is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"There is no index at {folder}; make one with experiments.embed --target={folder}.")
    fields = read_json(path, layout="an index", remedy="embed again")
    try:
        version, segments = fields.pop("version"), tuple(fields.pop("segments"))
        if version != VERSION:
            raise UserError(f"{path} is of version {version}; this contextjax reads version {VERSION}: embed again.")
        fits = isinstance(fields["dimension"], int) and fields["dimension"] > 0 and fields["storage"] in DTYPES
        if not fits or any(Path(name).name != name for name in segments):
            raise ValueError("a dimension, storage or segment that can't be")
        return Manifest(**fields, segments=segments)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no index ({error}); expected what experiments.embed writes: embed again."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest in one move: a change of the index takes place here."""
    text = json.dumps({"version": VERSION, **dataclasses.asdict(manifest)}, indent=1)
    write_whole(folder / MANIFEST, text, is_kept=True)


class BadPicture(NamedTuple):
    """A picture that can't be read. It is not tried again until its stamp changes."""

    name: str
    stamp: list[int]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Rows of an index, and bad pictures that were met when these were embedded. The file holds the embeddings."""

    path: Path
    names: list[str]
    stamps: np.ndarray  # int64 [N, 2], what changes when a picture does; zeros where none was given
    skipped: list[BadPicture]

    @classmethod
    def write(cls, folder: Path, names: list[str], stamps: np.ndarray, embeddings: Packed,
              skipped: Sequence[BadPicture] = ()) -> Segment:  # fmt: skip
        """Writes a segment's file to the index in `folder`, whole or not at all. It counts with the next manifest.

        The file's name is a hash of its contents. So equal segments have one name in every index, and a file is never
        overwritten by another one.
        """
        from safetensors.numpy import save

        text = np.frombuffer(json.dumps([names, skipped]).encode(), np.uint8)
        tensors = {"embeddings": embeddings.vectors, "stamps": stamps, "names": text}
        if embeddings.scales is not None:
            tensors["scales"] = embeddings.scales
        content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        path = folder / FOLDER / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.safetensors"
        write_whole(path, content, is_kept=True)
        return cls(path, names, stamps, list(skipped))

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Returns the segment in a file, whose embeddings are not read.

        Raises:
          UserError: the file is missing or damaged.
        """
        with _opened(path) as file:
            names, skipped = parse_json(file.get_tensor("names").tobytes())
            stamps = file.get_tensor("stamps")
            if len(names) != len(stamps) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"it has {len(stamps)} rows, and not a name of text for each")
            return cls(path, names, stamps, [BadPicture(*bad) for bad in skipped])

    def embeddings(self) -> Packed:
        """Returns the embeddings, read from the file.

        Raises:
          UserError: the file is missing or damaged.
        """
        with _opened(self.path) as file:
            scales = file.get_tensor("scales") if "scales" in set(file.keys()) else None
            return Packed(file.get_tensor("embeddings"), scales)

    def stamp_of(self) -> dict[str, list[int]]:
        """Returns the stamp of each picture, of bad ones too."""
        bad = {picture.name: picture.stamp for picture in self.skipped}
        return bad | dict(zip(self.names, self.stamps.tolist(), strict=True))


def remove_unused(folder: Path, *, used: set[str]) -> None:
    """Removes the files of segments, but for the `used` ones: those of earlier states, and what killed runs left."""
    for path in (folder / FOLDER).glob("*"):
        if path.name not in used:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a segment's file. Whatever is wrong with it, also what the block finds, becomes a UserError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is not a whole segment of an index ({error}); embed again.") from error
