"""The stages that ask models, and how answers are read: each stage is a pure `Draft -> Draft`, given its models.

A pair with a useless answer is marked with a problem; a pair whose answer will come later is marked as waiting. Later
stages leave both unchanged. An answer is read as data, as a list of objects or of texts: nothing in it is ever
executed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from data_pipelines.chat.questions import (
    Ask,
    NoAnswer,
    Prompt,
    Question,
    Reply,
    ShownPicture,
    Waiting,
    load_prompts,
)
from data_pipelines.chat.reading import MAX_ITEM, answered, find_json, plain, useful
from data_pipelines.synthesis.drafts import Draft, Sentence, Stage, Thing

Show = Callable[[str], ShownPicture]  # picture id -> the picture. Raises UserError where it can't be read
PROMPTS = Path(__file__).parent / "prompts"
FIELDS = {  # prompt -> the fields that its stage fills in
    "describe_reference": (),
    "describe_target": ("reference",),
    "difference": ("reference", "target", "count", "characters"),
}
MAX_ITEMS = 40  # entries of a list
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(.*\S)\s*$", re.MULTILINE)
_SENTENCE_END = re.compile(
    r"(?<!\b(?:Dr|Mr|Ms|St|ca|vs)\.)(?<!\b(?:Mrs|e\.g|i\.e)\.)(?<!\bapprox\.)"  # abbreviations
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[]?[A-Z0-9])"
)


def read_prompts(folder: Path = PROMPTS) -> dict[str, Prompt]:
    """Reads the prompts of the stages. Raises UserError as load_prompts does."""
    return load_prompts(folder, FIELDS)


@dataclasses.dataclass(frozen=True)
class Tools:
    """The models, pictures and prompts that the stages ask with."""

    describe: Ask  # a model that sees pictures
    write: Ask  # a model that writes texts; it may be the same
    show: Show
    prompts: Mapping[str, Prompt]
    texts: int = 6  # number of texts asked for
    characters: int = 100  # the longest text


def make_stages(tools: Tools) -> tuple[Stage, ...]:
    """Makes the stages: check, describe the reference, describe the target given that, write texts, cut sentences."""
    acts = (check_pair, describe_reference, describe_target, write_differences)
    return (*(functools.partial(_step, act, tools) for act in acts), functools.partial(_split, tools.characters))


def _step(act: Callable[[Draft, Tools], Draft], tools: Tools, draft: Draft) -> Draft:
    if draft.problem or draft.waiting:
        return draft
    try:
        return act(draft, tools)
    except Waiting:
        return dataclasses.replace(draft, waiting=True)
    except NoAnswer as error:
        return dataclasses.replace(draft, problem=f"{act.__name__.replace('_', ' ')}: {error}")


def check_pair(draft: Draft, tools: Tools) -> Draft:
    """Checks that both pictures can be read, and that they differ."""
    try:
        pictures = [tools.show(name) for name in (draft.reference, draft.target)]
    except UserError as error:
        raise NoAnswer(str(error)) from error
    if pictures[0].digest == pictures[1].digest:
        raise NoAnswer("the two pictures are one, byte for byte")
    return draft


def describe_reference(draft: Draft, tools: Tools) -> Draft:
    """Asks for the objects of the reference."""
    question = Question(tools.prompts["describe_reference"], pictures=(tools.show(draft.reference),))
    reply, things = useful(question, tools.describe, parse_things)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), reference_things=things)


def describe_target(draft: Draft, tools: Tools) -> Draft:
    """Asks for the objects of the target, in the words of the reference's where they are the same."""
    values = (("reference", listed(draft.reference_things)),)
    question = Question(tools.prompts["describe_target"], values, (tools.show(draft.target),))
    reply, things = useful(question, tools.describe, parse_things)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), target_things=things)


def write_differences(draft: Draft, tools: Tools) -> Draft:
    """Asks for texts that turn the reference into the target, from the two lists of objects alone."""
    values = {
        "reference": listed(draft.reference_things),
        "target": listed(draft.target_things),
        "count": str(tools.texts),
        "characters": str(tools.characters),
    }
    question = Question(tools.prompts["difference"], tuple(values.items()))
    reply, texts = useful(question, tools.write, parse_texts)
    return dataclasses.replace(draft, replies=(*draft.replies, reply), sentences=tuple(map(Sentence, texts)))


def listed(things: Sequence[Thing]) -> str:
    """Formats objects for a question."""
    return json.dumps([dataclasses.asdict(thing) for thing in things], ensure_ascii=False)


def _split(characters: int, draft: Draft) -> Draft:
    """Removes answers that are too long, as a whole (as published), and cuts the others into their sentences."""
    sentences: list[Sentence] = []
    for sentence in draft.sentences:
        if len(sentence.text) > characters:
            why = f"{len(sentence.text)} characters"
            sentences.append(dataclasses.replace(sentence, removed_by="length", why=why))
        else:
            texts = [text.strip() for text in _SENTENCE_END.split(sentence.text)]
            sentences += [dataclasses.replace(sentence, text=text, passed=("length",)) for text in texts if text]
    return dataclasses.replace(draft, sentences=tuple(sentences))


def parse_things(reply: Reply) -> tuple[Thing, ...]:
    """Reads the objects that an answer lists.

    Raises:
      NoAnswer: the answer is a refusal, or lists none.
    """
    rows = find_json(list, answered(reply))
    things = [Thing(plain(row.get("object")), plain(row.get("details"))) for row in rows if isinstance(row, dict)]
    things = [thing for thing in things if thing.object]
    if not things:
        raise NoAnswer(f"lists no objects ({reply.text[:60]!r})")
    return tuple(things[:MAX_ITEMS])


def parse_texts(reply: Reply) -> tuple[str, ...]:
    """Reads the texts that an answer lists, as JSON or behind bullets or numbers.

    Raises:
      NoAnswer: the answer is a refusal, or no list of texts.
    """
    text = answered(reply)
    try:
        items: list[Any] = find_json(list, text)
    except NoAnswer:
        items = _BULLET.findall(text)
        if not items:
            raise
    texts = [plain(item, most=10 * MAX_ITEM) for item in items]
    texts = [item for item in texts if item]
    if not items:
        raise NoAnswer("lists no texts: no difference was seen", final=True)
    if not texts:
        raise NoAnswer(f"lists no texts ({text[:60]!r})")
    return tuple(texts[:MAX_ITEMS])
