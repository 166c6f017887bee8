"""Submission files: written from scores, and checked as their leaderboards would, with all problems at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextjax.types import CandidateRecord, UserError
from data_pipelines.protocols import IMAGECODE_CANDIDATES
from data_pipelines.records import check_problems
from data_pipelines.tables import write_atomically

MAX_BYTES = 5_000_000


class Submission(NamedTuple):
    """How a benchmark's answers are written and checked."""

    write: Callable[..., None]
    check: Callable[..., None]


def write_imagecode(
    records: Sequence[CandidateRecord],
    scores: np.ndarray,
    path: str | Path,
    *,
    candidates: int | None = IMAGECODE_CANDIDATES,
) -> None:
    """Writes {set: [index of the best candidate, ...]}, answers in the order of each set's descriptions.

    Args:
      records: all descriptions of a split, as ImageCodeReader gives them (ids "<set>/<number>"), in any order.
      scores: [Q, K], higher is better, such as evaluation.score_records gives; columns beyond a set's own pictures are
        not looked at. Among equal scores the first candidate is taken; NaN never is.
      path: the file to write.
      candidates: how many pictures every set has to have; None takes any number.

    Raises:
      UserError: records and scores don't fit each other, a description has no score that is a number, descriptions
        of a set are missing, or sets are of another size. Nothing is written then.
    """
    if scores.ndim != 2 or len(scores) != len(records):
        raise UserError(
            f"The scores have the shape {list(scores.shape)}; expected a row for each of the {len(records)} records."
        )
    expected, problems = _expected(records, candidates)
    answers: dict[str, list[int]] = {name: [0] * count for name, (count, _) in expected.items()}
    for record, row in zip(records, scores, strict=True):
        own = row[: len(record.images)]
        if len(own) < len(record.images) or not (own > -np.inf).any():
            problems.append(f"description {record.id} has no score of its {len(record.images)} pictures")
        elif not problems:
            name, _, number = record.id.rpartition("/")
            answers[name][int(number)] = int(np.nanargmax(own))
    text = json.dumps(answers) + "\n"
    check_problems([*problems, *_size_problems(text)], "The submission")
    write_atomically(Path(path), text)


def check_imagecode(
    path: str | Path, records: Sequence[CandidateRecord], *, candidates: int | None = IMAGECODE_CANDIDATES
) -> None:
    """Checks a submission against the records of the split that it answers.

    Args:
      path: the file.
      records: all descriptions of the split, as ImageCodeReader gives them.
      candidates: how many pictures every set has to have; None takes any number.

    Raises:
      UserError: sets are missing, unknown or named twice, have too few or too many answers, answers are no indices
        of their candidates, the file is too large, or isn't JSON; everything there is to mend is listed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=_Object)
    except FileNotFoundError as error:
        raise UserError(f"There is no submission {path}; write it first.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); expected {{set: [index, ...]}}: write it again.") from error
    if not isinstance(found, _Object):
        raise UserError(f"{path} holds no JSON object; expected {{set: [index, ...]}}: write it again.")
    expected, problems = _expected(records, candidates)
    problems += _size_problems(text)
    problems += [f"set {name} comes twice" for name, count in Counter(name for name, _ in found).items() if count > 1]
    answers: dict[str, Any] = dict(found)
    problems += [f"set {name} is unknown" for name in answers if name not in expected]
    for name, (count, size) in expected.items():
        fault = _fault(answers[name], count, size) if name in answers else "is missing"
        problems += [f"set {name} {fault}"] if fault else []
    check_problems(problems, path.name)


SUBMISSIONS: Mapping[str, Submission] = {"imagecode": Submission(write_imagecode, check_imagecode)}


class _Object(list):
    """A JSON object as its (key, value) pairs, which may have a key twice."""


def _expected(
    records: Sequence[CandidateRecord], candidates: int | None
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Set -> (its number of descriptions, its number of pictures), and what is wrong with the records."""
    numbers: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        name, _, number = record.id.rpartition("/")
        numbers.setdefault(name, []).append(number)
        sizes[name] = len(record.images)
    problems = []
    for name, found in numbers.items():
        if sorted(found) != sorted(map(str, range(len(found)))):
            problems.append(f"set {name} has the descriptions {', '.join(found)}, which are not all there are")
        if candidates is not None and sizes[name] != candidates:
            problems.append(f"set {name} has {sizes[name]} pictures, expected {candidates}")
    return {name: (len(found), sizes[name]) for name, found in numbers.items()}, problems


def _fault(answers: Any, count: int, size: int) -> str:
    if not isinstance(answers, list) or isinstance(answers, _Object):
        return f"has no list of answers ({str(answers)[:60]})"
    if len(answers) != count:
        return f"has {len(answers)} answers to {count} descriptions"
    wrong = [answer for answer in answers if type(answer) is not int or not 0 <= answer < size]
    return f"has the answer {str(wrong[0])[:60]!r}, expected a whole number from 0 to {size - 1}" if wrong else ""


def _size_problems(text: str) -> list[str]:
    size = len(text.encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,} are accepted"] if size > MAX_BYTES else []
