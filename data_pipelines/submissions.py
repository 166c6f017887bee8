"""Submission files: written from scores or rankings, and checked as leaderboards would, with all problems at once.

CIRR, two files: {"version": "rc2", "metric": "recall" | "recall_subset", pair id: [50, or 3 of its group, names]}
CIRCO: {"0": [50 picture numbers], "1": ...}           ImageCoDe: {set: [index of the best candidate, ...]}

Nothing here imports JAX, so that a file is checked in a second.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import write_whole
from contextjax.json_files import parse_json, read_text
from contextjax.types import CandidateRecord, ComposedRecord, UserError
from data_pipelines.protocols import IMAGECODE_CANDIDATES
from data_pipelines.records import check_problems

MAX_BYTES = 5_000_000
RANKED = 50  # pictures of a ranking of the whole gallery
CIRR_VERSION, CIRR_COUNTS = "rc2", {"recall": RANKED, "recall_subset": 3}


class Submission(ABC):
    """One of a benchmark's files.

    Attributes:
      key: what the keys of the file stand for, for the messages.
      form: the form of the file, for the messages.
    """

    key: str
    form: str

    def write(self, records: Sequence[Any], answers: Any, path: str | Path, gallery: Collection[str] = ()) -> None:
        """Writes the file.

        Args:
          records: all records of a split.
          answers: the names of each query's pictures, best first (more than the benchmark takes are cut off), or
            scores of each description's candidates.
          path: the file to write.
          gallery: the names of the split's pictures, where they are ranked.

        Raises:
          UserError: what would be written breaks rules of the leaderboard, see `check`. Nothing is written then.
        """
        content = self.content(records, answers)
        text = json.dumps(content) + "\n"
        check_problems([*self.problems(content, records, gallery), *_size_problems(text)], "The submission")
        write_whole(Path(path), text)

    def check(self, path: str | Path, records: Sequence[Any], gallery: Collection[str] = ()) -> None:
        """Checks a file against the split that it answers.

        Args:
          path: the file.
          records: all records of the split.
          gallery: the names of the split's pictures, where they are ranked.

        Raises:
          UserError: the file is missing, too large or no JSON object; keys are missing, unknown or given twice; or
            `problems` finds some. The message lists all of them.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"There is no submission {path}; write it first.")
        text, repeated = read_text(path, layout=self.form, remedy="write it again"), Counter[str]()
        try:
            content = parse_json(text, repeated=repeated)
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); expected {self.form}: write it again.") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} holds no JSON object; expected {self.form}: write it again.")
        problems = [*_size_problems(text), *(f"{self.key} {name} comes twice" for name in repeated)]
        check_problems([*problems, *self.problems(content, records, gallery)], path.name)

    @abstractmethod
    def content(self, records: Sequence[Any], answers: Any) -> dict[str, Any]:
        """Returns the content of the file. Raises UserError if records and answers do not fit each other."""

    @abstractmethod
    def problems(self, content: Mapping[str, Any], records: Sequence[Any], gallery: Collection[str]) -> list[str]:
        """Returns all rules of the leaderboard that a file's content breaks."""

    def _key_problems(self, given: Collection[str], expected: Sequence[str]) -> list[str]:
        known = frozenset(expected)
        unknown = [f"{self.key} {name} is unknown" for name in given if name not in known]
        return unknown + [f"{self.key} {name} is missing" for name in expected if name not in given]


@dataclasses.dataclass(frozen=True)
class CirrSubmission(Submission):
    """One of CIRR's two files; each checks both.

    Rules: the version, a metric, and a list of different names for each pair, as long as the metric asks, without the
    pair's reference, of pictures of the split or of the pair's group.

    Attributes:
      metric: "recall", of the whole gallery, or "recall_subset", of the query's group.
    """

    metric: str
    key = "pair"
    form = "{version, metric, pair id: [name, ...]}"

    def content(self, records: Sequence[ComposedRecord], answers: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Returns the best names of each pair, after the version and the metric."""
        count = CIRR_COUNTS[self.metric]
        best = {record.id: list(names)[:count] for record, names in zip(records, answers, strict=True)}
        return {"version": CIRR_VERSION, "metric": self.metric, **best}

    def problems(
        self, content: Mapping[str, Any], records: Sequence[ComposedRecord], gallery: Collection[str]
    ) -> list[str]:
        """Returns all rules of the leaderboard that a file's content breaks."""
        answers = dict(content)
        version, metric = answers.pop("version", None), answers.pop("metric", None)
        problems = []
        if version != CIRR_VERSION:
            problems.append(f"version is {str(version)[:60]!r}, expected '{CIRR_VERSION}'")
        if not (isinstance(metric, str) and metric in CIRR_COUNTS):
            expected = " or ".join(map(repr, CIRR_COUNTS))
            return [*problems, f"metric is {str(metric)[:60]!r}, expected {expected}"]
        known = frozenset(gallery)
        problems += self._key_problems(answers, [record.id for record in records])
        for record in records:
            if record.id in answers:
                allowed = frozenset(record.subset) if metric == "recall_subset" else known
                count = min(CIRR_COUNTS[metric], len(allowed - {record.reference}))
                fault = _ranking_fault(answers[record.id], allowed, count, str, without=record.reference)
                problems += [f"pair {record.id} {fault}"] if fault else []
        return problems


class CircoSubmission(Submission):
    """CIRCO's file.

    Rules: the queries are "0", "1", ... as the split has them; each has a list of different numbers of pictures of the
    gallery.
    """

    key = "query"
    form = "{query: [picture number, ...]}"

    def content(self, records: Sequence[ComposedRecord], answers: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Returns the numbers of the best pictures of each query."""
        ranked = zip(records, answers, strict=True)
        return {record.id: [_picture_number(name) for name in names[:RANKED]] for record, names in ranked}

    def problems(
        self, content: Mapping[str, Any], records: Sequence[ComposedRecord], gallery: Collection[str]
    ) -> list[str]:
        """Returns all rules of the leaderboard that a file's content breaks."""
        known = frozenset(map(_picture_number, gallery))
        problems = self._key_problems(content, [str(number) for number in range(len(records))])
        for name, ranking in content.items():
            fault = _ranking_fault(ranking, known, min(RANKED, len(known)), int)
            problems += [f"query {name} {fault}"] if fault else []
        return problems


def _picture_number(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


def _ranking_fault(ranking: Any, allowed: Collection[Any], count: int, kind: type, *, without: Any = None) -> str:
    """Returns the fault of a list of pictures, which have to be different and of the type `kind`; "" if it has none."""
    if not isinstance(ranking, list):
        return f"has no list of pictures ({str(ranking)[:60]})"
    if len(ranking) != count:
        return f"has {len(ranking)} pictures, expected {count}"
    odd = [picture for picture in ranking if type(picture) is not kind]
    if odd:
        return f"names {str(odd[0])[:60]!r} of the type {type(odd[0]).__name__}, expected {kind.__name__}"
    if without in ranking:
        return f"names its own reference {without}"
    unknown = [picture for picture in ranking if picture not in allowed]
    if unknown:
        return f"names {str(unknown[0])[:60]!r}, which is not among the {len(allowed)} pictures that it is about"
    twice = [picture for picture, times in Counter(ranking).items() if times > 1]
    return f"names {twice[0]} twice" if twice else ""


@dataclasses.dataclass(frozen=True)
class ImageCodeSubmission(Submission):
    """ImageCoDe's file, of the records that ImageCodeReader gives (ids "<set>/<number>"), in any order.

    Rules: each set has as many answers as descriptions, in their order; an answer is the index of a candidate.

    Attributes:
      candidates: how many pictures every set has to have; None takes any number.
    """

    candidates: int | None = IMAGECODE_CANDIDATES
    key = "set"
    form = "{set: [index, ...]}"

    def content(self, records: Sequence[CandidateRecord], answers: np.ndarray) -> dict[str, Any]:
        """Returns the best candidate of each description, by set.

        Args:
          records: all descriptions of a split.
          answers: [Q, K] scores, higher is better, such as evaluation.score_records returns; columns beyond a set's own
            pictures are ignored. Among equal scores the first candidate is taken; NaN never is.

        Raises:
          UserError: records and scores do not fit each other, a description has no score that is a number,
            descriptions of a set are missing, or sets are of another size.
        """
        if answers.ndim != 2 or len(answers) != len(records):
            raise UserError(
                f"The scores have the shape {list(answers.shape)}; expected a row for each of the {len(records)} "
                "records."
            )
        sets, problems = self._sets(records)
        best: dict[str, list[int]] = {name: [0] * count for name, (count, _) in sets.items()}
        for record, scores in zip(records, answers, strict=True):
            own = scores[: len(record.images)]
            if len(own) < len(record.images) or not (own > -np.inf).any():
                problems.append(f"description {record.id} has no score of its {len(record.images)} pictures")
            elif not problems:
                name, _, number = record.id.rpartition("/")
                best[name][int(number)] = int(np.nanargmax(own))
        check_problems(problems, "The submission")
        return best

    def problems(
        self, content: Mapping[str, Any], records: Sequence[CandidateRecord], gallery: Collection[str]
    ) -> list[str]:
        """Returns all rules of the leaderboard that a file's content breaks."""
        sets, problems = self._sets(records)
        problems += self._key_problems(content, list(sets))
        for name, (count, size) in sets.items():
            fault = _indices_fault(content[name], count, size) if name in content else ""
            problems += [f"set {name} {fault}"] if fault else []
        return problems

    def _sets(self, records: Sequence[CandidateRecord]) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Returns set -> (number of descriptions, number of pictures), and the problems of the records."""
        numbers: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        for record in records:
            name, _, number = record.id.rpartition("/")
            numbers.setdefault(name, []).append(number)
            sizes[name] = len(record.images)
        problems = []
        for name, of_set in numbers.items():
            if sorted(of_set) != sorted(map(str, range(len(of_set)))):
                problems.append(f"set {name} has the descriptions {', '.join(of_set)}, which are not all there are")
            if self.candidates is not None and sizes[name] != self.candidates:
                problems.append(f"set {name} has {sizes[name]} pictures, expected {self.candidates}")
        return {name: (len(of_set), sizes[name]) for name, of_set in numbers.items()}, problems


def _indices_fault(answers: Any, count: int, size: int) -> str:
    if not isinstance(answers, list):
        return f"has no list of answers ({str(answers)[:60]})"
    if len(answers) != count:
        return f"has {len(answers)} answers to {count} descriptions"
    wrong = [answer for answer in answers if type(answer) is not int or not 0 <= answer < size]
    return f"has the answer {str(wrong[0])[:60]!r}, expected a whole number from 0 to {size - 1}" if wrong else ""


def _size_problems(text: str) -> list[str]:
    size = len(text.encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,} are accepted"] if size > MAX_BYTES else []


SUBMISSIONS: Mapping[str, Submission] = {  # "<data set>" or "<data set>.<file>"
    **{f"cirr.{metric}": CirrSubmission(metric) for metric in CIRR_COUNTS},
    "circo": CircoSubmission(),
    "imagecode": ImageCodeSubmission(),
}
