"""Shards of a WebDataset: tar files whose members "KEY.jpg" and "KEY.json" are one sample, read in place.

Only what such files hold is read: plain members of ustar, PAX or GNU tar, without compression. No member's name is ever
used as a path on the disk.
"""

from __future__ import annotations

import dataclasses
import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from contextjax.types import UserError
from data_pipelines.annotations import stays_inside

BLOCK = 512
MAX_NAME = 1 << 16  # bytes of an extended header or of a long name
LARGEST = 1 << 40  # bytes of a member


class _State(NamedTuple):
    """The fields of os.stat_result by which a changed file is recognised."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_ino: int


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in a tar file. Like a Path it has `read_bytes`, `open` and `stat`.

    Attributes:
      path: the tar file.
      name: the member's name.
      offset: where its contents begin in the tar file.
      size: bytes of its contents.
    """

    path: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Returns the contents. Raises an OSError where the tar file is away or was cut short."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self} ends after {len(data)} of {self.size} bytes")
        return data

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Returns the contents as an open file."""
        return io.BytesIO(self.read_bytes())

    def stat(self) -> _State:
        """Returns the tar file's state with the member's size. Raises an OSError where there is no tar file."""
        own = self.path.stat()
        mode = stat.S_IFREG if stat.S_ISREG(own.st_mode) else own.st_mode
        return _State(mode, self.size, own.st_mtime_ns, own.st_ctime_ns, own.st_ino)

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"


def samples(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yields key and members, by their endings, of each sample of a shard; members of a sample follow each other.

    As in the format's own library, an ending is all that follows the first "." of a name, in small letters.

    Raises:
      UserError: the file is no tar file as `members` reads them, or a sample has an ending twice.
    """
    last, own = "", {}
    for member in members(shard):
        folder, _, name = member.name.rpartition("/")
        key, _, ending = name.partition(".")
        key, ending = f"{folder}/{key}".lstrip("/"), ending.lower()
        if key != last and own:
            yield last, own
            own = {}
        if ending in own:
            raise UserError(f"{shard} has two members {key}.{ending}; download it again.")
        last, own[ending] = key, member
    if own:
        yield last, own


def members(path: Path) -> Iterator[Member]:
    """Yields the files in a tar file, in their order. Directories are passed over.

    Raises:
      UserError: the file can't be read, is compressed, cut short or no tar file, or a member is a link or a device, or
        has a name that leads out of its folder.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            yield from _members(path, file, size)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}); download it again.") from error


def _members(path: Path, file: Any, end: int) -> Iterator[Member]:
    place, given = 0, {}  # `given`: the name and size that extended headers announce for the next member
    while place + BLOCK <= end:
        file.seek(place)
        header = file.read(BLOCK)
        if not any(header):  # two empty blocks are the end; what follows is padding
            return
        name, size, kind = _parse(path, header, place)
        size = given.get("size", size) if kind not in "xgLK" else size
        content, place = place + BLOCK, place + BLOCK + -(-size // BLOCK) * BLOCK
        if size > LARGEST or content + size > end:
            raise UserError(f"{path} is cut short at {name!r}: it has {end:,} bytes; download it again.")
        if kind in "xgLK":
            if size > MAX_NAME:
                raise UserError(f"{path} has an extended header of {size:,} bytes, more than is read; write it again.")
            given |= _extended(path, file.read(size), kind)
            continue
        name, given = given.get("path", name), {}
        if kind == "5":
            continue
        if kind not in "0\0":
            raise UserError(
                f"{path} holds {name!r}, which is a link or a device; expected plain files: write it again."
            )
        if not stays_inside(name):
            raise UserError(f"{path} holds the name {name!r}, which leads out of its folder; expected KEY.jpg.")
        yield Member(path, name, content, size)
    if place != end or not end:
        raise UserError(f"{path} is cut short: it has {end:,} bytes; download it again.")


def _parse(path: Path, header: bytes, place: int) -> tuple[str, int, str]:
    """Returns name, size and kind of a header."""
    if place == 0 and header[:2] == b"\x1f\x8b":
        raise UserError(f"{path} is compressed; `gunzip` it: the members of a shard are read in place.")
    try:
        unsigned = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if _number(header[148:156]) != unsigned:
            raise ValueError("a wrong checksum")
        name, prefix = (header[begin:end].split(b"\0")[0].decode() for begin, end in ((0, 100), (345, 500)))
        is_posix = header[257:263] == b"ustar\0"
        return (f"{prefix}/{name}" if prefix and is_posix else name), _number(header[124:136]), chr(header[156])
    except ValueError as error:
        raise UserError(f"{path} is no tar file at byte {place:,} ({error}); download it again.") from error


def _number(field: bytes) -> int:
    """Returns a number, which is in octal digits, or in GNU's form of large ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _extended(path: Path, data: bytes, kind: str) -> dict[str, Any]:
    """Returns the path and the size that an extended header gives to the next member, where it gives any."""
    try:
        if kind == "L":
            return {"path": data.rstrip(b"\0").decode()}
        given: dict[str, Any] = {}
        while kind == "x" and data.strip(b"\0"):
            length = int(data.split(b" ", 1)[0])
            key, _, value = data[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
            if not 0 < length <= len(data):
                raise ValueError("a wrong length")
            if key in (b"path", b"size"):
                given[key.decode()] = value.decode() if key == b"path" else int(value)
            data = data[length:]
        if given.get("size", 0) < 0:
            raise ValueError("a negative size")
        return given
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} has an extended header that can't be read ({error}); write it again.") from error
