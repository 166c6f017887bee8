"""The rows of an annotation file, their values asked for by key and type; what is wrong with one is a Fault."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from types import UnionType
from typing import Any, TypeVar

from data_pipelines.records import stays_inside

Found = TypeVar("Found")


class Fault(ValueError):
    """What is wrong with a row, as "has no target"."""


def parse(
    rows: Iterable[Any], make: Callable[[int, Any], Iterable[Found]], *, file: str
) -> tuple[list[Found], list[str]]:
    """All that `make` gives for (number, row) of the rows, and the Faults that it raises, each with its place."""
    found, problems = [], []
    for number, row in enumerate(rows):
        try:
            found += make(number, row)
        except Fault as fault:
            problems.append(f"row {number} of {file} {fault}")
    return found, problems


def value(row: Any, key: str, kind: type | UnionType, what: str) -> Any:
    """row[key], of this type. Raises Fault."""
    if not isinstance(row, dict) or key not in row:
        raise Fault(f"has no {key}, expected {what} ({str(row)[:80]})")
    if not isinstance(row[key], kind) or isinstance(row[key], bool):
        raise Fault(f"has {str(row[key])[:80]!r} for its {key}, expected {what}")
    return row[key]


def has(row: Any, key: str) -> bool:
    """Whether a row has such a key, and not null for it."""
    return isinstance(row, dict) and row.get(key) is not None


def text(row: Any, key: str) -> str:
    """A text of a row."""
    return checked_text(value(row, key, str, "a text"), key)


def name(row: Any, key: str) -> str:
    """A name or a whole number of a row, as a text."""
    found = value(row, key, str | int, "a name or whole number")
    return checked_text(str(found), key)


def maybe(row: Any, key: str) -> str | None:
    """`name`, or None where the row has none, as rows of test splits."""
    return name(row, key) if has(row, key) else None


def items(row: Any, key: str, kind: type | UnionType = str, what: str = "a list of texts") -> list[Any]:
    """A list of a row, of values of one type."""
    found = value(row, key, list, what)
    if not all(isinstance(item, kind) and not isinstance(item, bool) for item in found):
        raise Fault(f"has {str(found)[:80]} for its {key}, expected {what}")
    return [checked_text(item, key) if isinstance(item, str) else item for item in found]


def path(row: Any, key: str) -> str:
    """A relative path of a row, in its plain form: "./a.png" and "a.png" are one picture."""
    return plain_path(text(row, key), key)


def plain_path(found: Any, key: str) -> str:
    """A relative path in its plain form. Raises Fault where it is none, or leaves its folder."""
    plain = _plain(checked_text(found, key)) if isinstance(found, str) else ""
    if not plain:
        raise Fault(f"has {str(found)[:80]!r} for its {key}, which is no path inside the folder")
    return plain


@functools.lru_cache(1 << 18)  # queries name the same pictures again and again
def _plain(found: str) -> str:
    return str(PurePosixPath(found)) if stays_inside(found) else ""


def checked_text(found: str, key: str) -> str:
    """The text. Raises Fault where it holds half a character, which JSON can write and no file can."""
    if not found.isascii() and any("\ud800" <= character <= "\udfff" for character in found):
        raise Fault(f"has {found[:80]!r} for its {key}, expected whole characters")
    return found
