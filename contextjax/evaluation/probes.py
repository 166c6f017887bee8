"""Robustness probes of candidate sets: accuracy against the strength of a change in pictures, texts or order."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax.evaluation.candidates import CandidateScorer, evaluate_candidates
from contextjax.evaluation.shared import Pictures
from contextjax.types import CandidateRecord, Picture

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the share of a picture's patches or pixels that is changed
DISTRACTORS = (0, 1, 2, 4)  # texts of other sets after a text
PICTURE_PROBES: Mapping[str, str] = {
    "pixels within patches": "the pixels of some patches are permuted, each patch by itself",
    "whole patches": "some patches change places",
    "all pixels": "some pixels of the picture change places",
    "masked patches": "some patches have the picture's mean colour",
}
SAME_SCORES = 1e-3  # a difference of scores, over their deviation, that rounding explains
TEXT_PROBE, ORDER_PROBE = "distractor texts", "order of candidates"


class ProbedSystem(CandidateScorer, Protocol):
    """A system as the probes need it."""

    def truncated(self, texts: Sequence[str]) -> Sequence[str]:
        """Returns what is read of each text that is too long to be read to its end."""
        ...


@dataclasses.dataclass(frozen=True)
class DisturbedPictures:
    """Pictures by row, each changed by a probe; the same picture is always changed in the same way.

    Attributes:
      pictures: what is changed; square, of a whole number of patches.
      probe: a key of PICTURE_PROBES.
      strength: the share that is changed, from 0 to 1.
      patch: side of a patch in pixels.
      seed: of the draws.
    """

    pictures: Pictures
    probe: str
    strength: float
    patch: int
    seed: int = 0

    @property
    def ids(self) -> Sequence[str]:
        """The picture ids by row."""
        return self.pictures.ids

    @property
    def row(self) -> Mapping[str, int]:
        """The row of each id."""
        return self.pictures.row

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> Picture:
        rng = np.random.default_rng([self.seed, int(row)])
        return disturb(self.pictures[row], self.probe, self.strength, patch=self.patch, rng=rng)


def disturb(picture: Picture, probe: str, strength: float, *, patch: int, rng: np.random.Generator) -> Picture:
    """Returns a changed copy of a picture, uint8 [S, S, 3], see DisturbedPictures."""
    side = len(picture) // patch
    cells = picture.reshape(side, patch, side, patch, 3).swapaxes(1, 2).reshape(side * side, patch * patch, 3).copy()
    if probe == "all pixels":
        pixels = cells.reshape(-1, 3)
        chosen = rng.permutation(len(pixels))[: round(strength * len(pixels))]
        pixels[chosen] = pixels[rng.permutation(chosen)]
    else:
        chosen = rng.permutation(len(cells))[: round(strength * len(cells))]
        if probe == "whole patches":
            cells[chosen] = cells[rng.permutation(chosen)]
        elif probe == "masked patches":
            cells[chosen] = picture.reshape(-1, 3).mean(0).round()
        else:
            for cell in chosen:
                cells[cell] = cells[cell][rng.permutation(patch * patch)]
    return cells.reshape(side, side, patch, patch, 3).swapaxes(1, 2).reshape(picture.shape)


def with_distractors(records: Sequence[CandidateRecord], count: int, *, seed: int = 0) -> list[CandidateRecord]:
    """Returns the records, each text followed by `count` texts of other sets; empty where a text has fewer."""
    sets = [record.set or record.images for record in records]
    sizes = Counter(sets)
    if len(records) - max(sizes.values(), default=0) < count:
        return []
    changed = []
    for row, record in enumerate(records):
        order = np.random.default_rng([seed, row]).permutation(len(records))
        others = itertools.islice((i for i in order if sets[i] != sets[row]), count)
        changed.append(dataclasses.replace(record, text=" ".join([record.text, *(records[i].text for i in others)])))
    return changed


def permuted(records: Sequence[CandidateRecord], *, seed: int = 0) -> tuple[list[CandidateRecord], list[np.ndarray]]:
    """Returns the records with their candidates in another order, and that order of each."""
    orders = [np.random.default_rng([seed, row]).permutation(len(r.images)) for row, r in enumerate(records)]
    moved = [
        dataclasses.replace(
            record,
            images=tuple(record.images[i] for i in order),
            target=None if record.target is None else int(np.flatnonzero(order == record.target)[0]),
        )
        for record, order in zip(records, orders, strict=True)
    ]
    return moved, orders


def run_probes(
    system: ProbedSystem, records: Sequence[CandidateRecord], pictures: Pictures, *, patch: int, seed: int = 0
) -> dict[str, Any]:
    """Returns the accuracy of candidate sets under every probe.

    Args:
      system: scores candidates.
      records: descriptions, each with a target.
      pictures: the pictures of all candidates, square and of a whole number of patches.
      patch: side of a patch in pixels.
      seed: of all draws.

    Returns:
      probe -> a list of {strength, accuracy, low95, high95}. Distractor texts also have "cut", the percentage of the
      texts that are too long to be read as a whole, and only the strengths for which other sets have enough texts. The
      order of candidates has {accuracy, low95, high95, n_queries, difference}: the largest change of a candidate's
      score, divided by the scores' standard deviation. Sets whose candidates follow each other in time are left out.
    """
    plain = evaluate_candidates(system, records, pictures)
    row = lambda strength, evaluation: {"strength": strength, **evaluation.metrics()}
    results: dict[str, Any] = {}
    for probe in PICTURE_PROBES:
        changed = lambda strength, probe=probe: DisturbedPictures(pictures, probe, strength, patch, seed)
        results[probe] = [row(s, evaluate_candidates(system, records, changed(s)) if s else plain) for s in STRENGTHS]
    results[TEXT_PROBE] = []
    for count in DISTRACTORS:
        if longer := with_distractors(records, count, seed=seed):
            evaluation = evaluate_candidates(system, longer, pictures) if count else plain
            cut = 100 * len(system.truncated([record.text for record in longer])) / len(longer)
            results[TEXT_PROBE].append({**row(count, evaluation), "cut": cut})
    rows = [number for number, record in enumerate(records) if not record.is_ordered]
    if rows:
        moved, orders = permuted([records[number] for number in rows], seed=seed)
        again = evaluate_candidates(system, moved, pictures)
        apart = [
            np.abs(scores[: len(order)] - plain.scores[number][order]).max()
            for number, scores, order in zip(rows, again.scores, orders, strict=True)
        ]
        spread = float(np.std(plain.scores[np.isfinite(plain.scores)])) or 1.0
        difference = float(np.max(apart)) / spread
        results[ORDER_PROBE] = {**again.metrics(), "n_queries": len(rows), "difference": difference}
    return results
