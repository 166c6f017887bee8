"""Reads JSON that a user or a stranger may have written. Every such file is read here, and nowhere else.

A file is refused, in one sentence, when it is no regular file, is too large, is not UTF-8, is not JSON, is nested too
deep, gives a key twice, or holds NaN or half of a character. JSON that this process has just written needs no check.
"""

from __future__ import annotations

import dataclasses
import json
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextjax.files import is_remote, write_whole
from contextjax.types import UserError, listed


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of a file is read."""

    bytes: int
    values: int  # an empty list takes two bytes of a file, and fifty of memory


ORDINARY = Limits(256_000_000, 20_000_000)
# Pictures with a text each, millions of rows: 5 million captions are some 600 MB and 20 million values (a row's braces
# and commas, and the commas of its text, too), and take 3 GB of memory, about what the worst file within these limits
# takes.
LONG_LIST = Limits(1_500_000_000, 50_000_000)
MAX_DEPTH = 100


def check_file(path: Any, *, limit: int) -> None:
    """Checks that a path, or what has its `stat`, is a regular file of at most `limit` bytes: a pipe would never end.

    Raises:
      OSError: the file is missing, or may not be read.
      UserError: it is not a regular file, or is larger.
    """
    try:
        status: Any = path.stat()  # follows links: a folder of links to pictures is as good as one of pictures
    except ValueError as error:
        raise FileNotFoundError(str(error)) from error
    is_regular, size = (
        (not status.is_directory, status.length) if is_remote(path) else (stat.S_ISREG(status.st_mode), status.st_size)
    )
    if not is_regular:
        raise UserError(f"{path} is no regular file; put a file there or remove it.")
    if size > limit:
        raise UserError(f"{path} has {size:,} bytes; at most {limit:,} are read: split or remove it.")


def read_text(path: Path, *, layout: str, remedy: str = "download it again", limits: Limits = ORDINARY) -> str:
    """Returns the text of a file, which is UTF-8 with or without a byte order mark.

    Args:
      path: the file.
      layout: whose layout the file belongs to, for the messages: "CIRR", "a run".
      remedy: what to do where the file can't be read, for the messages.
      limits: how much is read.

    Raises:
      UserError: the file is missing, is no regular file, is larger or holds more than is read, or is not UTF-8.
    """
    try:
        check_file(path, limit=limits.bytes)
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is missing; expected {layout}'s layout: check the folder, or {remedy}.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}); expected {layout}'s file: {remedy}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); expected {layout}'s file: save it as UTF-8.") from error
    values = sum(map(text.count, ",[{"))
    if values > limits.values:
        raise UserError(f"{path} holds some {values:,} values; at most {limits.values:,} are read: split or remove it.")
    return text


def read_json(
    path: Path, kind: type = dict, *, layout: str, remedy: str = "download it again", limits: Limits = ORDINARY
) -> Any:
    """Returns the contents of a JSON file.

    Args:
      path: the file.
      kind: dict or list, whichever the file has to hold.
      layout: whose layout the file belongs to, for the messages: "CIRR", "a run".
      remedy: what to do where the file can't be read, for the messages.
      limits: how much is read.

    Raises:
      UserError: as read_text; or the file is not JSON as `parse_json` takes it, or holds something else.

    Example:
      >>> read_json(workdir / "config.json", layout="a run", remedy="copy it again")
    """
    text = read_text(path, layout=layout, remedy=remedy, limits=limits)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); expected {layout}'s file: {remedy}.") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds a {type(content).__name__}; expected {layout}'s {kind.__name__}: {remedy}.")
    return content


def parse_json(text: str | bytes, *, allow_nan: bool = False, repeated: Counter[str] | None = None) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: the text, or its bytes in UTF-8.
      allow_nan: takes NaN and the infinities, which Python writes and JSON does not have.
      repeated: gets the keys that an object gives more than once, with how often; None: such a key is an error.

    Raises:
      ValueError: the text is no JSON, gives a key twice, is nested deeper than MAX_DEPTH, or has halves of characters,
        which no UTF-8 text has.
    """
    text = text if isinstance(text, str) else text.decode("utf-8-sig")
    counts: Counter[str] = Counter()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            counts.update({key: n for key, n in Counter(key for key, _ in pairs).items() if n > 1})
        return value

    refuse = None if allow_nan else _refuse_constant
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if repeated is not None:
        repeated.update(counts)
    elif counts:
        names = listed([f"'{key[:60]}' {count} times" for key, count in counts.items()])
        raise ValueError(f"it has keys more than once: {names}")
    _check_depth(value)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_lines(path: Path, is_sound: Callable[[Any], bool], *, allow_nan: bool = False) -> tuple[list[Any], bytes]:
    """Returns the sound values of a file that a program of ours adds a JSON line to at a time, and its damaged lines.

    A line is damaged where it is no UTF-8, no JSON, or not `is_sound`; the lines after it are as good as before. A last
    line without an end that is no JSON was cut by an interruption, and is left out. A file that is not there is empty.

    Raises:
      OSError: the file can't be read.
    """
    values: list[Any] = []
    damaged = b""
    *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate([*lines, last]):
        if not line.strip():
            continue
        try:
            value = parse_json(line, allow_nan=allow_nan)
            if not is_sound(value):
                raise ValueError
            values.append(value)
        except ValueError:
            damaged += line + b"\n" if number < len(lines) else b""
    return values, damaged


def set_aside_lines(path: Path, damaged: bytes) -> None:
    """Adds damaged lines of a file to FILE.damaged beside it, and prints that; the caller writes FILE without them."""
    if not damaged:
        return
    place = path.with_name(f"{path.name}.damaged")
    before = place.read_bytes() if place.exists() else b""
    write_whole(place, before + damaged, is_kept=True)
    count = damaged.count(b"\n")
    print(
        f"{path} has {count} damaged line{'s' * (count > 1)}: set aside in {place.name}; all others are kept.",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [member for group in level for member in _members(group) if isinstance(member, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _members(group: Any) -> Any:
    return group.values() if isinstance(group, dict) else group if isinstance(group, list) else ()
