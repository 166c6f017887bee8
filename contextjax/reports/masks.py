"""The patches that text-guided masking would hide, from what a text reads of a picture (ContextBLIP)."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from contextjax.system import TokenMap


@dataclasses.dataclass(frozen=True)
class PickedPatches:
    """The patches that one token reads most."""

    patches: np.ndarray  # bool [grid, grid]
    token: str  # as it stands in the text
    word: str  # the word that it is, or is a part of
    spread: float  # over how many patches its attention is spread, see `spreads`


def picked_patches(maps: TokenMap, text: str, rate: float) -> PickedPatches | None:
    """What masking would hide of a picture, for the token whose attention is most concentrated.

    Training draws the token at random and adds a little noise to its attention; both would make a page another one
    each time.

    Args:
      maps: how much each token of the text reads each patch.
      text: the text.
      rate: the share of patches that is masked.

    Returns:
      None where no patch would be masked, or the text has no token that reads any.
    """
    count = round(rate * len(maps.attention))
    token = most_concentrated(maps, text)
    if token is None or not count:
        return None
    chosen = np.zeros(len(maps.attention), bool)
    # At norm one, as in training, the order is that of the attention itself; equal patches go by their place.
    chosen[np.argsort(-maps.attention[:, token], kind="stable")[:count]] = True
    start, end = maps.offsets[token].tolist()
    around = next((m for m in re.finditer(r"\w+", text) if m.start() <= start and end <= m.end()), None)
    return PickedPatches(
        patches=chosen.reshape(maps.grid, maps.grid),
        token=text[start:end],
        word=around[0] if around else text[start:end],
        spread=float(spreads(maps.attention)[token]),
    )


def most_concentrated(maps: TokenMap, text: str) -> int | None:
    """The token, among those with a letter or a digit, that spreads its attention over the fewest patches."""
    found = spreads(maps.attention)
    words = [bool(re.search(r"\w", text[start:end])) for start, end in maps.offsets.tolist()]
    found = np.where(words, found, np.inf)
    return int(found.argmin()) if np.isfinite(found).any() else None


def spreads(attention: np.ndarray) -> np.ndarray:
    """Over how many patches each token's attention [patches, tokens] is spread: the square of its sum at norm one.

    1 where it reads one of them only, their number where it reads all alike, inf where it reads none.
    """
    norms = np.linalg.norm(attention, axis=0)
    return np.where(norms > 0, (attention.sum(axis=0) / np.where(norms > 0, norms, 1)) ** 2, np.inf)
