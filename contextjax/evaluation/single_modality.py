"""Single-modality share: the queries that a picture alone or a text alone answers, and the accuracy on the rest.

A query that one modality answers does not test whether a system combines both; only the remaining queries do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


class Answered(Protocol):
    """An evaluation as this measure needs it."""

    @property
    def hits(self) -> Mapping[str, np.ndarray]:
        """Metric -> float [Q]: 1 where a query counts as answered, 0 where not, NaN where it is not asked."""
        ...


def single_modality(
    own: Sequence[Answered], alone: Mapping[str, Sequence[Answered]]
) -> dict[str, dict[str, float | None]]:
    """Returns the shares of queries that each single modality answers, and the share of the rest that a system does.

    Args:
      own: the evaluations of the parts of a split.
      alone: modality, such as "image" -> the evaluations of the same queries with that modality alone.

    Returns:
      metric -> the share in percent of each modality, "either" of them, "n_rest" queries that neither answers, and the
      system's own share of those ("rest"; None where there are none).
    """
    if not alone or not own:
        return {}
    joined = lambda evaluations, name: np.concatenate([np.asarray(each.hits[name], float) for each in evaluations])
    shares: dict[str, dict[str, float | None]] = {}
    for name in own[0].hits:
        if not all(name in each.hits for each in own):
            continue
        mine = joined(own, name)
        asked = ~np.isnan(mine)
        if not asked.any():
            continue
        others = {modality: joined(evaluations, name)[asked] > 0 for modality, evaluations in alone.items()}
        either = np.any([*others.values()], axis=0)
        rest = mine[asked][~either]
        values = {modality: float(100 * hit.mean()) for modality, hit in others.items()}
        shares[name] = {
            **values, "either": float(100 * either.mean()), "n_rest": len(rest),
            "rest": float(100 * rest.mean()) if len(rest) else None,
        }  # fmt: skip
    return shares
