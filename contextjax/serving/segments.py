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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextjax.files import flush, write_whole
from contextjax.json_files import parse_json, read_json
from contextjax.serving.storage import DTYPES, Packed, concatenate
from contextjax.types import UserError

MANIFEST, FOLDER, VERSION = "index.json", "segments", 2


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of index.json: what an index is made for, and its segments in the order of rows."""

    dimension: int
    storage: str
    fingerprint: str  # of the system that made the embeddings
    gallery: str = ""  # whose pictures were embedded, where it was a gallery
    segments: tuple[tuple[str, int], ...] = ()  # (file name, rows)

    def paths(self, folder: Path) -> list[Path]:
        """Returns the segments' files of the index in `folder`."""
        return [folder / FOLDER / name for name, _ in self.segments]


class BadPicture(NamedTuple):
    """A picture that can't be read. It is not tried again until its stamp changes."""

    name: str
    stamp: list[int]
    reason: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """The contents of a segment, without its embeddings."""

    names: list[str]
    stamps: np.ndarray  # int64 [N, 2], what changes when a picture does; zeros where none was given
    skipped: list[BadPicture]

    def stamp_of(self) -> dict[str, list[int]]:
        """Returns the stamp of each picture, of bad ones too."""
        bad = {picture.name: picture.stamp for picture in self.skipped}
        return bad | dict(zip(self.names, self.stamps.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Segment(Listing):
    """Rows of an index, and bad pictures that were met when these were embedded."""

    embeddings: Packed

    def select(self, rows: np.ndarray, skipped: list[BadPicture]) -> Segment:
        """Returns the rows of a mask, and the given bad pictures."""
        names = [name for name, kept in zip(self.names, rows, strict=True) if kept]
        return Segment(names, self.stamps[rows], skipped, self.embeddings[rows])


def join_listings(listings: list[Listing]) -> Listing:
    """Returns several listings, one after the other, as one."""
    return Listing(
        [name for each in listings for name in each.names],
        np.concatenate([np.zeros((0, 2), np.int64), *(each.stamps for each in listings)]),
        [bad for each in listings for bad in each.skipped],
    )


def join_segments(segments: list[Segment]) -> Segment:
    """Returns several segments, one after the other, as one."""
    listing = join_listings([*segments])
    embeddings = concatenate([segment.embeddings for segment in segments])
    return Segment(listing.names, listing.stamps, listing.skipped, embeddings)


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
        version = fields.pop("version")
        if version != VERSION:
            raise UserError(f"{path} is of version {version}; this contextjax reads version {VERSION}: embed again.")
        segments = tuple((str(name), int(rows)) for name, rows in fields.pop("segments"))
        fits = isinstance(fields["dimension"], int) and fields["dimension"] > 0 and fields["storage"] in DTYPES
        if not fits or any(Path(name).name != name or rows < 0 for name, rows in segments):
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


def write_segment(folder: Path, segment: Segment) -> tuple[str, int]:
    """Writes a segment's file to `folder`, whole or not at all, and returns its name and its rows.

    The name is a hash of the contents. So equal segments have one name in every index, and a file is never overwritten
    by another one.
    """
    from safetensors.numpy import save

    text = json.dumps([segment.names, segment.skipped]).encode()
    tensors = {
        "embeddings": segment.embeddings.vectors,
        "stamps": segment.stamps,
        "names": np.frombuffer(text, np.uint8),
    }
    if segment.embeddings.scales is not None:
        tensors["scales"] = segment.embeddings.scales
    content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    path = folder / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.safetensors"
    write_whole(path, content, is_kept=True)
    return path.name, len(segment.names)


def link_segment(path: Path, folder: Path) -> None:
    """Makes a segment's file one of `folder`, without a copy where the disk can do that. The file stays where it is."""
    target = folder / path.name
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
        flush(folder)
    except OSError:
        write_whole(target, path.read_bytes(), is_kept=True)


def read_segment(path: Path) -> Segment:
    """Returns the contents of a segment's file.

    Raises:
      UserError: the file is missing or damaged.
    """
    with _opened(path) as file:
        scales = file.get_tensor("scales") if "scales" in file.keys() else None  # noqa: SIM118 (no mapping)
        listing, embeddings = _listing(file), Packed(file.get_tensor("embeddings"), scales)
        if len(listing.names) != len(embeddings.vectors):
            raise ValueError(f"it has {len(listing.names)} names and {len(embeddings.vectors)} embeddings")
        return Segment(listing.names, listing.stamps, listing.skipped, embeddings)


def read_listing(path: Path) -> Listing:
    """Returns the names, stamps and bad pictures in a segment's file; its embeddings are not read.

    Raises:
      UserError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return _listing(file)


def read_segments(folder: Path, manifest: Manifest) -> Iterator[Segment]:
    """Yields the segments of an index, read one at a time.

    Raises:
      UserError: a file is missing or damaged, or is of another size than the manifest says.
    """
    for path, (_, rows) in zip(manifest.paths(folder), manifest.segments, strict=True):
        segment = read_segment(path)
        vectors = segment.embeddings.vectors
        if vectors.shape != (rows, manifest.dimension) or vectors.dtype != DTYPES[manifest.storage]:
            raise UserError(
                f"{path} holds {vectors.dtype} {list(vectors.shape)}; expected {manifest.storage} "
                f"{[rows, manifest.dimension]}: embed again."
            )
        yield segment


def remove_unused(folder: Path, *, used: Iterable[tuple[str, int]]) -> None:
    """Removes the segments of earlier states that are not `used` now, and what a killed process left."""
    names = {name for name, _ in used}
    for path in (folder / FOLDER).glob("*"):
        if path.name not in names:
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


def _listing(file: Any) -> Listing:
    """Returns the listing in an open file. Raises a ValueError or TypeError where it can't be one."""
    names, skipped = parse_json(file.get_tensor("names").tobytes())
    stamps = file.get_tensor("stamps")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name that is no text")
    if len(names) != len(stamps):
        raise ValueError(f"it has {len(names)} names and {len(stamps)} stamps")
    return Listing(names, stamps, [BadPicture(*bad) for bad in skipped])
