"""Reads a person's decisions on triplets, and draws samples of drafts for the pages to look through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from contextjax.json_files import read_json
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, from_line
from data_pipelines.synthesis.write import MARK

Item = TypeVar("Item")
DECISIONS = ("accept", "reject")


def read_decisions(path: Path) -> dict[str, str]:
    """Reads a file of decisions: triplet id -> "accept" or "reject".

    Raises:
      UserError: the file is not one that the review page saved.
    """
    decisions = read_json(path, dict, layout="the review page").get("decisions")
    if not isinstance(decisions, dict) or not all(
        re.fullmatch("[0-9a-f]{16}", id) and decision in DECISIONS for id, decision in decisions.items()
    ):
        raise UserError(
            f'{path} is no file of decisions; expected {{"decisions": {{id: "accept" or "reject"}}}}, as the review '
            "page saves it."
        )
    return decisions


def read_drafts(target: Path, split: str) -> Iterator[Draft]:
    """Reads the drafts of a written set."""
    with (target / MARK / f"drafts.{split}.jsonl").open(encoding="utf-8") as file:
        yield from map(from_line, file)


class Reservoir(Generic[Item]):
    """Keeps a sample of a stream's items, each as likely as any other; reproducible by the random numbers given."""

    def __init__(self, size: int, rng: Random):
        """Keeps at most `size` items."""
        self._size, self._rng = size, rng
        self._kept: list[tuple[int, Item]] = []
        self.seen = 0

    def add(self, item: Item) -> None:
        """Shows the reservoir the next item."""
        self.seen += 1
        if len(self._kept) < self._size:
            self._kept.append((self.seen, item))
        elif (place := self._rng.randrange(self.seen)) < self._size:
            self._kept[place] = (self.seen, item)

    @property
    def items(self) -> list[Item]:
        """The sample, in the order of the stream."""
        return [item for _, item in sorted(self._kept, key=lambda pair: pair[0])]


def sample(items: Iterable[Item], count: int, *, seed: int) -> list[Item]:
    """Draws `count` items of a stream, in their order."""
    reservoir: Reservoir[Item] = Reservoir(count, Random(seed))
    for item in items:
        reservoir.add(item)
    return reservoir.items


def removed_by(drafts: Iterable[Draft], count: int, *, seed: int) -> dict[str, Reservoir[tuple[Draft, str, str]]]:
    """Draws `count` of what each filter (or stage, for pairs with a problem) removed: (draft, text, why)."""
    rng, removed = Random(seed), {}
    for draft in drafts:
        if draft.problem:
            name, _, why = draft.problem.partition(": ")
            cases = [(name, (draft, "", why))]
        else:
            cases = [(s.removed_by, (draft, s.text, s.why)) for s in draft.sentences if s.removed_by]
        for name, case in cases:
            removed.setdefault(name, Reservoir(count, rng)).add(case)
    return removed
