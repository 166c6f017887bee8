"""Embeds a gallery into an index. Embeddings that are there already are kept, and an interrupted run is resumed.

The first process lists the pictures that no segment holds. Each process embeds its share of them in new segments, which
do not yet belong to the index. When all are written, the first process adds them to the index in one change. A segment
depends on its pictures alone: however often the work was interrupted, and however many processes shared it, the index
is the same.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contextjax import images
from contextjax.files import locked, write_whole
from contextjax.serving import segments
from contextjax.serving.gallery import Gallery
from contextjax.serving.index import Index
from contextjax.serving.interface import check_new, check_rows
from contextjax.serving.segments import BadPicture, Manifest, Segment
from contextjax.serving.storage import pack
from contextjax.sharding import first_process_first, is_first_process, share_of_process, wait_for_all
from contextjax.threads import map_ahead
from contextjax.types import UserError, listed

TODO, HASHES = "todo.json", "hashes"
SEGMENT = 1024  # pictures
BATCH = 256  # pictures that are embedded at a time; at most two batches are held decoded
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}  # error codes of a file that isn't there


Chunk = list[tuple[str, list[int]]]  # (name, stamp) of each picture
Spread = Callable[[Sequence[Chunk], Path], Iterable[int]]  # chunks, folder -> the number of pictures of each chunk


class Encoder(Protocol):
    """The parts of a system that embedding needs."""

    identity: str  # which model it is

    @property
    def image_size(self) -> int:
        """The side in pixels of the pictures that the model sees."""
        ...

    @property
    def fit(self) -> str:
        """The way in which pictures are made square, see images.preprocess."""
        ...

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """Returns embeddings [N, D], L2-normalised."""
        ...


def embed(system: Encoder, gallery: Gallery, folder: Path, *, storage: str | None = None, others: Sequence[Path] = (),
          progress: Callable[[int, int], None] = lambda new, left: None, spread: Spread | None = None
          ) -> Index:  # fmt: skip
    """Brings the index in `folder` up to date: embeds new and changed pictures, and removes those that are gone.

    Bad pictures are skipped. They are in the index's `skipped`, and are not tried again until they change. Where a disk
    fails, the call ends, and the next one goes on. Several processes share the work when all of them call this with the
    same arguments. A call waits until others that change the same index are through, and they wait for it. A picture
    that has been moved or renamed is not embedded again. Nor is a gallery: the index follows it to another place, if
    nothing is at the former one or the gallery has at least half of the index's pictures by name and contents.

    Args:
      system: makes the embeddings.
      gallery: the pictures.
      folder: the folder of the index, which is made where there is none.
      storage: "float32", "bfloat16" or "int8"; None: what the index has, float32 for a new one.
      others: folders of further indexes; what the same system has embedded there is taken from them.
      progress: called with (pictures newly done, pictures left to do), both of this process.
      spread: has other processes embed the chunks, each by embed_chunk; None: this process embeds its share of them.

    Returns:
      The index. Its embeddings are not read yet.

    Raises:
      UserError: the index is of another system, gallery or storage, a disk fails, no picture is good, names repeat, or
        the processes don't see one folder.
    """
    pack(np.zeros((0, 1)), storage or "float32")  # an unknown storage is reported before anything is written
    check_new(gallery.names, (), place=gallery.place)
    index, stamps = None, {}
    with contextlib.ExitStack() as turn:
        with first_process_first():
            if is_first_process():
                turn.enter_context(locked(folder))
                index, stamps = _opened(system, gallery, folder, storage), gallery.stamp_of(folder / HASHES)
                _take_known(index, index.missing(stamps), [index, *_indexes(others)])
                write_whole(folder / TODO, json.dumps(list(index.missing(stamps).items())))
        if spread is None:
            _embed_share(system, gallery, folder, progress)
        else:
            chunks = _chunks(_read_todo(folder))
            left = sum(map(len, chunks))
            for done in spread(chunks, folder):
                left -= done
                progress(done, left)
        wait_for_all()
        with first_process_first():
            if index is not None:
                index.update(stamps)
                (folder / TODO).unlink()
        index = Index(folder) if index is None else index
    if not len(index):
        raise UserError(
            f"{describe_skipped(index.skipped)} No other is in {gallery.place}; expected at least one good picture."
        )
    return index


def same_share(index: Index, stamps: Mapping[str, list[int]]) -> float:
    """Returns the share of an index's pictures that a gallery has, too, by name and contents."""
    own = {name: stamp for segment in index.segments for name, stamp in segment.stamp_of().items() if any(stamp)}
    return sum(stamps.get(name) == stamp for name, stamp in own.items()) / max(len(own), 1)


def describe_skipped(skipped: Sequence[BadPicture]) -> str:
    """Returns how many pictures are bad, and what is wrong with the first of them."""
    return f"{len(skipped)} picture(s) can't be read: {listed([bad.reason for bad in skipped], between=' ')}"


def _opened(system: Encoder, gallery: Gallery, folder: Path, storage: str | None) -> Index:
    """Opens the index, or makes it. Checks that it is of this system, gallery and storage."""
    if not (folder / segments.MANIFEST).exists():
        blank = [np.zeros((system.image_size, system.image_size, 3), np.uint8)]
        return Index.create(
            folder,
            system.encode_gallery(blank).shape[1],
            storage=storage or "float32",
            fingerprint=system.identity,
            gallery=gallery.place,
        )
    index = Index(folder)
    index.check(system.identity)
    if (
        (was := index.manifest.gallery)
        and was != gallery.place
        and (not Path(was).exists() or same_share(index, gallery.stamp_of(folder / HASHES)) >= 0.5)
    ):  # it has been moved, or copied
        index.follow(gallery.place)
    m = index.manifest
    for what, was, now in (("the gallery", m.gallery, gallery.place), ("storage", m.storage, storage or m.storage)):
        if was != now:
            raise UserError(f"{folder} is an index of {what} {was}, not {now}; give another --target for this one.")
    return index


def _indexes(folders: Sequence[Path]) -> list[Index]:
    """Returns the indexes of those folders that hold a whole one."""
    indexes = []
    for folder in folders:
        with contextlib.suppress(UserError, OSError):
            indexes.append(Index(folder))
    return indexes


def _take_known(index: Index, missing: Mapping[str, list[int]], sources: Sequence[Index]) -> None:
    """Writes segments of the missing pictures that sources hold under any name: equal contents have equal stamps."""
    wanted = {name: tuple(stamp) for name, stamp in missing.items() if all(stamp)}
    made = lambda index: (index.manifest.fingerprint, index.manifest.storage, index.manifest.dimension)
    for source in (source for source in sources if made(source) == made(index)):
        for segment in source.segments:
            row = {tuple(stamp): number for number, stamp in enumerate(segment.stamps.tolist())}
            names = [name for name, stamp in wanted.items() if stamp in row]
            if not names:
                continue
            rows = np.asarray([row[wanted.pop(name)] for name in names])
            with contextlib.suppress(UserError):  # a damaged file: its pictures are embedded again
                Segment.write(index.folder, names, segment.stamps[rows], segment.embeddings()[rows])


def _read_todo(folder: Path) -> Chunk:
    try:  # the first process of this run has just written it: json_files' limits are for files of others
        return json.loads((folder / TODO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no {TODO} in {folder} here, but the first process has written one there; give a "
            "folder that all processes see, on a file system that their machines share."
        ) from error


def _embed_share(system: Encoder, gallery: Gallery, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Embeds this process's share of the pictures, and writes a segment of every SEGMENT of them."""
    chunks, manifest = _chunks(_read_todo(folder)), segments.read_manifest(folder)
    own = [chunks[number] for number in share_of_process(len(chunks))]
    left = sum(map(len, own))
    decoded = _decoded(system, gallery, [name for chunk in own for name, _ in chunk])
    for chunk in own:
        for done in _write_segment(system, folder, manifest, chunk, decoded):
            left -= done
            progress(done, left)


def embed_chunk(system: Encoder, gallery: Gallery, folder: Path, chunk: Chunk) -> int:
    """Embeds one chunk for a process that calls `embed` with `spread`, and returns the number of its pictures.

    Args:
      system: see embed.
      gallery: see embed; its names and stamps are not needed.
      folder: the folder of the index.
      chunk: one of those that `spread` is given.
    """
    decoded = _decoded(system, gallery, [name for name, _ in chunk])
    return sum(_write_segment(system, folder, segments.read_manifest(folder), chunk, decoded))


def _chunks(todo: Chunk) -> list[Chunk]:
    return [todo[begin : begin + SEGMENT] for begin in range(0, len(todo), SEGMENT)]


def _write_segment(
    system: Encoder, folder: Path, manifest: Manifest, chunk: Chunk, decoded: Iterator[tuple[Any, str]]
) -> Iterator[int]:
    """Embeds a chunk, whose pictures are the next that `decoded` yields, and writes its segment.

    Yields the numbers of pictures as they are done.
    """
    good, skipped, embeddings = [], [], [np.zeros((0, manifest.dimension), np.float32)]
    for begin in range(0, len(chunk), BATCH):
        batch, pictures = chunk[begin : begin + BATCH], []
        for (name, stamp), (picture, problem) in zip(batch, decoded, strict=False):
            if problem:
                skipped.append(BadPicture(name, stamp, problem))
            else:
                pictures.append(picture)
                good.append((name, stamp))
        if pictures:
            embeddings.append(system.encode_gallery(pictures))
            check_rows(pictures, embeddings[-1], manifest.dimension)
        yield len(batch)
    stamps = np.asarray([stamp for _, stamp in good], np.int64).reshape(-1, 2)
    packed = pack(np.concatenate(embeddings), manifest.storage)
    Segment.write(folder, [name for name, _ in good], stamps, packed, skipped)


def _decoded(system: Encoder, gallery: Gallery, names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """Yields (the picture as the model sees it, "") or (None, what is wrong with it) of each name, read ahead."""

    def read(name: str) -> tuple[Any, str]:
        try:
            return images.load(gallery.picture(name), system.image_size, fit=system.fit), ""
        except UserError as error:
            return None, str(error)
        except OSError as error:
            if error.errno in ABSENT:
                return None, f"There is no picture {name} ({error})."
            raise UserError(  # the disk or the network has failed: another time the picture may be good
                f"{name} can't be read ({error}); see to that and run the same command again, which goes on, or remove "
                "the picture."
            ) from error

    return map_ahead(read, names, ahead=BATCH)
