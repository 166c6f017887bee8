"""The cards of candidate sets (ContextBLIP): candidates and scores, attention maps, the patches masking would hide."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from contextjax.evaluation import CandidateEvaluation
from contextjax.reports.maps import MAX_PHRASES, PhrasesOf, picked_patches, spans_read
from contextjax.reports.pictures import (
    SIDE,
    CaptionedPictures,
    Heat,
    PhraseHeats,
    data_uri,
    make_heat,
    outlined,
    scaled,
)
from contextjax.system import System, TokenMap
from contextjax.types import CandidateRecord, Picture

BASELINES = {  # other scores of a system's own towers, and baselines that ignore the pictures
    "itc": ("cosine of the embeddings", "itc, same towers"),
    "itm": ("matching head", "itm, same towers"),
    "sum": ("cosine + matching head", "sum, same towers"),
    "itm_cls": ("matching head, [CLS] for [ENC]", "itm_cls, same towers"),
    "sum_cls": ("cosine + matching head, [CLS] for [ENC]", "sum_cls, same towers"),
    "random": ("random", "without looking"),
    "best constant index": ("best constant index", "without looking"),
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A picture of a set; candidates count from 1."""

    picture: str  # a data: URI, as all pictures of a page
    alt: str
    number: int
    share: float  # percent, of the softmax over the set's scores
    score: float
    is_target: bool
    is_prediction: bool


@dataclasses.dataclass(frozen=True)
class Masked:
    """The prediction, with the patches outlined that masking would hide."""

    picture: str
    alt: str
    by: str  # the token, and the word that it belongs to
    count: int
    n_patches: int
    spread: float  # over how many patches the token's attention is spread


@dataclasses.dataclass(frozen=True)
class SetCard:
    """One description of a set. Maps are of the prediction, and of the target where that is another picture."""

    id: str
    text: str
    kind: str
    candidates: tuple[Candidate, ...]
    prediction: int  # from 1, as all numbers of candidates
    target: int
    rank: int  # of the target, from 1
    heats: tuple[Heat, ...]  # of the whole text: mean over its tokens; empty where texts read no picture
    phrases: tuple[PhraseHeats, ...]
    masked: Masked | None

    @property
    def is_right(self) -> bool:
        """Returns whether the target is the prediction."""
        return self.prediction == self.target

    @property
    def has_maps(self) -> bool:
        """Returns whether the card shows attention maps."""
        return bool(self.heats)


class _ReadPicture(NamedTuple):
    name: str
    picture: Picture
    maps: TokenMap


@dataclasses.dataclass(frozen=True)
class CandidateView:
    """Shows an evaluation of candidate sets; the attention of all its cards is computed at once."""

    system: System
    evaluation: CandidateEvaluation
    pictures: CaptionedPictures
    phrases_of: PhrasesOf | None = None

    task: Literal["candidates"] = "candidates"
    tracked: tuple[str, str] = ("Accuracy", "/accuracy")  # see learning_charts

    @property
    def method(self) -> str:
        """The score, in words."""
        return f"score: {self.system.score}"

    @property
    def read_by(self) -> str:
        """The units whose attention maps are shown: "phrase", "token", or "" where texts read no picture."""
        reads = "itm" in self.system.scores  # a matching head means that texts read the picture
        return "" if not reads else "phrase" if self.phrases_of else "token"

    @property
    def mask_rate(self) -> float:
        """The share of patches that masking would hide; 0 for a system without masking."""
        return float(getattr(self.system.model.config, "mask_rate", 0.0))

    def baseline(self, name: str) -> tuple[str, str]:
        """Returns the label of a baseline, and a note."""
        return BASELINES.get(name, (name, ""))

    def fields(self, columns: Sequence[str]) -> Mapping[str, Any]:
        """Returns the fields of Report that candidate sets alone have."""
        del columns
        sizes = [len(record.images) for record in self.evaluation.records]
        n_sets = len({record.images for record in self.evaluation.records})
        return {"n_sets": n_sets, "sizes": (min(sizes), max(sizes)), "mask_rate": self.mask_rate}

    def headline(
        self, columns: Sequence[str], values: Sequence[float | None], interval: tuple[float, float] | None
    ) -> tuple[tuple[str, float | None, tuple[float, float] | None], ...]:
        """Returns all metrics: (name, percent, interval)."""
        return tuple((name, value, interval) for name, value in zip(columns, values, strict=True))

    def picked(self, extremes: int) -> tuple[tuple[str, str, np.ndarray], ...]:
        """Returns right answers and wrong ones, each evenly from one end to the other.

        The extremes alone would say little about the rest.
        """
        records, ranks = self.evaluation.records, self.evaluation.ranks
        right, wrong = np.flatnonzero(ranks == 0), np.flatnonzero(ranks > 0)
        lead = np.asarray([_lead(scores) for scores in self.evaluation.scores])
        shown_right = spread(first_of_sets(records, right), -lead, extremes)
        shown_wrong = spread(first_of_sets(records, wrong), ranks, extremes)
        words = lambda rows, few, order: (
            f"{len(rows):,} of {len(records):,} queries, {len(few)} of them shown, {order}."
        )
        high = words(right, shown_right, "from the widest lead over the second candidate to the narrowest")
        low = words(wrong, shown_wrong, "from the target nearest to the top to the one furthest down")
        return (
            ("Right", high if len(right) else "No query is answered right.", shown_right),
            ("Wrong", low if len(wrong) else "No query is answered wrong.", shown_wrong),
        )

    def cards(self, queries: Sequence[int] | np.ndarray) -> tuple[SetCard, ...]:
        """Makes cards of the descriptions (rows of the evaluation), in their order."""
        rows = [int(query) for query in queries]
        read = self._read(rows) if self.read_by and rows else {}
        return tuple(self._card(query, read.get(query, [])) for query in rows)

    def _read(self, queries: Sequence[int]) -> dict[int, list[_ReadPicture]]:
        """Returns the maps of each text over its prediction and its target, computed as one batch."""
        asked = []
        for query in queries:
            record, prediction = self.evaluation.records[query], predicted(self._scores(query))
            names = {"prediction": prediction, "target": record.target}
            if prediction == record.target:
                names = {"prediction and target": prediction}
            asked += [(query, name, self.pictures[self._row(query, int(number))]) for name, number in names.items()]
        texts = [self.evaluation.records[query].text for query, _, _ in asked]
        token_maps = self.system.attention_maps([picture for _, _, picture in asked], texts)
        read = collections.defaultdict(list)
        for (query, name, picture), maps in zip(asked, token_maps, strict=True):
            read[query].append(_ReadPicture(name, picture, maps))
        return read

    def _card(self, query: int, read: list[_ReadPicture]) -> SetCard:
        record = self.evaluation.records[query]
        candidates = self._candidates(query)
        spans = spans_read(record.text, read[0].maps.offsets, self.phrases_of)[:MAX_PHRASES] if read else []
        return SetCard(
            id=record.id,
            text=record.text,
            kind=", ".join(record.kinds),
            candidates=candidates,
            prediction=next(candidate.number for candidate in candidates if candidate.is_prediction),
            target=next(candidate.number for candidate in candidates if candidate.is_target),
            rank=min(int(self.evaluation.ranks[query]) + 1, len(candidates)),  # a score that is no number ranks last
            heats=_heats(read, 0, len(record.text), "the text"),
            phrases=tuple(
                PhraseHeats(record.text[start:end], _heats(read, start, end, f"“{record.text[start:end]}”"))
                for start, end in spans
            ),
            masked=_masked(read[0], record.text, self.mask_rate) if read else None,
        )

    def _candidates(self, query: int) -> tuple[Candidate, ...]:
        record, scores = self.evaluation.records[query], self._scores(query)
        prediction, candidates = predicted(scores), []
        for index, (score, share) in enumerate(zip(scores.tolist(), shares(scores).tolist(), strict=True)):
            marks = {"the target": index == record.target, "the prediction": index == prediction}
            role = ", ".join([f"Candidate {index + 1}", *(mark for mark, is_so in marks.items() if is_so)])
            row = self._row(query, index)
            picture, alt = data_uri(self.pictures[row]), self.pictures.alt(role, row)
            candidates.append(Candidate(picture, alt, index + 1, share, score, *marks.values()))
        return tuple(candidates)

    def _scores(self, query: int) -> np.ndarray:
        """Returns the scores [K] of the set's own candidates, without padding."""
        return self.evaluation.scores[query][: len(self.evaluation.records[query].images)]

    def _row(self, query: int, index: int) -> int:
        return self.pictures.row(self.evaluation.records[query].images[index])


def first_of_sets(records: Sequence[CandidateRecord], rows: np.ndarray) -> np.ndarray:
    """Keeps the first row of each candidate set, so that a section shows a set once."""
    first: dict[tuple[str, ...], int] = {}
    for row in rows.tolist():
        first.setdefault(records[row].images, row)
    return np.asarray(list(first.values()), int)


def spread(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Picks at most `count` of the rows, evenly from the smallest value to the largest."""
    ordered = rows[np.argsort(values[rows], kind="stable")]
    return ordered[np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)]


def predicted(scores: np.ndarray) -> int:
    """Returns the index of the best of a set's scores: the first of equal ones, and never a NaN."""
    return int(np.where(np.isnan(scores), -np.inf, scores).argmax())


def shares(scores: np.ndarray) -> np.ndarray:
    """Returns the softmax over a set's scores [K], in percent; scores that are not finite have no share."""
    finite = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64)
    powers = np.exp(finite - finite.max()) if np.isfinite(finite).any() else np.zeros(len(finite))
    return 100 * powers / (powers.sum() or 1.0)


def _lead(scores: np.ndarray) -> float:
    """Returns how far the best candidate's share is above the next one's."""
    second, first = np.sort(np.append(shares(scores), 0))[-2:]
    return float(first - second)


def _heats(read: Sequence[_ReadPicture], start: int, end: int, what: str) -> tuple[Heat, ...]:
    """Returns where the characters [start, end) of the text read each picture."""
    return tuple(
        make_heat(picture, maps.phrase(start, end), name, f"Where {what} reads the {name}")
        for name, picture, maps in read
    )


def _masked(read: _ReadPicture, text: str, rate: float) -> Masked | None:
    picked = picked_patches(read.maps, text, rate)
    if picked is None:
        return None
    count, total = int(picked.patches.sum()), picked.patches.size
    by = f"“{picked.token}”" if picked.token == picked.word else f"“{picked.token}” of “{picked.word}”"
    return Masked(
        picture=data_uri(outlined(scaled(read.picture, SIDE), picked.patches)),
        alt=f"The {read.name}, {count} of {total} patches outlined: those that {by} reads most",
        by=by,
        count=count,
        n_patches=total,
        spread=picked.spread,
    )
