"""Checks a split and writes it as two tables beside the data, with a census of their contents.

The tables lie under a fingerprint of the annotation files, and know the hash of every picture: what has changed is
prepared again, unchanged data never twice, wherever they are copied or moved to. Where splits or readers of a folder
list the same pictures, they are written once, and links share their files.
"""

from __future__ import annotations

import contextlib
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
from contextjax.contents import ABSENT, content_hash, content_hashes, file_hash, file_state, keep_hashes
from contextjax.files import existing, local_path, locked
from contextjax.json_files import LONG_LIST, check_file
from contextjax.threads import available_cpus
from contextjax.types import CaptionRecord, UserError, listed
from data_pipelines import census
from data_pipelines.boxes import box_files
from data_pipelines.cluster.engine import Engine, OneProcess, Work
from data_pipelines.readers import DatasetReader
from data_pipelines.records import Crop, PictureFile, check_problems, named_pictures, whole_file
from data_pipelines.store import VERSION, StoredRows, StoredTable

POLICIES = ("fail", "skip")
CHUNK = 32  # pictures that a node of a cluster is given together


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
      notes: what the user should know of this preparation, a sentence each.
    """

    place: Path
    pictures: StoredRows
    records: StoredRows
    ids: list[str]
    captions: list[str]
    census: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def fingerprint(reader: DatasetReader[Any]) -> str:
    """Returns twelve hex digits that change when an annotation file does; those of `reader.tables` differ, too.

    Raises:
      UserError: an annotation file cannot be read.
    """
    digest = hashlib.blake2b(f"{VERSION}{reader.tables}".encode(), digest_size=6)
    for path in [*reader.annotation_files(), *box_files(reader.folder)]:
        try:
            check_file(path, limit=LONG_LIST.bytes)
            digest.update(path.name.encode(errors="surrogateescape") + b"\0")
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"The annotation file {path} can't be read ({error}); check the folder.") from error
    return digest.hexdigest()


def prepare(
    reader: DatasetReader[Any], folder: Path, split: str, *, bad_pictures: str = "fail", place: str | Path = "",
    engine: Engine | None = None,
) -> Prepared:  # fmt: skip
    """Returns the tables of a split; writes them first if they are missing or pictures were added or changed.

    Pictures that are gone stay in the tables: the originals may be removed.

    Args:
      reader: the data set's reader.
      folder: the data set's folder.
      split: one of reader.splits.
      bad_pictures: "fail", or "skip", which leaves out missing and unreadable pictures and the records that name them.
      place: a folder for the tables of any number of data sets; "": the data set's own `prepared/`.
      engine: reads and checks the pictures; None: this process.

    Raises:
      UserError: the split or the policy is unknown, the place can't be written, or the data set has problems; the
        message lists all of them.
    """
    if split not in reader.splits:
        raise UserError(f"{folder} has no split '{split}'; it has {listed(reader.splits)}.")
    if bad_pictures not in POLICIES:
        raise UserError(f"data.bad_pictures is '{bad_pictures}'; expected one of {', '.join(POLICIES)}.")
    root = prepared_folder(folder, place)
    with _locked(root / fingerprint(reader)) as own:
        files = located_pictures(reader, split)
        pictures = StoredTable(own, f"pictures.{split}", about=f"pictures.{split}.json")
        changed = [] if pictures.about is None else _changed(pictures.about, files, _cache(own, split))
        if changed:
            _check_none_gone(pictures.about, files, changed, own)
        if _rows(pictures) is None or changed:
            _write_pictures(pictures, reader, folder, split, bad_pictures, root, engine or OneProcess())
        known: Any = pictures.about
        if bad_pictures == "fail":
            check_problems(list(known["left_out"].values()), f"The pictures of split '{split}'")
        # A folder of other records may be read as captions too, into a table beside theirs with the same pictures.
        kind, file = ("captions", "census.captions") if reader.record_type is CaptionRecord else ("records", "census")
        records = StoredTable(own, f"{kind}.{split}", about=f"{file}.{split}.json")
        if _rows(records) is None or (records.about or {}).get("made_with") != known["made"]:
            _write_records(records, reader, split, known)
        rows = StoredRows(pictures.folder), StoredRows(records.folder)
        ids = set(known["ids"])
        replaced = [name for name in changed if name in ids]
        note = (f"{len(replaced):,} pictures of split '{split}' of {folder} have come or changed since it was prepared "
                f"({listed(replaced)}); it is prepared again.")  # fmt: skip
        notes = (note,) if replaced else ()
        return Prepared(own, *rows, known["ids"], known["captions"], records.about or {}, notes)


def located_pictures(reader: DatasetReader[Any], split: str) -> dict[str, PictureFile]:
    """Returns the reader's picture id -> file, with files looked up in either Unicode normal form (files.existing)."""
    place = lambda file: (
        existing(file) if isinstance(file, Path) else dataclasses.replace(file, path=existing(file.path))
    )
    return {name: place(file) for name, file in reader.pictures(split).items()}


def prepared_folder(folder: Path, place: str | Path = "") -> Path:
    """Returns the folder of a data set's tables: its own `prepared/`, or one in a `place` for those of many sets."""
    if not place:
        return folder / "prepared"
    whole = folder.resolve()
    return local_path(place) / f"{whole.name}-{hashlib.blake2b(os.fsencode(whole), digest_size=4).hexdigest()}"


@contextlib.contextmanager
def _locked(own: Path) -> Iterator[Path]:
    """Locks the folder of some tables. Says what to do where it can't be made."""
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{own} can't be made ({error.strerror}); the tables of a data set go there unless you give another "
            "folder for them: --prepared=DIR, or --config.data.prepared=DIR in training."
        ) from error
    with locked(own):
        yield own


def _rows(table: StoredTable) -> StoredRows | None:
    """Returns the rows of a table; None where it has not been written, or is damaged."""
    try:
        return None if table.about is None else StoredRows(table.folder)
    except UserError:
        return None


def _cache(own: Path, split: str) -> Path:
    return own / f"hashes.{split}"


def read_bytes(file: PictureFile, name: str) -> bytes:
    """Returns the encoded bytes of a picture.

    Raises:
      UserError: there is no such file, it is no regular one, or it is too large.
    """
    try:
        check_file(whole_file(file), limit=images.MAX_BYTES)
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name} has no file {file}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name}'s file {file} can't be read ({error})") from error


@dataclasses.dataclass(frozen=True)
class _CheckedPicture:
    name: str
    hash: bytes  # of the file
    state: tuple[int, int, int, int]  # of the file, before it was read
    data: bytes = b""
    side: tuple[int, int] = (0, 0)
    problem: str = ""


def _check(folder: Path, picture: tuple[str, PictureFile]) -> _CheckedPicture:
    """Reads and decodes a picture (id, file), so that bad ones are known before training."""
    name, file = picture
    path = whole_file(file)
    state = file_state(path)
    try:
        if name != name.encode(errors="replace").decode():
            raise UserError(f"{name!r} has a name that is no UTF-8")
        if ".." in Path(os.path.relpath(str(file), folder)).parts:
            raise UserError(f"{name} is {file}, outside the data set's folder")
        source = read_bytes(path, name)
    except UserError as error:
        return _CheckedPicture(
            name, file_hash(path) if state[0] >= 0 else ABSENT, state, problem=str(error).rstrip(".")
        )
    hash = content_hash(source)
    try:
        data = file.cut(source) if isinstance(file, Crop) else source
        return _CheckedPicture(name, hash, state, data, images.decode(data, name=f"Picture {name}").size)
    except UserError as error:
        return _CheckedPicture(name, hash, state, problem=str(error).rstrip("."))


def _write_pictures(
    table: StoredTable, reader: DatasetReader[Any], folder: Path, split: str, bad_pictures: str, root: Path,
    engine: Engine,
) -> None:  # fmt: skip
    files, captions = located_pictures(reader, split), reader.captions(split)
    list_digest = _list_digest(files, folder)
    if twin := _twin(root, list_digest, files):
        reader.records(split)  # as below: no pictures are written if records are faulty
        known: Any = twin.about
        if table.link(twin, known | {"captions": [captions.get(name, "") for name in known["ids"]]}):
            return
    left_out: dict[str, str] = {}
    hashes: dict[str, tuple[tuple[int, int, int, int], bytes]] = {}
    seen: list[tuple[str, tuple[int, int], int, bytes]] = []

    work = Work(  # few are read ahead, since their bytes are held in memory
        functools.partial(functools.partial, _check, folder),
        "picture",
        ahead=2 * available_cpus(),
        chunk=CHUNK,
        size=lambda picture: len(picture.data),
    )

    def rows() -> Iterator[dict[str, Any]]:
        for picture in engine.map_rows(work, list(files.items())):
            hashes[picture.name] = picture.state, picture.hash
            if picture.problem:
                left_out[picture.name] = picture.problem
                continue
            seen.append((picture.name, picture.side, len(picture.data), content_hash(picture.data)))
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
        made = hashlib.blake2b(json.dumps([ids, sorted(left_out)]).encode(), digest_size=8)
        made.update(b"".join(hashes[name][1] for name in ids))
        return {
            "made": made.hexdigest(),
            "listed": list_digest,
            "ids": ids,
            "captions": [captions.get(name, "") for name in ids],
            "left_out": left_out,
            "hashes": {name: hashes[name][1].hex() for name in (*ids, *left_out)},
            "census": census.about_pictures(seen),
        }

    import tensorflow_datasets as tfds

    table.write({"image": tfds.features.Image()}, rows(), about)
    keep_hashes(_cache(table.place, split), hashes)


def _list_digest(files: Mapping[str, PictureFile], folder: Path) -> str:
    """Returns a digest that is the same for splits that list the same files, or parts of them, in one order."""
    region = lambda file: "" if isinstance(file, Path) else repr(dataclasses.replace(file, path=Path()))
    rows = [[name, os.path.relpath(str(file), folder), region(file)] for name, file in files.items()]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def _twin(root: Path, list_digest: str, files: Mapping[str, PictureFile]) -> StoredTable | None:
    """Returns a complete table of the same pictures, of another split or another reader of this folder.

    Such tables exist: several sets have texts for CIRR's pictures, and CIRCO's splits share a gallery.
    """
    for path in sorted(root.glob("*/pictures.*.json")):
        table, split = StoredTable(path.parent, path.stem, about=path.name), path.stem.removeprefix("pictures.")
        about = table.about or {}
        is_alike = about.get("listed") == list_digest and not about["left_out"]
        if is_alike and not _changed(about, files, _cache(path.parent, split)):
            return table
    return None


def _changed(about: Mapping[str, Any], files: Mapping[str, PictureFile], cache: Path) -> list[str]:
    """Returns the pictures that have come, or whose contents have changed, since a table was written."""
    known = about["hashes"]
    paths = {name: whole_file(file) for name, file in files.items()}
    hashes = zip(files, content_hashes(paths, cache), strict=True)
    return [name for name, hash in hashes if name not in known or (hash != ABSENT and hash.hex() != known[name])]


def _check_none_gone(about: Any, files: Mapping[str, PictureFile], changed: list[str], own: Path) -> None:
    """Raises a UserError if rewriting a table would lose pictures whose originals are gone."""
    known = set(about["ids"])
    gone = [name for name, file in files.items() if name in known and file_state(whole_file(file))[0] < 0]
    if gone:
        raise UserError(
            f"{len(changed):,} pictures have come or changed ({listed(changed)}), so all are prepared again, but "
            f"{len(gone):,} that were there are gone ({listed(gone)}): put them back, or remove {own} if they are no "
            "longer wanted."
        )


def _write_records(table: StoredTable, reader: DatasetReader[Any], split: str, pictures: Mapping[str, Any]) -> None:
    import tensorflow_datasets as tfds

    read, known, bad = reader.read(split), set(pictures["ids"]), pictures["left_out"]
    kept = [r for r in read.records if known.issuperset(named_pictures(r))] if bad else read.records
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
        "records_left_out": len(read.records) - len(kept),
        "unknown": read.unknown,
        "odd": read.odd,
    }
    table.write({"record": tfds.features.Text()}, rows, about)
