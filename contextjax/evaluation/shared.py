"""Shared by both evaluations: pictures by row, the check of targets, and metrics by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

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


def by_kind(
    records: Sequence[ComposedRecord] | Sequence[CandidateRecord], metrics_of: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Returns the metrics of the records of each kind, where they have kinds."""
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        for kind in record.kinds:
            groups.setdefault(kind, []).append(row)
    return {kind: {**metrics_of(np.asarray(rows)), "n_queries": len(rows)} for kind, rows in sorted(groups.items())}
