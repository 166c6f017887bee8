"""Paths on this machine or in an object store (gs://), and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextjax.types import UserError


def path_of(place: str | os.PathLike[str]) -> Path:
    """A path as the user gave it.

    Of an object store it is an `epath.Path`, which reads, writes, lists and joins like a pathlib.Path; of this machine
    a pathlib.Path, for epath's own have another `stat`.

    Raises:
      UserError: a store that runs can't be kept in, or whose package is missing.
    """
    if not is_remote(place):
        return Path(place)
    if not str(place).startswith("gs://"):
        raise UserError(
            f"{place} is in a store that checkpoints can't be written to; expected gs://BUCKET/FOLDER, or a folder "
            "that is local or mounted."
        )
    if not importlib.util.find_spec("gcsfs"):
        raise UserError(f"{place} needs the package gcsfs; install it with pip install 'contextjax[storage]'.")
    from etils import epath

    found: Any = epath.Path(place)
    return found


def local_path(place: str | os.PathLike[str]) -> Path:
    """A path that has to be on this machine: pictures and tables are read at random places.

    Raises:
      UserError: it is in an object store.
    """
    if is_remote(place):
        raise UserError(f"{place} is in an object store; expected a folder or file that is local or mounted: mount it.")
    return Path(place)


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a path is one of an object store, with its scheme before it."""
    return re.match(r"[a-z][a-z0-9+.-]*://", str(place)) is not None


def is_utf8(name: str) -> bool:
    """Whether a name is text: that of a file may be any bytes, which Python holds as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_whole(path: Path, content: str | bytes, *, is_kept: bool = False) -> None:
    """Writes a whole file or nothing: under another name first; in a store, a write is seen when it is done.

    `is_kept`: it is on the disk when this returns, whatever happens to the power. That takes longer.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        path.write_bytes(data)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            if is_kept:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno and not error.filename:  # a full disk does not say whose
            error.filename = str(path)
        raise
    if is_kept:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """The names in a folder are on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Removes what `write_whole` has left in a folder where it was killed; no other process may be writing there."""
    if not is_remote(folder):
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(place: Path, *, waits: bool = True) -> Iterator[None]:
    """A folder for one process at a time; the system takes the lock from one that dies.

    There is no lock in an object store, where nothing can be written, and on a file system without locks.

    Args:
      place: the folder; it is made.
      waits: for another that has it.

    Raises:
      UserError: the folder isn't there and can't be made, or another process has it and this one does not wait.
    """
    if is_remote(place):
        yield
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / ".lock").open("a")
    except OSError as error:
        if not place.is_dir():
            raise UserError(f"{place} can't be written ({error}); give a folder that can be written to.") from error
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(
                f"Another process is at work in {place}; wait until it has ended, or give another folder."
            ) from error
        except OSError:
            pass
        yield
