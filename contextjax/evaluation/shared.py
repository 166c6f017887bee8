"""Shared by both evaluations: pictures by row, the check of targets, and metrics by kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax.types import CandidateRecord, ComposedRecord, Picture, UserError


class Pictures(Protocol):
    """A table of pictures: their ids, and the pictures by row."""

    @property
    def ids(self) -> Sequence[str]:
        """The picture ids by row."""
        ...

    @property
    def row(self) -> Mapping[str, int]:
        """The row of each id."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Picture: ...


def check_targets(records: Sequence[ComposedRecord] | Sequence[CandidateRecord]) -> None:
    """Raises a UserError where there are no records, or some have a secret target."""
    secret = sum(record.target is None for record in records)
    if secret or not records:
        raise UserError(f"{secret} of {len(records)} records have no target; evaluate a split that publishes them.")


def by_label(
    labels: Sequence[Collection[Any]], metrics_of: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Returns the metrics of the records with each label, given the labels of each record; sorted by label."""
    groups: dict[Any, list[int]] = {}
    for row, own in enumerate(labels):
        for label in own:
            groups.setdefault(label, []).append(row)
    return {str(x): {**metrics_of(np.asarray(rows)), "n_queries": len(rows)} for x, rows in sorted(groups.items())}
