"""Checksums of a folder's files: written before it counts as whole, checked before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from contextjax.files import is_remote, sync_folder, write_whole

NAME = "checksums.json"
MISSING = f"it has no {NAME}"
PART = 1 << 22  # bytes that are read at a time


def write(folder: Path) -> None:
    """Writes size and digest of every file under `folder` to its checksums.json, with a digest of that list.

    On this machine the files, and their folders, are on the disk before it: whatever happens to the power.
    """
    files = {name: _seen(folder / name, is_kept=True) for name in files_under(folder)}
    if not is_remote(folder):
        for place in {folder.parent, folder, *(parent for name in files for parent in (folder / name).parents
                                               if parent.is_relative_to(folder))}:  # fmt: skip
            sync_folder(place)
    listed = json.dumps(files, sort_keys=True)
    whole = json.dumps({"files": files, "digest": _digest(listed.encode())}, sort_keys=True)
    write_whole(folder / NAME, whole, is_kept=True)


def damage(folder: Path) -> str:
    """What is wrong with the first bad file under `folder`, "" if all are what they were when `write` saw them."""
    try:
        files = _listed(folder)
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as error:
        return f"{NAME} can't be read ({error})"
    try:
        found = set(files_under(folder))
    except OSError as error:
        return f"its files can't be listed ({error})"
    if lost := sorted(files.keys() - found):
        return f"{lost[0]} is missing"
    if added := sorted(found - files.keys()):
        return f"{added[0]} is not one of its files"
    for name, (size, digest) in files.items():
        try:
            if [size, digest] != _seen(folder / name):
                return f"{name} is not what was written"
        except OSError as error:
            return f"{name} can't be read ({error})"
    return ""


def read(folder: Path, name: str) -> bytes:
    """A file under `folder`, as `write` saw it.

    Raises:
      OSError: it, or the list of checksums, can't be read.
      ValueError: one of them is not what was written.
    """
    data = (folder / name).read_bytes()
    if _listed(folder).get(name) != [len(data), _digest(data)]:
        raise ValueError(f"{name} is not what was written")
    return data


def _listed(folder: Path) -> dict[str, list[Any]]:
    """Name -> [bytes, digest], by a list that agrees with itself."""
    read = (folder / NAME).read_bytes()
    try:
        known = json.loads(read)
        files, listed = known["files"], json.dumps(known["files"], sort_keys=True)
        agrees = known["digest"] == _digest(listed.encode()) and read.decode() == json.dumps(known, sort_keys=True)
    except (KeyError, TypeError) as error:
        raise ValueError("it is no such list") from error
    if not agrees:
        raise ValueError("it does not agree with itself")
    return files


def files_under(folder: Path, under: str = "") -> list[str]:
    """The names of all files, as seen from the folder, but its checksums.json."""
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        found += files_under(path, f"{under}{path.name}/") if path.is_dir() else [under + path.name]
    return [name for name in found if name != NAME]


def _seen(path: Path, *, is_kept: bool = False) -> list[Any]:
    """[bytes, digest]; `is_kept`: on this machine, what has been read is on the disk, whatever happens to the power."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with path.open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
            size += len(part)
        if is_kept and not is_remote(path):
            os.fsync(file.fileno())
    return [size, digest.hexdigest()]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
