"""A split, checked and written as two tables beside the data, with a census of what is in them.

They lie under a fingerprint of the annotation files: changed annotations are prepared anew, unchanged ones never twice.
Where splits or readers of a folder list the same pictures, they are written once, and their files shared by links.
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
from data_pipelines.records import check_problems, named_pictures
from data_pipelines.store import VERSION, Rows, Table

POLICIES = ("fail", "skip")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Where the tables of a split are, and what is known of them."""

    place: Path
    pictures: Rows
    records: Rows
    ids: list[str]  # of the pictures, by row
    captions: list[str]  # of the pictures, by row; "" where there is none
    census: Mapping[str, Any]


def fingerprint(reader: DatasetReader[Any]) -> str:
    """Twelve hex digits that change when an annotation file does.

    Raises:
      UserError: one can't be read.
    """
    digest = hashlib.blake2b(VERSION.encode(), digest_size=6)
    for path in reader.annotation_files():
        try:
            check_file(path, limit=LONG_LIST.bytes)
            digest.update(path.name.encode(errors="surrogateescape") + b"\0")
            with path.open("rb") as file:
                for part in iter(lambda: file.read(1 << 20), b""):
                    digest.update(part)
        except OSError as error:
            raise UserError(f"The annotation file {path} can't be read ({error}); check the folder.") from error
    return digest.hexdigest()


def prepare(reader: DatasetReader[Any], folder: Path, split: str, *, bad_pictures: str = "fail") -> Prepared:
    """The tables of a split, written first where they are not, or where pictures have come since.

    Args:
      reader: the data set's reader.
      folder: the data set's folder; tables go to its `prepared/`.
      split: one of reader.splits.
      bad_pictures: what is done about missing and unreadable pictures: "fail", or "skip", which leaves them out, and
        the records that name them.

    Raises:
      UserError: an unknown split or policy, or problems of the data set, all of them at once.
    """
    if split not in reader.splits:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(reader.splits)}.")
    if bad_pictures not in POLICIES:
        raise UserError(f"data.bad_pictures is '{bad_pictures}'; expected one of {', '.join(POLICIES)}.")
    place = folder / "prepared" / fingerprint(reader)
    with locked(place):
        pictures = Table(place, f"pictures.{split}", about=f"pictures.{split}.json")
        if pictures.about is None or _is_outdated(pictures.about, reader.pictures(split)):
            _write_pictures(pictures, reader, folder, split, bad_pictures)
        known: Any = pictures.about
        if bad_pictures == "fail":
            check_problems(list(known["left_out"].values()), f"The pictures of split '{split}'")
        # A folder of other records may be read as captions too: in a table beside theirs, with the same pictures.
        kind, file = ("captions", "census.captions") if reader.record_type is CaptionRecord else ("records", "census")
        records = Table(place, f"{kind}.{split}", about=f"{file}.{split}.json")
        if records.about is None or records.about["made_with"] != known["made"]:
            _write_records(records, reader, split, known)
        found: Any = records.about
        rows = Rows(pictures.folder), Rows(records.folder)
        return Prepared(place, *rows, known["ids"], known["captions"], found)


def read_bytes(source: Any, name: str) -> bytes:
    """The encoded bytes of a picture: a file, or what is read of one.

    Raises:
      UserError: there is no such file, it is no regular one, or too large.
    """
    path = Path(str(source))
    try:
        check_file(path, limit=images.MAX_BYTES)
        return source.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name} has no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name}'s file {path} can't be read ({error})") from error


@dataclasses.dataclass(frozen=True)
class _Checked:
    name: str
    data: bytes = b""
    side: tuple[int, int] = (0, 0)
    problem: str = ""


def _check(folder: Path, named: tuple[str, Any]) -> _Checked:
    """Reads and decodes a picture, to find the bad ones before training does."""
    name, source = named
    try:
        if name != name.encode(errors="replace").decode():
            raise UserError(f"{name!r} has a name that is no UTF-8")
        if ".." in Path(os.path.relpath(str(source), folder)).parts:
            raise UserError(f"{name} is {source}, outside the data set's folder")
        data = read_bytes(source, name)
        return _Checked(name, data, images.decode(data, name=f"Picture {name}").size)
    except UserError as error:
        return _Checked(name, problem=str(error).rstrip("."))


def _checked(pictures: Mapping[str, Any], folder: Path) -> Iterator[_Checked]:
    """All pictures in their order, checked on all cores: Pillow decodes beside Python, so threads do."""
    ahead = 2 * available_cpus()  # so few are held in memory
    return map_ahead(functools.partial(_check, folder), pictures.items(), ahead=ahead)


def _write_pictures(table: Table, reader: DatasetReader[Any], folder: Path, split: str, bad_pictures: str) -> None:
    sources, captions = reader.pictures(split), reader.captions(split)
    listed = _listed(sources, folder)
    if twin := _twin(folder, listed):
        reader.records(split)  # as below: no pictures are kept that don't fit records
        known: Any = twin.about
        if table.link(twin, known | {"captions": [captions.get(name, "") for name in known["ids"]]}):
            return
    left_out: dict[str, str] = {}
    seen: list[tuple[str, tuple[int, int], int, bytes]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for found in _checked(sources, folder):
            if found.problem:
                left_out[found.name] = found.problem
                continue
            digest = hashlib.blake2b(found.data, digest_size=8).digest()
            seen.append((found.name, found.side, len(found.data), digest))
            yield {"image": io.BytesIO(found.data)}
        problems = list(left_out.values()) if bad_pictures == "fail" else []
        try:  # all there is to mend is told at once, and no pictures are kept that don't fit records
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
            "seen": {name: _state(sources[name]) for name in left_out},
            "census": census.about_pictures(seen),
        }

    import tensorflow_datasets as tfds

    table.write({"image": tfds.features.Image()}, rows(), about)


def _listed(sources: Mapping[str, Any], folder: Path) -> str:
    """What two splits have in common that list the same pictures, of files that are what they were, in one order."""
    part = lambda source: "" if isinstance(source, Path) else repr(dataclasses.replace(source, path=Path()))
    rows = [[name, os.path.relpath(str(source), folder), part(source), _state(source)]
            for name, source in sources.items()]  # fmt: skip
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def _twin(folder: Path, listed: str) -> Table | None:
    """A whole table of the same pictures, of another split or another reader of this folder: CIRR's pictures have texts
    of several sets, CIRCO's splits one gallery."""
    for path in sorted((folder / "prepared").glob("*/pictures.*.json")):
        found = Table(path.parent, path.stem, about=path.name)
        if found.about and found.about.get("listed") == listed and not found.about["left_out"]:
            return found
    return None


def _is_outdated(about: Mapping[str, Any], sources: Mapping[str, Any]) -> bool:
    """Whether pictures have come since the table was written. Those that have gone are in the table."""
    seen = about["seen"]
    return not sources.keys() <= {*about["ids"], *seen} or any(
        _state(sources[name]) != state for name, state in seen.items() if name in sources
    )


def _state(source: Any) -> list[int] | None:
    """What changes when a file does; None where there is none."""
    try:
        found = Path(str(source)).stat()
    except (OSError, ValueError):
        return None
    return [found.st_mtime_ns, found.st_size]


def _write_records(table: Table, reader: DatasetReader[Any], split: str, pictures: Mapping[str, Any]) -> None:
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
