"""Attributes of an index's pictures, by name: read from a table (CSV or parquet), and kept beside the embeddings."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import decimal
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.files import is_utf8, write_whole
from contextjax.json_files import LONG_LIST, read_json, read_text
from contextjax.serving.filters import KINDS, Value
from contextjax.types import UserError, listed

FILE = "attributes.json"
NAME_COLUMNS = ("name", "file_name")  # the first of these that a table has holds the pictures' names
NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")  # 007 is a text
TRUTH = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Attributes:
    """A table: the names of pictures, and columns with the value of each, None where there is none."""

    names: Sequence[str]
    columns: Mapping[str, Sequence[Value | None]]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column: "text", "number" or "truth value"; an empty column is a text."""
        first = lambda values: next((value for value in values if value is not None), "")
        return {name: KINDS[type(first(values))] for name, values in self.columns.items()}

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def of(self, names: Sequence[str]) -> Attributes:
        """Returns the table with these rows, in this order; names that it lacks have no values."""
        rows = [self._row_of.get(name) for name in names]
        pick = lambda values: [None if at is None else values[at] for at in rows]
        return Attributes(list(names), {name: pick(values) for name, values in self.columns.items()})

    def rows(self) -> list[dict[str, Value]]:
        """Returns the values of each row by the names of their columns, without those that are missing."""
        cells = ({c: values[row] for c, values in self.columns.items()} for row in range(len(self.names)))
        return [{name: value for name, value in row.items() if value is not None} for row in cells]

    def write(self, folder: Path) -> None:
        """Writes the table into the folder of an index, in one move."""
        text = json.dumps({"names": list(self.names), "columns": {k: list(v) for k, v in self.columns.items()}})
        write_whole(folder / FILE, text, is_kept=True)

    @classmethod
    def open(cls, folder: Path) -> Attributes:
        """Returns the table of the index in a folder; one without columns where there is none.

        Raises:
          UserError: the file is damaged.
        """
        file = folder / FILE
        if not file.exists():
            return cls([], {})
        remedy = "embed with --attributes=TABLE again"
        content = read_json(file, layout="an index", remedy=remedy, limits=LONG_LIST)
        names, columns = content.get("names"), content.get("columns")
        if not isinstance(names, list) or not isinstance(columns, dict):
            raise UserError(f"{file} is no table of attributes; {remedy}.")
        if any(not isinstance(each, list) or len(each) != len(names) for each in columns.values()):
            raise UserError(f"{file} has columns that are no lists of {len(names)} values; {remedy}.")
        return cls(names, {name: _checked(file, name, values) for name, values in columns.items()})


def read_table(file: Path) -> Attributes:
    """Reads a table of attributes: a CSV file with a header, or a parquet file (which needs pyarrow).

    The column "name" or "file_name" has the names of the pictures as the index has them. An empty cell is a missing
    value. A column of a CSV file is of numbers where all other cells are numbers, of truth values where all are true or
    false, and else of texts. Dates of a parquet file become texts (2026-11-29), which compare as dates do.

    Raises:
      UserError: the file is missing or can't be read, has no names or repeats one, or a column holds values of several
        kinds or of an unknown one.
    """
    columns = _read_parquet(file) if file.suffix.lower() in (".parquet", ".pq") else _read_csv(file)
    key = next((name for name in NAME_COLUMNS if name in columns), None)
    if key is None:
        raise UserError(
            f"{file} has the columns {listed(list(columns))}; expected 'name' (or 'file_name'), the pictures' names."
        )
    names = columns.pop(key)
    if bad := [name for name in names if not isinstance(name, str) or not name or not is_utf8(name)]:
        raise UserError(f"{file} has {len(bad)} row(s) whose '{key}' is no name, such as {bad[0]!r}; give each a name.")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file} has {listed(repeated)} more than once; expected one row for each picture.")
    return Attributes(names, {name: _checked(file, name, values) for name, values in columns.items()})


def _read_csv(file: Path) -> dict[str, list[Any]]:
    text = read_text(file, layout="a table", remedy="give a CSV or a parquet file", limits=LONG_LIST)
    head = text.partition("\n")[0]
    try:
        rows = [row for row in csv.reader(text.splitlines(True), delimiter=max(",;\t", key=head.count)) if row]
    except csv.Error as error:
        raise UserError(f"{file} is no CSV file ({error}); expected one with a header, or a parquet file.") from error
    if not rows:
        raise UserError(f"{file} is empty; expected a CSV file with a header, or a parquet file.")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header) or "" in header:
        raise UserError(f"{file} has the header {listed(header)}; expected a name for each column, all different.")
    if uneven := [number for number, row in enumerate(rows, start=1) if len(row) != len(header)]:
        raise UserError(
            f"Row {uneven[0]} of {file} has {len(rows[uneven[0] - 1])} cells; expected {len(header)}, as its header."
        )
    cells = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in header)
    return {name: list(own) if name in NAME_COLUMNS else _typed(own) for name, own in zip(header, cells, strict=True)}


def _typed(cells: Sequence[str]) -> list[Value | None]:
    """Returns the values of a CSV column's cells, all of one kind; None for an empty cell."""
    given = [cell.strip() for cell in cells if cell.strip()]
    if given and all(cell.lower() in TRUTH for cell in given):
        read: Any = lambda cell: TRUTH[cell.lower()]
    elif given and all(NUMBER.fullmatch(cell) and len(cell) < 300 for cell in given):
        read = lambda cell: int(cell) if re.fullmatch(r"[+-]?\d{1,18}", cell) else float(cell)
    else:
        return [cell if cell.strip() else None for cell in cells]
    return [read(cell.strip()) if cell.strip() else None for cell in cells]


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"A parquet file needs pyarrow ({error}); pip install 'contextjax[tables]', or give a CSV."
        ) from error
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{file} can't be read as a parquet file ({reason}); give a whole one, or a CSV.") from error
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    if len(set(names)) < len(names):
        raise UserError(f"{file} has the columns {listed(names)}; expected different names.")
    return {name: table.column(name).to_pylist() for name in names}


def _checked(file: Path, column: str, values: Sequence[Any]) -> list[Value | None]:
    """Returns the values of a column as they are kept, all of one kind."""
    kept: list[Value | None] = []
    for value in values:
        if isinstance(value, decimal.Decimal):
            value = float(value)
        elif isinstance(value, datetime.date | datetime.time):
            value = value.isoformat()
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if value is not None and (type(value) not in KINDS or (isinstance(value, str) and not is_utf8(value))):
            raise UserError(
                f"The column '{column}' of {file} holds {ascii(value)[:60]}; expected numbers, texts, dates or truth "
                "values."
            )
        kept.append(value)
    if len(kinds := {KINDS[type(value)] for value in kept if value is not None}) > 1:
        raise UserError(f"The column '{column}' of {file} holds values of kinds {listed(sorted(kinds))}; expected one.")
    return kept
