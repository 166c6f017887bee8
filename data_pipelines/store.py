"""Tables in array_record files, written and read with tensorflow-datasets (without TensorFlow).

A table is whole when the JSON file that describes it is there: that is removed before the table is written and written
after it, so what an interrupted preparation has left is never read. A lock keeps two processes apart.
"""

from __future__ import annotations

import contextlib
import functools
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

VERSION = "1.2.0"
_QUIET = threading.RLock()  # standard output is the whole process's
BUILDER = "table"


class Table:
    """A table in a folder of its own, and the JSON file beside it that says that it is whole and what is in it."""

    def __init__(self, place: Path, name: str, *, about: str):
        """The folder is tables/`name` in `place`, the JSON file `about`."""
        self._root, self._file = place / "tables" / name, place / about
        self.folder = self._root / BUILDER / VERSION
        self.about = self._read()

    def write(self, columns: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], about: Callable[[], Any]) -> None:
        """Writes the rows, then what `about` gives when they are through; or nothing where one of them raises.

        Args:
          columns: name -> tensorflow-datasets' feature; one of them, for several have another order in every process.
          rows: in the order they are to have.
          about: what the JSON file holds.

        Raises:
          UserError: the disk is full, or may not be written to.
        """
        try:
            self._file.unlink(missing_ok=True)
            self._remove()
            with quiet():
                builder = _builder_class()(columns=columns, rows=rows, data_dir=self._root, file_format="array_record")
                builder.download_and_prepare()
            self.about = about()
            write_whole(self._file, json.dumps(self.about, indent=1))
        except OSError as error:
            raise UserError(f"{self._root} can't be written ({error}); make room for it and try again.") from error

    def link(self, other: Table, about: Any) -> bool:
        """Makes this table the other one, whose files it shares on the disk; `about` is what the JSON file holds.

        Returns False, and leaves nothing, where the disk can't do that or the other is written anew meanwhile.
        """
        try:
            self._file.unlink(missing_ok=True)
            self._remove()
            shutil.copytree(other._root, self._root, copy_function=os.link)
            if other._read() != other.about:
                self._remove()
                self.about = None
                return False
            self.about = about
            write_whole(self._file, json.dumps(about, indent=1))
        except OSError:
            self.about = None
        return self.about is not None

    def _remove(self) -> None:
        """Not with errors ignored: what is left of an old table would be taken for the new one."""
        if self._root.exists():
            shutil.rmtree(self._root)

    def _read(self) -> Any:
        """What the JSON file holds; None where the table is not whole."""
        if not (self._file.exists() and self.folder.is_dir()):
            return None
        remedy = "remove it, and it is prepared again"
        return read_json(self._file, layout="a prepared data set", remedy=remedy, limits=LONG_LIST)


class Rows(Sequence):
    """The rows of a written table, {column: bytes}, by number.

    They are pickled as their path: a loader process opens its own.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        _ = self._source  # the table that is there now, not one that is written in its place before the first access

    @functools.cached_property
    def _source(self) -> tuple[Any, Any]:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        with quiet():
            builder: Any = tfds.builder_from_directory(self.folder)
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            return builder.as_data_source(split="rows", deserialize_method=raw), tf_example_pb2.Example.FromString

    def __len__(self) -> int:
        return len(self._source[0])

    def __getitem__(self, row: Any) -> dict[str, bytes]:
        return self._parsed(self._source[0][row])

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        return map(self._parsed, self._source[0].__getitems__(list(range(len(self)))))

    def _parsed(self, record: bytes) -> dict[str, bytes]:
        # By itself: what tensorflow-datasets makes of it costs a tenth of decoding a picture.
        features = self._source[1](record).features.feature
        return {name: feature.bytes_list.value[0] for name, feature in features.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.folder,)


@functools.cache
def _builder_class() -> Any:
    """The one builder of all tables (imported late: it takes a second)."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Rows in their order."""

        name = BUILDER
        VERSION = tfds.core.Version(VERSION)

        def __init__(self, *, columns: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], **rest: Any):
            self._columns, self._rows = columns, rows
            super().__init__(**rest)

        def _info(self):
            features = tfds.features.FeaturesDict(dict(self._columns))
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"rows": enumerate(self._rows)}

        def _generate_examples(self):  # abstract in the base class; _split_generators has the rows
            raise NotImplementedError

    return Builder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """tensorflow-datasets without its progress bars and its lines of log."""
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
