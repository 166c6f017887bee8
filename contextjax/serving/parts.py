"""An index on the disk: parts in safetensors files, and index.json, which says which of them count.

A change writes new parts under names of their own, then index.json in one move, each on the disk before the next:
whatever happens to the process or the power, the index is what it was or what it should be. Files that no longer count
stay until the next change, for readers that came before this one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextjax.files import flush, write_whole
from contextjax.json_files import parse_json, read_json
from contextjax.serving.storage import DTYPES, Packed, concatenate
from contextjax.types import UserError

MANIFEST, FOLDER, VERSION = "index.json", "parts", 1


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an index is, and the files and row counts of its parts, in the order of rows."""

    dimension: int
    storage: str
    fingerprint: str  # of the system whose embeddings these are
    gallery: str = ""  # what was embedded, where it was a gallery
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def count(self) -> int:
        """Rows."""
        return sum(count for _, count in self.parts)


class Skipped(NamedTuple):
    """A bad picture: it is not looked at again until it changes."""

    name: str
    stamp: list[int]
    reason: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of an index."""

    names: list[str]
    embeddings: Packed
    stamps: np.ndarray  # int64 [N, 2]: what changes when a picture does; zeros where nobody said
    skipped: list[Skipped] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def only(self, keep: np.ndarray, skipped: list[Skipped]) -> Part:
        """The rows of a mask, and these bad pictures."""
        names = [name for name, kept in zip(self.names, keep, strict=True) if kept]
        return Part(names, self.embeddings[keep], self.stamps[keep], skipped)


def joined(parts: list[Part]) -> Part:
    """Several parts as one."""
    return Part(
        [name for part in parts for name in part.names],
        concatenate([part.embeddings for part in parts]),
        np.concatenate([part.stamps for part in parts]),
        [bad for part in parts for bad in part.skipped],
    )


def read_manifest(folder: Path) -> Manifest:
    """What the index in `folder` is.

    Raises:
      UserError: there is none, or one of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"There is no index at {folder}; make one with experiments.embed --target={folder}.")
    found = read_json(path, layout="an index", remedy="embed again")
    try:
        version = found.pop("version")
        if version != VERSION:
            raise UserError(f"{path} is of version {version}; this contextjax reads version {VERSION}: embed again.")
        parts = tuple((str(name), int(count)) for name, count in found.pop("parts"))
        fits = isinstance(found["dimension"], int) and found["dimension"] > 0 and found["storage"] in DTYPES
        if not fits or any(Path(name).name != name or count < 0 for name, count in parts):
            raise ValueError("a dimension, storage or part that can't be")
        return Manifest(**found, parts=parts)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no index ({error}); expected what experiments.embed writes: embed again."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The moment of a change."""
    text = json.dumps({"version": VERSION, **dataclasses.asdict(manifest)}, indent=1)
    write_whole(folder / MANIFEST, text, is_kept=True)


def write_part(path: Path, part: Part) -> None:
    """Writes a part's file, whole or not at all."""
    write_whole(path, _serialised(part), is_kept=True)


def _serialised(part: Part) -> bytes:
    from safetensors.numpy import save

    tensors = {
        "embeddings": part.embeddings.vectors,
        "stamps": part.stamps,
        "names": _bytes([part.names, part.skipped]),
    }
    if part.embeddings.scales is not None:
        tensors["scales"] = part.embeddings.scales
    return save({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def _place(folder: Path, content: bytes) -> Path:
    """Of a part's file in an index: it is called by what is in it."""
    return folder / FOLDER / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.safetensors"


def add_part(folder: Path, part: Part) -> tuple[str, int]:
    """Writes a part of the index in `folder`. It counts with the next manifest."""
    content = _serialised(part)
    target = _place(folder, content)
    write_whole(target, content, is_kept=True)
    return target.name, len(part)


def adopt_part(folder: Path, path: Path, count: int) -> tuple[str, int]:
    """Makes a file of write_part one of the index, without copying it where the disk can do that; `path` stays."""
    content = path.read_bytes()
    target = _place(folder, content)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(path, target)
            flush(target.parent)
        except OSError:
            write_whole(target, content, is_kept=True)
    return target.name, count


def read_part(path: Path) -> Part:
    """A part's file.

    Raises:
      UserError: it is missing, or not whole.
    """
    found = _read(path, ["names", "embeddings", "stamps", "scales"])
    (names, skipped), vectors, stamps = found["names"], found["embeddings"], found["stamps"]
    if not len(names) == len(vectors) == len(stamps):
        raise UserError(f"{path} has {len(names)} names of {len(vectors)} embeddings; it is damaged: embed again.")
    return Part(names, Packed(vectors, found["scales"]), stamps, skipped)


def _read(path: Path, wanted: list[str]) -> dict[str, Any]:
    """Some tensors of a part's file, None for the scales that it may lack, and its names as [names, skipped]."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            known = set(file.keys()) | {"names", "embeddings", "stamps"}
            found: dict[str, Any] = {name: file.get_tensor(name) if name in known else None for name in wanted}
        names, skipped = parse_json(found["names"].tobytes())
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is no text")
        found["names"] = names, [Skipped(*bad) for bad in skipped]
        return found
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is not a whole part of an index ({error}); embed again.") from error


def read_listing(path: Path) -> tuple[list[str], list[Skipped]]:
    """The names of a part's rows, and its bad pictures, without embeddings.

    Raises:
      UserError: it is missing, or not whole.
    """
    return _read(path, ["names"])["names"]


def read_names(folder: Path, manifest: Manifest) -> tuple[list[str], list[Skipped]]:
    """read_listing of all parts."""
    found = [read_listing(folder / FOLDER / file) for file, _ in manifest.parts]
    return [name for names, _ in found for name in names], [bad for _, skipped in found for bad in skipped]


def read_stamps(folder: Path, manifest: Manifest) -> np.ndarray:
    """int64 [N, 2] of all rows."""
    found = [_read(folder / FOLDER / file, ["names", "stamps"])["stamps"] for file, _ in manifest.parts]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def remove_unused(folder: Path, manifest: Manifest) -> None:
    """Removes the files of states before this one, and what a killed writer has left."""
    used = {name for name, _ in manifest.parts}
    for path in (folder / FOLDER).glob("*") if (folder / FOLDER).is_dir() else ():
        if path.name not in used:
            path.unlink(missing_ok=True)


def iterate(folder: Path, manifest: Manifest) -> Iterator[Part]:
    """All parts, read one at a time.

    Raises:
      UserError: one is not whole, or of another size than the index says.
    """
    for name, count in manifest.parts:
        part = read_part(folder / FOLDER / name)
        vectors = part.embeddings.vectors
        if vectors.shape != (count, manifest.dimension) or vectors.dtype != DTYPES[manifest.storage]:
            raise UserError(
                f"{folder / FOLDER / name} holds {vectors.dtype} {list(vectors.shape)}; expected {manifest.storage} "
                f"{[count, manifest.dimension]}: embed again."
            )
        yield part


def _bytes(value: Any) -> np.ndarray:
    """JSON as uint8."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)
