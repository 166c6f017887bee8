"""Answers read as data: the JSON in a model's words. Nothing in an answer is ever carried out."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from contextjax.json_files import parse_json
from data_pipelines.chat.questions import Ask, NoAnswer, Question, Reply

Parsed = TypeVar("Parsed")
Kind = TypeVar("Kind", list[Any], dict[str, Any])
TRIES = 2  # of a question whose answer is useless
MAX_CHARACTERS = 50_000  # of an answer
MAX_ITEM = 400  # characters of a text
_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)


def useful(question: Question, ask: Ask, parse: Callable[[Reply], Parsed]) -> tuple[Reply, Parsed]:
    """Asks until an answer can be read, at most TRIES times."""
    for attempt in range(TRIES):
        reply = ask(dataclasses.replace(question, attempt=attempt))
        try:
            return reply, parse(reply)
        except NoAnswer as error:
            if error.final or attempt + 1 == TRIES:
                raise
    raise AssertionError("unreachable")


def plain(value: Any, *, most: int = MAX_ITEM) -> str:
    """Returns a value as one line of printable text, cut where it is too long; "" where it is no text."""
    if not isinstance(value, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in value[: 4 * most])
    return " ".join(printable.split())[:most]


def answered(reply: Reply) -> str:
    """Returns the text of an answer, without what a reasoning model has thought before it.

    Raises:
      NoAnswer: it is a refusal, or too long.
    """
    if reply.refused:
        raise NoAnswer(f"is a refusal ({plain(reply.refused)[:80]})", final=True)
    if len(reply.text) > MAX_CHARACTERS:
        raise NoAnswer(f"has {len(reply.text):,} characters")
    return reply.text.rpartition("</think>")[2]


def find_json(kind: type[Kind], text: str) -> Kind:
    """Finds the JSON array or object of an answer: the whole of it, in a fence, or the first one in prose.

    An array may be alone in an object.

    Raises:
      NoAnswer: there is none.
    """
    for candidate in (text, *_FENCE.findall(text)):
        try:
            value = parse_json(candidate)
        except ValueError:
            continue
        if kind is list and isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if isinstance(value, kind):
            return value
    decoder, name, opening = json.JSONDecoder(), *(("array", r"\[") if kind is list else ("object", r"\{"))
    for match in list(re.finditer(opening, text))[:50]:
        try:
            _, end = decoder.raw_decode(text, match.start())
            value = parse_json(text[match.start() : end])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, kind):
            return value
    raise NoAnswer(f"is no JSON {name} ({plain(text)[:60]!r})")
