"""Paths that a user gives: flags for them, their check before anything else, and the errors that they cause."""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import is_remote
from contextjax.types import UserError

flags.disclaim_key_flags()  # the flags are those of the command that defines them: --help has them

# Errors of a full or read-only disk, whichever file they name: no program is at fault.
NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
# Errors of a name, or of what stands there; they are a user's where the name is one that the user gave, or is under it.
NO_PLACE = (
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ENXIO, errno.EINVAL,
    errno.ESTALE, errno.ENODEV, errno.ENOTEMPTY,
)  # fmt: skip


class Place(Enum):
    """A kind of path."""

    SOURCE = "a folder, or the hub id of a model"  # `load` says what is wrong with it
    FOLDER = "a folder"
    FILE = "a file"
    PICTURES = "a folder or a file"
    NEW_FOLDER = "a folder to write to"  # which may be there
    NEW_FILE = "a file to write"
    NEW_PLACE = "a file or a folder to write to"  # which of the two, the command checks


_given: dict[Path, None] = {}  # every path that a flag or a config gave to this command
_flags: dict[str, tuple[flags.Flag, Place]] = {}  # the flags that are paths; another command's may have the same name


def define_path(name: str, place: Place, sentence: str, default: str | None = None) -> Any:
    """Defines a flag that is a path; `check_flags` checks what is given. An empty one is a mistake."""
    holder = flags.DEFINE_string(name, default, sentence)
    _flags[name] = flags.FLAGS[name], place
    return holder


def define_paths(name: str, place: Place, sentence: str) -> Any:
    """Defines a flag that may be given several times, each time with a path; see `define_path`."""
    holder = flags.DEFINE_multi_string(name, None, sentence)
    _flags[name] = flags.FLAGS[name], place
    return holder


def check_flags() -> None:
    """Checks the paths that this command's flags were given.

    Raises:
      UserError: some of them are not what the command can read or write; all of them are named.
    """
    _given.clear()
    faults = []
    for name, (flag, place) in _flags.items():
        if name in flags.FLAGS and flags.FLAGS[name] is flag and flag.present:
            value = flag.value  # of a recipe it is no path
            given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            faults += [fault(path, place, f"--{name}") for path in given]
    if faults := list(filter(None, faults)):
        raise UserError(" ".join(faults))


def check_path(path: str | os.PathLike[str], place: Place, name: str) -> None:
    """Checks a path that a user gave under this name.

    Raises:
      UserError: the path is not of this kind.
    """
    if sentence := fault(path, place, name):
        raise UserError(sentence)


def fault(path: str | os.PathLike[str], place: Place, name: str) -> str:
    """Returns a sentence on what is wrong with a path that a user gave, "" if nothing, and remembers it as the user's.

    Args:
      path: what was given.
      place: the kind of path that is expected.
      name: the flag or the key of the config, for the sentence.
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text:
        return f"{name} is {'empty' if not text.strip() else 'no path'}; give {place.value}, as {name}=PATH."
    if is_remote(text):
        return ""
    _given[Path(text).absolute()] = None
    try:
        mode = Path(text).stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        return f"{name}={text} can't be used ({error.strerror}); expected {place.value}: give another."
    if not mode:
        if place in (Place.NEW_FOLDER, Place.NEW_FILE, Place.NEW_PLACE):
            return _no_parent(Path(text), name)
        return "" if place is Place.SOURCE else f"{name}={text} is not there; expected {place.value}: check the path."
    is_folder, is_file = stat.S_ISDIR(mode), stat.S_ISREG(mode)
    needs_folder = place in (Place.FOLDER, Place.NEW_FOLDER)
    if (needs_folder and not is_folder) or (place in (Place.FILE, Place.NEW_FILE) and is_folder):
        there = "a folder" if is_folder else "a file" if is_file else "a device"
        return f"{name}={text} is {there}; expected {place.value}: give another."
    if place is Place.FILE and not is_file and not stat.S_ISFIFO(mode) and not stat.S_ISCHR(mode):
        return f"{name}={text} is no regular file; expected {place.value}: give another."
    readable = not (is_folder or is_file) or os.access(text, os.R_OK | (os.X_OK if is_folder else 0))
    if place in (Place.FOLDER, Place.FILE, Place.PICTURES) and not readable:
        return f"{name}={text} can't be read (Permission denied); see to this user's rights."
    return ""


def _no_parent(path: Path, name: str) -> str:
    """Returns what keeps a path that is not there from being made, "" if nothing."""
    if path.is_symlink():
        return f"{name}={path} is a link to what is not there; remove it, or give another."
    for parent in path.absolute().parents:
        try:
            mode = parent.stat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            return f"{name}={path} can't be made: {parent} is no folder; give another."
        if not os.access(parent, os.W_OK | os.X_OK):
            return f"{name}={path} can't be made: {parent} can't be written to; give another, or see to the rights."
        break
    return ""


def explain(error: OSError) -> str:
    """Returns one sentence on an error of a place that the user gave, or of a full disk; "" for any other: a bug."""
    name = str(error.filename) if error.filename is not None else ""
    if error.errno in NO_WRITING:
        return (
            f"{name or 'A file'} can't be written or read ({error.strerror}); make room, or see to this user's rights."
        )
    if error.errno in NO_PLACE and name and _is_given(Path(name)):
        return f"{name} can't be written or read ({error.strerror}); remove what stands there, or give another path."
    if error.errno == errno.ENOENT and name and Path(name).absolute() in _given:
        return f"{name} is not there ({error.strerror}); check the path."
    return ""


def _is_given(path: Path) -> bool:
    place = path.absolute()
    return any(place.is_relative_to(given) or given.is_relative_to(place) for given in _given)
