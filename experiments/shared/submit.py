"""A benchmark's submission files: written from a system's answers, and checked, those from elsewhere too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.evaluation import rank_records, score_records
from contextjax.system import System
from contextjax.types import CandidateRecord, EvaluationProtocol, UserError
from data_pipelines.datasets import READERS
from data_pipelines.submissions import RANKED, SUBMISSIONS, Submission
from data_pipelines.tables import SplitData


def write(system: System, protocol: EvaluationProtocol, data: SplitData, folder: Path, **given: Any) -> list[Path]:
    """Writes the files that the protocol's leaderboard takes, from what the system answers; targets are not looked at.

    Args:
      system: answers.
      protocol: of the benchmark.
      data: the split.
      folder: where the files go.
      given: propositions and share of candidate sets, see evaluation.score_records.
    """
    submissions, ids = _submissions(protocol), data.pictures.ids
    if READERS[protocol.reader].record_type is CandidateRecord:
        answers = {name: score_records(system, data.records, data.pictures, **given) for name in submissions}
    else:
        found = rank_records(system, protocol, data.records, data.pictures, keep=RANKED)
        names = lambda rows: [[ids[row] for row in best if row >= 0] for best in rows]
        top = np.where(np.isfinite(found.scores), found.top, -1)
        answers = {name: names(found.subset_top if name.endswith("_subset") else top) for name in submissions}
    paths = {name: folder / f"{name}.json" for name in submissions}
    for name, submission in submissions.items():
        submission.write(data.records, answers[name], paths[name], ids)
        submission.check(paths[name], data.records, ids)
    return list(paths.values())


def check(file: Path, protocol: EvaluationProtocol, folder: str | Path, split: str | None) -> int:
    """Checks a file, whoever wrote it, against a protocol and a split; pictures are not read. Returns how many queries
    it answers.

    Raises:
      UserError: the file breaks rules of the leaderboard, all of them listed, or the split is not named.
    """
    submission, *_ = _submissions(protocol).values()
    reader = READERS[protocol.reader](Path(folder))
    if split not in reader.splits:
        raise UserError(f"--split is {split}; expected the one that the file answers: {', '.join(reader.splits)}.")
    records = reader.records(split)
    submission.check(file, records, list(reader.pictures(split)))
    return len(records)


def _submissions(protocol: EvaluationProtocol) -> Mapping[str, Submission]:
    """Name -> file of the protocol's leaderboard."""
    of = lambda name: name.partition(".")[0]
    found = {name: submission for name, submission in SUBMISSIONS.items() if of(name) == protocol.reader}
    if not found:
        known = ", ".join(dict.fromkeys(map(of, SUBMISSIONS)))
        raise UserError(f"Protocol '{protocol.name}' has no leaderboard that takes files; {known} have.")
    return found
