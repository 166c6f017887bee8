"""Filters of sentences: each is a `Draft -> Draft` that marks what it removes with its name and a reason."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.synthesis.drafts import Draft, Sentence, Stage, triplet_id

Check = Callable[[str], str]  # text -> why it is removed, or ""
Agreement = Callable[[Draft, Sequence[str]], Sequence[float]]  # each text's cosine with target minus reference

_PICTURE = r"(?:image|picture|photo(?:graph)?|pic|img)s?"
_NUMBER = r"(?:[1-9]|one|two|three|four|first|second|third|1st|2nd|3rd|b|(?-i:A)|a(?!\s*\w))"  # "a" may be an article
_WHICH = "first|second|third|1st|2nd|3rd|other|original|source|reference|target|previous|initial|both|these|the two"
_PICTURES = re.compile(
    rf"\b{_PICTURE}\s*(?:#|no\.?\s*|number\s*)?{_NUMBER}\b|"
    rf"\b(?:{_WHICH})\s+{_PICTURE}\b(?![\s-]+frames?\b)",  # a picture frame is a thing to be seen
    re.IGNORECASE,
)
_FILES = re.compile(
    r"\w\.(?:png|jpe?g|webp|gif|bmp|tiff?|json|txt|py|sh|exe|html?|sqlite|csv)\b|\w+://|\bwww\.|(?<![\w<])[~.]{0,2}/[\w.]|"
    r"[A-Za-z]:\\|\\\\\w",
    re.IGNORECASE,
)
_STEERING = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:instruction|prompt|above|previous|rule)|"
    r"\bas an? (?:ai|language model)\b|\bsystem prompt\b|\b(?:i'?m sorry|i can(?:no|')t|i am unable|i'?m unable)\b|"
    r"<[a-z/!|][^>]*>|\{\{|\$\{|```",
    re.IGNORECASE,
)


def too_short(text: str) -> str:
    """Returns the reason why a text is too short, or "": a request has two words or more."""
    return "" if len(re.findall(r"\w+", text)) >= 2 and any(map(str.isalpha, text)) else "fewer than two words"


def _pattern(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return f"says '{match[0].strip()[:40]}'" if match else ""


CHECKS: Mapping[str, Check] = {
    "words": too_short,
    "pictures": functools.partial(_pattern, _PICTURES),  # speaks of "image 1"
    "files": functools.partial(_pattern, _FILES),  # names files or addresses
    "steering": functools.partial(_pattern, _STEERING),  # gives the reader instructions, or has markup
}


def make_filters(
    *,
    grammar: Check | None = None,
    agreement: Agreement | None = None,
    least_agreement: float = 0.0,
    decisions: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """Makes the filters that are on, in their order; the costly ones come last.

    Args:
      grammar: returns what a grammar checker finds in a text; None: off.
      agreement: returns how well texts agree with target minus reference; None: off.
      least_agreement: the agreement that a text needs.
      decisions: a person's decisions, triplet id -> "accept" or "reject".
    """
    stages: list[Stage] = [functools.partial(_checked, name, check) for name, check in CHECKS.items()]
    stages.append(_unique)
    if grammar:
        stages.append(functools.partial(_checked, "grammar", grammar))
    if agreement:
        stages.append(functools.partial(_agreeing, agreement, least_agreement))
    if decisions:
        stages.append(functools.partial(_reviewed, decisions))
    return tuple(stages)


def normalized(text: str) -> str:
    """Returns the words of a text in lower case, which are equal for texts that ask for the same in the same words."""
    return " ".join(re.findall(r"\w+", text.lower()))


def settle(drafts: Sequence[Draft]) -> list[Draft]:
    """Settles all drafts of one reference: a text that asks for two targets is ambiguous, and removed from both."""
    targets: dict[str, set[str]] = collections.defaultdict(set)
    for draft in drafts:
        for sentence in draft.kept:
            targets[normalized(sentence.text)].add(draft.target)
    why = lambda text: f"asks for {len(own)} targets" if len(own := targets[normalized(text)]) > 1 else ""
    return [_checked("ambiguous", why, draft) for draft in drafts]


def _mark(draft: Draft, name: str, reasons: Iterable[str]) -> Draft:
    """Marks each kept sentence of a draft as passed, or as removed for a reason."""
    reasons = iter(reasons)
    marked = []
    for sentence in draft.sentences:
        if not sentence.removed_by:
            why = next(reasons)
            change: dict[str, Any] = {"removed_by": name, "why": why} if why else {"passed": (*sentence.passed, name)}
            sentence = dataclasses.replace(sentence, **change)
        marked.append(sentence)
    return dataclasses.replace(draft, sentences=tuple(marked))


def _checked(name: str, check: Check, draft: Draft) -> Draft:
    return _mark(draft, name, (check(sentence.text) for sentence in draft.kept)) if draft.kept else draft


def _unique(draft: Draft) -> Draft:
    seen: set[str] = set()

    def repeats(sentence: Sentence) -> str:
        key = normalized(sentence.text)
        if key in seen:
            return "the same words as another text of this pair"
        seen.add(key)
        return ""

    return _mark(draft, "duplicates", map(repeats, draft.kept)) if draft.kept else draft


def _agreeing(agreement: Agreement, least: float, draft: Draft) -> Draft:
    if not draft.kept:
        return draft
    values = agreement(draft, [sentence.text for sentence in draft.kept])
    return _mark(draft, "agreement", ("" if value >= least else f"{value:.3f}, below {least:g}" for value in values))


def _reviewed(decisions: Mapping[str, str], draft: Draft) -> Draft:
    """Applies a person's decisions; a sentence without one has not passed, and is not removed."""
    marked = []
    for sentence in draft.sentences:
        decision = "" if sentence.removed_by else decisions.get(triplet_id(draft, sentence.text), "")
        if decision == "reject":
            sentence = dataclasses.replace(sentence, removed_by="review", why="a person rejected it")
        elif decision == "accept":
            sentence = dataclasses.replace(sentence, passed=(*sentence.passed, "review"))
        marked.append(sentence)
    return dataclasses.replace(draft, sentences=tuple(marked))
