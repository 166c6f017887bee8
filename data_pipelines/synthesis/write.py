"""Writes a set of triplets in CIRR's and CIRR_R's layout and as a manifest, with pictures and provenance.

{split}.jsonl                                  a manifest (data.reader=manifest), each line with its provenance
rewritten_captions/rewritten_{split}.json      all texts of a pair, as CIRR_R has them (data.reader=cirr_r)
captions/cap.rc2.{split}.json                  the first text of each pair, as CIRR has it (data.reader=cirr)
image_splits/  image_captions/  img_raw/       the pictures that triplets name (hard links where the disk can do that)
synthesis/drafts.{split}.jsonl                 every pair with its answers, its texts, and why some were removed
synthesis/source                               the folder that the pictures are from: one for all splits
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax import images
from contextjax.files import remove_partials, whole_file, write_whole
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, Thing, to_line, triplet_id
from data_pipelines.synthesis.pairs import SourcePictures

MARK, SOURCE = "synthesis", "source"  # the folder that marks a target as a synthesized set, and a file in it


@dataclasses.dataclass
class WriteCounts:
    """Counts of a written split; `reviewed` counts the decisions about its texts."""

    pairs: int = 0
    triplets: int = 0
    pictures: int = 0
    waiting: int = 0  # pairs
    problems: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # by stage
    removed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # texts by filter
    reviewed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # decisions


def check_target(target: Path) -> None:
    """Checks that a folder is missing, empty or a synthesized set. Raises UserError: it is something else."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is no folder; give a new or empty one as --target.")
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_dir():
        raise UserError(
            f"{target} holds something else than a synthesized set; give a new or empty folder as --target."
        )


def check_source(target: Path, source: Path) -> None:
    """Checks that a set holds pictures of the folder `source` only. Raises UserError: it has those of another."""
    record = target / MARK / SOURCE
    if record.exists() and (known := record.read_bytes()) != _source(source):
        raise UserError(
            f"{target} is made of the pictures of {os.fsdecode(known)}, and this run's are of {source.resolve()}: they "
            "may be others of the same names; give another --target (--answers takes kept answers along)."
        )


def remove_stale(target: Path) -> None:
    """Removes half-written files that killed runs left behind; no other process may be writing there."""
    for folder, inside, _ in os.walk(target):
        if Path(folder) == target / MARK:
            inside.clear()  # the index of embeddings has a lock of its own
        remove_partials(Path(folder))


def _source(folder: Path) -> bytes:
    return os.fsencode(folder.resolve())


def write_set(drafts: Iterable[Draft], pictures: SourcePictures, target: Path, split: str) -> WriteCounts:
    """Writes the files of a split, whole or not at all; without a triplet, only the drafts, which say why.

    Args:
      drafts: drafts after all stages, those of one reference together.
      pictures: the pictures that drafts name.
      target: the folder of the set.
      split: the split.

    Raises:
      UserError: the disk is full, or may not be written to.
    """
    try:
        write_whole(target / MARK / SOURCE, _source(pictures.folder))
        return _Writer(pictures, target, split).write(drafts)
    except OSError as error:
        raise UserError(f"{target} can't be written ({error}); make room, and run the same command again.") from error


class _NoTriplet(Exception):
    """Stops the writing of all files but the drafts."""


class _Writer:
    def __init__(self, pictures: SourcePictures, target: Path, split: str):
        self.pictures, self.target, self.split = pictures, target, split
        self.names = cirr_names(pictures.files)
        self.captions: dict[str, str] = {}  # of the pictures in kept triplets
        self.counts = WriteCounts()

    def write(self, drafts: Iterable[Draft]) -> WriteCounts:
        split, target = self.split, self.target
        files = {
            "manifest": target / f"{split}.jsonl",
            "rewritten": target / "rewritten_captions" / f"rewritten_{split}.json",
            "triplets": target / "captions" / f"cap.rc2.{split}.json",
            "splits": target / "image_splits" / f"split.rc2.{split}.json",
            "captions": target / "image_captions" / f"captions.{split}.json",
        }
        drafts_file = {"drafts": target / MARK / f"drafts.{split}.jsonl"}
        with whole_files(drafts_file) as out, contextlib.suppress(_NoTriplet), whole_files(files) as own:
            self._write_all(drafts, out | own)
            if not self.counts.triplets:
                raise _NoTriplet
        self.counts.pictures = len(self.captions)
        return self.counts

    def _write_all(self, drafts: Iterable[Draft], out: Mapping[str, Callable[[str], Any]]) -> None:
        rewritten, triplets = _JsonWriter(out["rewritten"]), _JsonWriter(out["triplets"])
        for draft in drafts:
            out["drafts"](to_line(draft) + "\n")
            self._count(draft)
            if draft.kept:
                self._note_captions(draft)
                for row in self._rows(draft):
                    out["manifest"](_compact(row) + "\n")
                rewritten.add(self._rewritten(draft))
                triplets.add(self._triplet(draft))
        rewritten.end()
        triplets.end()
        self._write_pictures(out)

    def _count(self, draft: Draft) -> None:
        counts = self.counts
        counts.pairs += 1
        counts.waiting += draft.waiting
        if draft.problem:
            counts.problems[draft.problem.partition(":")[0]] += 1
        counts.triplets += len(draft.kept)
        for sentence in draft.sentences:
            if sentence.removed_by:
                counts.removed[sentence.removed_by] += 1
            if sentence.removed_by == "review" or "review" in sentence.passed:
                counts.reviewed["reject" if sentence.removed_by == "review" else "accept"] += 1

    def _note_captions(self, draft: Draft) -> None:
        for name, things in ((draft.reference, draft.reference_things), (draft.target, draft.target_things)):
            self.captions.setdefault(name, caption(things))

    def _rows(self, draft: Draft) -> Iterator[dict[str, Any]]:
        reference, target = (f"img_raw/{self.pictures.place(name)}" for name in (draft.reference, draft.target))
        for sentence in draft.kept:
            yield {
                "reference": reference,
                "target": target,
                "caption": sentence.text,
                "id": triplet_id(draft, sentence.text),
                "made_by": made_by(draft),
                "passed": sentence.passed,
            }

    def _rewritten(self, draft: Draft) -> dict[str, Any]:
        return {
            "query_image_url": f"{self.names[draft.reference]}.png",
            "retrieved_image_url": f"{self.names[draft.target]}.png",
            "difference_captions": [sentence.text for sentence in draft.kept],
            "made_by": made_by(draft),
        }

    def _triplet(self, draft: Draft) -> dict[str, Any]:
        target = self.names[draft.target]
        return {
            "pairid": triplet_id(draft, draft.kept[0].text),
            "reference": self.names[draft.reference],
            "target_hard": target,
            "target_soft": {target: 1.0},
            "caption": draft.kept[0].text,
            "made_by": made_by(draft),
        }

    def _write_pictures(self, out: Mapping[str, Callable[[str], Any]]) -> None:
        splits, captions = _JsonWriter(out["splits"], "{}"), _JsonWriter(out["captions"])
        for name, text in self.captions.items():
            place = self.pictures.place(name)
            copy_picture(self.pictures.files[name], self.target / "img_raw" / place)
            splits.add(f"./{place}", key=self.names[name])
            # CIRR's captions name a picture by its file: the name before the ending is its id.
            captions.add({"image": f"{self.names[name]}.png", "caption": text})
        splits.end()
        captions.end()


def made_by(draft: Draft) -> list[dict[str, str]]:
    """Returns the model, prompt and answer key of each step that led to a draft's texts."""
    return [{"model": reply.model, "prompt": reply.prompt, "answer": reply.key} for reply in draft.replies]


def caption(things: Sequence[Thing]) -> str:
    """Formats a description of a picture as one line."""
    return "; ".join(f"{thing.object}, {thing.details}" if thing.details else thing.object for thing in things)


def cirr_names(ids: Iterable[str]) -> dict[str, str]:
    """Names pictures as CIRR does: picture id -> a unique name without slash and suffix."""
    plain = {}
    for id in ids:
        stem, dot, ending = id.rpartition(".")
        plain[id] = (stem if dot and f".{ending.lower()}" in images.suffixes() else id).replace("/", "-")
    counts = collections.Counter(plain.values())
    digest = lambda id: hashlib.blake2b(id.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return {id: name if counts[name] == 1 and name else f"{name}-{digest(id)}" for id, name in plain.items()}


def copy_picture(source: Any, goal: Path) -> None:
    """Copies a picture's file, as a hard link where the disk allows it."""
    if isinstance(source, Path) and goal.exists():
        there, here = goal.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns):
            return
    with whole_file(goal) as partial:
        partial.unlink(missing_ok=True)
        if not isinstance(source, Path):
            partial.write_bytes(source.read_bytes())
            return
        try:
            os.link(source.resolve(), partial)
        except OSError:
            shutil.copy2(source, partial)


@contextlib.contextmanager
def whole_files(files: Mapping[str, Path]) -> Iterator[dict[str, Callable[[str], Any]]]:
    """Writes several files side by side. They get their names when all are written; none does if one fails."""
    with contextlib.ExitStack() as stack:
        partial = {name: stack.enter_context(whole_file(path)) for name, path in files.items()}
        opened = {name: stack.enter_context(path.open("w", encoding="utf-8")) for name, path in partial.items()}
        yield {name: file.write for name, file in opened.items()}


class _JsonWriter:
    """Writes a JSON list or object, one row a line."""

    def __init__(self, write: Callable[[str], Any], brackets: str = "[]"):
        self._write, self._end, self._before = write, brackets[1], brackets[0]

    def add(self, value: Any, *, key: str | None = None) -> None:
        self._write(self._before + ("" if key is None else f"{json.dumps(key)}:") + _compact(value))
        self._before = ",\n"

    def end(self) -> None:
        self._write((self._before if len(self._before) == 1 else "") + self._end + "\n")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
