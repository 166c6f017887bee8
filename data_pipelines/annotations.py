"""The rows of an annotation file: their values by key and type. A wrong value is a Fault, reported with its row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath, PureWindowsPath
from types import UnionType
from typing import Any, TypeVar

Result = TypeVar("Result")


class Fault(ValueError):
    """An error in a row, worded to continue "row 3 of train.json", such as "has no target"."""


def parse(
    rows: Iterable[Any], make: Callable[[int, Any], Iterable[Result]], *, file: str
) -> tuple[list[Result], list[str]]:
    """Calls `make` on each row, and collects results and faults.

    Args:
      rows: the rows of a file.
      make: takes a row's number and the row; may raise Fault.
      file: the file's name, for the problems.

    Returns:
      (the results of `make`, the Faults that it raised as problems that name their rows).
    """
    results, problems = [], []
    for number, row in enumerate(rows):
        try:
            results += make(number, row)
        except Fault as fault:
            problems.append(f"row {number} of {file} {fault}")
    return results, problems


def value(row: Any, key: str, kind: type | UnionType, what: str) -> Any:
    """Returns row[key].

    Raises:
      Fault: the row has no such key, or its value is of another type than `kind`, which the message calls `what`.
    """
    if not isinstance(row, dict) or key not in row:
        raise Fault(f"has no {key}, expected {what} ({str(row)[:80]})")
    if not isinstance(row[key], kind) or isinstance(row[key], bool):
        raise Fault(f"has {str(row[key])[:80]!r} for its {key}, expected {what}")
    return row[key]


def has(row: Any, key: str) -> bool:
    """Returns whether a row has a value other than null for a key."""
    return isinstance(row, dict) and row.get(key) is not None


def text(row: Any, key: str) -> str:
    """Returns a text of a row."""
    return checked_text(value(row, key, str, "a text"), key)


def words(row: Any, key: str) -> str:
    """Returns a text that published files may leave blank; "" for null. Readers keep such a record, see readers."""
    return "" if isinstance(row, dict) and key in row and row[key] is None else text(row, key)


def name(row: Any, key: str) -> str:
    """Returns a name or a whole number of a row, as a text."""
    return checked_text(str(value(row, key, str | int, "a name or whole number")), key)


def optional_name(row: Any, key: str) -> str | None:
    """Returns a name as `name` does, or None where the row has none, as rows of test splits."""
    return name(row, key) if has(row, key) else None


def items(row: Any, key: str, kind: type | UnionType = str, what: str = "a list of texts") -> list[Any]:
    """Returns a list of a row, whose values are of one type."""
    members = value(row, key, list, what)
    if not all(isinstance(item, kind) and not isinstance(item, bool) for item in members):
        raise Fault(f"has {str(members)[:80]} for its {key}, expected {what}")
    return [checked_text(item, key) if isinstance(item, str) else item for item in members]


def texts(row: Any, key: str) -> list[str]:
    """Returns a list of texts, of which published files may leave some blank; "" for null, as `words`."""
    members = value(row, key, list, "a list of texts")
    if not all(isinstance(item, str | None) for item in members):
        raise Fault(f"has {str(members)[:80]} for its {key}, expected a list of texts")
    return [checked_text(item or "", key) for item in members]


def path(row: Any, key: str) -> str:
    """Returns a relative path of a row, in its plain form: "./a.png" and "a.png" are one picture."""
    return plain_path(text(row, key), key)


def plain_path(given: Any, key: str) -> str:
    """Returns a relative path in its plain form.

    Raises:
      Fault: `given` is no path, or a path that leaves its folder.
    """
    plain = _plain(checked_text(given, key)) if isinstance(given, str) else ""
    if not plain:
        raise Fault(f"has {str(given)[:80]!r} for its {key}, which is no path inside the folder")
    return plain


@functools.lru_cache(1 << 18)  # queries name the same pictures again and again
def _plain(given: str) -> str:
    return str(PurePosixPath(given)) if stays_inside(given) else ""


def stays_inside(given: str) -> bool:
    """Returns whether a path that an annotation file names lies in its own folder: relative, and never going up."""
    parsed = PureWindowsPath(given)  # takes both slashes for separators, and knows drives
    return bool(parsed.parts) and not parsed.anchor and ".." not in parsed.parts and "\0" not in given


def checked_text(given: str, key: str) -> str:
    """Returns the text.

    Raises:
      Fault: the text holds a lone surrogate, which JSON can express and UTF-8 cannot.
    """
    if not given.isascii() and any("\ud800" <= character <= "\udfff" for character in given):
        raise Fault(f"has {given[:80]!r} for its {key}, expected whole characters")
    return given
