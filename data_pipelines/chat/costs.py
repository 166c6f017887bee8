"""The cost of questions: what was asked and paid, and a forecast of what would be."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.questions import Model, Question, Reply


@dataclasses.dataclass(frozen=True)
class Prices:
    """A provider's prices, as the user gives them, in any currency for a million tokens."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Returns the price of so many tokens."""
        return (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / 1e6


@dataclasses.dataclass(frozen=True)
class Spending:
    """The questions, tokens and costs of some answers, by prompt."""

    counts: Mapping[str, Mapping[str, float]]  # prompt -> asked, refused, tokens_in, tokens_out, and kept if known
    prices: Prices
    about: str = ""  # before figures that are estimates

    @property
    def cost(self) -> float:
        """The cost of all prompts."""
        return sum(self.prices.cost(own["tokens_in"], own["tokens_out"]) for own in self.counts.values())

    def lines(self) -> list[str]:
        """Formats a line for each prompt, and one for the cost."""
        lines = []
        for prompt, own in sorted(self.counts.items()):
            kept = f", {own['kept']:,.0f} are kept from before" if "kept" in own else f", {own['refused']:,.0f} refused"
            tokens = f"{self.about}{own['tokens_in']:,.0f} tokens in, {self.about}{own['tokens_out']:,.0f} out"
            lines.append(f"{prompt}: {own['asked']:,.0f} asked{kept}; {tokens}")
        if self.prices != Prices():
            at = f"at {self.prices.tokens_in:g} in and {self.prices.tokens_out:g} out a million tokens"
            lines.append(f"Cost: {self.about}{self.cost:,.2f}, {at}")
        return lines or ["No answer was new."]

    def summary(self) -> str:
        """Formats one line for all prompts."""
        sums = {name: sum(own[name] for own in self.counts.values()) for name in ("asked", "tokens_in", "tokens_out")}
        tokens = f"{sums['tokens_in']:,.0f} tokens in, {sums['tokens_out']:,.0f} out"
        return f"{sums['asked']:,.0f} asked; {tokens}" + (f"; cost {self.cost:,.2f}" * (self.prices != Prices()))

    def to_json(self) -> Mapping[str, object]:
        """Returns the counts, the prices, and the cost at these prices."""
        return {"prompts": dict(self.counts), "prices": dataclasses.asdict(self.prices), "cost": self.cost}


class ForecastAsker:
    """Asks nothing. Counts what would be asked, with the tokens that kept answers had, or assumed ones."""

    def __init__(
        self,
        model: Model,
        cache: AnswerCache,
        *,
        stand_in: Callable[[Question, str], str],
        picture_tokens: int,
        answer_tokens: int,
    ):
        """Args:
          model: the model whose questions are counted.
          cache: the answers that are kept already.
          stand_in: question, key -> a readable text that stands for the answer, so that later questions are counted.
          picture_tokens: the assumed tokens of a picture.
          answer_tokens: the assumed tokens of an answer.
        """  # fmt: skip
        self._model, self._cache, self._stand_in = model, cache, stand_in
        self._picture, self._answer = picture_tokens, answer_tokens
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self.counts: dict[str, collections.Counter[str]] = {}

    def __call__(self, question: Question) -> Reply:
        """Returns the kept answer, or one that stands for it."""
        key, prompt = question.key(self._model), question.prompt
        kept = self._cache.get(key)
        with self._lock:
            own = self.counts.setdefault(prompt.id, collections.Counter(asked=0, kept=0, tokens_in=0, tokens_out=0))
            if key not in self._seen:
                self._seen.add(key)
                own.update(kept=1) if kept else own.update(asked=1, **self._tokens(question))
        return kept or Reply(key, self._model.name, prompt.id, self._stand_in(question, key))

    def _tokens(self, question: Question) -> dict[str, int]:
        if means := self._cache.mean_tokens(question.prompt.id):
            return {"tokens_in": round(means[0]), "tokens_out": round(means[1])}
        tokens_in = len(question.text) // 4 + self._picture * len(question.pictures)
        return {"tokens_in": tokens_in, "tokens_out": self._answer}


class Tally:
    """Asks, and counts each answer once, whether it was kept from before or not."""

    def __init__(self, asker: Asker):
        self.asker = asker
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()

    def __call__(self, question: Question) -> Reply:
        """Returns the answer."""
        reply = self.asker(question)
        with self._lock:
            self.replies[reply.key] = reply
        return reply

    def count(self) -> dict[str, Any]:
        """Returns how many answers there are and by which models and prompts, their tokens, how many have odds."""
        replies = list(self.replies.values())
        served = sorted({reply.served for reply in replies} - {""})
        tokens_in, tokens_out = sum(r.tokens_in for r in replies), sum(r.tokens_out for r in replies)
        graded = sum(reply.odds != "" for reply in replies)
        return {
            "answers": len(replies), "served_as": served, "prompts": sorted({reply.prompt for reply in replies}),
            "tokens_in": tokens_in, "tokens_out": tokens_out, "with_log_probabilities": graded,
        }  # fmt: skip
