"""Galleries and indexes by their paths, and the speed of embedding, for embed, search and serve."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.contents import content_hash
from contextjax.files import is_remote, local_path, path_of
from contextjax.serving.gallery import Gallery, file_of, folder_gallery, listed_gallery, search_others
from contextjax.types import UserError, listed


def open_gallery(place: Path) -> Gallery:
    """Opens a folder, a text file that lists pictures, or the table of a prepared split.

    Raises:
      UserError: the place is none of these, or holds no pictures.
    """
    if place.is_file():
        return _table_gallery(place) if place.suffix == ".json" else listed_gallery(place)
    gallery = folder_gallery(place)
    if gallery.left_out:
        print(
            f"{len(gallery.left_out):,} other file(s) of {place} are left out, which are no pictures by their names, "
            f"or whose names are not UTF-8: {listed(gallery.left_out)}."
        )
    return gallery


def _table_gallery(about: Path) -> Gallery:
    """Opens a prepared table of pictures by the JSON file that is written when the table is whole."""
    from data_pipelines.store import StoredRows, StoredTable

    table = StoredTable(about.parent, about.stem, about=about.name)
    if not (isinstance(table.about, dict) and {"ids", "made"} <= table.about.keys()):
        raise UserError(f"{about} is no prepared table of pictures; expected PREPARED/pictures.SPLIT.json.")
    ids, rows, made = table.about["ids"], StoredRows(table.folder), table.about["made"]
    row = {name: number for number, name in enumerate(ids)}
    hashes = [content_hash(f"{made}/{name}".encode()) for name in ids]

    def picture(name: str) -> Any:
        if name not in row:
            raise UserError(f"There is no picture {name} in {about}.")
        return images.decode(rows[row[name]]["image"], name=f"Picture {name}")

    stamps = np.frombuffer(b"".join(hashes), np.int64).reshape(-1, 2)
    return Gallery(str(about.resolve()), ids, picture, stamps)


def embedded_index(system: Any, gallery: Path, workdir: Path) -> Any:
    """Returns the index of a gallery, loaded. It is kept in the workdir where that is a folder of this machine.

    For a hub id or an object store it is made in a temporary folder.
    """
    import tempfile

    is_kept = not is_remote(workdir) and workdir.is_dir()
    with tempfile.TemporaryDirectory() as scratch:
        index = kept_index(system, open_gallery(gallery), workdir / "galleries" if is_kept else Path(scratch))
        index.load()
    return index


def kept_index(system: Any, gallery: Gallery, folder: Path, **options: Any) -> Any:
    """Returns a system's index of a gallery, kept among others in `folder`; only new pictures are embedded.

    `options` are those of contextjax.serving.embedding.embed.
    """
    from contextjax.serving.embedding import describe_skipped, embed
    from contextjax.serving.segments import MANIFEST

    key = hashlib.blake2b(f"{system.identity}\0{gallery.place}".encode(errors="replace"), digest_size=8).hexdigest()
    others = [path.parent for path in folder.glob(f"*/{MANIFEST}") if path.parent.name != key]
    index = embed(system, gallery, folder / key, others=others, **options)
    if index.skipped:
        print(describe_skipped(index.skipped))
    return index


def open_index(system: Any, place: str, *, collection: str) -> Any:
    """Returns the index at a place: a folder, or a collection at an address of Milvus.

    Raises:
      UserError: there is none, or another system made it.
    """
    if "://" in place or place.endswith(".db"):
        target = open_milvus(place, collection)
        target.check(system.identity)
        return target
    from contextjax.serving.index import Index

    index = Index(local_path(place))
    index.check(system.identity)
    index.load()
    return index


def open_milvus(address: str, collection: str, **facts: Any) -> Any:
    """Opens a MilvusIndex. The login comes from the environment: every user of a machine can read a process's flags."""
    from contextjax.serving.milvus import MilvusIndex

    token = os.environ.get("CONTEXTJAX_MILVUS_TOKEN", "")
    return MilvusIndex(address, collection=collection, token=token, **facts)


def copy_to_milvus(index: Any, address: str, collection: str) -> None:
    """Brings a collection in Milvus up to date with the index, and prints the changes."""
    from contextjax.serving.milvus import mirror

    begin = time.perf_counter()
    m = index.manifest
    target = open_milvus(address, collection, dimension=m.dimension, fingerprint=m.fingerprint)
    added, removed = mirror(index, target)
    seconds = time.perf_counter() - begin
    print(f"{address} holds {len(target)} pictures: {added} were added and {removed} removed in {seconds:.1f} s.")


def give_attributes(index: Any, table: Any) -> None:
    """Gives an index's pictures the attributes of a table, and prints how many have some."""
    count = index.set_attributes(table)
    print(
        f"{count} of {len(index)} pictures have attributes ({listed(list(table.columns)) or 'none'}); "
        f"{len(table.names) - count} row(s) of the table are of other pictures."
    )


def make_service(source: str, *, gallery: str, index: str, collection: str, limits: Any) -> Any:
    """Returns the Service of a system, of an index where one is given or made of a gallery, and of its pictures.

    Raises:
      UserError: the system, the index or the gallery can't be opened, or they don't belong together.
    """
    import contextjax
    from contextjax.serving.service import Service
    from data_pipelines.concepts import find_phrases

    system, searched, place = contextjax.load(source), None, gallery
    if index:
        searched = open_index(system, index, collection=collection)
        place = gallery or searched.gallery
    elif gallery:
        searched = embedded_index(system, local_path(gallery), path_of(source))
    pictures = open_gallery(local_path(place)) if place and Path(place).exists() else None
    if searched is not None and pictures is None:
        print(f"The pictures of the index are not at '{place}': none is shown; --gallery says where they are.")
    has_maps = getattr(system, "query", "") == "fusion" and hasattr(type(system), "attention_maps")
    phrases_of = (lambda text: find_phrases([text])[0]) if has_maps else None
    return Service(system, searched, gallery=pictures, phrases_of=phrases_of, limits=limits)


def print_answers(
    index: Any, place: str, questions: Sequence[tuple[Path | None, str | None]], queries: np.ndarray, *, k: int,
    **options: Any,
) -> None:  # fmt: skip
    """Prints the k best pictures of each question, without the question's own, and their scores.

    Args:
      index: the index to search.
      place: the gallery's place, from which names are seen.
      questions: a picture, a text or both, of each.
      queries: their embeddings [B, D].
      k: how many pictures to print.
      options: those of the index's search.
    """
    for (image, text), query in zip(questions, queries, strict=True):
        if len(questions) > 1:
            print(" + ".join([listed([image])] * (image is not None) + [repr(text)] * (text is not None)))
        hits = search_others(index, query, k, place=place, without=image, **options)
        if not hits:
            best = search_others(index, query, 1, place=place, without=image, **{**options, "threshold": None})
            print(f"No picture is an answer{f'; the best has the score {best[0][1]:.4f}' if best else ''}.")
        for rank, (name, score) in enumerate(hits, start=1):
            file = file_of(place, name)
            print(f"{rank:3d}  {score:.4f}  {listed([file if file.is_file() else name])}")


class Speed:
    """The rate at which pictures are embedded, beside what matrix products reach in this process."""

    def __init__(self, system: Any):
        self._system, self._done = system, 0
        self._begin = self._last = time.perf_counter()
        self._bar: Any = None

    def progress(self, new: int, left: int) -> None:
        """Shows that `new` pictures more are embedded and some are left: by a bar on a terminal, by lines elsewhere."""
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

    def summary(self, *, workers: bool = False) -> str:
        """Returns pictures a second, reading and compiling included, and their share of this process's roofline.

        `workers`: other processes have embedded them, of which there is no roofline.
        """
        seconds = time.perf_counter() - self._begin
        if self._bar is not None:
            self._bar.close()
        if not self._done:
            return "Nothing was to be embedded."
        rate = self._done / seconds
        line = f"{self._done} pictures in {seconds:.1f} s, {rate:.1f} pictures/s"
        if workers or "model" not in vars(self._system):  # an export of programs
            return line + "."
        share = rate * _flops(self._system) / _roof(self._system)
        return f"{line}, {100 * share:.0f} % of the matmul roofline of this process."


def _flops(system: Any) -> float:
    """Returns the FLOPs of a picture's embedding."""
    import jax

    from contextjax.analysis.cost import traced_flops
    from experiments.benchmarks.runs import image_program

    pixels = jax.ShapeDtypeStruct((1, system.image_size, system.image_size, 3), np.uint8)
    return traced_flops(*image_program(system), pixels)


def _roof(system: Any) -> float:
    from contextjax.analysis.roofline import matmul_rate

    return matmul_rate(np.dtype(system.model.dtype or np.float32).name)
