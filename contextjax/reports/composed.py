"""The cards of composed queries (ConText-CIR): reference and text, ranked pictures, attention maps of the fusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from contextjax import metrics
from contextjax.evaluation import Evaluation
from contextjax.reports.maps import MAX_PHRASES, PhraseMaps, PhrasesOf, phrase_maps
from contextjax.reports.pictures import CaptionedPictures, PhraseHeats, data_uri, make_heat
from contextjax.system import System
from contextjax.types import Picture

TOP = 5  # pictures that a card shows, from the best
BASELINES = {"image": "picture alone", "text": "text alone", "sum": "picture + text"}  # queries of the same towers


@dataclasses.dataclass(frozen=True)
class RankedPicture:
    """A picture of the gallery as a query ranks it; ranks count from 1."""

    picture: str  # a data: URI, as all pictures of a page
    alt: str
    rank: int
    score: float
    is_target: bool


@dataclasses.dataclass(frozen=True)
class QueryCard:
    """One query. `ranked` holds the best pictures, then the target where it is not among them."""

    id: str
    text: str
    kind: str
    reference: str
    reference_alt: str
    rank: int  # of the target, from 1
    subset_rank: int  # from 1; 0 without a subset
    subset_size: int
    ranked: tuple[RankedPicture, ...]
    phrases: tuple[PhraseHeats, ...]  # each with two maps: read in the query's text, and read alone

    @property
    def has_maps(self) -> bool:
        """Returns whether the card shows attention maps."""
        return bool(self.phrases)


@dataclasses.dataclass(frozen=True)
class ComposedView:
    """Shows an evaluation of composed queries; encodes the gallery pictures on its cards, not the whole gallery."""

    system: System
    evaluation: Evaluation
    pictures: CaptionedPictures
    phrases_of: PhrasesOf | None = None

    task: Literal["composed"] = "composed"
    tracked: tuple[str, str] = ("Recall", "@1")  # see learning_charts

    @property
    def method(self) -> str:
        """The kind of query, in words."""
        return f"query: {self.system.query}"

    @property
    def read_by(self) -> str:
        """The units whose attention maps are shown: "phrase", "token", or "" where the system has no fusion."""
        return "" if self.system.query != "fusion" else "phrase" if self.phrases_of else "token"

    def baseline(self, name: str) -> tuple[str, str]:
        """Returns the label of a baseline, and a note."""
        return BASELINES.get(name, name), "same towers"

    def fields(self, columns: Sequence[str]) -> Mapping[str, Any]:
        """Returns the fields of Report that composed queries alone have, and their protocol."""
        protocol, n_gallery = self.evaluation.protocol, self.evaluation.n_gallery
        return {
            "protocol": protocol.name,
            "n_gallery": n_gallery,
            "n_ranked": n_gallery - protocol.excludes_reference,
            "average": protocol.average if "Avg" in columns else (),
            "any_truth": protocol.any_truth,
        }

    def headline(
        self, columns: Sequence[str], values: Sequence[float | None], interval: tuple[float, float] | None
    ) -> tuple[tuple[str, float | None, float | None], ...]:
        """Returns each metric at its first cut-off, and the average: (name, percent, standard error)."""
        del interval  # recalls have standard errors
        first = {name.partition("@")[0]: name for name in reversed(columns)}.values()
        named = zip(columns, values, strict=True)
        return tuple((name, value, self._standard_error(name)) for name, value in named if name in first)

    def _standard_error(self, column: str) -> float | None:
        """Returns the standard error of a recall in percent; means of recalls have none."""
        kind, _, k = column.partition("@")
        ranks = {"R": self.evaluation.ranks, "Rs": self.evaluation.subset_ranks, "IR": self.evaluation.ranks}.get(kind)
        if kind == "TR":
            ranks = self.evaluation.picture_ranks
        return None if ranks is None else metrics.standard_error(ranks[ranks >= 0], int(k))

    def picked(self, extremes: int) -> tuple[tuple[str, str, np.ndarray], ...]:
        """Returns the best and the worst cases: (title, intro, rows of the evaluation)."""
        scores, ranks = self.evaluation.scores, self.evaluation.ranks
        lead = scores[:, 0] - scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(ranks))
        right = np.flatnonzero(ranks == 0)
        best = right[np.argsort(-lead[right], kind="stable")][:extremes]
        worst = np.argsort(-ranks, kind="stable")[:extremes]
        worst = worst[ranks[worst] > 0]
        high = "The target is first, by the widest lead over the second."
        low = "The target is ranked furthest down."
        return (
            ("Best cases", high if len(best) else "No query has its target first.", best),
            ("Worst cases", low if len(worst) else "Every query has its target first.", worst),
        )

    def cards(self, queries: Sequence[int] | np.ndarray) -> tuple[QueryCard, ...]:
        """Makes cards of the queries (rows of the evaluation), in their order."""
        if not len(queries):
            return ()
        records = [self.evaluation.records[query] for query in queries]
        references = [self.pictures[self.pictures.row(record.reference)] for record in records]
        texts = [record.text for record in records]
        targets = self.system.encode_gallery([self.pictures[self._target(query)] for query in queries])
        scores = (self.system.encode_query(references, texts) * targets).sum(-1)
        maps: list[list[PhraseMaps]] = [[] for _ in texts]
        if self.read_by:
            maps = phrase_maps(self.system, references, texts, phrases_of=self.phrases_of, limit=MAX_PHRASES)
        return tuple(self._card(*given) for given in zip(queries, references, scores, maps, strict=True))

    def _card(self, query: int, reference: Picture, target_score: float, maps: list[PhraseMaps]) -> QueryCard:
        record = self.evaluation.records[query]
        subset_rank = int(self.evaluation.subset_ranks[query]) + 1
        return QueryCard(
            id=record.id,
            text=record.text,
            kind=", ".join(record.kinds),
            reference=data_uri(reference),
            reference_alt=self.pictures.alt("Reference", self.pictures.row(record.reference)),
            rank=int(self.evaluation.ranks[query]) + 1,
            subset_rank=subset_rank,
            subset_size=len(record.subset) if subset_rank else 0,
            ranked=self._ranked(query, float(target_score)),
            phrases=tuple(_phrase_heats(reference, phrase) for phrase in maps),
        )

    def _ranked(self, query: int, target_score: float) -> tuple[RankedPicture, ...]:
        """Returns the best pictures, then the target unless it is one of them. All right pictures are marked."""
        target = self._target(query)
        right = {target, *map(self.pictures.row, self.evaluation.records[query].truths)}
        best = zip(self.evaluation.top[query][:TOP], self.evaluation.scores[query][:TOP], strict=True)
        shown = [(rank, row, score) for rank, (row, score) in enumerate(best, start=1) if np.isfinite(score)]
        if target not in [row for _, row, _ in shown]:
            shown.append((int(self.evaluation.ranks[query]) + 1, target, target_score))
        return tuple(
            RankedPicture(
                picture=data_uri(self.pictures[int(row)]),
                alt=self.pictures.alt(f"Rank {rank}, the target" if row in right else f"Rank {rank}", int(row)),
                rank=rank,
                score=float(score),
                is_target=int(row) in right,
            )
            for rank, row, score in shown
        )

    def _target(self, query: int) -> int:
        """Returns the row of a query's target, or of its best right picture; an evaluation has no query without one."""
        return self.pictures.row(self.evaluation.targets[query])


def _phrase_heats(reference: Picture, maps: PhraseMaps) -> PhraseHeats:
    heats = (("in context", maps.in_context), ("alone", maps.alone))
    alt = f"Where the reference reads “{maps.phrase}”"
    return PhraseHeats(maps.phrase, tuple(make_heat(reference, heat, how, f"{alt} {how}") for how, heat in heats))
