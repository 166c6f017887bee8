"""Drafts: a pair of pictures with the results of the stages so far. Every stage maps a draft to a draft."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from contextjax.json_files import parse_json
from data_pipelines.chat.questions import Reply


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A text that may become a triplet."""

    text: str
    passed: tuple[str, ...] = ()  # the filters that have kept it
    removed_by: str = ""  # the filter that has removed it
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
    problem: str = ""  # why the pair gives no triplet; later stages leave it as it is
    waiting: bool = False  # one of its questions is in a batch that has not been answered

    @property
    def kept(self) -> tuple[Sentence, ...]:
        """The sentences that no filter has removed."""
        return () if self.problem or self.waiting else tuple(s for s in self.sentences if not s.removed_by)


Stage = Callable[[Draft], Draft]


def triplet_id(draft: Draft, text: str) -> str:
    """Hashes the contents of a triplet, so that decisions about it hold in every later run."""
    content = json.dumps([draft.reference, draft.target, text])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def to_line(draft: Draft) -> str:
    """Formats a draft as a line of JSON."""
    return json.dumps(dataclasses.asdict(draft), ensure_ascii=False, separators=(",", ":"))


def from_line(line: str) -> Draft:
    """Reads a draft from its line."""
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
