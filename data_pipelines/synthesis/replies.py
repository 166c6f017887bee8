"""What a model's answer says, read as data: lists of objects, lists of texts. Nothing in it is ever carried out."""

from __future__ import annotations

import json
import re
from typing import Any

from contextjax.json_files import parse_json
from data_pipelines.synthesis.drafts import Reply, Thing
from data_pipelines.synthesis.questions import NoAnswer

MAX_CHARACTERS = 50_000  # of an answer
MAX_ITEMS, MAX_ITEM = 40, 400  # entries of a list, characters of one
_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(.*\S)\s*$", re.MULTILINE)


def parse_things(reply: Reply) -> tuple[Thing, ...]:
    """The objects that an answer lists.

    Raises:
      NoAnswer: it is a refusal, or lists none.
    """
    rows = _array(_answered(reply))
    things = [Thing(plain(row.get("object")), plain(row.get("details"))) for row in rows if isinstance(row, dict)]
    things = [thing for thing in things if thing.object]
    if not things:
        raise NoAnswer(f"lists no objects ({reply.text[:60]!r})")
    return tuple(things[:MAX_ITEMS])


def parse_texts(reply: Reply) -> tuple[str, ...]:
    """The texts that an answer lists, as JSON or behind bullets or numbers.

    Raises:
      NoAnswer: it is a refusal, or no list of texts.
    """
    text = _answered(reply)
    try:
        found: list[Any] = _array(text)
    except NoAnswer:
        found = _BULLET.findall(text)
        if not found:
            raise
    texts = [plain(item, most=10 * MAX_ITEM) for item in found]
    texts = [item for item in texts if item]
    if not found:
        raise NoAnswer("lists no texts: no difference was seen", final=True)
    if not texts:
        raise NoAnswer(f"lists no texts ({text[:60]!r})")
    return tuple(texts[:MAX_ITEMS])


def plain(value: Any, *, most: int = MAX_ITEM) -> str:
    """A value as one line of printable text, cut where it is too long; "" where it is no text."""
    if not isinstance(value, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in value[: 4 * most])
    return " ".join(printable.split())[:most]


def _answered(reply: Reply) -> str:
    if reply.refused:
        raise NoAnswer(f"is a refusal ({plain(reply.refused)[:80]})", final=True)
    if len(reply.text) > MAX_CHARACTERS:
        raise NoAnswer(f"has {len(reply.text):,} characters")
    return reply.text


def _array(text: str) -> list[Any]:
    """The JSON array of an answer: the whole of it, in a fence, in an object by itself, or the first one in prose."""
    for part in (text, *_FENCE.findall(text)):
        try:
            found = parse_json(part)
        except ValueError:
            continue
        if isinstance(found, dict) and len(found) == 1:
            found = next(iter(found.values()))
        if isinstance(found, list):
            return found
    decoder = json.JSONDecoder()
    for match in list(re.finditer(r"\[", text))[:50]:
        try:
            _, end = decoder.raw_decode(text, match.start())
            found = parse_json(text[match.start() : end])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    raise NoAnswer(f"is no JSON array ({plain(text)[:60]!r})")
