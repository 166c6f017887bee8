"""Asks a vision-language model which candidates a text is about, in one order of the candidates or several."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from contextjax.threads import map_ahead
from data_pipelines.chat.questions import Ask, NoAnswer, Prompt, Question, Reply, ShownPicture, Waiting, load_prompts
from data_pipelines.chat.reading import useful
from data_pipelines.judge.verdicts import read_choice, read_order, read_verification

PROMPTS = Path(__file__).parent / "prompts"
FIELDS = {  # prompt -> its fields
    "choose": ("count", "sequence", "pictures", "text"),
    "order": ("count", "pictures", "text"),
    "verify": ("pictures", "text"),
}
OBJECT_NOTE = "An earlier answer could not be read: answer with the JSON object alone, from its { to its }."
WORD_NOTE = "An earlier answer could not be read: answer with yes or no alone."
IN_ORDER = "The pictures are frames of one video, in order."
AT_RANDOM = "The pictures are frames of one video, in random order."
REFERENCE = "The reference picture:"


def read_prompts(folder: Path = PROMPTS, *names: str) -> dict[str, Prompt]:
    """Reads the prompts of a judge, or those named. Raises UserError as load_prompts does."""
    return load_prompts(folder, {name: FIELDS[name] for name in names or FIELDS})


@dataclasses.dataclass(frozen=True)
class Vote:
    """The result of one order of the candidates: scores [K] in their own order, NaN where no answer is valid."""

    scores: np.ndarray
    shown: tuple[int, ...]  # the candidate at each place
    problems: tuple[NoAnswer, ...] = ()  # why answers are not valid; a final one is a refusal
    questions: int = 1

    @property
    def best(self) -> int:
        """The candidate with the highest score, the one shown first among equal ones; -1 without a valid answer."""
        if np.isnan(self.scores).all():
            return -1
        return max(self.shown, key=lambda candidate: self.scores[candidate])


def combined(votes: Sequence[Vote]) -> np.ndarray:
    """Returns the mean scores [K] over orders. An order without a valid answer scores 0; NaN where no order has one."""
    scores = np.stack([vote.scores for vote in votes])
    return np.full(scores.shape[1], np.nan) if np.isnan(scores).all() else np.nan_to_num(scores).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Judge:
    """A scorer of candidates that asks a model: an evaluation.CandidateScorer whose pictures are ShownPictures.

    Attributes:
      ask: answers questions, from a cache or by a model.
      prompts: see read_prompts.
      orders: 0: candidates are shown once, in their own order; N: once in each of N random orders, whose seeds are the
        text and the number of the order.
      verifies: whether each candidate of a composed query is asked about by itself, instead of their order.
      threads: the number of questions that score_sets asks at a time.
    """

    ask: Ask
    prompts: Mapping[str, Prompt]
    orders: int = 0
    verifies: bool = False
    threads: int = 8

    def choose(self, pictures: Sequence[ShownPicture], text: str, *, is_ordered: bool = False) -> list[Vote]:
        """Asks which of the pictures a description is about; a vote for each order.

        `is_ordered`: the pictures follow each other in time. Raises Waiting where an answer is pending.
        """
        sequence = "" if not is_ordered else AT_RANDOM if self.orders else IN_ORDER
        values = (("count", str(len(pictures))), ("sequence", sequence), ("text", text))
        make = lambda shown: Question(
            self.prompts["choose"], values, tuple(pictures[i] for i in shown), labels=_labels(len(shown)),
            retry_note=OBJECT_NOTE,
        )  # fmt: skip
        return self._votes(text, len(pictures), make, read_choice)

    def rank(self, reference: ShownPicture, pictures: Sequence[ShownPicture], text: str) -> list[Vote]:
        """Asks how well each picture shows the reference after the change that a text asks for; a vote for each order.

        Raises Waiting where an answer is pending.
        """
        if self.verifies:
            return [self._verified(reference, pictures, text)]
        values = (("count", str(len(pictures))), ("text", text))
        make = lambda shown: Question(
            self.prompts["order"], values, (reference, *(pictures[i] for i in shown)),
            labels=(REFERENCE, *_labels(len(shown))), retry_note=OBJECT_NOTE,
        )  # fmt: skip
        return self._votes(text, len(pictures), make, read_order)

    def score_sets(
        self, sets: Sequence[Sequence[ShownPicture]], texts: Sequence[str], ordered: Sequence[bool]
    ) -> np.ndarray:
        """Returns float32 [S, K], higher is better, NaN where no answer is valid; see evaluation.CandidateScorer."""
        choose = lambda item: combined(self.choose(item[0], item[1], is_ordered=item[2]))
        items = zip(sets, texts, ordered, strict=True)
        ahead = 4 * self.threads if self.threads > 1 else 0
        return np.asarray(list(map_ahead(choose, items, ahead=ahead, threads=self.threads)), np.float32)

    def _votes(
        self,
        text: str,
        count: int,
        make: Callable[[tuple[int, ...]], Question],
        read: Callable[[Reply, int], np.ndarray],
    ) -> list[Vote]:
        votes, waiting = [], False
        for shown in self._drawn_orders(text, count):
            try:
                votes.append(self._vote(make(shown), shown, lambda reply: read(reply, count)))
            except Waiting:  # the other orders are asked in the same batch
                waiting = True
        if waiting:
            raise Waiting
        return votes

    def _vote(self, question: Question, shown: tuple[int, ...], read: Callable[[Reply], np.ndarray]) -> Vote:
        scores = np.full(len(shown), np.nan)
        try:
            _, scores[list(shown)] = useful(question, self.ask, read)
        except NoAnswer as error:
            return Vote(scores, shown, (error,))
        return Vote(scores, shown)

    def _verified(self, reference: ShownPicture, pictures: Sequence[ShownPicture], text: str) -> Vote:
        """Asks about each picture by itself. One without a valid answer scores 0; all are NaN where none has one."""
        scores, problems, waiting = np.full(len(pictures), np.nan), [], False
        for place, picture in enumerate(pictures):
            question = Question(
                self.prompts["verify"], (("text", text),), (reference, picture),
                labels=(REFERENCE, "The other picture:"), retry_note=WORD_NOTE,
            )  # fmt: skip
            try:
                _, scores[place] = useful(question, self.ask, read_verification)
            except NoAnswer as error:
                problems.append(error)
            except Waiting:
                waiting = True
        if waiting:
            raise Waiting
        if len(problems) < len(pictures):
            scores = np.nan_to_num(scores)
        return Vote(scores, tuple(range(len(pictures))), tuple(problems), len(pictures))

    def _drawn_orders(self, text: str, count: int) -> list[tuple[int, ...]]:
        if not self.orders:
            return [tuple(range(count))]
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        draw = lambda number: np.random.default_rng([seed, number]).permutation(count)
        return [tuple(map(int, draw(number))) for number in range(self.orders)]


def _labels(count: int) -> tuple[str, ...]:
    return tuple(f"Picture {number}:" for number in range(1, count + 1))
