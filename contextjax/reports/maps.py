"""Attention maps of phrases, in their text and alone, and the patches that text-guided masking would hide."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contextjax.system import System, TokenMap

PhrasesOf = Callable[[str], Sequence[tuple[int, int]]]  # the characters [start, end) of a text's phrases
MAX_PHRASES = 8  # phrases of one text on a page


@dataclasses.dataclass(frozen=True)
class PhraseMaps:
    """Maps [grid, grid] of a phrase: how much of its attention each patch gives to the phrase, mean over its tokens.

    `alone` is computed with the phrase as the whole text, between the first and the last special token. A patch
    shares 1 among all tokens, and there are fewer of them in that case: compare where two maps are high, not how high.
    """

    start: int  # characters [start, end) of the text
    end: int
    phrase: str
    in_context: np.ndarray
    alone: np.ndarray


def phrase_maps(
    system: System,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    phrases_of: PhrasesOf | None = None,
    limit: int | None = None,
) -> list[list[PhraseMaps]]:
    """Computes the maps of each query's phrases: one batch of all texts, and one of all phrases.

    Args:
      system: a system with a fusion.
      images: a reference picture for each text: paths, PIL pictures or uint8 arrays [H, W, 3].
      texts: the modification texts.
      phrases_of: finds the phrases; None takes each token as one.
      limit: the largest number of phrases of a text.

    Returns:
      For each query the maps of its phrases, in their order. A phrase that the encoder did not read to its end is left
      out, as in training.

    Raises:
      UserError: the system has no fusion.
    """
    contexts = system.attention_maps(images, texts)
    read = [spans_read(text, maps.offsets, phrases_of)[:limit] for text, maps in zip(texts, contexts, strict=True)]
    flat = [(row, start, end) for row, spans in enumerate(read) for start, end in spans]
    maps_of: list[list[PhraseMaps]] = [[] for _ in texts]
    if not flat:
        return maps_of
    phrases = [texts[row][start:end] for row, start, end in flat]
    singles = system.attention_maps([images[row] for row, _, _ in flat], phrases)
    for (row, start, end), phrase, single in zip(flat, phrases, singles, strict=True):
        maps = contexts[row].phrase(start, end), single.phrase(0, len(phrase))
        maps_of[row].append(PhraseMaps(start, end, phrase, *maps))
    return maps_of


def spans_read(text: str, offsets: np.ndarray, phrases_of: PhrasesOf | None) -> list[tuple[int, int]]:
    """Returns the characters [start, end) of a text's phrases that have tokens and were read to their end.

    Without `phrases_of` each token is a phrase. `offsets` [tokens, 2] are those of a TokenMap.
    """
    starts, ends = offsets.T
    spans = phrases_of(text) if phrases_of else [(a, b) for a, b in offsets.tolist() if b > a]
    return [
        (start, end)
        for start, end in spans
        if text[start:end].strip() and ((ends > start) & (starts < end)).any() and ends.max() >= end
    ]


@dataclasses.dataclass(frozen=True)
class PickedPatches:
    """The patches that one token reads most."""

    patches: np.ndarray  # bool [grid, grid]
    token: str  # its characters in the text
    word: str  # the word that the token is, or is a part of
    spread: float  # over how many patches the token's attention is spread, see `spreads`


def picked_patches(maps: TokenMap, text: str, rate: float) -> PickedPatches | None:
    """Picks the patches of a picture that masking would hide, for the token whose attention is most concentrated.

    Training draws the token at random and adds a little noise to its attention. Neither is done here: the same system
    gives the same page.

    Args:
      maps: how much each token of the text reads each patch.
      text: the text.
      rate: the share of patches that is masked.

    Returns:
      The patches; None where no patch would be masked, or no token of the text reads a patch.
    """
    count = round(rate * len(maps.attention))
    token = most_concentrated(maps, text)
    if token is None or not count:
        return None
    chosen = np.zeros(len(maps.attention), bool)
    # Training sorts attention at norm one, which is the order of the attention itself; ties go by position.
    chosen[np.argsort(-maps.attention[:, token], kind="stable")[:count]] = True
    start, end = maps.offsets[token].tolist()
    word = next((m for m in re.finditer(r"\w+", text) if m.start() <= start and end <= m.end()), None)
    return PickedPatches(
        patches=chosen.reshape(maps.grid, maps.grid),
        token=text[start:end],
        word=word[0] if word else text[start:end],
        spread=float(spreads(maps.attention)[token]),
    )


def most_concentrated(maps: TokenMap, text: str) -> int | None:
    """Returns the token, among those with a letter or digit, that spreads its attention over the fewest patches."""
    is_word = [bool(re.search(r"\w", text[start:end])) for start, end in maps.offsets.tolist()]
    spread_of_words = np.where(is_word, spreads(maps.attention), np.inf)
    return int(spread_of_words.argmin()) if np.isfinite(spread_of_words).any() else None


def spreads(attention: np.ndarray) -> np.ndarray:
    """Returns over how many patches each token's attention [patches, tokens] is spread: its squared sum at norm one.

    The result is 1 for a token that reads one patch, the number of patches for one that reads all alike, and inf for
    one that reads none.
    """
    norms = np.linalg.norm(attention, axis=0)
    return np.where(norms > 0, (attention.sum(axis=0) / np.where(norms > 0, norms, 1)) ** 2, np.inf)
