"""One query as a card: its reference and text, what was found, and what its fusion read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from contextjax.evaluation import Evaluation, Pictures
from contextjax.reports.heat import Heat, make_heat
from contextjax.reports.maps import MAX_PHRASES, PhraseMaps, PhrasesOf, phrase_maps
from contextjax.reports.pictures import alt_text, data_uri
from contextjax.system import System
from contextjax.types import Picture

SHOWN = 5  # pictures found


@dataclasses.dataclass(frozen=True)
class Found:
    """A picture of the gallery as a query ranks it; ranks count from 1 here."""

    picture: str  # a data: URI, as all pictures of a page
    alt: str
    rank: int
    score: float
    is_target: bool


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Where the reference reads a phrase: in the query's text, and where the phrase is all the text."""

    label: str
    in_context: Heat
    alone: Heat


@dataclasses.dataclass(frozen=True)
class Card:
    """One query. `found` holds the best pictures, and the target after them where it is not among them."""

    id: str
    text: str
    kind: str
    reference: str
    reference_alt: str
    rank: int  # of the target, from 1
    subset_rank: int  # from 1; 0 without a subset
    subset_size: int
    found: tuple[Found, ...]
    phrases: tuple[Phrase, ...]
    read_by: str  # "phrase" or "token"; "" where the system has no fusion


class Cards:
    """Makes cards of queries; encodes the gallery pictures that they show, not the gallery."""

    def __init__(
        self,
        system: System,
        evaluation: Evaluation,
        pictures: Pictures,
        *,
        phrases_of: PhrasesOf | None = None,
        captions: Sequence[str] = (),
    ):
        self.system, self.evaluation, self.pictures = system, evaluation, pictures
        self.phrases_of, self.captions = phrases_of, captions
        by = "phrase" if phrases_of else "token"
        self.read_by = by if system.query == "fusion" else ""

    def make(self, queries: Sequence[int] | np.ndarray) -> tuple[Card, ...]:
        """Cards of the queries (rows of the evaluation), in their order."""
        if not len(queries):
            return ()
        records = [self.evaluation.records[query] for query in queries]
        references = [self.pictures[self.pictures.row[record.reference]] for record in records]
        texts = [record.text for record in records]
        targets = self.system.encode_gallery([self.pictures[self._target(query)] for query in queries])
        scores = (self.system.encode_query(references, texts) * targets).sum(-1)
        maps: list[list[PhraseMaps]] = [[] for _ in texts]
        if self.read_by:
            maps = phrase_maps(self.system, references, texts, phrases_of=self.phrases_of, limit=MAX_PHRASES)
        return tuple(self._card(*parts) for parts in zip(queries, references, scores, maps, strict=True))

    def _card(self, query: int, reference: Picture, target_score: float, maps: list[PhraseMaps]) -> Card:
        record = self.evaluation.records[query]
        subset_rank = int(self.evaluation.subset_ranks[query]) + 1
        return Card(
            id=record.id,
            text=record.text,
            kind=", ".join(record.kinds),
            reference=data_uri(reference),
            reference_alt=self._alt("Reference", self.pictures.row[record.reference]),
            rank=int(self.evaluation.ranks[query]) + 1,
            subset_rank=subset_rank,
            subset_size=len(record.subset) if subset_rank else 0,
            found=self._found(query, float(target_score)),
            phrases=tuple(_phrase(reference, found) for found in maps),
            read_by=self.read_by,
        )

    def _found(self, query: int, target_score: float) -> tuple[Found, ...]:
        """The best pictures, then the target unless it is one of them."""
        target = self._target(query)
        ranked = zip(self.evaluation.top[query][:SHOWN], self.evaluation.scores[query][:SHOWN], strict=True)
        shown = [(rank, row, score) for rank, (row, score) in enumerate(ranked, start=1) if np.isfinite(score)]
        if target not in [row for _, row, _ in shown]:
            shown.append((int(self.evaluation.ranks[query]) + 1, target, target_score))
        return tuple(
            Found(
                picture=data_uri(self.pictures[int(row)]),
                alt=self._alt(f"Rank {rank}, the target" if row == target else f"Rank {rank}", int(row)),
                rank=rank,
                score=float(score),
                is_target=bool(row == target),
            )
            for rank, row, score in shown
        )

    def _target(self, query: int) -> int:
        """The row of a query's target; an evaluation has no query without one."""
        return self.pictures.row[str(self.evaluation.records[query].target)]

    def _alt(self, role: str, row: int) -> str:
        return alt_text(role, row, self.pictures.ids, self.captions)


def _phrase(reference: Picture, maps: PhraseMaps) -> Phrase:
    heat = lambda found, how: make_heat(reference, found, f"Where the reference reads “{maps.phrase}” {how}")
    return Phrase(maps.phrase, heat(maps.in_context, "in context"), heat(maps.alone, "alone"))
