"""One description as a card: its candidates and their scores, what the text read, what masking would hide."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contextjax.evaluation import CandidateEvaluation, Pictures
from contextjax.reports.heat import Heat, make_heat
from contextjax.reports.maps import MAX_PHRASES, PhrasesOf, spans_read
from contextjax.reports.masks import picked_patches
from contextjax.reports.pictures import SIDE, alt_text, data_uri, outlined, scaled
from contextjax.system import System, TokenMap
from contextjax.types import Picture


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A picture of a set; candidates count from 1 here."""

    picture: str  # a data: URI, as all pictures of a page
    alt: str
    number: int
    share: float  # percent, of the softmax over the set's scores
    score: float
    is_target: bool
    is_prediction: bool


@dataclasses.dataclass(frozen=True)
class PhraseHeats:
    """Where a part of the text reads each picture of SetCard.read."""

    label: str
    heats: tuple[Heat, ...]


@dataclasses.dataclass(frozen=True)
class Masked:
    """The prediction, with the patches outlined that masking would hide."""

    picture: str
    alt: str
    by: str  # the token, and the word that it is a part of
    count: int
    n_patches: int
    spread: float  # over how many patches the token's attention is spread


@dataclasses.dataclass(frozen=True)
class SetCard:
    """One description of a set. What is read are the prediction, and the target where that is another picture."""

    id: str
    text: str
    kind: str
    candidates: tuple[Candidate, ...]
    prediction: int  # from 1, as all numbers of candidates
    target: int
    rank: int  # of the target, from 1
    read: tuple[str, ...]  # what the pictures are that are read; empty where texts read none
    heats: tuple[Heat, ...]  # of the whole text: mean over its tokens
    phrases: tuple[PhraseHeats, ...]
    masked: Masked | None

    @property
    def is_right(self) -> bool:
        """Whether the target is the prediction."""
        return self.prediction == self.target


class _Read(NamedTuple):
    name: str
    picture: Picture
    maps: TokenMap


class SetCards:
    """Makes cards of descriptions; what all their texts read is computed at once."""

    def __init__(
        self,
        system: System,
        evaluation: CandidateEvaluation,
        pictures: Pictures,
        *,
        phrases_of: PhrasesOf | None = None,
        captions: Sequence[str] = (),
    ):
        self.system, self.evaluation, self.pictures = system, evaluation, pictures
        self.phrases_of, self.captions = phrases_of, captions
        self.has_maps = "itm" in system.scores  # a text that can tell a match reads the picture
        self.mask_rate = float(getattr(system.model.config, "mask_rate", 0.0))

    def make(self, queries: Sequence[int] | np.ndarray) -> tuple[SetCard, ...]:
        """Cards of the descriptions (rows of the evaluation), in their order."""
        rows = [int(query) for query in queries]
        read = self._read(rows) if self.has_maps and rows else {}
        return tuple(self._card(query, read.get(query, [])) for query in rows)

    def _read(self, queries: Sequence[int]) -> dict[int, list[_Read]]:
        """What each text reads of the prediction and of the target: one batch of all that is shown."""
        asked = []
        for query in queries:
            record, prediction = self.evaluation.records[query], predicted(self._scores(query))
            names = {"prediction": prediction, "target": record.target}
            if prediction == record.target:
                names = {"prediction and target": prediction}
            asked += [(query, name, self.pictures[self._row(query, int(number))]) for name, number in names.items()]
        texts = [self.evaluation.records[query].text for query, _, _ in asked]
        found = collections.defaultdict(list)
        maps = self.system.attention_maps([picture for _, _, picture in asked], texts)
        for (query, name, picture), of in zip(asked, maps, strict=True):
            found[query].append(_Read(name, picture, of))
        return found

    def _card(self, query: int, read: list[_Read]) -> SetCard:
        record = self.evaluation.records[query]
        candidates = self._candidates(query)
        number = lambda mark: next(candidate.number for candidate in candidates if getattr(candidate, mark))
        spans = spans_read(record.text, read[0].maps.offsets, self.phrases_of)[:MAX_PHRASES] if read else []
        return SetCard(
            id=record.id,
            text=record.text,
            kind=record.kind,
            candidates=candidates,
            prediction=number("is_prediction"),
            target=number("is_target"),
            rank=min(int(self.evaluation.ranks[query]) + 1, len(candidates)),  # behind all of them, were it no number
            read=tuple(name for name, _, _ in read),
            heats=_heats(read, 0, len(record.text), "the text"),
            phrases=tuple(
                PhraseHeats(record.text[start:end], _heats(read, start, end, f"“{record.text[start:end]}”"))
                for start, end in spans
            ),
            masked=_masked(read[0], record.text, self.mask_rate) if read else None,
        )

    def _candidates(self, query: int) -> tuple[Candidate, ...]:
        record, scores = self.evaluation.records[query], self._scores(query)
        prediction, found = predicted(scores), []
        for index, (score, share) in enumerate(zip(scores.tolist(), shares(scores).tolist(), strict=True)):
            marks = {"the target": index == record.target, "the prediction": index == prediction}
            role = ", ".join([f"Candidate {index + 1}", *(mark for mark, is_so in marks.items() if is_so)])
            row = self._row(query, index)
            alt = alt_text(role, row, self.pictures.ids, self.captions)
            found.append(Candidate(data_uri(self.pictures[row]), alt, index + 1, share, score, *marks.values()))
        return tuple(found)

    def _scores(self, query: int) -> np.ndarray:
        """[K]: those of the set's own candidates."""
        return self.evaluation.scores[query][: len(self.evaluation.records[query].images)]

    def _row(self, query: int, index: int) -> int:
        return self.pictures.row[self.evaluation.records[query].images[index]]


def predicted(scores: np.ndarray) -> int:
    """The index of the best of a set's scores: the first of equal ones; a score that is not a number never wins."""
    return int(np.where(np.isnan(scores), -np.inf, scores).argmax())


def shares(scores: np.ndarray) -> np.ndarray:
    """The softmax over a set's scores [K], in percent; scores that are not finite have no share."""
    finite = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64)
    powers = np.exp(finite - finite.max()) if np.isfinite(finite).any() else np.zeros(len(finite))
    return 100 * powers / (powers.sum() or 1.0)


def _heats(read: Sequence[_Read], start: int, end: int, what: str) -> tuple[Heat, ...]:
    """Where the characters [start, end) of the text read each picture."""
    return tuple(
        make_heat(picture, maps.phrase(start, end), f"Where {what} reads the {name}") for name, picture, maps in read
    )


def _masked(read: _Read, text: str, rate: float) -> Masked | None:
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
