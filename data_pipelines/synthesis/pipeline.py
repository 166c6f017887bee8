"""The pipeline from pairs to filtered texts, by threads of this process or by the nodes of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.questions import Ask, Model
from data_pipelines.cluster.calls import answered_here
from data_pipelines.cluster.engine import Engine, OneProcess, Work
from data_pipelines.synthesis.drafts import Draft, Stage
from data_pipelines.synthesis.filters import Agreement, make_filters, settle
from data_pipelines.synthesis.grammar import LanguageTool
from data_pipelines.synthesis.pairs import SourcePictures
from data_pipelines.synthesis.stages import PROMPTS, Tools, make_stages, read_prompts

PICTURES_KEPT = 64  # in memory: pairs of one reference come one after the other


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The settings of all stages, as values: a worker on another machine gets a copy and makes its own stages."""

    pictures: SourcePictures
    make_model: Callable[[], Model]  # a model that sees pictures
    answers: Path  # the file of the answer cache
    run: str  # the name under which questions are counted
    make_writer: Callable[[], Model] | None = None  # a model for the texts; None: the same
    prompts: Path = PROMPTS
    texts: int = 6  # number of texts asked for
    characters: int = 100  # the longest text
    grammar: str = ""  # the address of a LanguageTool server; "": off
    language: str = "en-US"
    make_agreement: Callable[[], Agreement] | None = None
    least_agreement: float = 0.0
    decisions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # triplet id -> "accept" or "reject"

    def calls(self) -> dict[str, Callable[[Any], Any]]:
        """Makes the functions that ask models and the grammar checker, and keep what they answer, by their names."""
        cache = AnswerCache(self.answers)
        describe = Asker(self.make_model(), cache, self.run)
        calls: dict[str, Callable[[Any], Any]] = {"describe": describe, "write": describe}
        if self.make_writer:
            calls["write"] = Asker(self.make_writer(), cache, self.run)
        if self.grammar:
            calls["grammar"] = LanguageTool(self.grammar, cache, language=self.language)
        return calls

    def stages(self, calls: Mapping[str, Callable[[Any], Any]]) -> tuple[Stage, ...]:
        """Makes all stages, ready to run, with what `calls` returns, here or in a process of a cluster."""
        filters = make_filters(
            grammar=calls.get("grammar"),
            agreement=self.make_agreement() if self.make_agreement else None,
            least_agreement=self.least_agreement,
            decisions=self.decisions,
        )
        return (*self.asking_stages(calls["describe"], calls["write"]), *filters)

    def asking_stages(self, describe: Ask, write: Ask) -> tuple[Stage, ...]:
        """Makes the stages that ask questions, with any function that answers them."""
        show = functools.lru_cache(PICTURES_KEPT)(self.pictures.show)
        return make_stages(Tools(describe, write, show, read_prompts(self.prompts), self.texts, self.characters))


def through(stages: Sequence[Stage], draft: Draft) -> Draft:
    """Takes a draft through all stages."""
    for stage in stages:
        draft = stage(draft)
    return draft


def run_pipeline(
    drafts: Sequence[Draft], pipeline: Pipeline, engine: Engine | None = None, *, concurrency: int = 8,
    place: Literal["node", "device"] = "node",
) -> Iterator[Draft]:  # fmt: skip
    """Takes drafts through all stages, in their order; those of one reference are settled together.

    On a cluster this process asks the questions, since answers, costs, rate limits and the key are one for all nodes;
    the nodes do all else.

    Args:
      drafts: pairs, in order of their references.
      pipeline: makes the stages.
      engine: works on the drafts; None: this process.
      concurrency: drafts that are under way at a time in each process, a thread each, and questions in all.
      place: what works on a cluster, see Work.
    """
    with contextlib.ExitStack() as stack:
        if engine is None:
            engine, calls = OneProcess(), pipeline.calls()
        else:
            calls = stack.enter_context(answered_here(pipeline.calls(), threads=concurrency))
            pipeline = dataclasses.replace(pipeline, make_model=_stays_here, make_writer=None)
        work = Work(
            functools.partial(_made, pipeline, calls), "pair", threads=concurrency,
            ahead=4 * concurrency if concurrency > 1 else 0,  # 1: one draft after the other
            chunk=4 * concurrency, place=place,
        )  # fmt: skip
        for _, group in itertools.groupby(engine.map_rows(work, drafts), key=lambda draft: draft.reference):
            yield from settle(list(group))


def _made(pipeline: Pipeline, calls: Mapping[str, Callable[[Any], Any]]) -> Stage:
    return functools.partial(through, pipeline.stages(calls))


def _stays_here() -> Model:
    raise AssertionError("the models of a cluster's synthesis are in the command's process")
