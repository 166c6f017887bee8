"""The stages that ask models: each a pure `Draft -> Draft`, given what it asks with.

A pair whose answer is of no use carries a problem from there on, one whose answer is still to come waits; later stages
leave both as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft, Reply, Sentence, Stage, Thing
from data_pipelines.synthesis.questions import Ask, NoAnswer, Prompt, Question, Shown, Waiting
from data_pipelines.synthesis.replies import parse_texts, parse_things

Found = TypeVar("Found")
Show = Callable[[str], Shown]  # picture id -> what is shown. Raises UserError where it can't be read
TRIES = 2  # of a question whose answer is of no use
_SENTENCE_END = re.compile(
    r"(?<!\b(?:Dr|Mr|Ms|St|ca|vs)\.)(?<!\b(?:Mrs|e\.g|i\.e)\.)(?<!\bapprox\.)"  # abbreviations
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[]?[A-Z0-9])"
)


@dataclasses.dataclass(frozen=True)
class Asking:
    """What the stages ask with."""

    describe: Ask  # a model that sees pictures
    write: Ask  # one that writes texts; it may be the same
    show: Show
    prompts: Mapping[str, Prompt]
    texts: int = 6  # that are asked for
    characters: int = 100  # that a text may have


def make_stages(asking: Asking) -> tuple[Stage, ...]:
    """Check -> describe the reference -> describe the target given the first -> difference texts -> sentences."""
    acts = (check_pair, describe_reference, describe_target, write_differences)
    return (*(functools.partial(_step, act, asking) for act in acts), functools.partial(_split, asking.characters))


def _step(act: Callable[[Draft, Asking], Draft], asking: Asking, draft: Draft) -> Draft:
    if draft.problem or draft.waiting:
        return draft
    try:
        return act(draft, asking)
    except Waiting:
        return dataclasses.replace(draft, waiting=True)
    except NoAnswer as error:
        return dataclasses.replace(draft, problem=f"{act.__name__.replace('_', ' ')}: {error}")


def check_pair(draft: Draft, asking: Asking) -> Draft:
    """Both pictures can be read, and are two."""
    try:
        pictures = [asking.show(name) for name in (draft.reference, draft.target)]
    except UserError as error:
        raise NoAnswer(str(error)) from error
    if pictures[0].digest == pictures[1].digest:
        raise NoAnswer("the two pictures are one, byte for byte")
    return draft


def describe_reference(draft: Draft, asking: Asking) -> Draft:
    """The objects of the reference."""
    question = Question(asking.prompts["describe_reference"], pictures=(asking.show(draft.reference),))
    reply, things = _useful(question, asking.describe, parse_things)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), reference_things=things)


def describe_target(draft: Draft, asking: Asking) -> Draft:
    """The objects of the target, in the words of the reference's where they are the same."""
    values = (("reference", listed(draft.reference_things)),)
    question = Question(asking.prompts["describe_target"], values, (asking.show(draft.target),))
    reply, things = _useful(question, asking.describe, parse_things)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), target_things=things)


def write_differences(draft: Draft, asking: Asking) -> Draft:
    """Texts that ask for the target, from the two lists alone."""
    values = {
        "reference": listed(draft.reference_things),
        "target": listed(draft.target_things),
        "count": str(asking.texts),
        "characters": str(asking.characters),
    }
    question = Question(asking.prompts["difference"], tuple(values.items()))
    reply, texts = _useful(question, asking.write, parse_texts)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), sentences=tuple(map(Sentence, texts)))


def listed(things: Sequence[Thing]) -> str:
    """Objects as a question gives them."""
    return json.dumps([dataclasses.asdict(thing) for thing in things], ensure_ascii=False)


def _useful(question: Question, ask: Ask, parse: Callable[[Reply], Found]) -> tuple[Reply, Found]:
    """The first answer that can be read, of a few."""
    for attempt in range(TRIES):
        reply = ask(dataclasses.replace(question, attempt=attempt))
        try:
            return reply, parse(reply)
        except NoAnswer as error:
            if error.final or attempt + 1 == TRIES:
                raise
    raise AssertionError("unreachable")


def _split(characters: int, draft: Draft) -> Draft:
    """An answer that is too long is removed as a whole (as published), the others are cut into their sentences."""
    found: list[Sentence] = []
    for sentence in draft.sentences:
        if len(sentence.text) > characters:
            why = f"{len(sentence.text)} characters"
            found.append(dataclasses.replace(sentence, removed_by="length", why=why))
        else:
            parts = [part.strip() for part in _SENTENCE_END.split(sentence.text)]
            found += [dataclasses.replace(sentence, text=part, passed=("length",)) for part in parts if part]
    return dataclasses.replace(draft, sentences=tuple(found))
