"""What is known of a pair of pictures on its way from two pictures to triplets: the record that every stage maps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from contextjax.json_files import parse_json


@dataclasses.dataclass(frozen=True)
class Reply:
    """A model's answer to a question, as it is kept. The text is data, whatever it says."""

    key: str  # the hash of the question
    model: str
    prompt: str  # name and hash of the prompt's file
    text: str
    refused: str = ""  # why there is no answer, where there is none
    tokens_in: int = 0
    tokens_out: int = 0


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A text that may become a triplet."""

    text: str
    passed: tuple[str, ...] = ()  # the filters that have let it through
    removed_by: str = ""  # the filter that has not
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object that a model has seen in a picture."""

    object: str
    details: str


@dataclasses.dataclass(frozen=True)
class Draft:
    """A pair of pictures, and what the stages have made of it so far."""

    reference: str
    target: str
    replies: tuple[Reply, ...] = ()
    reference_things: tuple[Thing, ...] = ()
    target_things: tuple[Thing, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    problem: str = ""  # why nothing comes of this pair: later stages leave it as it is
    waiting: bool = False  # a question of it is in a batch that has not been answered

    @property
    def kept(self) -> tuple[Sentence, ...]:
        """The sentences that no filter has removed."""
        return () if self.problem or self.waiting else tuple(s for s in self.sentences if not s.removed_by)


Stage = Callable[[Draft], Draft]


def triplet_id(draft: Draft, text: str) -> str:
    """Names a triplet by what is in it, so that decisions about it hold in every later run."""
    content = json.dumps([draft.reference, draft.target, text])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def to_line(draft: Draft) -> str:
    """A draft as a line of JSON."""
    return json.dumps(dataclasses.asdict(draft), ensure_ascii=False, separators=(",", ":"))


def from_line(line: str) -> Draft:
    """A draft from its line."""
    row: Mapping[str, Any] = parse_json(line)
    return Draft(
        reference=row["reference"],
        target=row["target"],
        replies=tuple(Reply(**reply) for reply in row["replies"]),
        reference_things=tuple(Thing(**thing) for thing in row["reference_things"]),
        target_things=tuple(Thing(**thing) for thing in row["target_things"]),
        sentences=tuple(Sentence(**s | {"passed": tuple(s["passed"])}) for s in row["sentences"]),
        problem=row["problem"],
        waiting=row["waiting"],
    )
