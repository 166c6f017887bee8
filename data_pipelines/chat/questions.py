"""Questions to models and their replies: versioned prompt files, the pictures shown, the hash that names a question.

This module, answers.py, costs.py, endpoint.py, batches.py, local.py and reading.py do not depend on the purpose of a
question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from contextjax.json_files import read_text
from contextjax.types import UserError

PICTURES = "$pictures"  # in a prompt: its pictures stand here, each after its label; else they come before the text
ARRAY_NOTE = "An earlier answer could not be read as JSON: answer with the JSON array alone, from its [ to its ]."


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The text of a prompt file: a string.Template. Its hash is part of every record made with it."""

    name: str
    version: str
    text: str

    @property
    def id(self) -> str:
        """Name, version and hash."""
        return f"{self.name}.{self.version}:{hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()}"


def load_prompts(folder: Path, fields: Mapping[str, Sequence[str]]) -> dict[str, Prompt]:
    """Reads the newest version, by number, of each prompt of a folder: NAME.vNUMBER.txt.

    Args:
      folder: the folder of prompt files.
      fields: prompt name -> the fields that the program fills in.

    Raises:
      UserError: a prompt is missing, or has other fields.
    """
    prompts: dict[str, Prompt] = {}
    for name, own in fields.items():
        numbered = ((path.stem.rpartition(".v")[2], path) for path in folder.glob(f"{name}.v*.txt"))
        versions = {int(number): path for number, path in numbered if number.isdecimal()}
        if not versions:
            raise UserError(f"{folder} has no {name}.v1.txt; expected a prompt for each of {', '.join(fields)}.")
        newest = max(versions)
        text = read_text(versions[newest], layout="a prompt")
        template = string.Template(text)
        if not template.is_valid() or set(template.get_identifiers()) != set(own):
            expected = ", ".join(f"${field}" for field in own) or "none"
            raise UserError(f"{versions[newest]} has the fields {template.get_identifiers()}; expected {expected}.")
        if (places := text.count(PICTURES)) != ("pictures" in own):
            raise UserError(f"{versions[newest]} has {PICTURES} {places} times; expected it once, as {PICTURES}.")
        prompts[name] = Prompt(name, f"v{newest}", text)
    return prompts


@dataclasses.dataclass(frozen=True)
class ShownPicture:
    """A picture that a question shows."""

    id: str
    digest: str  # of the file's bytes
    data: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Question:
    """One question to a model: a prompt, its fields, and pictures."""

    prompt: Prompt
    values: tuple[tuple[str, str], ...] = ()  # of the prompt's fields
    pictures: tuple[ShownPicture, ...] = ()
    attempt: int = 0  # a question whose answer was useless may be asked again, which is another question
    labels: tuple[str, ...] = ()  # of the pictures, where the prompt has a place for them
    retry_note: str = ARRAY_NOTE

    @property
    def text(self) -> str:
        """All that is said, in order, with the labels of the pictures."""
        before, after = self._texts
        return "\n".join([before, *self.labels, after]) if self.labels else before + after

    @property
    def instructions(self) -> str:
        """The prompt's text before the place of its pictures, a system message; "" where there is no such place."""
        return self._texts[0]

    @property
    def parts(self) -> list[str | ShownPicture]:
        """The texts and pictures of the user's message, in order."""
        labelled = zip(self.labels, self.pictures, strict=True) if self.labels else ((p,) for p in self.pictures)
        return [*(part for pair in labelled for part in pair), self._texts[1]]

    @property
    def _texts(self) -> tuple[str, str]:
        """The prompt before and after its pictures, with its fields filled in once: no value is taken for a field."""
        before, is_there, after = self.prompt.text.partition(PICTURES)
        before, after = (string.Template(text).substitute(dict(self.values)) for text in (before, after))
        after = f"{after}\n{self.retry_note}\n" if self.attempt and is_there else after
        if not is_there:
            return "", f"{before}\n{self.retry_note}\n" if self.attempt else before
        return before.strip(), after.strip()

    def key(self, model: Model) -> str:
        """Hashes model, settings, text and the pictures' bytes: the name of the answer in the cache."""
        content = [model.name, model.settings, self.text, [p.digest for p in self.pictures], self.attempt]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True)
class Reply:
    """A model's answer to a question, as it is kept. The text is data, whatever it says."""

    key: str  # the hash of the question
    model: str
    prompt: str  # Prompt.id
    text: str
    refused: str = ""  # why there is no answer, if there is none
    tokens_in: int = 0
    tokens_out: int = 0
    served: str = ""  # the model's name as the endpoint gives it
    odds: str = ""  # JSON: [token, {token that was as possible: log-probability}] of the first tokens, where given


class Model(Protocol):
    """Anything that answers questions."""

    name: str  # as records give it
    settings: Mapping[str, Any]  # that change answers

    def answer(self, question: Question) -> Reply:
        """Returns the model's answer. Raises Waiting, or UserError where nothing can be asked."""
        ...


Ask = Callable[[Question], Reply]


class Waiting(Exception):
    """The answer will be available in a later run."""


class NoAnswer(Exception):
    """The answer is useless; the message says why."""

    def __init__(self, why: str, *, final: bool = False):
        """Takes the reason; `final`: asking once more would not help."""
        super().__init__(why)
        self.final = final
