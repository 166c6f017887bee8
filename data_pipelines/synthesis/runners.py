"""Takes drafts through all stages, with threads of this process. `beam.py` does the same with Apache Beam.

A plan is a function that makes the stages, not the stages themselves: workers elsewhere make their own.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

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
    stages = plan()
    for _, group in itertools.groupby(_mapped(drafts, stages, concurrency), key=lambda draft: draft.reference):
        yield from settle(list(group))


def _mapped(drafts: Iterable[Draft], stages: Sequence[Stage], concurrency: int) -> Iterator[Draft]:
    if concurrency == 1:
        yield from (through(stages, draft) for draft in drafts)
        return
    waiting: collections.deque[concurrent.futures.Future[Draft]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(concurrency)
    try:
        for draft in drafts:
            waiting.append(pool.submit(through, stages, draft))
            if len(waiting) > 4 * concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # what is under way is waited for: its answers are kept
