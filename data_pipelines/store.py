"""Tables stored in array_record files, written and read with tensorflow-datasets (without TensorFlow).

A table is complete when the JSON file that describes it is there: that file is removed before the table is written and
written after it, so the remains of an interrupted preparation are never read. A lock keeps two processes apart.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.files import write_whole
from contextjax.json_files import LONG_LIST, read_json
from contextjax.types import UserError

VERSION = "1.4.0"
_QUIET = threading.RLock()  # redirecting standard output affects the whole process
BUILDER = "table"


class StoredTable:
    """A table in a folder of its own, and a JSON file beside it that says what the table holds.

    Attributes:
      place: the folder of the JSON file, and of other tables.
      folder: the folder of the table's files.
      about: the content of the JSON file; None where the table is not complete.
    """

    def __init__(self, place: Path, name: str, *, about: str):
        """Opens the table tables/`name` in `place`, with the JSON file `about`, whether or not it has been written."""
        self.place, self._root, self._file = place, place / "tables" / name, place / about
        self.folder = self._root / BUILDER / VERSION
        self.about = self._read()

    def write(self, columns: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], about: Callable[[], Any]) -> None:
        """Writes all rows and then the JSON file; the table stays incomplete if a row raises.

        Args:
          columns: name -> tensorflow-datasets' feature; one only, since several have another order in every process.
          rows: in their order.
          about: called when all rows are written; returns the content of the JSON file.

        Raises:
          UserError: the disk is full, or may not be written to.
        """
        try:
            self._file.unlink(missing_ok=True)
            self._remove()
            with quiet():
                builder = _builder_class()(columns=columns, rows=rows, data_dir=self._root, file_format="array_record")
                builder.download_and_prepare()
            self._describe(about())
        except OSError as error:
            raise UserError(
                f"{self._root} can't be written ({error}); make room for it, or give another folder for the tables: "
                "--prepared=DIR, or --config.data.prepared=DIR in training."
            ) from error

    def link(self, other: StoredTable, about: Any) -> bool:
        """Makes this table a copy of another one that shares its files on the disk.

        Args:
          other: the other table.
          about: the content of this table's JSON file.

        Returns:
          True if the table was linked; False, with nothing left behind, if the disk has no links or another process
          writes the other table meanwhile.
        """
        try:
            self._file.unlink(missing_ok=True)
            self._remove()
            shutil.copytree(other._root, self._root, copy_function=os.link)
            if other._read() != other.about or _sizes(self.folder) != _sizes(other.folder):
                self._remove()
                self.about = None
                return False
            self._describe(about)
        except OSError:
            self.about = None
        return self.about is not None

    def _remove(self) -> None:
        if self._root.exists():
            shutil.rmtree(self._root)  # errors are raised: the rest of an old table would be taken for the new one

    def _describe(self, about: Any) -> None:
        """Writes the JSON file, which makes the table complete."""
        content = {**about, "files": _sizes(self.folder)}
        write_whole(self._file, json.dumps({**content, "hash": _hash(content)}, indent=1))
        self.about = about

    def _read(self) -> Any:
        """Returns what the JSON file says of the table; None where it or a file of the table is missing or damaged."""
        try:
            about = read_json(self._file, layout="a prepared data set", limits=LONG_LIST)
        except UserError:
            return None
        is_whole = about.pop("hash", "") == _hash(about) and about.pop("files") == _sizes(self.folder)
        return about if is_whole else None


def _hash(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def _sizes(folder: Path) -> dict[str, int]:
    """Returns the sizes of a table's files: one that was cut is no longer whole."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*")) if path.is_file()}


class StoredRows(Sequence):
    """The rows of a written table, {column: bytes}, by number. Pickled as the path, which a loader process opens."""

    def __init__(self, folder: Path):
        self.folder = folder
        _ = self._records  # opened now, before another process can write another table in its place

    @functools.cached_property
    def _records(self) -> tuple[Any, Any]:
        """The records of tensorflow-datasets' data source, and the function that parses one."""
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        with quiet(), self._reported():
            builder: Any = tfds.builder_from_directory(self.folder)
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            return builder.as_data_source(split="rows", deserialize_method=raw), tf_example_pb2.Example.FromString

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turns whatever a damaged table makes its reader raise into one sentence."""
        try:
            yield
        except (MemoryError, UserError):
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{self.folder} is damaged ({reason}); remove it, and it is prepared again.") from error

    def __len__(self) -> int:
        return len(self._records[0])

    def __getitem__(self, row: Any) -> dict[str, bytes]:
        records = self._records
        if not -len(records[0]) <= row < len(records[0]):
            raise IndexError(row)
        with self._reported():
            return self._parsed(records[0][row])

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        with self._reported():
            return iter([self._parsed(row) for row in self._records[0].__getitems__(list(range(len(self))))])

    def _parsed(self, record: bytes) -> dict[str, bytes]:
        # Parsed here: tensorflow-datasets' own decoding takes a tenth of the time of decoding a picture.
        features = self._records[1](record).features.feature
        return {name: feature.bytes_list.value[0] for name, feature in features.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self.folder,)


@functools.cache
def _builder_class() -> Any:
    """Returns the builder of all tables. Imported late, since that takes a second."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Builds a table of rows in their order."""

        name = BUILDER
        VERSION = tfds.core.Version(VERSION)

        def __init__(self, *, columns: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], **rest: Any):
            self._columns, self._rows = columns, rows
            super().__init__(**rest)

        def _info(self):
            features = tfds.features.FeaturesDict(dict(self._columns))
            info = tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)
            info.initialize_from_bucket = lambda: None  # TFDS's own leaves an empty folder in /tmp
            return info

        def _split_generators(self, dl_manager):
            return {"rows": enumerate(self._rows)}

        def _generate_examples(self):  # abstract in the base class; _split_generators has the rows
            raise NotImplementedError

    return Builder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences tensorflow-datasets' progress bars and log."""
    import logging

    import tensorflow_datasets as tfds
    from absl import logging as absl_logging

    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with _QUIET, contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(before)
