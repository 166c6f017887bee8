"""The sections of a page: a fair sample of all queries, then those that were picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from contextjax.reports.report import Section


class Picked(NamedTuple):
    """Queries (rows of the evaluation) under one heading."""

    title: str
    intro: str
    rows: np.ndarray


def make_sections(
    make: Callable[[np.ndarray], Sequence[Any]], count: int, picked: Sequence[Picked], *, sample: int, seed: int
) -> tuple[Section, ...]:
    """A fair sample first, then what was picked, which is not fair. All cards are made in one call, each once.

    Args:
      make: rows -> their cards.
      count: of all queries.
      picked: the other sections.
      sample: number of queries drawn by `seed`.
      seed: of the drawn queries.
    """
    drawn = np.sort(np.random.default_rng(seed).choice(count, min(sample, count), replace=False))
    fair = f"{len(drawn)} of {count:,} queries, drawn at random (seed {seed}), not picked."
    sections = (Picked("A random sample", fair, drawn), *picked)
    shown = np.unique(np.concatenate([section.rows for section in sections]))
    made = dict(zip(shown.tolist(), make(shown), strict=True))
    return tuple(Section(title, intro, tuple(made[row] for row in rows.tolist())) for title, intro, rows in sections)
