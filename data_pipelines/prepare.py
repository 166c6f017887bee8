"""Checks a split and writes it as two tables beside the data, with a census of their contents.

The tables lie under a fingerprint of the annotation files: changed annotations are prepared again, unchanged ones never
twice. Where splits or readers of a folder list the same pictures, they are written once, and links share their files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contextjax import images
from contextjax.files import locked
from contextjax.json_files import LONG_LIST, check_file
from contextjax.threads import available_cpus, map_ahead
from contextjax.types import CaptionRecord, UserError
from data_pipelines import census
from data_pipelines.readers import DatasetReader
from data_pipelines.records import PictureFile, check_problems, named_pictures
from data_pipelines.store import VERSION, StoredRows, StoredTable

POLICIES = ("fail", "skip")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The tables of a prepared split.

    Attributes:
      place: the folder of the tables.
      pictures: rows of the picture table.
      records: rows of the record table.
      ids: ids of the pictures, by row.
      captions: captions of the pictures, by row; "" where there is none.
      census: see census.lines.
    """

    place: Path
    pictures: StoredRows
    records: StoredRows
    ids: list[str]
    captions: list[str]
    census: Mapping[str, Any]


def fingerprint(reader: DatasetReader[Any]) -> str:
    """Returns twelve hex digits that change when an annotation file does.

    Raises:
      UserError: an annotation file cannot be read.
    """
    digest = hashlib.blake2b(VERSION.encode(), digest_size=6)
    for path in reader.annotation_files():
        try:
            check_file(path, limit=LONG_LIST.bytes)
            digest.update(path.name.encode(errors="surrogateescape") + b"\0")
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"The annotation file {path} can't be read ({error}); check the folder.") from error
    return digest.hexdigest()


def prepare(reader: DatasetReader[Any], folder: Path, split: str, *, bad_pictures: str = "fail") -> Prepared:
    """Returns the tables of a split, written first where they are missing or where pictures have come since.

    Args:
      reader: the data set's reader.
      folder: the data set's folder; tables go to its `prepared/`.
      split: one of reader.splits.
      bad_pictures: "fail", or "skip", which leaves out missing and unreadable pictures and the records that name them.

    Raises:
      UserError: the split or the policy is unknown, or the data set has problems; the message lists all of them.
    """
    if split not in reader.splits:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(reader.splits)}.")
    if bad_pictures not in POLICIES:
        raise UserError(f"data.bad_pictures is '{bad_pictures}'; expected one of {', '.join(POLICIES)}.")
    place = folder / "prepared" / fingerprint(reader)
    with locked(place):
        pictures = StoredTable(place, f"pictures.{split}", about=f"pictures.{split}.json")
        if pictures.about is None or _is_outdated(pictures.about, reader.pictures(split)):
            _write_pictures(pictures, reader, folder, split, bad_pictures)
        known: Any = pictures.about
        if bad_pictures == "fail":
            check_problems(list(known["left_out"].values()), f"The pictures of split '{split}'")
        # A folder of other records may be read as captions too, into a table beside theirs with the same pictures.
        kind, file = ("captions", "census.captions") if reader.record_type is CaptionRecord else ("records", "census")
        records = StoredTable(place, f"{kind}.{split}", about=f"{file}.{split}.json")
        if records.about is None or records.about["made_with"] != known["made"]:
            _write_records(records, reader, split, known)
        rows = StoredRows(pictures.folder), StoredRows(records.folder)
        return Prepared(place, *rows, known["ids"], known["captions"], records.about or {})


def read_bytes(file: PictureFile, name: str) -> bytes:
    """Returns the encoded bytes of a picture.

    Raises:
      UserError: there is no such file, it is no regular one, or it is too large.
    """
    path = Path(str(file))
    try:
        check_file(path, limit=images.MAX_BYTES)
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name} has no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name}'s file {path} can't be read ({error})") from error


@dataclasses.dataclass(frozen=True)
class _CheckedPicture:
    name: str
    data: bytes = b""
    side: tuple[int, int] = (0, 0)
    problem: str = ""


def _check(folder: Path, picture: tuple[str, PictureFile]) -> _CheckedPicture:
    """Reads and decodes a picture (id, file), so that bad ones are known before training."""
    name, file = picture
    try:
        if name != name.encode(errors="replace").decode():
            raise UserError(f"{name!r} has a name that is no UTF-8")
        if ".." in Path(os.path.relpath(str(file), folder)).parts:
            raise UserError(f"{name} is {file}, outside the data set's folder")
        data = read_bytes(file, name)
        return _CheckedPicture(name, data, images.decode(data, name=f"Picture {name}").size)
    except UserError as error:
        return _CheckedPicture(name, problem=str(error).rstrip("."))


def _write_pictures(
    table: StoredTable, reader: DatasetReader[Any], folder: Path, split: str, bad_pictures: str
) -> None:
    files, captions = reader.pictures(split), reader.captions(split)
    listed = _list_digest(files, folder)
    if twin := _twin(folder, listed):
        reader.records(split)  # as below: no pictures are kept for faulty records
        known: Any = twin.about
        if table.link(twin, known | {"captions": [captions.get(name, "") for name in known["ids"]]}):
            return
    left_out: dict[str, str] = {}
    seen: list[tuple[str, tuple[int, int], int, bytes]] = []

    def rows() -> Iterator[dict[str, Any]]:
        ahead = 2 * available_cpus()  # few, since their bytes are held in memory
        for picture in map_ahead(functools.partial(_check, folder), files.items(), ahead=ahead):
            if picture.problem:
                left_out[picture.name] = picture.problem
                continue
            digest = hashlib.blake2b(picture.data, digest_size=8).digest()
            seen.append((picture.name, picture.side, len(picture.data), digest))
            yield {"image": io.BytesIO(picture.data)}
        problems = list(left_out.values()) if bad_pictures == "fail" else []
        try:  # all problems are reported at once, and no pictures are kept for faulty records
            reader.records(split)
        except UserError as error:
            if not problems:
                raise
            problems.append(str(error))
        check_problems(problems, f"The pictures of split '{split}'")
        if not seen:
            raise UserError(f"Split '{split}' of {folder} has no readable picture; expected at least one.")

    def about() -> dict[str, Any]:
        ids = [name for name, *_ in seen]
        made = hashlib.blake2b(
            json.dumps([ids, left_out]).encode() + b"".join(digest for *_, digest in seen), digest_size=8
        )
        return {
            "made": made.hexdigest(),
            "listed": listed,
            "ids": ids,
            "captions": [captions.get(name, "") for name in ids],
            "left_out": left_out,
            "seen": {name: _state(files[name]) for name in left_out},
            "census": census.about_pictures(seen),
        }

    import tensorflow_datasets as tfds

    table.write({"image": tfds.features.Image()}, rows(), about)


def _list_digest(files: Mapping[str, PictureFile], folder: Path) -> str:
    """Returns a digest that is the same for splits that list the same pictures, of unchanged files, in one order."""
    region = lambda file: "" if isinstance(file, Path) else repr(dataclasses.replace(file, path=Path()))
    rows = [[name, os.path.relpath(str(file), folder), region(file), _state(file)] for name, file in files.items()]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def _twin(folder: Path, listed: str) -> StoredTable | None:
    """Returns a complete table of the same pictures, of another split or another reader of this folder.

    There are such tables: several sets have texts of CIRR's pictures, and CIRCO's splits have one gallery.
    """
    for path in sorted((folder / "prepared").glob("*/pictures.*.json")):
        table = StoredTable(path.parent, path.stem, about=path.name)
        if table.about and table.about.get("listed") == listed and not table.about["left_out"]:
            return table
    return None


def _is_outdated(about: Mapping[str, Any], files: Mapping[str, PictureFile]) -> bool:
    """Returns whether pictures have come since the table was written. Removed pictures are still in the table."""
    seen = about["seen"]
    return not files.keys() <= {*about["ids"], *seen} or any(
        _state(files[name]) != state for name, state in seen.items() if name in files
    )


def _state(file: PictureFile) -> list[int] | None:
    """Returns the time and size of a file, None where there is none."""
    try:
        status = Path(str(file)).stat()
    except (OSError, ValueError):
        return None
    return [status.st_mtime_ns, status.st_size]


def _write_records(table: StoredTable, reader: DatasetReader[Any], split: str, pictures: Mapping[str, Any]) -> None:
    import tensorflow_datasets as tfds

    every, known, bad = reader.records(split), set(pictures["ids"]), pictures["left_out"]
    kept = [r for r in every if known.issuperset(named_pictures(r))] if bad else every
    if not kept:
        raise UserError(f"Every record of split '{split}' names a bad picture; expected some that don't.")
    names = [field.name for field in dataclasses.fields(reader.record_type)]
    rows = ({"record": json.dumps({name: getattr(record, name) for name in names})} for record in kept)
    about = lambda: {
        "made_with": pictures["made"],
        "reader": reader.name,
        "records": census.about_records(kept),
        "pictures": pictures["census"],
        "left_out": bad,
        "records_left_out": len(every) - len(kept),
    }
    table.write({"record": tfds.features.Text()}, rows, about)
