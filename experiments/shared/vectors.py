"""An index's embeddings as files that other tools read: npy or a FAISS index, with a parquet table of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import whole_folder
from contextjax.serving.storage import unpack
from contextjax.types import UserError

ROWS = "rows.parquet"
FILES = {"npy": "embeddings.npy", "faiss": "embeddings.faiss"}
PACKAGES = {"pyarrow": "'contextjax[tables]'", "faiss": "faiss-cpu"}  # as they are imported, and as they are installed


def check_packages(forms: Sequence[str]) -> None:
    """Checks that what writes the forms is installed.

    Raises:
      UserError: a package is missing.
    """
    import importlib

    for name in ("pyarrow", *(["faiss"] if "faiss" in forms else [])):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"Writing vectors needs {name} ({error}); pip install {PACKAGES[name]}.") from error


def write_vectors(index: Any, folder: Path, forms: Sequence[str]) -> None:
    """Writes the embeddings of an Index into a new folder, float32 and in the order of its names.

    embeddings.npy holds them as an array [N, D], embeddings.faiss as an IndexFlatIP; rows.parquet has the name of each
    row in the column "name", and the pictures' attributes.

    Args:
      index: an exact index.
      folder: the folder, which must not be there.
      forms: keys of FILES.

    Raises:
      UserError: a package is missing, or the folder is there.
    """
    check_packages(forms)
    with whole_folder(folder) as partial:
        _write_rows(index, partial / ROWS)
        if "npy" in forms:
            shape = (len(index), index.dimension)
            array = np.lib.format.open_memmap(partial / FILES["npy"], mode="w+", dtype=np.float32, shape=shape)
            begin = 0
            for packed in index.embeddings():
                array[begin : begin + len(packed.vectors)] = unpack(packed)
                begin += len(packed.vectors)
            array.flush()
        if "faiss" in forms:
            import faiss

            flat = faiss.IndexFlatIP(index.dimension)
            for packed in index.embeddings():
                flat.add(unpack(packed))  # pyright: ignore[reportCallIssue]
            faiss.write_index(flat, str(partial / FILES["faiss"]))


def _write_rows(index: Any, file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"name": pyarrow.array(index.names, pyarrow.string())}
    types = {"text": pyarrow.string(), "truth value": pyarrow.bool_(), "number": pyarrow.float64()}
    for name, values in index.attributes.columns.items():
        is_whole = all(value is None or type(value) is int for value in values)
        kind = index.kinds[name]
        columns[name] = pyarrow.array(values, pyarrow.int64() if kind == "number" and is_whole else types[kind])
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
