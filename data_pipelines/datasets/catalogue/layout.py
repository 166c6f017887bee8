"""catalogue.json: which tables a catalogue has, and what their columns mean. `contextjax catalogue` writes it.

{"tables": ["styles.csv", "names.csv"],        CSV files of the folder; later ones add columns to the first, by id
 "id": "id",                                   the column of the product's id
 "picture": "images/{id}.jpg",                 the picture's path in the folder; {COLUMN} stands for a value
 "attributes": {"gender": "audience", "articleType": "kind", "baseColour": "colour", "masterCategory": "fixed"},
 "title": "productDisplayName",                (optional) the column of a text about the product
 "split": "",                                  (optional) the column of the split's name; without it the id decides
 "varying": ["baseColour"],                    (optional) the attributes by which the products of a candidate set differ
 "encoding": "utf-8",                          of the tables; a byte order mark goes before it
 "faults": "fail"}                             or "skip": rows with faults and products without a picture are left out
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import UserError
from data_pipelines import annotations

FILE = "catalogue.json"
# How a change of an attribute is worded, see wording.py; an attribute that is "fixed" never changes and is not named.
ROLES = ("colour", "audience", "kind", "plain", "fixed")
FAULTS = ("fail", "skip")


@dataclasses.dataclass(frozen=True)
class CatalogueLayout:
    """The meaning of a catalogue's files and columns.

    Attributes:
      tables: the CSV files, relative to the folder.
      attributes: column -> role, one of ROLES. Products that agree in all of them answer the same query.
      id: the column of the id.
      picture: the picture's path, with {COLUMN} for values.
      title: the column of a text about the product; "": there is none.
      split: the column of the split's name; "": the id decides, see table.split_of.
      varying: the attributes by which the products of a candidate set may differ; none: the colours.
      encoding: the encoding of tables without a byte order mark.
      faults: "fail", or "skip".

    Raises:
      UserError: a value is unknown; the message lists all faults.
    """

    tables: tuple[str, ...]
    attributes: Mapping[str, str]
    id: str = "id"
    picture: str = "images/{id}.jpg"
    title: str = ""
    split: str = ""
    varying: tuple[str, ...] = ()
    encoding: str = "utf-8"
    faults: str = "fail"

    def __post_init__(self) -> None:
        problems = [
            f"the table '{name}', which is no path inside it"
            for name in self.tables
            if not annotations.stays_inside(name)
        ]
        if not self.tables:
            problems.append("no tables, expected at least one CSV file")
        if not set(self.attributes.values()) - {"fixed"}:
            problems.append("no attributes that can change, expected columns by which products differ")
        problems += [
            f"the role '{role}' for {column}, expected one of {', '.join(ROLES)}"
            for column, role in self.attributes.items()
            if role not in ROLES
        ]
        problems += [
            f"'{column}' among those that vary, which is no attribute"
            for column in self.varying
            if column not in self.attributes
        ]
        for role in ("colour", "audience", "kind"):  # a text says the value alone, not whose it is
            if len(columns := [column for column, own in self.attributes.items() if own == role]) > 1:
                problems.append(f"the role {role} for {' and '.join(columns)}, expected one; give the others plain")
        if not self.id:
            problems.append("no column of the id")
        if self.faults not in FAULTS:
            problems.append(f"'{self.faults}' for faults, expected one of {', '.join(FAULTS)}")
        if not _columns(self.picture):
            problems.append(f"the picture '{self.picture}', expected a path with a column, such as images/{{id}}.jpg")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):  # "undefined" is one that encodes nothing
            problems.append(f"the encoding '{self.encoding}', expected one that Python has, such as utf-8 or cp1252")
        if problems:
            raise UserError(f"The catalogue has {'; '.join(problems)}. Correct {FILE}, or the flags that write it.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the tables must have, each once."""
        named = (self.id, *_columns(self.picture), *self.attributes, self.title, self.split)
        return tuple(dict.fromkeys(filter(None, named)))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the attributes, in their order."""
        return tuple(self.attributes.values())

    def picture_of(self, row: Mapping[str, str]) -> str:
        """Returns the path of a product's picture, relative to the folder.

        Raises:
          annotations.Fault: the path leaves the folder.
        """
        parts = string.Formatter().parse(self.picture)
        path = "".join(before + (row[column] if column else "") for before, column, *_ in parts)
        return annotations.plain_path(path, "picture")


def read_layout(folder: Path) -> CatalogueLayout:
    """Returns what catalogue.json of a folder says.

    Raises:
      UserError: there is no such file, or it says something else.
    """
    remedy = "write it with `contextjax catalogue`"
    written = read_json(folder / FILE, dict, layout="a catalogue", remedy=remedy)
    fields = {field.name: field for field in dataclasses.fields(CatalogueLayout)}
    kinds: dict[str, Any] = {"tables": list, "attributes": dict, "varying": list}
    problems = [f"the unknown key '{name}'" for name in written if name not in fields]
    problems += [f"no {name}" for name in ("tables", "attributes") if name not in written]
    problems += [
        f"{str(value)[:40]!r} for {name}"
        for name, value in written.items()
        if name in fields and not _is_of(value, kinds.get(name, str))
    ]
    if problems:
        raise UserError(f"{folder / FILE} has {'; '.join(problems)}; expected a catalogue's description: {remedy}.")
    return make_layout(written)


def make_layout(fields: Mapping[str, Any]) -> CatalogueLayout:
    """Returns the layout of the fields as JSON has them, with lists where the layout has tuples."""
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
    return CatalogueLayout(**values)


def _is_of(value: Any, kind: type) -> bool:
    members = value if kind is list else value.values() if isinstance(value, dict) else ()
    return isinstance(value, kind) and all(isinstance(member, str) for member in members)


def _columns(pattern: str) -> list[str]:
    """Returns the columns in a pattern; none where it has something else in braces, such as a format."""
    try:
        parts = [part for part in string.Formatter().parse(pattern) if part[1] is not None]
    except ValueError:  # an unmatched brace
        return []
    is_plain = all(name and not form and not conversion for _, name, form, conversion in parts)
    return [str(name) for _, name, _, _ in parts] if is_plain else []
