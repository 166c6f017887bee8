"""Writes a benchmark's submission files from a system's answers, and checks submission files of any origin.

Checking imports no JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import CandidateRecord, EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.datasets import READERS
from data_pipelines.records import check_problems
from data_pipelines.submissions import RANKED, SUBMISSIONS, Submission
from data_pipelines.tables import SplitData


def write_files(system: Any, protocol: EvaluationProtocol, data: SplitData, folder: Path, **options: Any) -> list[Path]:
    """Writes the files that the protocol's leaderboard takes, from what the system answers; targets are not read.

    Args:
      system: a System, which answers.
      protocol: the benchmark's protocol.
      data: the split.
      folder: where the files are written.
      options: propositions and share of candidate sets, see evaluation.score_records.

    Returns:
      the paths of the files.
    """
    from contextjax.evaluation import rank_records, score_records

    submissions, ids = _submissions(protocol), data.pictures.ids
    if READERS[protocol.reader].record_type is CandidateRecord:
        answers = {name: score_records(system, data.records, data.pictures, **options) for name in submissions}
    else:
        ranking = rank_records(system, protocol, data.records, data.pictures, keep=RANKED)
        names = lambda rows: [[ids[row] for row in best if row >= 0] for best in rows]
        top = np.where(np.isfinite(ranking.scores), ranking.top, -1)
        answers = {name: names(ranking.subset_top if name.endswith("_subset") else top) for name in submissions}
    paths = {name: folder / f"{name}.json" for name in submissions}
    for name, submission in submissions.items():
        submission.write(data.records, answers[name], paths[name], ids)
        submission.check(paths[name], data.records, ids)
    return list(paths.values())


def check_file(file: Path, protocol: str, folder: str | Path, split: str | None) -> int:
    """Checks a submission file of any origin against a protocol and a split; no picture is read.

    Returns:
      how many queries it answers.

    Raises:
      UserError: the file breaks rules of the leaderboard, all of them listed, or the split is not named.
    """
    if not (folder and protocol):
        raise UserError("--data or --protocol is missing; --check needs both, as --data=FOLDER --protocol=cirr.")
    chosen = protocols.named(protocol)
    submission, *_ = _submissions(chosen).values()
    reader = READERS[chosen.reader](Path(folder))
    if split not in reader.splits:
        raise UserError(f"--split is {split}; expected the one that the file answers: {', '.join(reader.splits)}.")
    read = reader.read(split)
    check_problems(read.unknown, f"Split '{split}' of {folder}")
    submission.check(file, read.records, list(reader.pictures(split)))
    return len(read.records)


def _submissions(protocol: EvaluationProtocol) -> Mapping[str, Submission]:
    """Returns the files of the protocol's leaderboard by their names."""
    leaderboard_of = lambda name: name.partition(".")[0]
    own = {name: submission for name, submission in SUBMISSIONS.items() if leaderboard_of(name) == protocol.reader}
    if not own:
        known = ", ".join(dict.fromkeys(map(leaderboard_of, SUBMISSIONS)))
        raise UserError(f"Protocol '{protocol.name}' has no leaderboard that takes files; {known} have.")
    return own
