"""A person's decisions on triplets, as the review page saves them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

from contextjax.json_files import read_json
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, from_line
from data_pipelines.synthesis.write import MARK

DECISIONS = ("accept", "reject")


def read_decisions(path: Path) -> dict[str, str]:
    """Triplet id -> "accept" or "reject".

    Raises:
      UserError: the file is not what the review page saves.
    """
    found = read_json(path, dict, layout="the review page").get("decisions")
    if not isinstance(found, dict) or not all(
        re.fullmatch("[0-9a-f]{16}", id) and decision in DECISIONS for id, decision in found.items()
    ):
        raise UserError(
            f'{path} is no file of decisions; expected {{"decisions": {{id: "accept" or "reject"}}}}, as the review '
            "page saves it."
        )
    return found


def read_drafts(target: Path, split: str) -> Iterator[Draft]:
    """The drafts of a set that was written."""
    with (target / MARK / f"drafts.{split}.jsonl").open(encoding="utf-8") as file:
        yield from map(from_line, file)


def sample(items: Iterable, count: int, *, seed: int) -> list:
    """So many of a stream's items, each as likely as the next, in their order; reproducible."""
    rng = Random(seed)
    kept: list[tuple[int, object]] = []
    for number, item in enumerate(items):
        if len(kept) < count:
            kept.append((number, item))
        elif (place := rng.randrange(number + 1)) < count:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])]


def removed_by(
    drafts: Iterable[Draft], count: int, *, seed: int
) -> dict[str, tuple[int, Sequence[tuple[Draft, str, str]]]]:
    """Filter (or stage, of pairs with a problem) -> how much it removed, and a sample: (draft, text, why)."""
    rng = Random(seed)
    totals: dict[str, int] = {}
    kept: dict[str, list[tuple[Draft, str, str]]] = {}
    for draft in drafts:
        if draft.problem:
            name, _, why = draft.problem.partition(": ")
            cases = [(name, (draft, "", why))]
        else:
            cases = [(s.removed_by, (draft, s.text, s.why)) for s in draft.sentences if s.removed_by]
        for name, case in cases:
            totals[name] = totals.get(name, 0) + 1
            own = kept.setdefault(name, [])
            if len(own) < count:
                own.append(case)
            elif (place := rng.randrange(totals[name])) < count:
                own[place] = case
    return {name: (totals[name], kept[name]) for name in totals}
