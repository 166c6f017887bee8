"""Products from the tables of a catalogue, with the faults of all rows."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from contextjax.files import existing
from contextjax.json_files import LONG_LIST, check_file
from contextjax.types import UserError
from data_pipelines import annotations
from data_pipelines.datasets.catalogue.layout import CatalogueLayout
from data_pipelines.datasets.catalogue.wording import canonical

MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# What tables write where a value is missing, by its letters and digits: "N/A", "n.a.", "--" and "?" are among them.
NO_VALUE = {"", "na", "nan", "nil", "none", "notapplicable", "notavailable", "notspecified", "null", "undefined",
            "unknown", "unspecified"}  # fmt: skip
DELIMITERS = (",", ";", "\t")
VAL, TEST = 1, 0  # last digits of the ids of these splits; all others are trained on


@dataclasses.dataclass(frozen=True)
class Product:
    """A row of a catalogue.

    Attributes:
      id: the product's id.
      picture: path of its picture, relative to the folder.
      values: its attributes in the layout's order, as texts say them (see wording.canonical): "Tshirt" and "Tshirts"
        are one value; "" where the table has none.
      title: a text about it; "" where there is none.
      split: the name of its split.
    """

    id: str
    picture: str
    values: tuple[str, ...]
    title: str
    split: str

    @property
    def is_complete(self) -> bool:
        """True if every attribute has a value."""
        return all(self.values)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All products of the tables that have no fault, in the order of their ids, and the faults of the others."""

    products: tuple[Product, ...]
    faults: tuple[str, ...]


def read_catalogue(folder: Path, layout: CatalogueLayout) -> Catalogue:
    """Reads the tables, and looks up which pictures are there.

    Faults are rows with too few or too many values, quotation marks that are not closed where they should be, ids that
    are missing or come twice, paths that leave the folder, and pictures that are not there.

    Raises:
      UserError: a table is missing, has another encoding, lacks an end of quotation or a column, or has a column twice.
    """
    first, *others = _tables(folder, layout)
    known = {column for table in (first, *others) for column in table.columns}
    absent = [column for column in layout.columns if column not in known]
    if absent:
        raise UserError(
            f"The tables of {folder} have no column {', '.join(absent)}; they have {', '.join(sorted(known))}: correct "
            "the names of the columns."
        )
    more = [table.by_id() for table in others]
    there: dict[Path, dict[str, str]] = {}
    products = []
    for number, row in first.once():
        whole = dict.fromkeys(known, "")
        for table in (*more, {row[layout.id]: row}):
            whole |= table.get(row[layout.id], {})
        try:
            product = _product(whole, layout)
            path = folder / product.picture
            if path.parent not in there:
                there[path.parent] = _names(path.parent)
            _check_picture(path, product.picture, there[path.parent])
            products.append(product)
        except annotations.Fault as fault:
            first.faults[number] = str(fault)
    faults = [f"line {n} of {table.path.name} {table.faults[n]}" for table in (first, *others)
              for n in sorted(table.faults)]  # fmt: skip
    return Catalogue(tuple(sorted(products, key=lambda product: product.id)), tuple(faults))


def _tables(folder: Path, layout: CatalogueLayout) -> list[_Table]:
    """Reads the tables. Raises UserError with a sentence for each that can't be read."""
    tables, faults = [], []
    for name in layout.tables:
        try:
            tables.append(_Table(folder / name, layout))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(" ".join(faults))
    return tables


def split_of(id: str) -> str:
    """Returns the split of a product: by the last digit of its id 1 is val, 0 is test and the others are train.

    The hash of an id decides where the id is no number.
    """
    is_number = id.isascii() and id.isdecimal()
    digit = (int(id[-1]) if is_number else hashlib.blake2b(id.encode()).digest()[0]) % 10
    return {VAL: "val", TEST: "test"}.get(digit, "train")


class _Table:
    """A CSV file: its columns, its rows with their lines, and the faults of the others.

    Attributes:
      path: the file.
      columns: its columns, in order.
      faults: line -> what is wrong with a row that is left out.
    """

    def __init__(self, path: Path, layout: CatalogueLayout):
        self.path, self._layout = path, layout
        text = _decode(path, layout.encoding)
        delimiter, header = _header(path, text, layout.id)
        self.columns = [name for name in header if name]
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise UserError(f"{path} has the column {twice[0]} twice; rename one of the two.")
        self._id = self.columns.index(layout.id)
        self.faults: dict[int, str] = {}
        self._rows = list(self._read(text, delimiter))

    def once(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields line and row; rows whose id has come before are reported as faults."""
        lines: dict[str, int] = {}
        for number, row in self._rows:
            id = row[self._layout.id]
            if id in lines:
                self.faults[number] = f"has the id {id} of line {lines[id]}"
                continue
            lines[id] = number
            yield number, row

    def by_id(self) -> dict[str, dict[str, str]]:
        """Returns the rows by id; of two with one id, the first."""
        return {row[self._layout.id]: row for _, row in self.once()}

    def _read(self, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        number, count = 1, len(self.columns)
        try:
            next(lines)
            while True:
                number = lines.line_num + 1
                try:
                    values = next(lines)
                except csv.Error as error:
                    if "expected after" not in str(error):
                        raise
                    inside = "has a quotation mark within a value; double it"
                    self.faults[number] = _left_open(lines.line_num) if lines.line_num > number else inside
                    continue
                if not any(value.strip() for value in values):
                    continue
                fault = self._fault(values, delimiter, lines.line_num)
                if fault:
                    self.faults[number] = fault
                    continue
                # A title with commas that no quotation marks protect takes all values that are left.
                values = [*values[: count - 1], delimiter.join(values[count - 1 :]).rstrip(delimiter)]
                plain = (unicodedata.normalize("NFC", value.strip()) for value in values)
                yield number, dict(zip(self.columns, plain, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{self.path} can't be read from line {number} on ({error}); close the quotation marks there, or write "
                "the table again."
            ) from error

    def _fault(self, values: Sequence[str], delimiter: str, end: int) -> str:
        """Returns what is wrong with the values of a row that ends in line `end`; "" if nothing is."""
        count = len(self.columns)
        inner = [line.split(delimiter) for value in values for line in value.splitlines()[1:]]
        if any(len(row) >= count and _is_like_an_id(row[self._id]) for row in inner):
            return _left_open(end)
        ends_in_title = self.columns[-1] == self._layout.title
        if len(values) < count or (any(values[count:]) and not ends_in_title):
            return f"has {len(values)} values, expected {count}"
        return "" if values[self._id].strip() else "has no id"


def _is_like_an_id(value: str) -> bool:
    """Returns whether a value is one word with a digit, as ids are and the words of a title mostly are not."""
    return len(value.split()) == 1 and any(map(str.isdecimal, value))


def _left_open(end: int) -> str:
    """Returns the fault of a row whose quotation mark takes in the lines that follow, up to line `end`."""
    return f"has a value that goes on to line {end} and takes in the rows between; close its quotation mark"


def _decode(path: Path, encoding: str) -> str:
    try:
        check_file(path, limit=LONG_LIST.bytes)
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is missing; expected a table of the catalogue: check the path.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}); expected a table of the catalogue.") from error
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), encoding)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not {encoding} (line {line}: {error.reason}); save it as UTF-8, or give its encoding, such as "
            "cp1252."
        ) from error


def _header(path: Path, text: str, id: str) -> tuple[str, list[str]]:
    """Returns the delimiter and the names of the columns."""
    first = io.StringIO(text, newline="").readline()
    read = lambda mark: [name.strip() for name in next(csv.reader([first], delimiter=mark), [])]
    try:
        headers = {mark: read(mark) for mark in DELIMITERS}
    except csv.Error as error:
        raise UserError(
            f"{path} has no header ({error}); expected the names of its columns in the first line."
        ) from error
    for delimiter, header in headers.items():
        if id in header:
            while header and not header[-1]:  # unnamed columns at the end hold what an unprotected comma cut off
                header.pop()
            if all(header):
                return delimiter, header
            raise UserError(f"{path} has a column without a name; name it.")
    widest = max(headers.values(), key=len)
    if not any(widest):
        raise UserError(f"{path} begins with an empty line; expected the names of its columns, '{id}' among them.")
    raise UserError(f"{path} has no column '{id}'; it has {', '.join(widest)}: correct the name of the id's column.")


def _product(row: dict[str, str], layout: CatalogueLayout) -> Product:
    id = row[layout.id]
    split = row[layout.split] if layout.split else split_of(id)
    if not annotations.stays_inside(split) or len(Path(split).parts) != 1:
        raise annotations.Fault(f"has {split[:40]!r} for its split, expected a name such as train or val")
    return Product(
        id=id,
        picture=layout.picture_of(row),
        values=tuple(_value(row[column], role) for column, role in layout.attributes.items()),
        title=" ".join(row[layout.title].split()) if layout.title else "",
        split=split,
    )


def _value(given: str, role: str) -> str:
    letters = "".join(filter(str.isalnum, given)).lower()
    return "" if letters in NO_VALUE else canonical(given, role)


def _check_picture(path: Path, name: str, there: Mapping[str, str]) -> None:
    """Raises annotations.Fault where a picture is no file. `there`: the files of its folder, by their small letters."""
    alike = there.get(path.name.lower(), "")
    try:
        if alike == path.name or existing(path).is_file():
            return
    except OSError:  # a name that is too long, for example
        pass
    if alike:
        raise annotations.Fault(f"has no picture {name}, but {alike} is there: correct the pattern of the pictures")
    lacking = "" if path.parent.is_dir() else f", nor is there a folder {Path(name).parent}"
    raise annotations.Fault(f"has no picture {name}{lacking}")


def _names(folder: Path) -> dict[str, str]:
    """Returns the files of a folder by their names in small letters."""
    try:
        return {entry.name.lower(): entry.name for entry in os.scandir(folder) if entry.is_file()}
    except OSError:
        return {}
