"""Takes drafts through all stages, with threads of this process. `beam.py` does the same with Apache Beam.

A plan is a function that makes the stages, not the stages themselves: workers elsewhere make their own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from contextjax.threads import map_ahead
from data_pipelines.synthesis.drafts import Draft, Stage
from data_pipelines.synthesis.filters import settle

Plan = Callable[[], Sequence[Stage]]


def through(stages: Sequence[Stage], draft: Draft) -> Draft:
    """A draft after all stages."""
    for stage in stages:
        draft = stage(draft)
    return draft


def run_local(drafts: Iterable[Draft], plan: Plan, *, concurrency: int = 8) -> Iterator[Draft]:
    """The drafts after all stages, in their order; those of one reference stand together and are settled together.

    Args:
      drafts: in order of their references.
      plan: makes the stages.
      concurrency: drafts that are under way at a time, a thread each.
    """
    ahead = 4 * concurrency if concurrency > 1 else 0  # 1: one draft after the other
    mapped = map_ahead(functools.partial(through, plan()), drafts, ahead=ahead, threads=concurrency)
    for _, group in itertools.groupby(mapped, key=lambda draft: draft.reference):
        yield from settle(list(group))
