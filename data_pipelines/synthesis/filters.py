"""What removes sentences, each a `Draft -> Draft` that marks them: a removed sentence stays, with the filter's name."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.synthesis.drafts import Draft, Sentence, Stage, triplet_id

Check = Callable[[str], str]  # text -> why it is removed, or ""
Agreement = Callable[[Draft, Sequence[str]], Sequence[float]]  # of each text with target minus reference

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


def words(text: str) -> str:
    """Why a text says too little, or "": a request has two words or more."""
    found = re.findall(r"\w+", text)
    return "" if len(found) >= 2 and any(map(str.isalpha, text)) else "fewer than two words"


def _pattern(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return f"says '{found[0].strip()[:40]}'" if found else ""


CHECKS: Mapping[str, Check] = {
    "words": words,
    "pictures": functools.partial(_pattern, _PICTURES),  # talk of "image 1"
    "files": functools.partial(_pattern, _FILES),  # of files and addresses
    "steering": functools.partial(_pattern, _STEERING),  # to whoever reads it, or markup
}


def make_filters(
    *,
    grammar: Check | None = None,
    agreement: Agreement | None = None,
    least_agreement: float = 0.0,
    decisions: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """The filters that are on, in their order; those that cost come last.

    Args:
      grammar: findings of a grammar checker in a text; None: off.
      agreement: how well texts agree with target minus reference; None: off.
      least_agreement: that a text needs.
      decisions: triplet id -> "accept" or "reject", a person's.
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
    """What two texts share that ask for the same in the same words."""
    return " ".join(re.findall(r"\w+", text.lower()))


def settle(drafts: Sequence[Draft]) -> list[Draft]:
    """All drafts of one reference: a text that asks for two targets can't be answered, and is removed from both."""
    targets: dict[str, set[str]] = collections.defaultdict(set)
    for draft in drafts:
        for sentence in draft.kept:
            targets[normalized(sentence.text)].add(draft.target)
    why = lambda text: f"asks for {len(found)} targets" if len(found := targets[normalized(text)]) > 1 else ""
    return [_checked("ambiguous", why, draft) for draft in drafts]


def _mark(draft: Draft, name: str, reasons: Iterable[str]) -> Draft:
    """The draft with a verdict on each of its kept sentences."""
    left = iter(reasons)
    judged = []
    for sentence in draft.sentences:
        if not sentence.removed_by:
            why = next(left)
            change: dict[str, Any] = {"removed_by": name, "why": why} if why else {"passed": (*sentence.passed, name)}
            sentence = dataclasses.replace(sentence, **change)
        judged.append(sentence)
    return dataclasses.replace(draft, sentences=tuple(judged))


def _checked(name: str, check: Check, draft: Draft) -> Draft:
    return _mark(draft, name, (check(sentence.text) for sentence in draft.kept)) if draft.kept else draft


def _unique(draft: Draft) -> Draft:
    seen: set[str] = set()

    def again(sentence: Sentence) -> str:
        key = normalized(sentence.text)
        if key in seen:
            return "the same words as another text of this pair"
        seen.add(key)
        return ""

    return _mark(draft, "duplicates", map(again, draft.kept)) if draft.kept else draft


def _agreeing(agreement: Agreement, least: float, draft: Draft) -> Draft:
    if not draft.kept:
        return draft
    values = agreement(draft, [sentence.text for sentence in draft.kept])
    return _mark(draft, "agreement", ("" if value >= least else f"{value:.3f}, below {least:g}" for value in values))


def _reviewed(decisions: Mapping[str, str], draft: Draft) -> Draft:
    """A person's decisions; what nobody has looked at has not passed, and is not removed."""
    judged = []
    for sentence in draft.sentences:
        decision = "" if sentence.removed_by else decisions.get(triplet_id(draft, sentence.text), "")
        if decision == "reject":
            sentence = dataclasses.replace(sentence, removed_by="review", why="a person rejected it")
        elif decision == "accept":
            sentence = dataclasses.replace(sentence, passed=(*sentence.passed, "review"))
        judged.append(sentence)
    return dataclasses.replace(draft, sentences=tuple(judged))
