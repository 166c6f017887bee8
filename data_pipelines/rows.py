"""The values of a row of an annotation file, asked for by key and type; what is wrong with one is a Fault."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from data_pipelines.records import stays_inside


class Fault(ValueError):
    """What is wrong with a row of an annotation file."""


def value(row: Any, key: str, kind: type, what: str) -> Any:
    """row[key], of this type. Raises Fault."""
    if not isinstance(row, dict) or key not in row:
        raise Fault(f"has no {key}, expected {what} ({str(row)[:80]})")
    if not isinstance(row[key], kind) or isinstance(row[key], bool):
        raise Fault(f"has {str(row[key])[:80]!r} for its {key}, expected {what}")
    return row[key]


def text(row: Any, key: str) -> str:
    """A text of a row."""
    return value(row, key, str, "a text")


def name(row: Any, key: str) -> str:
    """A name or a whole number of a row, as a text."""
    found = row.get(key) if isinstance(row, dict) else None
    return str(value(row, key, int, "a whole number")) if isinstance(found, int) else text(row, key)


def maybe(row: Any, key: str) -> str | None:
    """`name`, or None where the row has none, as rows of test splits."""
    return name(row, key) if isinstance(row, dict) and row.get(key) is not None else None


def items(row: Any, key: str, kind: type = str, what: str = "a list of texts") -> list[Any]:
    """A list of a row, of values of one type."""
    found = value(row, key, list, what)
    if not all(isinstance(item, kind) and not isinstance(item, bool) for item in found):
        raise Fault(f"has {str(found)[:80]} for its {key}, expected {what}")
    return found


def path(row: Any, key: str) -> str:
    """A relative path of a row, in its plain form: "./a.png" and "a.png" are one picture."""
    return plain_path(text(row, key), key)


def plain_path(found: Any, key: str) -> str:
    """A relative path in its plain form. Raises Fault where it is none, or leaves its folder."""
    if not isinstance(found, str) or not stays_inside(found):
        raise Fault(f"has {str(found)[:80]!r} for its {key}, which is no path inside the folder")
    return str(PurePosixPath(found))
