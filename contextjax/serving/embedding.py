"""A gallery -> an index, in parts: what is there already is kept, and what a killed run has done is not done again.

A plan says which pictures are to come and to go. Each part of it is embedded by one process, into a file of its own
beside the index; when all are there, the first process makes them the index's, in one move. A part's embeddings depend
on the plan alone: however often the work was interrupted, and however many processes did it, the index is the same. One
call at a time works on an index; another one waits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contextjax import images
from contextjax.files import locked, write_whole
from contextjax.serving import parts
from contextjax.serving.gallery import Gallery
from contextjax.serving.index import Index, check_rows
from contextjax.serving.parts import Manifest, Part, Skipped
from contextjax.serving.storage import pack
from contextjax.sharding import first_process_first, is_first_process, share_of_process, wait_for_all
from contextjax.threads import map_ahead
from contextjax.types import UserError

STAGING, PLAN, TURN = ".staging", "plan.json", ".embedding"
PART = 1024  # pictures
BATCH = 256  # pictures that are embedded at a time; at most two batches of them are decoded
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}  # what a file that isn't there gives
NAMED = 10  # bad pictures that a message names


class Encoder(Protocol):
    """What embedding needs of a system."""

    identity: str  # which model it is

    @property
    def image_size(self) -> int:
        """Side in pixels of what it sees."""
        ...

    @property
    def fit(self) -> str:
        """How pictures are made square."""
        ...

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """[N, D], L2-normalised."""
        ...


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is to be done to an index that is at `base`."""

    base: Manifest
    part: int  # pictures of a part
    names: list[str]  # of pictures to embed
    stamps: list[list[int]]
    gone: list[str]  # names to remove; changed pictures are also among `names`

    def rows(self, number: int) -> range:
        """Of the part of this number."""
        return range(number * self.part, min((number + 1) * self.part, len(self.names)))

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-len(self.names) // self.part)


def embed(system: Encoder, gallery: Gallery, folder: Path, *, storage: str | None = None,
          progress: Callable[[int, int], None] = lambda new, left: None) -> Index:  # fmt: skip
    """Makes the index in `folder` that of a gallery: new and changed pictures are embedded, others removed.

    Bad pictures are skipped: they are in the index's `skipped`, and not tried again until they change. Where the disk
    fails, the call ends, and the next one goes on. Several processes share the work; all of them call this, with the
    same arguments. Where others are at work on the index, it waits until they are through.

    Args:
      system: makes the embeddings.
      gallery: what is embedded.
      folder: of the index, which is made where there is none.
      storage: of a new index; None: float32, or what the index has.
      progress: told (pictures that are newly done, pictures left to do), both of this process.

    Raises:
      UserError: the index is of another system, gallery, dimension or storage, a file can't be read, no picture is
        good, or the processes don't see one folder.
    """
    pack(np.zeros((0, 1)), storage or "float32")  # an unknown one is told before anything is made
    with contextlib.ExitStack() as turn:
        with first_process_first():
            if is_first_process():
                turn.enter_context(locked(folder / TURN))
        while True:
            with first_process_first():
                if is_first_process():
                    _write_plan(_opened(system, gallery, folder, storage), gallery)
            plan = _read_plan(folder)
            if plan is None:
                raise UserError(
                    f"There is no plan in {folder} here, but the first process has written one there; give a folder "
                    "that all processes see, on a file system that their machines share."
                )
            _stage(system, gallery, plan, folder, progress)
            wait_for_all()
            with first_process_first():
                if is_first_process():
                    _commit(folder, plan)
            if not plan.names and not plan.gone:
                return _whole(Index(folder), gallery)


def _opened(system: Encoder, gallery: Gallery, folder: Path, storage: str | None) -> Index:
    """The index to work on."""
    if not (folder / parts.MANIFEST).exists():
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
    m = index.manifest
    for what, was, now in (("the gallery", m.gallery, gallery.place), ("storage", m.storage, storage or m.storage)):
        if was != now:
            raise UserError(f"{folder} is an index of {what} {was}, not {now}; give another --target for this one.")
    return index


def _write_plan(index: Index, gallery: Gallery) -> None:
    """A plan of an earlier run that can be gone on with stays."""
    earlier = _read_plan(index.folder)
    if earlier is not None and (earlier.base, earlier.part) == (index.manifest, PART) and earlier.names:
        return
    shutil.rmtree(index.folder / STAGING, ignore_errors=True)
    known, now = index.stamps(), dict(zip(gallery.names, gallery.stamps.tolist(), strict=True))
    names = [name for name in gallery.names if known.get(name) != now[name]]
    gone = [name for name in known if known[name] != now.get(name)]
    plan = _Plan(index.manifest, PART, names, [now[name] for name in names], gone)
    write_whole(index.folder / STAGING / PLAN, json.dumps(dataclasses.asdict(plan)))


def _read_plan(folder: Path) -> _Plan | None:
    try:
        found = json.loads((folder / STAGING / PLAN).read_text(encoding="utf-8"))
        base = found.pop("base")
        base["parts"] = tuple((name, count) for name, count in base["parts"])
        return _Plan(Manifest(**base), **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _commit(folder: Path, plan: _Plan) -> None:
    files = [_file(folder, number) for number in range(plan.parts)]
    if files or plan.gone:
        staged = [(file, len(parts.read_part(file))) for file in files]
        Index(folder).replace(plan.gone, staged, expected=plan.base)
    shutil.rmtree(folder / STAGING)


def _file(folder: Path, number: int) -> Path:
    return folder / STAGING / f"{number:06d}.safetensors"


def _stage(system: Encoder, gallery: Gallery, plan: _Plan, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Embeds this process's parts of the plan that are not there yet."""
    dimension, storage = plan.base.dimension, plan.base.storage
    todo = [number for number in share_of_process(plan.parts) if not _file(folder, number).exists()]
    left = sum(len(plan.rows(number)) for number in todo)
    decoded = _decoded(system, gallery, (plan.names[row] for number in todo for row in plan.rows(number)))
    for number in todo:
        rows, names, kept = plan.rows(number), [], []
        found, skipped = [np.zeros((0, dimension), np.float32)], []
        for begin in range(rows.start, rows.stop, BATCH):
            pictures = []
            for row, (picture, problem) in zip(range(begin, min(begin + BATCH, rows.stop)), decoded, strict=False):
                if problem:
                    skipped.append(Skipped(plan.names[row], plan.stamps[row], problem))
                    continue
                pictures.append(picture)
                names.append(plan.names[row])
                kept.append(plan.stamps[row])
            if pictures:
                found.append(system.encode_gallery(pictures))
                check_rows(names[-len(pictures) :], found[-1], dimension)
            new = min(BATCH, rows.stop - begin)
            left -= new
            progress(new, left)
        stamps = np.asarray(kept, np.int64).reshape(-1, 2)
        parts.write_part(_file(folder, number), Part(names, pack(np.concatenate(found), storage), stamps, skipped))


def _decoded(system: Encoder, gallery: Gallery, names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """(picture as the system sees it, "") or (None, what is wrong with it) of each name, read ahead on all cores."""

    def read(name: str) -> tuple[Any, str]:
        try:
            return images.load(gallery.picture(name), system.image_size, fit=system.fit), ""
        except UserError as error:
            return None, str(error)
        except OSError as error:
            if error.errno in ABSENT:
                return None, f"There is no picture {name} ({error})."
            raise UserError(  # of the disk or the network: another time the picture may be good
                f"{name} can't be read ({error}); see to that and run the same command again, which goes on, or remove "
                "the picture."
            ) from error

    return map_ahead(read, names, ahead=BATCH)


def told(skipped: Sequence[Skipped]) -> str:
    """What is said of bad pictures: how many, and what is wrong with the first."""
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"{len(skipped)} picture(s) can't be read: {' '.join(bad.reason for bad in skipped[:NAMED])}{more}"


def _whole(index: Index, gallery: Gallery) -> Index:
    if not len(index):
        raise UserError(f"{told(index.skipped)} No other is in {gallery.place}; expected at least one good picture.")
    return index
