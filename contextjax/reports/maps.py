"""What a query's fusion reads of its phrases: where in the picture each is read, in its text and by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contextjax.system import System

PhrasesOf = Callable[[str], Sequence[tuple[int, int]]]  # the characters [start, end) of a text's phrases
MAX_PHRASES = 8  # of a text, on a page


@dataclasses.dataclass(frozen=True)
class PhraseMaps:
    """Maps [grid, grid] of a phrase: how much of its attention each patch gives to the phrase, mean over its tokens.

    Alone, the phrase is all the text there is, between the text's first and last token. A patch shares 1 among all
    tokens, fewer of them here, so what can be compared is where two maps lie rather than how high they are.
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
    """The maps of each query's phrases: one batch of all texts, and one of all phrases.

    Args:
      system: has a fusion.
      images: a reference picture for each text: paths, PIL pictures or uint8 arrays [H, W, 3].
      texts: the modification texts.
      phrases_of: finds the phrases; None takes each token as one.
      limit: phrases of a text at most.

    Returns:
      For each query the maps of its phrases, in their order. What the encoder did not read to its end is left out, as
      in training.
    """
    contexts = system.attention_maps(images, texts)
    read = [spans_read(text, maps.offsets, phrases_of)[:limit] for text, maps in zip(texts, contexts, strict=True)]
    flat = [(row, start, end) for row, spans in enumerate(read) for start, end in spans]
    found: list[list[PhraseMaps]] = [[] for _ in texts]
    if not flat:
        return found
    phrases = [texts[row][start:end] for row, start, end in flat]
    singles = system.attention_maps([images[row] for row, _, _ in flat], phrases)
    for (row, start, end), phrase, single in zip(flat, phrases, singles, strict=True):
        maps = contexts[row].phrase(start, end), single.phrase(0, len(phrase))
        found[row].append(PhraseMaps(start, end, phrase, *maps))
    return found


def spans_read(text: str, offsets: np.ndarray, phrases_of: PhrasesOf | None) -> list[tuple[int, int]]:
    """The characters of a text's phrases that have tokens and were read to their end; without `phrases_of`, of its
    tokens. `offsets` are a TokenMap's."""
    starts, ends = offsets.T
    spans = phrases_of(text) if phrases_of else [(a, b) for a, b in offsets.tolist() if b > a]
    return [
        (start, end)
        for start, end in spans
        if text[start:end].strip() and ((ends > start) & (starts < end)).any() and ends.max() >= end
    ]


def weights(heat: np.ndarray) -> str:
    """The smallest and the largest weight of a map: 0.150–0.250."""
    low, peak = float(heat.min()), float(heat.max())
    return "below 0.001" if peak < 0.001 else f"{low:.3f}–{peak:.3f}"
