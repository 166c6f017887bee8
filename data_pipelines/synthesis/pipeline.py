"""The pipeline from pairs to filtered texts, run by threads of this process; `beam.py` runs it with Apache Beam."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from contextjax.threads import map_ahead
from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.questions import Ask, Model
from data_pipelines.synthesis.drafts import Draft, Stage
from data_pipelines.synthesis.filters import Agreement, Check, make_filters, settle
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

    def stages(self) -> tuple[Stage, ...]:
        """Makes all stages, ready to run."""
        cache = AnswerCache(self.answers)
        describe = Asker(self.make_model(), cache, self.run)
        write = Asker(self.make_writer(), cache, self.run) if self.make_writer else describe
        grammar: Check | None = LanguageTool(self.grammar, cache, language=self.language) if self.grammar else None
        filters = make_filters(
            grammar=grammar,
            agreement=self.make_agreement() if self.make_agreement else None,
            least_agreement=self.least_agreement,
            decisions=self.decisions,
        )
        return (*self.asking_stages(describe, write), *filters)

    def asking_stages(self, describe: Ask, write: Ask) -> tuple[Stage, ...]:
        """Makes the stages that ask questions, with any function that answers them."""
        show = functools.lru_cache(PICTURES_KEPT)(self.pictures.show)
        return make_stages(Tools(describe, write, show, read_prompts(self.prompts), self.texts, self.characters))


def through(stages: Sequence[Stage], draft: Draft) -> Draft:
    """Takes a draft through all stages."""
    for stage in stages:
        draft = stage(draft)
    return draft


def run_local(drafts: Iterable[Draft], pipeline: Pipeline, *, concurrency: int = 8) -> Iterator[Draft]:
    """Takes drafts through all stages, in their order; those of one reference are settled together.

    Args:
      drafts: pairs, in order of their references.
      pipeline: makes the stages.
      concurrency: drafts that are under way at a time, a thread each.
    """
    ahead = 4 * concurrency if concurrency > 1 else 0  # 1: one draft after the other
    mapped = map_ahead(functools.partial(through, pipeline.stages()), drafts, ahead=ahead, threads=concurrency)
    for _, group in itertools.groupby(mapped, key=lambda draft: draft.reference):
        yield from settle(list(group))
