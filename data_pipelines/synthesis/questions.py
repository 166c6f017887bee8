"""Questions to models: prompts from versioned files, the pictures shown, and the hash that names a question."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from contextjax.json_files import read_text
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Reply

PROMPTS = Path(__file__).parent / "prompts"
FIELDS = {
    "describe_reference": (),
    "describe_target": ("reference",),
    "difference": ("reference", "target", "count", "characters"),
}

AGAIN = "An earlier answer could not be read as JSON: answer with the JSON array alone, from its [ to its ]."


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt's file: a string.Template. Its hash stands in every record that it made."""

    name: str  # of the question that it asks: a key of FIELDS
    version: str
    text: str

    @property
    def id(self) -> str:
        """Name, version and hash."""
        return f"{self.name}.{self.version}:{hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()}"


def read_prompts(folder: Path = PROMPTS) -> dict[str, Prompt]:
    """The newest version, by number, of each prompt of a folder: NAME.vNUMBER.txt.

    Raises:
      UserError: one is missing, or has other fields than the program fills in.
    """
    found: dict[str, Prompt] = {}
    for name, fields in FIELDS.items():
        versions = {int(p.stem.rpartition(".v")[2]): p for p in folder.glob(f"{name}.v*.txt")
                    if p.stem.rpartition(".v")[2].isdecimal()}  # fmt: skip
        if not versions:
            raise UserError(f"{folder} has no {name}.v1.txt; expected a prompt for each of {', '.join(FIELDS)}.")
        newest = max(versions)
        text = read_text(versions[newest], layout="a prompt")
        template = string.Template(text)
        if not template.is_valid() or set(template.get_identifiers()) != set(fields):
            expected = ", ".join(f"${field}" for field in fields) or "none"
            raise UserError(f"{versions[newest]} has the fields {template.get_identifiers()}; expected {expected}.")
        found[name] = Prompt(name, f"v{newest}", text)
    return found


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture that a question shows."""

    id: str
    digest: str  # of the file's bytes
    data: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Question:
    """What a model is asked."""

    prompt: Prompt
    values: tuple[tuple[str, str], ...] = ()  # of the prompt's fields
    pictures: tuple[Shown, ...] = ()
    attempt: int = 0  # a question whose answer was of no use may be asked again: that is another question

    @property
    def text(self) -> str:
        """The prompt with its fields filled in, once: what stands in a value is never a field."""
        text = string.Template(self.prompt.text).substitute(dict(self.values))
        return f"{text}\n{AGAIN}\n" if self.attempt else text

    def key(self, model: Model) -> str:
        """The hash by which the answer is kept: of model, settings, text and the pictures' bytes."""
        content = [model.name, model.settings, self.text, [p.digest for p in self.pictures], self.attempt]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


class Model(Protocol):
    """Whatever answers questions."""

    name: str  # as records give it
    settings: Mapping[str, Any]  # that change answers

    def answer(self, question: Question) -> Reply:
        """The model's answer. Raises Waiting, or UserError where nothing can be asked."""
        ...


class Waiting(Exception):
    """The answer will be there in a later run."""


class NoAnswer(Exception):
    """The answer is of no use; says why."""

    def __init__(self, why: str, *, final: bool = False):
        """`final`: asking once more would not help."""
        super().__init__(why)
        self.final = final


Ask = Callable[[Question], Reply]
