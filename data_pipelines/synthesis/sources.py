"""Where pictures and pairs come from: a folder of pictures, or a set of composed queries whose pairs are taken."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from contextjax import images
from contextjax.types import ComposedRecord, UserError
from data_pipelines.prepare import read_bytes
from data_pipelines.readers import DatasetReader
from data_pipelines.records import PictureFile
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.questions import Shown


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Picture id -> file. Any process can read them: it is pickled as it is."""

    folder: Path
    files: Mapping[str, PictureFile]

    def show(self, name: str) -> Shown:
        """A picture's bytes and their digest, once it is known to be one.

        Raises:
          UserError: it can't be read.
        """
        data = read_bytes(self.files[name], f"Picture {name}")
        images.decode(data, name=f"Picture {name}")
        return Shown(name, hashlib.blake2b(data, digest_size=16).hexdigest(), data)

    def place(self, name: str) -> str:
        """Where a copy of a picture goes: its path below the folder, without img_raw/; for a part of a file, a name."""
        file = self.files[name]
        if not isinstance(file, Path):
            return f"{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.png"
        return Path(os.path.relpath(file, self.folder)).as_posix().removeprefix(self._shared)

    @functools.cached_property
    def _shared(self) -> str:
        """CIRR's own folder of pictures, where all are in it."""
        places = (os.path.relpath(str(file), self.folder) for file in self.files.values())
        return "img_raw/" if all(place.startswith("img_raw/") for place in places) else ""


def folder_pictures(folder: Path) -> Pictures:
    """All pictures of a folder and its subfolders, by their paths in it.

    Raises:
      UserError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give a folder of PNG, JPEG or WebP files as --pictures.")
    files = (p for p in folder.rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in sorted(files)}
    if not found:
        raise UserError(f"{folder} holds no pictures; expected PNG, JPEG or WebP files.")
    odd = [name for name in found if name != name.encode(errors="replace").decode()]
    if odd:
        raise UserError(f"{len(odd)} picture(s) of {folder} have names that are no UTF-8, as {odd[0]!r}; rename them.")
    return Pictures(folder, found)


def existing_pairs(reader: DatasetReader[ComposedRecord], split: str) -> tuple[Pictures, list[Draft]]:
    """A split's pictures, and its own (reference, target) pairs, each once, in order of their names.

    Raises:
      UserError: there is no such split, its records have no targets, or it has problems.
    """
    if split not in reader.splits:
        raise UserError(f"The set has no split '{split}'; it has {', '.join(reader.splits)}.")
    if reader.record_type is not ComposedRecord:
        raise UserError(f"'{reader.name}' has no pairs of reference and target; give a set of composed queries.")
    pairs = {(record.reference, record.target) for record in reader.records(split) if record.target is not None}
    if not pairs:
        raise UserError(f"Split '{split}' names no targets, so it has no pairs; give another split.")
    pictures = Pictures(Path(getattr(reader, "folder")), reader.pictures(split))  # noqa: B009
    return pictures, [Draft(reference, target) for reference, target in sorted(pairs)]


def grouped_pairs(groups: Iterable[tuple[str, ...]], *, targets: int) -> list[Draft]:
    """Pairs of mined groups: each member is a reference, the next `targets` of its group (in a ring) its targets.

    So every member is as often a target as a reference.
    """
    drafts = [
        Draft(group[i], group[(i + offset) % len(group)])
        for group in groups
        for i in range(len(group))
        for offset in range(1, min(targets, len(group) - 1) + 1)
    ]
    return sorted(drafts, key=lambda draft: (draft.reference, draft.target))
