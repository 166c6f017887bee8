"""Hashes of the contents of files, taken again only where a file's size or times say that they may have changed.

The hashes decide whether a file has changed: copying, touching and moving files leaves them as they are. Sizes and
times are kept beside them in a file, so that an untouched file costs only a `stat`.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import write_whole
from contextjax.threads import available_cpus, map_ahead

SIZE = 16  # bytes of a hash
ABSENT = bytes(SIZE)  # stands for the hash of a file that is not there, or can't be read
CHUNK = 256  # files that a thread hashes at a time
RECENT = 2_000_000_000  # nanoseconds: a file may change again within the resolution of its file system's clock
ROW = np.dtype([("name", "u8"), ("state", "<i8", 4), ("hash", "V16")])


def content_hash(data: bytes) -> bytes:
    """Returns the hash of a file's contents."""
    return hashlib.blake2b(data, digest_size=SIZE).digest()


def content_hashes(files: Mapping[str, Any], cache: Path) -> list[bytes]:
    """Returns the hash of each file's contents, in their order; ABSENT for one that is not there.

    Args:
      files: name -> file, a Path or what has its `stat` and `open`. A name has to mean the same file when the cache
        is used again, wherever that is then.
      cache: a file that keeps the hashes; it is made, and brought up to date where it can be written. A damaged one
        counts as none.
    """
    rows = np.zeros(len(files), ROW)
    rows["name"] = [_number(name) for name in files]
    rows["state"] = [file_state(file) for file in files.values()]
    known = _read(cache)
    place = _places(known["name"], rows["name"])
    is_known = (place >= 0) & (known["state"][place] == rows["state"]).all(1) if len(known) else place >= 0
    is_known &= rows["state"][:, 0] >= 0
    if len(known):
        rows["hash"][is_known] = known["hash"][place[is_known]]
    paths = list(files.values())
    unknown = np.flatnonzero(~is_known & (rows["state"][:, 0] >= 0))
    parts = [unknown[begin : begin + CHUNK] for begin in range(0, len(unknown), CHUNK)]
    hashes = map_ahead(lambda part: [file_hash(paths[row]) for row in part], parts, ahead=2 * available_cpus())
    for part, taken in zip(parts, hashes, strict=True):
        rows["hash"][part] = np.frombuffer(b"".join(taken), "V16")
    _write(cache, rows, known)
    return [row.tobytes() for row in rows["hash"]]


def keep_hashes(cache: Path, hashes: Mapping[str, tuple[tuple[int, int, int, int], bytes]]) -> None:
    """Keeps hashes of files that the caller has read: name -> (file_state before it was read, content_hash)."""
    rows = np.zeros(len(hashes), ROW)
    rows["name"] = [_number(name) for name in hashes]
    rows["state"] = np.asarray([state for state, _ in hashes.values()], np.int64).reshape(-1, 4)
    rows["hash"] = np.frombuffer(b"".join(hash for _, hash in hashes.values()), "V16")
    _write(cache, rows, _read(cache))


def _number(name: str) -> int:
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def file_state(file: Any) -> tuple[int, int, int, int]:
    """Returns values that differ if a file may have changed; the first is -1 if there is no regular file."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return -1, 0, 0, 0
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device would never end
        return -1, 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def file_hash(file: Any) -> bytes:
    """Returns the hash of a file's contents, ABSENT where it can't be read."""
    digest = hashlib.blake2b(digest_size=SIZE)
    try:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):
        return ABSENT
    return digest.digest()


def _places(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the row of each wanted name among the known ones, -1 where there is none."""
    if np.array_equal(known, wanted):
        return np.arange(len(wanted))
    order = np.argsort(known, kind="stable")
    places = np.minimum(np.searchsorted(known, wanted, sorter=order), max(len(known) - 1, 0))
    if not len(known):
        return np.full(len(wanted), -1)
    return np.where(known[order][places] == wanted, order[places], -1)


def _read(cache: Path) -> np.ndarray:
    try:
        data = cache.read_bytes()
    except OSError:
        return np.zeros(0, ROW)
    rows = data[SIZE:]
    is_whole = len(rows) % ROW.itemsize == 0 and data[:SIZE] == content_hash(rows)
    return np.frombuffer(rows if is_whole else b"", ROW)


def _write(cache: Path, rows: np.ndarray, known: np.ndarray) -> None:
    """Writes the cache, if it can be written, without files changed in the last moments."""
    is_old = (rows["state"][:, 1:3] < time.time_ns() - RECENT).all(1)
    kept = rows[is_old & (rows["state"][:, 0] >= 0) & (rows["hash"] != np.void(ABSENT))]
    if np.array_equal(kept, known):
        return
    with contextlib.suppress(OSError):
        write_whole(cache, content_hash(kept.tobytes()) + kept.tobytes())
