"""All that the stages are made of, as values: workers on other machines are sent a plan and make their own stages."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from data_pipelines.synthesis.answers import Answers
from data_pipelines.synthesis.asking import Asker
from data_pipelines.synthesis.drafts import Stage
from data_pipelines.synthesis.filters import Agreement, Check, make_filters
from data_pipelines.synthesis.grammar import LanguageTool
from data_pipelines.synthesis.questions import PROMPTS, Ask, Model, read_prompts
from data_pipelines.synthesis.sources import Pictures
from data_pipelines.synthesis.stages import Asking, make_stages

PICTURES_KEPT = 64  # in memory: pairs of one reference come one after the other


@dataclasses.dataclass(frozen=True)
class Plan:
    """How pairs become triplets. Calling it makes the stages."""

    pictures: Pictures
    make_model: Callable[[], Model]  # that sees pictures
    answers: Path
    run: str  # the name under which what is asked is counted
    make_writer: Callable[[], Model] | None = None  # a model for the texts; None: the same
    prompts: Path = PROMPTS
    texts: int = 6
    characters: int = 100
    grammar: str = ""  # the address of a LanguageTool server; "": off
    language: str = "en-US"
    make_agreement: Callable[[], Agreement] | None = None
    least_agreement: float = 0.0
    decisions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self) -> tuple[Stage, ...]:
        """The stages, ready to run."""
        answers = Answers(self.answers)
        model = self.make_model()
        describe = Asker(model, answers, run=self.run)
        write = Asker(self.make_writer(), answers, run=self.run) if self.make_writer else describe
        return (*self.asking_stages(describe, write), *self.filters(answers))

    def asking_stages(self, describe: Ask, write: Ask) -> tuple[Stage, ...]:
        """The stages that ask, with whatever answers."""
        show = functools.lru_cache(PICTURES_KEPT)(self.pictures.show)
        prompts = read_prompts(self.prompts)
        return make_stages(Asking(describe, write, show, prompts, self.texts, self.characters))

    def filters(self, answers: Answers) -> tuple[Stage, ...]:
        """The filters."""
        grammar: Check | None = LanguageTool(self.grammar, answers, language=self.language) if self.grammar else None
        agreement = self.make_agreement() if self.make_agreement else None
        return make_filters(
            grammar=grammar, agreement=agreement, least_agreement=self.least_agreement, decisions=self.decisions
        )
