"""What embed and search share: galleries by their paths, and how fast pictures are embedded."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.files import is_remote, local_path
from contextjax.serving.gallery import Gallery, folder_gallery, listed_gallery
from contextjax.types import UserError


def open_gallery(place: Path) -> Gallery:
    """A folder, a text file that lists pictures, or the table of a prepared split.

    Raises:
      UserError: it is none of these, or holds no pictures.
    """
    if place.is_file():
        return _table_gallery(place) if place.suffix == ".json" else listed_gallery(place)
    found = folder_gallery(place)
    if found.left_out:
        print(f"{found.left_out} picture(s) of {place} are left out: their names are not UTF-8; rename them.")
    return found


def _table_gallery(about: Path) -> Gallery:
    """The pictures of a table in array_record files, by the JSON file that says that it is whole."""
    from data_pipelines.store import StoredRows, StoredTable

    table = StoredTable(about.parent, about.stem, about=about.name)
    if not (isinstance(table.about, dict) and {"ids", "made"} <= table.about.keys()):
        raise UserError(f"{about} is no prepared table of pictures; expected PREPARED/pictures.SPLIT.json.")
    ids, rows = table.about["ids"], StoredRows(table.folder)
    row = {name: number for number, name in enumerate(ids)}
    stamp = int(table.about["made"][:15], 16)  # one for all: a table is written as a whole

    def picture(name: str) -> Any:
        if name not in row:
            raise UserError(f"There is no picture {name} in {about}.")
        return images.decode(rows[row[name]]["image"], name=f"Picture {name}")

    return Gallery(str(about.resolve()), ids, np.tile(np.asarray([[stamp, 0]], np.int64), (len(ids), 1)), picture)


def embedded_index(system: Any, gallery: Path, workdir: Path) -> tuple[Any, str]:
    """The index of a gallery and the gallery's place; kept in the workdir where that is a folder of this machine.

    Of a hub id or an object store it is made in a folder that goes away.
    """
    import tempfile

    is_kept = not is_remote(workdir) and workdir.is_dir()
    with tempfile.TemporaryDirectory() as scratch:
        index = kept_index(system, open_gallery(gallery), workdir / "galleries" if is_kept else Path(scratch))
        index.load()
    return index, str(gallery)


def kept_index(system: Any, gallery: Gallery, folder: Path, **options: Any) -> Any:
    """The index of a gallery by a system, one of any number in the folder: what was embedded earlier is not again.

    `options` are those of contextjax.serving.embedding.embed.
    """
    from contextjax.serving.embedding import describe_skipped, embed

    key = hashlib.blake2b(f"{system.identity}\0{gallery.place}".encode(errors="replace"), digest_size=8).hexdigest()
    index = embed(system, gallery, folder / key, **options)
    if index.skipped:
        print(describe_skipped(index.skipped))
    return index


def open_milvus(address: str, collection: str, **about: Any) -> Any:
    """A MilvusIndex. Its login is in the environment: every user of the machine can read the flags of a process."""
    from contextjax.serving.milvus import MilvusIndex

    token = os.environ.get("CONTEXTJAX_MILVUS_TOKEN", "")
    return MilvusIndex(address, collection=collection, token=token, **about)


def open_index(system: Any, place: str, *, collection: str) -> tuple[Any, str]:
    """The index at a place, in Milvus a collection, and the place of its gallery."""
    if "://" in place or place.endswith(".db"):
        found = open_milvus(place, collection)
        found.check(system.identity)
        return found, found.gallery
    from contextjax.serving.index import Index

    index = Index(local_path(place))
    index.check(system.identity)
    index.load()
    return index, index.manifest.gallery


class Speed:
    """Pictures a second, beside what matrix products reach in this process."""

    def __init__(self, system: Any):
        self._system, self._done = system, 0
        self._begin = self._last = time.perf_counter()
        self._bar: Any = None

    def tell(self, new: int, left: int) -> None:
        """So many pictures more are embedded, so many are left: a bar on a terminal, lines elsewhere."""
        from contextjax.sharding import is_first_process

        self._done += new
        if not is_first_process():
            return
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = self._bar or tqdm(total=self._done + left, unit="picture", dynamic_ncols=True)
            self._bar.update(new)
        elif time.perf_counter() - self._last > 20:
            self._last = time.perf_counter()
            print(f"{self._done} of {self._done + left} pictures", flush=True)

    def summary(self) -> str:
        """One line; the roofline is of this process, with reading and compiling in the pictures' time."""
        seconds = time.perf_counter() - self._begin
        if self._bar is not None:
            self._bar.close()
        if not self._done:
            return "Nothing was to be embedded."
        rate = self._done / seconds
        line = f"{self._done} pictures in {seconds:.1f} s, {rate:.1f} pictures/s"
        if "model" not in vars(self._system):  # an export of programs
            return line + "."
        share = rate * _flops(self._system) / _roof(self._system)
        return f"{line}, {100 * share:.0f} % of the matmul roofline of this process."


def _flops(system: Any) -> float:
    """Of a picture's embedding."""
    import jax

    from contextjax.analysis.cost import traced_flops
    from experiments.benchmarks.runs import image_program

    pixels = jax.ShapeDtypeStruct((1, system.image_size, system.image_size, 3), np.uint8)
    return traced_flops(*image_program(system), pixels)


def _roof(system: Any) -> float:
    from contextjax.analysis.roofline import matmul_rate

    return matmul_rate(np.dtype(system.model.dtype or np.float32).name)
