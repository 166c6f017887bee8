"""ImageCoDe's layout, read as it comes: descriptions of one picture among nearly identical ones.

image-sets/<set>/img<N>.jpg      (N has gaps: a candidate's index is its rank by N)
train_data.json, valid_data.json: {set: {"<target index>": description}}; any other <split>_data.json too
test_data_unlabeled.json: {set: [description]}   (the split "test", unless there is a test_data.json)
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from contextjax.images import SUFFIXES
from contextjax.types import CandidateRecord, UserError
from data_pipelines.records import DatasetReader, check_problems, read_json

FILE, UNLABELED = "_data.json", "test_data_unlabeled.json"
PICTURE = re.compile(r"img([0-9]+)")


class ImageCodeReader(DatasetReader[CandidateRecord]):
    """Reads a folder in ImageCoDe's layout; the folder is never written to."""

    name = "imagecode"
    record_type = CandidateRecord

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        files = {path.name.removesuffix(FILE): path for path in self.folder.glob(f"*{FILE}")}
        if "valid" in files:
            files["val"] = files.pop("valid")
        if (self.folder / UNLABELED).exists():
            files.setdefault("test", self.folder / UNLABELED)
        if not files:
            raise UserError(
                f"{self.folder} holds no *{FILE}; expected a folder in ImageCoDe's layout: "
                "check the path, or write one with `python -m experiments.generate`."
            )
        if not (self.folder / "image-sets").is_dir():
            raise UserError(
                f"{self.folder} holds no folder image-sets; expected pictures as image-sets/<set>/img<N>.jpg: "
                "unpack them there."
            )
        self._files = files
        self.splits = tuple(sorted(files))

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return sorted(self._files.values())

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture "<set>/img<N>" -> file, of the sets that the split describes; candidates in their order.

        A set that lacks pictures is told by `records`.
        """
        return {f"{name}/{path.stem}": path for name in self._sets(split) for path in self._candidates(name)}

    def captions(self, split: str) -> dict[str, str]:
        """None: descriptions tell a picture from its neighbours, not what it shows."""
        return {}

    def records(self, split: str) -> list[CandidateRecord]:
        """All descriptions of a split, in the order of its file; targets are None where they are secret.

        Raises:
          UserError: sets have fewer than two pictures or two of one number, descriptions name a candidate
            that isn't there, or have no text.
        """
        records, problems = [], []
        for name, descriptions in self._sets(split).items():
            candidates = self._candidates(name)
            images = tuple(f"{name}/{path.stem}" for path in candidates)
            kind = "static" if "open-images" in name else "video"
            faults = _set_faults(candidates, descriptions)
            for number, (target, text) in enumerate(_targets_and_texts(descriptions)):
                fault = _description_fault(target, text, len(images))
                if fault:
                    faults.append(fault)
                elif not faults:
                    index = None if target is None else int(target)
                    records.append(CandidateRecord(f"{name}/{number}", images, text, index, kind))
            problems += [f"set {name} has {fault}" for fault in faults]
        check_problems(problems, self._file(split).name)
        if not records:
            raise UserError(f"{self._file(split)} holds no descriptions; expected at least one.")
        return records

    def _file(self, split: str) -> Path:
        return self._files.get(split, self.folder / f"{split}{FILE}")

    def _sets(self, split: str) -> dict[str, Any]:
        return read_json(self._file(split), dict, layout="ImageCoDe")

    def _candidates(self, name: str) -> list[Path]:
        """A set's pictures by the number in their names; a candidate's index is its position here."""
        files = (self.folder / "image-sets" / name).glob("img*")
        found = [path for path in files if path.suffix.lower() in SUFFIXES and PICTURE.fullmatch(path.stem)]
        return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("img"))


def _targets_and_texts(descriptions: Any) -> list[tuple[str | None, Any]]:
    """(target index as written, text) of a set's descriptions; the index is None where it is secret."""
    if isinstance(descriptions, dict):
        return list(descriptions.items())
    return [(None, text) for text in descriptions] if isinstance(descriptions, list) else []


def _set_faults(candidates: list[Path], descriptions: Any) -> list[str]:
    faults = []
    if len(candidates) < 2:
        faults.append(f"{len(candidates)} picture(s) in image-sets/, expected at least 2")
    twice = [number for number, count in Counter(map(_number, candidates)).items() if count > 1]
    if twice:
        faults.append(f"several pictures of the number {twice[0]}")
    if not isinstance(descriptions, dict | list):
        faults.append(f"a {type(descriptions).__name__} for its descriptions")
    return faults


def _description_fault(target: str | None, text: Any, count: int) -> str:
    if not isinstance(text, str):
        return f"a description that is no text ({str(text)[:60]})"
    if not text.strip():
        return "an empty text"
    # A set without its pictures is told as such, once.
    if target is not None and count > 1 and not (target.isdecimal() and int(target) < count):
        return f"a description of candidate '{target}', but {count} pictures"
    return ""
