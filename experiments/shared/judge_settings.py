"""The settings of `evaluate --judge`, a vision-language model that scores candidates. Each field is a flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from absl import flags

from contextjax.types import UserError
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.local import LocalModel
from experiments.shared import chat_settings
from experiments.shared.chat_settings import ChatSettings, chat_maker, request_body

ODDS = 20  # tokens at each place of an answer whose log-probabilities are asked for: the most that OpenAI's API gives
SHORT = 20  # tokens of an answer that names one picture

flags.disclaim_key_flags()  # the flags are those of the command that defines them: --help has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSettings(ChatSettings):
    """Settings of a judge, checked against each other. A number after a field's sentence is its least value."""

    judge: Annotated[
        Literal["openai", "transformers"] | None,
        "A vision-language model, --model, scores the candidates: at an endpoint, or on this machine.",
    ]
    answer_tokens: Annotated[
        int, "The longest answer of a judge; 0: what a number or an order takes. Reasoning models need more.", 0
    ] = 0
    answers: Annotated[str | None, "The judge's file of answers; default: WORKDIR/judge/answers.sqlite."] = None
    prompts: Annotated[str | None, "A folder of your own prompts, as data_pipelines/judge/prompts."] = None
    rerank: Annotated[
        int, "Composed queries: the judge orders the run's first so many; 0: the query's own group.", 0
    ] = 0
    verify: Annotated[bool, "Composed queries: ask yes or no about each candidate, instead of for an order."] = False
    orders: Annotated[int, "Random orders of the candidates, averaged; 0: each once, in their own order.", 0] = 0
    window: Annotated[int, "Candidate sets: only so many successive candidates, the target among them; 0: all.", 0] = 0
    records: Annotated[int, "Only so many records, drawn by each of --seeds, evenly over kinds; 0: all.", 0] = 0
    seeds: Annotated[tuple[str, ...], "The seeds of the draws of --records: whole numbers."] = ("0",)
    logprobs: Annotated[bool, "Ask the judge for log-probabilities; scores are graded where it gives them."] = True

    def __post_init__(self):
        """Raises UserError where settings do not go together."""
        if not self.model:
            raise UserError(f"--judge={self.judge} needs the name of a model; give it as --model=NAME.")
        if self.batch and self.judge != "openai":
            raise UserError(f"--batch is for --judge=openai; got --judge={self.judge}.")
        if self.verify and self.orders:
            raise UserError(
                "--orders are of several candidates, and --verify asks about each by itself; give one of them."
            )
        if len(self.numbers) > 1 and not self.records:
            raise UserError("--seeds draw the records that --records counts; give --records=N, too.")
        if self.window == 1 or self.rerank == 1:
            name = "window" if self.window == 1 else "rerank"
            raise UserError(f"--{name} is 1, and one candidate needs no judge; give two or more.")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds as numbers. Raises UserError where they are not different whole numbers."""
        try:
            numbers = tuple(int(seed) for seed in self.seeds)
            if min(numbers) < 0 or len(set(numbers)) < len(numbers):
                raise ValueError
        except ValueError as error:
            raise UserError(
                f"--seeds is '{','.join(self.seeds)}'; expected different whole numbers, as 1,10,100."
            ) from error
        return numbers


def define_flags() -> None:
    """Defines a flag for each field of JudgeSettings."""
    chat_settings.define_flags(JudgeSettings)


def from_flags() -> JudgeSettings | None:
    """Returns the settings of the parsed flags; None without --judge.

    Raises:
      UserError: flags do not go together, or one is for a judge and --judge is missing.
    """
    values = chat_settings.values_of_flags(JudgeSettings)
    if values["judge"] is not None:
        return JudgeSettings(**values)
    if given := [name for name in values if flags.FLAGS[name].present]:
        raise UserError(f"--{given[0]} is for a judge; give --judge=openai or --judge=transformers, too.")
    return None


def check_alone(others: Iterable[str]) -> None:
    """Raises UserError if a flag of `others`, which are not for a judge, is given, or there are several processes."""
    if given := [name for name in others if flags.FLAGS[name].present]:
        raise UserError(f"--{given[0]} is not for a judge; leave it out, or leave out --judge.")
    from jax import distributed

    if distributed.is_initialized():
        raise UserError("A judge is asked by one process, which has --concurrency; start the command once.")


def make_model(settings: JudgeSettings, *, candidates: int, gives_odds: bool) -> Any:
    """Makes the model that is asked: a ChatModel, a BatchModel or a LocalModel.

    Args:
      settings: the settings.
      candidates: the number of pictures in the longest order that it is asked for; 0: it names one picture, or says yes
        or no.
      gives_odds: whether log-probabilities of its answers are of use.

    Raises:
      UserError: a setting is wrong.
    """
    name, has_odds = str(settings.model), settings.logprobs and gives_odds
    length = settings.answer_tokens or (16 + 5 * candidates if candidates else SHORT)
    if settings.judge == "transformers":
        return LocalModel(name, answer_tokens=length, side=settings.side, odds=ODDS if has_odds else 0)
    more = {"logprobs": True, "top_logprobs": ODDS} if has_odds else {}
    body = request_body(settings, answer_tokens=length, **more)
    make = chat_maker(settings, body)
    return BatchModel(name, Path(settings.batch), body=body, side=settings.side) if settings.batch else make(name)
