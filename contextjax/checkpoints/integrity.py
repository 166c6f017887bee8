"""One manifest of checksums for checkpoints and exports: written when a folder is complete, checked before its use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from contextjax.files import flush, is_remote, write_whole
from contextjax.json_files import parse_json
from contextjax.types import UserError

NAME = "checksums.json"
MISSING = f"it has no {NAME}"
CHUNK = 1 << 22  # bytes that are read at a time


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files of a folder, as they were when it was complete.

    Attributes:
      files: Size in bytes and SHA-256 of each file, by its path as seen from the folder. The manifest itself is not
        among them.
    """

    files: Mapping[str, tuple[int, str]]

    def to_json(self) -> str:
        """Returns the manifest as its only valid text, which ends with a digest of itself."""
        files = json.dumps(self.files, sort_keys=True)
        return f'{{"files": {files}, "sha256": "{_sha256(files.encode())}"}}'

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the manifest of a folder.

        Raises:
          OSError: it is not there, or can't be read.
          ValueError: it is not, byte for byte, what `write` wrote.
        """
        text = (folder / NAME).read_bytes()
        try:
            files = parse_json(text)["files"]
            manifest = cls({name: (size, digest) for name, (size, digest) in files.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is no list of checksums") from error
        if text != manifest.to_json().encode():
            raise ValueError("it does not agree with itself")
        return manifest


def write(folder: Path) -> Manifest:
    """Writes the manifest of all files under `folder`.

    On a local disk the files and their folders are flushed first, so that a power cut after the report that they are
    safe loses nothing.
    """
    manifest = Manifest({name: _sum_of(folder / name, is_kept=True) for name in files_under(folder)})
    if not is_remote(folder):
        within = {parent for name in manifest.files for parent in (folder / name).parents}
        for place in {folder.parent, folder, *(path for path in within if path.is_relative_to(folder))}:
            flush(place)
    write_whole(folder / NAME, manifest.to_json(), is_kept=True)
    return manifest


def damage(folder: Path, *, allow_more: bool = False) -> str:
    """Returns what is wrong with the first damaged file under `folder`; "" if all are as `write` recorded them.

    `allow_more`: files that are not in the manifest are no damage.
    """
    try:
        files = Manifest.read(folder).files
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as error:
        return f"{NAME} can't be read ({error})"
    try:
        present = set(files_under(folder))
    except OSError as error:
        return f"its files can't be listed ({error})"
    if lost := sorted(files.keys() - present):
        return f"{lost[0]} is missing"
    if not allow_more and (added := sorted(present - files.keys())):
        return f"{added[0]} is not one of its files"
    for name, expected in files.items():
        try:
            if _sum_of(folder / name) != expected:
                return f"{name} is not what was written"
        except OSError as error:
            return f"{name} can't be read ({error})"
    return ""


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of each of the named files that the folder holds."""
    return {name: _sha256((folder / name).read_bytes()) for name in names if (folder / name).exists()}


def check_digests(folder: Path, expected: Mapping[str, str], *, made: str) -> None:
    """Checks that files in a folder still have the given `digests`; the message names `made`, which was made with them.

    Raises:
      UserError: one is missing, or is another.
    """
    now = digests(folder, expected)
    for name, digest in expected.items():
        if now.get(name) != digest:
            raise UserError(
                f"{folder / name} is {'not the file' if name in now else 'missing: the file'} that {made} was trained "
                "with; put that one back, or copy the run again."
            )


def read_file(folder: Path, name: str) -> bytes:
    """Returns the content of a file under `folder`, as it was at the `write`.

    Raises:
      OSError: the file or the manifest can't be read.
      ValueError: one of them is not what was written.
    """
    content = (folder / name).read_bytes()
    if Manifest.read(folder).files.get(name) != (len(content), _sha256(content)):
        raise ValueError(f"{name} is not what was written")
    return content


def files_under(folder: Path, under: str = "") -> list[str]:
    """Returns the paths of all files under `folder`, as seen from it, without the manifest."""
    names: list[str] = []
    for path in sorted(folder.iterdir()):
        names += files_under(path, f"{under}{path.name}/") if path.is_dir() else [under + path.name]
    return [name for name in names if name != NAME]


def _sum_of(path: Path, *, is_kept: bool = False) -> tuple[int, str]:
    """Returns the size and the digest of a file; `is_kept` flushes it to this machine's disk first."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
        if is_kept and not is_remote(path):
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
