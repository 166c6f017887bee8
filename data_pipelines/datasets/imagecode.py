"""ImageCoDe's layout, read as it comes: descriptions of one picture among nearly identical ones.

image-sets/<set>/img<N>.jpg      (N has gaps: a candidate's index is its rank by N)
train_data.json, valid_data.json: {set: {"<target index>": description}}; any other <split>_data.json too
test_data_unlabeled.json: {set: [description]}   (the split "test", unless there is a test_data.json)
train_simple.json, valid_simple.json: [{"directory": set, "pos_idx": index, "neg_idx": index, "caption": description}]
                           (optional: the described picture beside one other; indices are ranks, as in the files above)
propositions.json: {description: [1 to 6 short sentences]}   (optional, and not read by the reader: read_propositions)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from contextjax.images import SUFFIXES
from contextjax.json_files import read_json
from contextjax.types import CandidateRecord, UserError
from data_pipelines.records import DatasetReader, check_problems, stays_inside
from data_pipelines.texts import has_words

FILE, UNLABELED, SIMPLE = "_data.json", "test_data_unlabeled.json", "_simple.json"
PICTURE = re.compile(r"img([0-9]+)")
PROPOSITIONS = 6


class ImageCodeReader(DatasetReader[CandidateRecord]):
    """Reads a folder in ImageCoDe's layout; the folder is never written to.

    The splits "train_simple" and "val_simple" have two candidates, the others as many as there are pictures of a set.
    """

    name = "imagecode"
    record_type = CandidateRecord

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        files, simple = _files(self.folder, FILE), _files(self.folder, SIMPLE, mark="_simple")
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
        self._files, self._simple = files | simple, frozenset(simple)
        self.splits = tuple(sorted(self._files))

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return sorted(self._files.values())

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture "<set>/img<N>" -> file, of the sets that the split describes; candidates in their order.

        A set that lacks pictures is told by `records`.
        """
        return {f"{name}/{path.stem}": path for name in self._names(split) for path in self._candidates(name)}

    def captions(self, split: str) -> dict[str, str]:
        """None: descriptions tell a picture from its neighbours, not what it shows."""
        return {}

    def records(self, split: str) -> list[CandidateRecord]:
        """All descriptions of a split, in the order of its file; targets are None where they are secret.

        Raises:
          UserError: sets have fewer than two pictures or two of one number, descriptions name a candidate
            that isn't there, have no words, or are those of another candidate of the set too.
        """
        records, problems = (self._pairs if split in self._simple else self._descriptions)(split)
        check_problems(problems, self._file(split).name)
        if not records:
            raise UserError(f"{self._file(split)} holds no descriptions; expected at least one.")
        return records

    def _descriptions(self, split: str) -> tuple[list[CandidateRecord], list[str]]:
        """The records of all sound sets, and what is wrong with the others."""
        records, problems = [], []
        for name, descriptions in self._sets(split).items():
            candidates = self._candidates(name)
            images = _ids(name, candidates)
            faults = _set_faults(candidates, descriptions)
            for number, (target, text) in enumerate(_targets_and_texts(descriptions)):
                fault = _description_fault(target, text, len(images))
                if fault:
                    faults.append(fault)
                elif not faults:
                    index = None if target is None else int(target)
                    records.append(CandidateRecord(f"{name}/{number}", images, text, index, _kind(name), name))
            problems += [f"set {name} has {fault}" for fault in faults]
        return records, problems

    def _pairs(self, split: str) -> tuple[list[CandidateRecord], list[str]]:
        """The records of two candidates of all sound rows, and what is wrong with the others.

        A hash of the row's number says which of the two comes first: the files name the described one first, and a
        model must not learn that.
        """
        records, problems = [], []
        sets = {name: self._candidates(name) for name in self._names(split)}
        for number, row in enumerate(self._rows(split)):
            fault = _row_fault(row) or _set_fault(sets[row["directory"]])
            if fault:
                problems.append(f"row {number} has {fault}")
                continue
            name, right, wrong = row["directory"], row["pos_idx"], row["neg_idx"]
            images = _ids(name, sets[name])
            if max(right, wrong) >= len(images):
                problems.append(f"row {number} has the candidate {max(right, wrong)}, but {len(images)} pictures")
                continue
            target = hashlib.blake2b(str(number).encode()).digest()[0] % 2
            pair = (images[wrong], images[right]) if target else (images[right], images[wrong])
            records.append(CandidateRecord(f"{name}/{number}", pair, row["caption"], target, _kind(name), name))
        return records, problems

    def _file(self, split: str) -> Path:
        return self._files.get(split, self.folder / f"{split}{FILE}")

    def _sets(self, split: str) -> dict[str, Any]:
        return read_json(self._file(split), dict, layout="ImageCoDe")

    def _rows(self, split: str) -> list[Any]:
        return read_json(self._file(split), list, layout="ImageCoDe")

    def _names(self, split: str) -> list[str]:
        """The sets that a split describes, each once; rows with faults are told by `records`."""
        if split not in self._simple:
            return list(self._sets(split))
        return list(dict.fromkeys(row["directory"] for row in self._rows(split) if not _row_fault(row)))

    def _candidates(self, name: str) -> list[Path]:
        """A set's pictures by the number in their names; a candidate's index is its position here."""
        if not stays_inside(name):
            return []
        try:
            files = list((self.folder / "image-sets" / name).glob("img*"))
        except OSError:  # no name that a folder can have
            files = []
        found = [path for path in files if path.suffix.lower() in SUFFIXES and PICTURE.fullmatch(path.stem)]
        return sorted(found, key=_number)


def _files(folder: Path, ending: str, *, mark: str = "") -> dict[str, Path]:
    """Split -> file of those with this ending in their names."""
    found = {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    return {("val" if name == "valid" else name) + mark: path for name, path in found.items()}


def read_propositions(path: str | Path) -> dict[str, tuple[str, ...]]:
    """The short sentences that together say what a description says, by the description as its file has it.

    Args:
      path: a JSON file {description: [1 to 6 sentences]}, or a folder with such a propositions.json.

    Raises:
      UserError: the file is missing or of another shape, or descriptions have no sentence, too many, or empty ones.
    """
    path = Path(path)
    path = path / "propositions.json" if path.is_dir() else path
    found = read_json(path, dict, layout="a propositions file")
    problems = []
    for text, sentences in found.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) and has_words(s) for s in sentences):
            problems.append(f"'{text[:60]}' has no list of sentences ({str(sentences)[:60]})")
        elif not 1 <= len(sentences) <= PROPOSITIONS:
            problems.append(f"'{text[:60]}' has {len(sentences)} sentences, expected 1 to {PROPOSITIONS}")
    check_problems(problems, path.name)
    return {text: tuple(sentences) for text, sentences in found.items()}


def _ids(name: str, candidates: list[Path]) -> tuple[str, ...]:
    return tuple(f"{name}/{path.stem}" for path in candidates)


def _kind(name: str) -> str:
    return "static" if "open-images" in name else "video"


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("img"))


def _targets_and_texts(descriptions: Any) -> list[tuple[str | None, Any]]:
    """(target index as written, text) of a set's descriptions; the index is None where it is secret."""
    if isinstance(descriptions, dict):
        return list(descriptions.items())
    return [(None, text) for text in descriptions] if isinstance(descriptions, list) else []


def _set_fault(candidates: list[Path]) -> str:
    if len(candidates) < 2:
        return f"{len(candidates)} picture(s) in image-sets/, expected at least 2"
    twice = [number for number, count in Counter(map(_number, candidates)).items() if count > 1]
    return f"several pictures of the number {twice[0]}" if twice else ""


def _set_faults(candidates: list[Path], descriptions: Any) -> list[str]:
    faults = [fault] if (fault := _set_fault(candidates)) else []
    if not isinstance(descriptions, dict | list):
        faults.append(f"a {type(descriptions).__name__} for its descriptions")
    if isinstance(descriptions, dict):  # where targets are secret, the same text may be of the same candidate
        twice = [text for text, count in Counter(map(str, descriptions.values())).items() if count > 1]
        faults += [f"the same text for several candidates ('{text[:60]}')" for text in twice if has_words(text)]
    return faults


def _description_fault(target: str | None, text: Any, count: int) -> str:
    if not isinstance(text, str):
        return f"a description that is no text ({str(text)[:60]})"
    if not text.strip():
        return "an empty text"
    if not has_words(text):
        return f"a text without a word ({text[:60]!r})"
    # A set without its pictures is told as such, once.
    if target is not None and count > 1 and not (target.isdecimal() and int(target) < count):
        return f"a description of candidate '{target}', but {count} pictures"
    return ""


def _row_fault(row: Any) -> str:
    """What is wrong with a row of a simple file, whatever the pictures are."""
    keys = ("directory", "pos_idx", "neg_idx", "caption")
    if not isinstance(row, dict) or not all(key in row for key in keys) or not isinstance(row["directory"], str):
        return f"no {', '.join(keys)} ({str(row)[:60]})"
    indices = row["pos_idx"], row["neg_idx"]
    if not all(type(index) is int and index >= 0 for index in indices) or indices[0] == indices[1]:
        return f"the indices {indices}, expected two of different candidates"
    return _description_fault(None, row["caption"], 0)
