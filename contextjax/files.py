"""Paths on this machine or in an object store (gs://), and files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextjax.types import UserError


def path_of(place: str | os.PathLike[str]) -> Path:
    """Returns a path as the user gave it.

    In an object store it is an `epath.Path`, which reads, writes, lists and joins like a pathlib.Path; on this machine
    it is a pathlib.Path, because the `stat` of epath's own differs.

    Raises:
      UserError: runs can't be kept in that store, or its package is missing.
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

    path: Any = epath.Path(place)
    return path


def local_path(place: str | os.PathLike[str]) -> Path:
    """Returns a path that has to be on this machine: pictures and tables are read in random order.

    Raises:
      UserError: it is in an object store.
    """
    if is_remote(place):
        raise UserError(f"{place} is in an object store; expected a folder or file that is local or mounted: mount it.")
    return Path(place)


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in an object store: it begins with a scheme, as gs://."""
    return re.match(r"[a-z][a-z0-9+.-]*://", str(place)) is not None


def existing(path: Path) -> Path:
    """Returns the path of an existing file, whose name may be in another Unicode normal form (NFC or NFD).

    "é" is one character in NFC, which lists mostly use, and two in NFD, which macOS used for file names. A path that
    exists in neither form is returned as it is.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    for form in ("NFC", "NFD"):
        other = path.with_name(unicodedata.normalize(form, path.name))
        if os.path.lexists(other):
            return other
    if path.parent == path or (parent := existing(path.parent)) == path.parent:
        return path
    return existing(parent / path.name)


def is_utf8(name: str) -> bool:
    """Returns whether a name is text: a file's name may be any bytes, which Python holds as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def whole_file(path: Path, *, is_kept: bool = False) -> Iterator[Path]:
    """Writes a file on this machine whole or not at all: it gets its name when the block ends.

    Args:
      path: the file; its folder is made, and a file that is there is replaced.
      is_kept: flush the file to the disk before it gets its name, so that it survives a power cut. That takes longer.

    Yields the path to write to, beside `path`. After an error nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if is_kept:
            flush(partial)
        partial.replace(path)
    except OSError as error:
        if error.errno and not error.filename:  # the error of a full disk does not name the file
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    if is_kept:
        flush(path.parent)


def write_whole(path: Path, content: str | bytes, *, is_kept: bool = False) -> None:
    """Writes a file whole or not at all, as `whole_file` does; in an object store, a write is seen when it is done."""
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    with whole_file(path, is_kept=is_kept) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Writes a folder on this machine whole or not at all: it gets its name when the block ends.

    Yields an empty folder beside `folder` to write to. After an error nothing is left of it; what a killed process left
    is removed by the next one.

    Raises:
      UserError: `folder` is not empty (nothing is ever overwritten), or another process is writing it.
    """
    folder = folder.absolute()  # "." has no name
    check_absent(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another process is writing {folder}; wait until it has ended.") from error
        except OSError:  # a file system without locks
            pass
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            yield partial
            check_absent(folder)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def check_absent(folder: Path) -> None:
    """Checks that `folder` is missing or empty, so that nothing is overwritten.

    Raises:
      UserError: it holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already, and nothing is overwritten; give another folder, or remove it.")


def flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Removes what a killed `write_whole` left in a folder, into which no other process may be writing."""
    if not is_remote(folder):
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(place: Path, *, waits: bool = True) -> Iterator[None]:
    """Locks a folder for this process; the system frees the lock of a process that dies.

    In an object store, in a folder that can't be written to and on a file system without locks nothing is locked.

    Args:
      place: the folder; it is made.
      waits: waits while another process has the lock.

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
