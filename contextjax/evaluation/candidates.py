"""Evaluates a system on candidate sets: ranks each record's own candidates and computes metrics."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax import metrics
from contextjax.evaluation.shared import Pictures, by_label, check_targets
from contextjax.types import CandidateRecord, UserError

SETS = 64  # candidate sets that are held decoded at a time
Propositions = Mapping[str, Sequence[tuple[str, bool]]]


class CandidateScorer(Protocol):
    """A system as an evaluation of candidate sets needs it."""

    def score_sets(self, sets: Sequence[Sequence[Any]], texts: Sequence[str], ordered: Sequence[bool]) -> np.ndarray:
        """Returns float32 [S, K], higher is better: how well each of a set's K nearly identical pictures fits its text.

        `ordered`: whether a set's pictures are one after the other in time.
        """
        ...


@dataclasses.dataclass(frozen=True)
class CandidateEvaluation:
    """The scores [Q, K] of each record's candidates, and the rank of the one that is described.

    K is that of the largest set; -inf stands where a smaller one has no candidate. `pairs`: every set has two pictures
    with a text each, and the share of sets is reported with both texts right.
    """

    records: Sequence[CandidateRecord]
    scores: np.ndarray
    ranks: np.ndarray
    pairs: bool = False

    def metrics(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Returns the accuracy in percent, that of pairs, and the 95 % interval, of all records or those of `rows`."""
        ranks = self.ranks[rows]
        values = {"accuracy": metrics.recall_at(ranks, 1)}
        if self.pairs:
            values["pair accuracy"] = metrics.pair_accuracy(ranks, _set_rows(self.records)[rows])
        related = _numbered(record.set or record.images for record in self.records)[rows]
        low, high = metrics.recall_interval(ranks, 1, related)
        return {**values, "low95": low, "high95": high}

    @property
    def hits(self) -> dict[str, np.ndarray]:
        """The hits [Q]: 1 for each query whose target scores highest, see single_modality."""
        return {"accuracy": (self.ranks == 0).astype(float)}

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Returns the metrics of each kind of candidates, where records have kinds."""
        return by_label([record.kinds for record in self.records], self.metrics)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Returns the metrics of random answers, and of always answering the index that is right most often here."""
        indices = np.asarray([record.target for record in self.records])
        chance = np.asarray([1 / len(record.images) for record in self.records])
        values = {
            "random": {"accuracy": float(np.mean(100 * chance))},
            "best constant index": {"accuracy": float(100 * np.bincount(indices).max() / len(indices))},
        }
        if self.pairs:  # a constant answer is wrong for one of two
            values["random"]["pair accuracy"] = float(np.mean(100 * chance**2))
            values["best constant index"]["pair accuracy"] = 0.0
        return values


def with_texts_of_other_sets(records: Sequence[CandidateRecord], *, seed: int = 0) -> list[CandidateRecord]:
    """Returns every record with a text about another set, a control: a system that needs the text scores at chance.

    Sets follow each other in a random order, and texts move on by the largest set's number of texts. Empty where one
    set has more than half of the records.
    """
    sets = _numbered(record.set or record.images for record in records)
    counts = np.bincount(sets)
    if 2 * counts.max() > len(records):
        return []
    order = np.argsort(np.random.default_rng(seed).permutation(len(counts))[sets], kind="stable")
    texts = [records[row].text for row in np.roll(order, counts.max())]
    moved = dict(zip(order, texts, strict=True))
    return [dataclasses.replace(record, text=moved[row]) for row, record in enumerate(records)]


def evaluate_candidates(
    system: CandidateScorer,
    records: Sequence[CandidateRecord],
    pictures: Pictures,
    *,
    pairs: bool = False,
    propositions: Propositions | None = None,
    share: float = 0.5,
) -> CandidateEvaluation:
    """Ranks every record's own candidates. Among equal scores the first candidate wins; NaN never does.

    Args:
      system: scores candidates.
      records: descriptions, each with a target.
      pictures: the pictures of all candidates.
      pairs: see CandidateEvaluation.
      propositions: see score_records.
      share: see score_records.

    Raises:
      UserError: there are no records, or some have no target.
    """
    check_targets(records)
    scores = score_records(system, records, pictures, propositions=propositions, share=share)
    truth = np.asarray([record.target for record in records])
    return CandidateEvaluation(records, scores, metrics.rank_of_truth(scores, truth), pairs)


def score_records(
    system: CandidateScorer,
    records: Sequence[CandidateRecord],
    pictures: Pictures,
    *,
    propositions: Propositions | None = None,
    share: float = 0.5,
) -> np.ndarray:
    """Returns the scores float32 [Q, K] of every record's candidates, -inf where a set has fewer than the largest.

    Targets are not looked at.

    Args:
      system: scores candidates.
      records: descriptions.
      pictures: the pictures of all candidates.
      propositions: record id -> short sentences that together say what its text says, and whether each is negated;
        they are scored, too, and combined as metrics.combine_propositions does.
      share: of the whole text, 0 to 1.
    """
    sentences = [(row, sentence, negated) for row, record in enumerate(records)
                 for sentence, negated in (propositions or {}).get(record.id, ())]  # fmt: skip
    asked = [dataclasses.replace(records[row], text=sentence) for row, sentence, _ in sentences]
    scores = _score_sets(system, [*records, *asked], pictures)
    whole, of_sentences = scores[: len(records)], scores[len(records) :]
    rows, negated = np.asarray([row for row, *_ in sentences], int), np.asarray([no for *_, no in sentences], bool)
    for row in np.unique(rows):
        own = rows == row
        whole[row] = metrics.combine_propositions(whole[row], of_sentences[own], negated[own], share=share)
    return whole


def _score_sets(system: CandidateScorer, records: Sequence[CandidateRecord], pictures: Pictures) -> np.ndarray:
    """Returns the scores [Q, K] of records.

    Sets of one size are scored together, at most SETS at a time, and the descriptions of a set one after the other, so
    that its pictures are read once.
    """
    width = max((len(record.images) for record in records), default=0)
    scores = np.full((len(records), width), -np.inf, np.float32)
    order = sorted(
        zip((len(record.images) for record in records), _set_rows(records), range(len(records)), strict=True)
    )
    for size, members in itertools.groupby(order, key=lambda entry: entry[0]):
        by_set = itertools.groupby(members, key=lambda entry: entry[1])
        sets = [[row for _, _, row in group] for _, group in by_set]
        for begin in range(0, len(sets), SETS):
            rows = [row for group in sets[begin : begin + SETS] for row in group]
            names = dict.fromkeys(name for row in rows for name in records[row].images)
            read = {name: pictures[pictures.row[name]] for name in names}
            images = [[read[name] for name in records[row].images] for row in rows]
            ordered = [records[row].is_ordered for row in rows]
            given = np.asarray(system.score_sets(images, [records[row].text for row in rows], ordered))
            if given.shape != (len(rows), size):
                raise UserError(
                    f"{len(rows)} sets of {size} candidates got scores of the shape {list(given.shape)}; expected "
                    f"{[len(rows), size]}: a score for each candidate of each set."
                )
            scores[rows, :size] = given
    return scores


def _set_rows(records: Sequence[CandidateRecord]) -> np.ndarray:
    """Returns int [Q], the number of each record's candidate set in order of first appearance."""
    return _numbered(record.images for record in records)


def _numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """Returns a number for each key, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys])
