"""ImageCoDe's layout: descriptions of one picture among nearly identical ones.

image-sets/<set>/img<N>.jpg      (N has gaps: a candidate's index is its rank by N)
train_data.json, valid_data.json: {set: {"<target index>": description}}; any other <split>_data.json too
test_data_unlabeled.json: {set: [description]}   (the split "test", unless there is a test_data.json)
train_simple.json, valid_simple.json: [{"directory": set, "pos_idx": index, "neg_idx": index, "caption": description}]
                           (optional: the described picture beside one other; indices are ranks, as in the files above)
train_few.json, valid_few.json: the same, but neg_idx is a list   (optional: the described picture beside some others)
kinds.json: {set: {"<target index>": [kind of the description]}}   (optional; accuracy is reported by kind)
boxes.json: what each picture shows where, see data_pipelines.boxes   (optional; grounding is measured by it)
bounds.json: {kind: percent}   (optional: the accuracy that a model reaches which scores candidates one at a time)
propositions.json: {description: [1 to 6 short sentences]}   (optional, and not read by the reader: read_propositions)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from contextjax.files import existing
from contextjax.images import is_picture
from contextjax.json_files import read_json
from contextjax.types import CandidateRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.records import check_problems, matching
from data_pipelines.texts import has_words

KINDS, BOUNDS = "kinds.json", "bounds.json"
FILE, UNLABELED, SIMPLE, FEW = "_data.json", "test_data_unlabeled.json", "_simple.json", "_few.json"
PICTURE = re.compile(r"img([0-9]+)")
PROPOSITIONS = 6


class ImageCodeReader(DatasetReader[CandidateRecord]):
    """Reads a folder in ImageCoDe's layout.

    The splits "train_simple" and "val_simple" have two candidates, "train_few" and "val_few" as many as a row names,
    the others as many as there are pictures of a set.
    """

    name = "imagecode"
    layout = "ImageCoDe"
    record_type = CandidateRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        files = _files(self.folder, FILE)
        some = _files(self.folder, SIMPLE, mark="_simple") | _files(self.folder, FEW, mark="_few")
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
        self._files, self._some = files | some, frozenset(some)
        self.splits = tuple(sorted(self._files))

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return sorted([*self._files.values(), *filter(Path.exists, [self.folder / KINDS])])

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture "<set>/img<N>" -> file, of the sets that the split describes, candidates in their order.

        `records` reports a set that lacks pictures.
        """
        return {f"{name}/{path.stem}": path for name in self._names(split) for path in self._candidates(name)}

    def read(self, split: str) -> SplitRecords[CandidateRecord]:
        """Returns all descriptions of a split, in the order of its file; targets are None where they are secret.

        Raises:
          UserError: sets have two pictures of one number, descriptions are not texts, or no description can be scored:
            its set needs at least two pictures, and its candidate must be among them.
        """
        records, problems, unknown = (self._rows_of_some if split in self._some else self._descriptions)(split)
        return self._checked(records, problems, self._file(split), "descriptions", unknown=unknown, split=split)

    def _descriptions(self, split: str) -> tuple[list[CandidateRecord], list[str], list[str]]:
        """Returns the records of all sound sets, the problems of the others, and what is about unknown candidates."""
        records, problems, unknown, kinds = [], [], [], self._kinds()
        for name, descriptions in self._sets(split).items():
            candidates = self._candidates(name)
            images = _ids(name, candidates)
            if not isinstance(descriptions, dict | list):
                problems.append(f"set {name} has a {type(descriptions).__name__} for its descriptions")
            elif fault := _numbers_fault(candidates):
                problems.append(f"set {name} has {fault}")
            elif len(candidates) < 2:
                unknown.append(f"set {name} has {_few(candidates)}")
            else:
                for number, (target, text) in enumerate(_targets_and_texts(descriptions)):
                    text = "" if text is None else text
                    index = None if target is None else int(target) if target.isdecimal() else -1
                    if not isinstance(text, str):
                        problems.append(f"set {name} has a description that is no text ({str(text)[:60]})")
                    elif index is not None and not 0 <= index < len(images):
                        unknown.append(
                            f"set {name} has a description of candidate '{target}', but {len(images)} pictures"
                        )
                    elif "comparative" in (own := tuple(kinds.get(name, {}).get(target or "", ()))) and len(images) < 3:
                        problems.append(f"set {name} has a comparative description, but only 2 pictures; expected 3")
                    else:
                        records.append(CandidateRecord(f"{name}/{number}", images, text, index, _kind(name), name, own))
        return records, problems, unknown

    def _rows_of_some(self, split: str) -> tuple[list[CandidateRecord], list[str], list[str]]:
        """Returns the records of some candidates of all sound rows, the problems of the others, and unknown candidates.

        A hash of the row's number decides where the described one stands: the files name it first, and a model must not
        learn that.
        """
        sets, unknown = {name: self._candidates(name) for name in self._names(split)}, []

        def record(number: int, row: Any) -> list[CandidateRecord]:
            name, right, wrong = _checked_row(row, several=self._file(split).name.endswith(FEW))
            if fault := _numbers_fault(sets[name]):
                raise annotations.Fault(f"has {fault}")
            images = _ids(name, sets[name])
            if (highest := max(right, *wrong)) >= len(images):
                few = f"the candidate {highest}, but {len(images)} pictures"
                unknown.append(f"row {number} has {few if len(images) > 1 else _few(sets[name])}")
                return []
            target = hashlib.blake2b(str(number).encode()).digest()[0] % (1 + len(wrong))
            some = tuple(images[index] for index in (*wrong[:target], right, *wrong[target:]))
            return [CandidateRecord(f"{name}/{number}", some, row["caption"] or "", target, _kind(name), name)]

        return *annotations.parse(self._rows(split), record, file=self._file(split).name), unknown

    def _file(self, split: str) -> Path:
        return self._files.get(split, self.folder / f"{split}{FILE}")

    def _sets(self, split: str) -> dict[str, Any]:
        return read_json(self._file(split), dict, layout=self.layout)

    def _kinds(self) -> dict[str, dict[str, list[str]]]:
        """Returns set -> target index, as written -> the kinds of its description. Empty where no file has them."""
        if not (self.folder / KINDS).exists():
            return {}
        kinds = read_json(self.folder / KINDS, dict, layout=self.layout)
        of_text = lambda own: isinstance(own, list) and all(isinstance(kind, str) for kind in own)
        of_set = lambda own: isinstance(own, dict) and all(map(of_text, own.values()))
        check_problems(
            [f"'{name[:60]}' has no kinds by target index" for name in kinds if not of_set(kinds[name])], KINDS
        )
        return kinds

    def _rows(self, split: str) -> list[Any]:
        return read_json(self._file(split), list, layout=self.layout)

    def _names(self, split: str) -> list[str]:
        """Returns the sets that a split describes, each once; `records` reports rows with faults."""
        if split not in self._some:
            return list(self._sets(split))
        several = self._file(split).name.endswith(FEW)
        rows, _ = annotations.parse(self._rows(split), lambda _, row: [_checked_row(row, several=several)], file="")
        return list(dict.fromkeys(name for name, _, _ in rows))

    def _candidates(self, name: str) -> list[Path]:
        """Returns a set's pictures by the number in their names; the position is the candidate's index."""
        if not annotations.stays_inside(name):
            return []
        try:
            files = list(existing(self.folder / "image-sets" / name).glob("img*"))
        except OSError:  # no name that a folder can have
            files = []
        pictures = [path for path in files if is_picture(path) and PICTURE.fullmatch(path.stem)]
        return sorted(pictures, key=_number)


def _files(folder: Path, ending: str, *, mark: str = "") -> dict[str, Path]:
    """Returns split -> file, of the files whose names have this ending."""
    files = {path.name.removesuffix(ending): path for path in matching(folder, f"*{ending}")}
    return {("val" if name == "valid" else name) + mark: path for name, path in files.items()}


def read_propositions(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Reads the short sentences that together say what a description says, by the description as its file has it.

    Args:
      path: a JSON file {description: [1 to 6 sentences]}, or a folder with such a propositions.json.

    Raises:
      UserError: the file is missing or of another shape, or descriptions have no sentence, too many, or empty ones.
    """
    path = Path(path)
    path = path / "propositions.json" if path.is_dir() else path
    propositions = read_json(path, dict, layout="a propositions file")
    problems = []
    for text, sentences in propositions.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) and has_words(s) for s in sentences):
            problems.append(f"'{text[:60]}' has no list of sentences ({str(sentences)[:60]})")
        elif not 1 <= len(sentences) <= PROPOSITIONS:
            problems.append(f"'{text[:60]}' has {len(sentences)} sentences, expected 1 to {PROPOSITIONS}")
    check_problems(problems, path.name)
    return {text: tuple(sentences) for text, sentences in propositions.items()}


def read_bounds(folder: Path) -> dict[str, float]:
    """Returns kind -> the accuracy in percent that needs no comparison of candidates, where the folder says so."""
    if not (folder / BOUNDS).is_file():
        return {}
    bounds = read_json(folder / BOUNDS, dict, layout="ImageCoDe")
    return {kind: float(value) for kind, value in bounds.items() if isinstance(value, int | float)}


def _ids(name: str, candidates: list[Path]) -> tuple[str, ...]:
    return tuple(f"{name}/{path.stem}" for path in candidates)


def _kind(name: str) -> str:
    return "static" if "open-images" in name else "video"


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("img"))


def _targets_and_texts(descriptions: Any) -> list[tuple[str | None, Any]]:
    """Returns (target index as written, text) of a set's descriptions; the index is None where it is secret."""
    if isinstance(descriptions, dict):
        return list(descriptions.items())
    return [(None, text) for text in descriptions] if isinstance(descriptions, list) else []


def _few(candidates: list[Path]) -> str:
    return f"{len(candidates)} picture(s) in image-sets/, expected at least 2"


def _numbers_fault(candidates: list[Path]) -> str:
    twice = [number for number, count in Counter(map(_number, candidates)).items() if count > 1]
    return f"several pictures of the number {twice[0]}" if twice else ""


def _checked_row(row: Any, *, several: bool) -> tuple[str, int, tuple[int, ...]]:
    """Returns (set, right index, wrong indices) of a row of a file of some candidates. Raises annotations.Fault."""
    name = annotations.text(row, "directory")
    right = annotations.value(row, "pos_idx", object, "an index")
    wrong = annotations.value(row, "neg_idx", *((list, "a list of indices") if several else (object, "an index")))
    indices = (right, *wrong) if several else (right, wrong)
    expected = "two or more" if several else "two"
    if not all(type(index) is int and index >= 0 for index in indices) or not 1 < len(set(indices)) == len(indices):
        raise annotations.Fault(f"has the indices {indices}, expected {expected} of different candidates")
    annotations.words(row, "caption")
    return name, indices[0], indices[1:]
