"""Submission files: written from scores or rankings, and checked as leaderboards would, with all problems at once.

CIRR, two files: {"version": "rc2", "metric": "recall" | "recall_subset", pair id: [50, or 3 of its group, names]}
CIRCO: {"0": [50 picture numbers], "1": ...}           ImageCoDe: {set: [index of the best candidate, ...]}
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextjax.files import write_whole
from contextjax.json_files import parse_json, read_text
from contextjax.types import CandidateRecord, ComposedRecord, UserError
from data_pipelines.protocols import IMAGECODE_CANDIDATES
from data_pipelines.records import check_problems

MAX_BYTES = 5_000_000
RANKED = 50  # pictures of a ranking of the whole gallery
CIRR_VERSION, CIRR_COUNTS = "rc2", {"recall": RANKED, "recall_subset": 3}


class Submission(NamedTuple):
    """How one of a benchmark's files is written, write(records, answers, path, gallery), and checked, check(path,
    records, gallery). Answers are scores of candidates, or the names of each record's pictures, best first."""

    write: Callable[..., None]
    check: Callable[..., None]


# -------------------------------------------------------------------------------------------- CIRR


def write_cirr(
    records: Sequence[ComposedRecord],
    answers: Sequence[Sequence[str]],
    path: str | Path,
    gallery: Collection[str],
    *,
    metric: str,
) -> None:
    """Writes one of CIRR's two files.

    Args:
      records: all queries of a split.
      answers: the names of each query's pictures, best first; more than are asked for are cut off.
      path: the file to write.
      gallery: the names of the split's pictures.
      metric: "recall", of the whole gallery, or "recall_subset", of the query's group.

    Raises:
      UserError: what would be written breaks a rule of the leaderboard, see check_cirr. Nothing is written then.
    """
    best = {record.id: list(names)[: CIRR_COUNTS[metric]] for record, names in zip(records, answers, strict=True)}
    problems = _cirr_problems(best, metric, records, gallery)
    _write(Path(path), {"version": CIRR_VERSION, "metric": metric, **best}, problems)


def check_cirr(path: str | Path, records: Sequence[ComposedRecord], gallery: Collection[str]) -> None:
    """Checks either of CIRR's files against the split that it answers.

    Args:
      path: the file.
      records: all queries of the split.
      gallery: the names of its pictures.

    Raises:
      UserError: another version or metric; pairs that are missing, unknown or named twice; lists of another length,
        with a picture twice, the query's own reference, a picture that the split, or the query's group, does not have;
        a file that is too large or no JSON. Everything there is to mend is listed.
    """
    path = Path(path)
    answers, problems = _read(path, "{version, metric, pair id: [name, ...]}", "pair")
    version, metric = answers.pop("version", None), answers.pop("metric", None)
    if version != CIRR_VERSION:
        problems.append(f"version is {str(version)[:60]!r}, expected '{CIRR_VERSION}'")
    if isinstance(metric, str) and metric in CIRR_COUNTS:
        problems += _cirr_problems(answers, metric, records, gallery)
    else:
        problems.append(f"metric is {str(metric)[:60]!r}, expected {' or '.join(map(repr, CIRR_COUNTS))}")
    check_problems(problems, path.name)


def _cirr_problems(
    answers: Mapping[str, Any], metric: str, records: Sequence[ComposedRecord], gallery: Collection[str]
) -> list[str]:
    known, of_group = frozenset(gallery), metric == "recall_subset"
    problems = _key_problems(answers, [record.id for record in records], "pair")
    for record in records:
        if record.id in answers:
            allowed = frozenset(record.subset) if of_group else known
            count = min(CIRR_COUNTS[metric], len(allowed - {record.reference}))
            fault = _ranking_fault(answers[record.id], allowed, count, str, without=record.reference)
            problems += [f"pair {record.id} {fault}"] if fault else []
    return problems


# ------------------------------------------------------------------------------------------- CIRCO


def write_circo(
    records: Sequence[ComposedRecord], answers: Sequence[Sequence[str]], path: str | Path, gallery: Collection[str]
) -> None:
    """Writes {query: [50 picture numbers]}, as write_cirr does.

    Raises:
      UserError: what would be written breaks a rule of the leaderboard, see check_circo. Nothing is written then.
    """
    best = {
        record.id: [_number(name) for name in names[:RANKED]] for record, names in zip(records, answers, strict=True)
    }
    _write(Path(path), best, _circo_problems(best, records, gallery))


def check_circo(path: str | Path, records: Sequence[ComposedRecord], gallery: Collection[str]) -> None:
    """Checks CIRCO's file against the split that it answers, as check_cirr does.

    Raises:
      UserError: queries that are not "0", "1", ... as the split has them; lists of another length, with a picture
        twice or one that the gallery does not have; a file that is too large or no JSON. All of it is listed.
    """
    path = Path(path)
    answers, problems = _read(path, "{query: [picture number, ...]}", "query")
    check_problems([*problems, *_circo_problems(answers, records, gallery)], path.name)


def _circo_problems(
    answers: Mapping[str, Any], records: Sequence[ComposedRecord], gallery: Collection[str]
) -> list[str]:
    known = frozenset(map(_number, gallery))
    problems = _key_problems(answers, [str(number) for number in range(len(records))], "query")
    for name, found in answers.items():
        fault = _ranking_fault(found, known, min(RANKED, len(known)), int)
        problems += [f"query {name} {fault}"] if fault else []
    return problems


def _number(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


# --------------------------------------------------------------------------------------- ImageCoDe


def write_imagecode(
    records: Sequence[CandidateRecord],
    scores: np.ndarray,
    path: str | Path,
    gallery: Collection[str] = (),
    *,
    candidates: int | None = IMAGECODE_CANDIDATES,
) -> None:
    """Writes {set: [index of the best candidate, ...]}, answers in the order of each set's descriptions.

    Args:
      records: all descriptions of a split, as ImageCodeReader gives them (ids "<set>/<number>"), in any order.
      scores: [Q, K], higher is better, such as evaluation.score_records gives; columns beyond a set's own pictures are
        not looked at. Among equal scores the first candidate is taken; NaN never is.
      path: the file to write.
      gallery: not looked at: the candidates are the records'.
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
    _write(Path(path), answers, problems)


def check_imagecode(
    path: str | Path,
    records: Sequence[CandidateRecord],
    gallery: Collection[str] = (),
    *,
    candidates: int | None = IMAGECODE_CANDIDATES,
) -> None:
    """Checks a submission against the records of the split that it answers.

    Args:
      path: the file.
      records: all descriptions of the split, as ImageCodeReader gives them.
      gallery: not looked at: the candidates are the records'.
      candidates: how many pictures every set has to have; None takes any number.

    Raises:
      UserError: sets are missing, unknown or named twice, have too few or too many answers, answers are no indices
        of their candidates, the file is too large, or isn't JSON; everything there is to mend is listed.
    """
    path = Path(path)
    answers, problems = _read(path, "{set: [index, ...]}", "set")
    expected, faults = _expected(records, candidates)
    problems = [*faults, *problems, *_key_problems(answers, list(expected), "set")]
    for name, (count, size) in expected.items():
        fault = _fault(answers[name], count, size) if name in answers else ""
        problems += [f"set {name} {fault}"] if fault else []
    check_problems(problems, path.name)


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
    if not isinstance(answers, list):
        return f"has no list of answers ({str(answers)[:60]})"
    if len(answers) != count:
        return f"has {len(answers)} answers to {count} descriptions"
    wrong = [answer for answer in answers if type(answer) is not int or not 0 <= answer < size]
    return f"has the answer {str(wrong[0])[:60]!r}, expected a whole number from 0 to {size - 1}" if wrong else ""


# --------------------------------------------------------------------------------------- all files


SUBMISSIONS: Mapping[str, Submission] = {  # "<data set>" or "<data set>.<file>"
    **{
        f"cirr.{metric}": Submission(functools.partial(write_cirr, metric=metric), check_cirr) for metric in CIRR_COUNTS
    },
    "circo": Submission(write_circo, check_circo),
    "imagecode": Submission(write_imagecode, check_imagecode),
}


def _read(path: Path, layout: str, what: str) -> tuple[dict[str, Any], list[str]]:
    """The object that a file holds, and what is wrong with the file whatever it says."""
    if not path.exists():
        raise UserError(f"There is no submission {path}; write it first.")
    text, repeated = read_text(path, layout=layout, remedy="write it again"), Counter[str]()
    try:
        found = parse_json(text, repeated=repeated)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); expected {layout}: write it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; expected {layout}: write it again.")
    return found, [*_size_problems(text), *(f"{what} {name} comes twice" for name in repeated)]


def _write(path: Path, answers: Mapping[str, Any], problems: Sequence[str]) -> None:
    text = json.dumps(answers) + "\n"
    check_problems([*problems, *_size_problems(text)], "The submission")
    write_whole(path, text)


def _key_problems(answers: Mapping[str, Any], expected: Sequence[str], what: str) -> list[str]:
    known = frozenset(expected)
    unknown = [f"{what} {name} is unknown" for name in answers if name not in known]
    return unknown + [f"{what} {name} is missing" for name in expected if name not in answers]


def _ranking_fault(found: Any, allowed: Collection[Any], count: int, kind: type, *, without: Any = None) -> str:
    """What is wrong with a list of pictures, all different, each of the type `kind`."""
    if not isinstance(found, list):
        return f"has no list of pictures ({str(found)[:60]})"
    if len(found) != count:
        return f"has {len(found)} pictures, expected {count}"
    odd = [picture for picture in found if type(picture) is not kind]
    if odd:
        return f"names {str(odd[0])[:60]!r} of the type {type(odd[0]).__name__}, expected {kind.__name__}"
    if without in found:
        return f"names its own reference {without}"
    unknown = [picture for picture in found if picture not in allowed]
    if unknown:
        return f"names {str(unknown[0])[:60]!r}, which is not among the {len(allowed)} pictures that it is about"
    twice = [picture for picture, times in Counter(found).items() if times > 1]
    return f"names {twice[0]} twice" if twice else ""


def _size_problems(text: str) -> list[str]:
    size = len(text.encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,} are accepted"] if size > MAX_BYTES else []
