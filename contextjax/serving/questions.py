"""Questions to a system: a picture, a text, or both; several in one request, or in the form of OpenAI's embeddings."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from contextjax.tokenizers import check_question
from contextjax.types import UserError

Image = TypeVar("Image")
Text = TypeVar("Text")
DATA_URL = re.compile(r"data:([^,]*),", re.IGNORECASE)
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
PARTS: dict[str, Any] = {
    "type": "object", "additionalProperties": False, "minProperties": 1,
    "properties": {"text": TEXT, "image": {**TEXT, "description": "A picture file in base64, or as a data URL."}},
}  # fmt: skip


class Question(NamedTuple):
    """The bytes of a picture file, a text, or both; None stands for what is missing."""

    image: bytes | None
    text: str | None


def pair(images: Sequence[Image], texts: Sequence[Text]) -> list[tuple[Image | None, Text | None]]:
    """Returns the questions that several pictures and texts are, in their order.

    As many of both make pairs, one picture goes with every text, one text with every picture, and without pictures or
    texts each of the others is a question by itself.

    Raises:
      UserError: there are none, or other numbers of both.
    """
    count = max(len(images), len(texts))
    if not count:
        raise UserError("There is neither a picture nor a text to search for; give one of them, or both.")
    if min(len(images), len(texts)) not in (0, 1, count):
        raise UserError(
            f"There are {len(images)} pictures and {len(texts)} texts; expected as many of both, or one or "
            "none of one of them."
        )
    fill = lambda given: list(given) * count if len(given) == 1 else list(given) or [None] * count
    return list(zip(fill(images), fill(texts), strict=True))


def input_schema(most: int) -> dict[str, Any]:
    """Returns the JSON schema of what `read_input` takes."""
    one = {"anyOf": [TEXT, PARTS]}
    return {"anyOf": [TEXT, PARTS, {"type": "array", "minItems": 1, "maxItems": most, "items": one}]}


def read_input(given: Any, *, most: int, text_limit: int) -> list[Question]:
    """Returns the questions of the `input` of a request for embeddings.

    It is a text, a data URL of a picture, {"text": ..., "image": ...} with one of both or both, or a list of these.

    Args:
      given: the value, as JSON has it.
      most: questions of one request.
      text_limit: characters of a text.

    Raises:
      UserError: it is something else, or too much.
    """
    entries = given if isinstance(given, list) else [given]
    if not 1 <= len(entries) <= most:
        raise UserError(f"input has {len(entries)} entries; expected 1 to {most}: send several requests.")
    names = [f"input[{row}]" for row in range(len(entries))] if isinstance(given, list) else ["input"]
    return [_read_entry(entry, name, text_limit) for entry, name in zip(entries, names, strict=True)]


def _read_entry(entry: Any, name: str, text_limit: int) -> Question:
    parts = {"image" if DATA_URL.match(entry) else "text": entry} if isinstance(entry, str) else entry
    if not isinstance(parts, dict) or not parts or not parts.keys() <= {"text", "image"}:
        kind = f"has the keys {ascii(sorted(parts))[:200]}" if isinstance(parts, dict) else f"is a {_kind(entry)}"
        raise UserError(f'{name} {kind}; expected a text, or {{"text": ..., "image": ...}} with one of both or both.')
    for part, value in parts.items():
        if not isinstance(value, str) or not value:
            what = "empty" if value == "" else f"a {_kind(value)}"
            raise UserError(f"The {part} of {name} is {what}; expected text{' in base64' if part == 'image' else ''}.")
    text = parts.get("text")
    if text is not None:
        check_question(text)
        if len(text) > text_limit:
            raise UserError(f"The text of {name} has {len(text):,} characters; at most {text_limit:,} are read.")
    return Question(read_base64(parts["image"], f"The image of {name}") if "image" in parts else None, text)


def read_base64(text: str, name: str) -> bytes:
    """Returns the bytes of a data URL or of base64, in either of its alphabets, with or without line ends.

    Raises:
      UserError: the text is neither.
    """
    head = DATA_URL.match(text)
    if head is None and re.match(r"[a-z][a-z+.-]*:", text, re.IGNORECASE):
        raise UserError(f"{name} is an address, and nothing is fetched; send the picture, in base64 or as a data URL.")
    if head is not None and not head[1].lower().replace(" ", "").endswith(";base64"):
        raise UserError(f"{name} is a data URL that is not in base64; expected data:image/png;base64,...")
    content = re.sub(r"\s+", "", text[head.end() :] if head else text).translate({45: "+", 95: "/"}).rstrip("=")
    try:
        return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
    except ValueError as error:
        raise UserError(f"{name} is no base64 ({error}); expected a picture file's bytes, or a data URL.") from None


def _kind(value: Any) -> str:
    names = {bool: "truth value", int: "number", float: "number", list: "list", dict: "JSON object", str: "text"}
    return names.get(type(value), "null")
