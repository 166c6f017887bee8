"""Asks questions once: what is kept is taken from there, what is asked is kept and counted."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping

from data_pipelines.synthesis.answers import Answers
from data_pipelines.synthesis.drafts import Reply
from data_pipelines.synthesis.questions import Model, Question


@dataclasses.dataclass(frozen=True)
class Prices:
    """What a provider asks for, as the user gives it, in any currency for a million tokens."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Of so many tokens."""
        return (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / 1e6


class Ledger:
    """What was (or would be) asked and paid, by prompt."""

    def __init__(self, counts: Mapping[str, Mapping[str, float]], prices: Prices, *, about: str = ""):
        """`counts`: prompt -> asked, refused, tokens_in, tokens_out, and kept where it is known."""
        self.counts, self.prices, self._about = counts, prices, about

    @property
    def cost(self) -> float:
        """Of all."""
        return sum(self.prices.cost(own["tokens_in"], own["tokens_out"]) for own in self.counts.values())

    def lines(self) -> list[str]:
        """A line for each prompt, and what it costs."""
        about, lines = self._about, []
        for prompt, own in sorted(self.counts.items()):
            kept = f", {own['kept']:,.0f} are kept from before" if "kept" in own else f", {own['refused']:,.0f} refused"
            tokens = f"{about}{own['tokens_in']:,.0f} tokens in, {about}{own['tokens_out']:,.0f} out"
            lines.append(f"{prompt}: {own['asked']:,.0f} asked{kept}; {tokens}")
        if self.prices != Prices():
            at = f"at {self.prices.tokens_in:g} in and {self.prices.tokens_out:g} out a million tokens"
            lines.append(f"Cost: {about}{self.cost:,.2f}, {at}")
        return lines or ["No answer was new."]

    def summary(self) -> str:
        """One line of all prompts."""
        sums = {name: sum(own[name] for own in self.counts.values()) for name in ("asked", "tokens_in", "tokens_out")}
        tokens = f"{sums['tokens_in']:,.0f} tokens in, {sums['tokens_out']:,.0f} out"
        return f"{sums['asked']:,.0f} asked; {tokens}" + (f"; cost {self.cost:,.2f}" * (self.prices != Prices()))

    def to_json(self) -> Mapping[str, object]:
        """The counts, and the cost at these prices."""
        return {"prompts": dict(self.counts), "prices": dataclasses.asdict(self.prices), "cost": self.cost}


class Asker:
    """Question -> Reply, through the file of answers."""

    def __init__(self, model: Model, answers: Answers, *, run: str):
        """`run`: the name under which what is asked is counted."""
        self.model, self.answers, self.run = model, answers, run

    def __call__(self, question: Question) -> Reply:
        """The kept answer, or the model's. Raises what the model raises."""
        key = question.key(self.model)
        if found := self.answers.get(key):
            return found
        with self.answers.asking(key):
            found = self.answers.get(key)  # another one may have asked it meanwhile
            if found is None:
                found = self.model.answer(question)
                self.answers.put(found, run=self.run)
        return found


class DryAsker:
    """Asks nothing: counts what would be asked, with tokens as kept answers had them, or as they are assumed to be."""

    def __init__(self, model: Model, answers: Answers, *, picture_tokens: int, answer_tokens: int):
        self.model, self.answers = model, answers
        self._picture, self._answer = picture_tokens, answer_tokens
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self.counts: dict[str, collections.Counter[str]] = {}

    def __call__(self, question: Question) -> Reply:
        """The kept answer, or one that stands for it."""
        key, prompt = question.key(self.model), question.prompt
        found = self.answers.get(key)
        with self._lock:
            own = self.counts.setdefault(prompt.id, collections.Counter(asked=0, kept=0, tokens_in=0, tokens_out=0))
            if key not in self._seen:
                self._seen.add(key)
                own.update(kept=1) if found else own.update(asked=1, **self._tokens(question))
        if found:
            return found
        filler = "x" * min(4 * self._answer, 300)
        text = f'["{key} {key}"]' if prompt.name == "difference" else f'[{{"object": "{key}", "details": "{filler}"}}]'
        return Reply(key, self.model.name, prompt.id, text)

    def _tokens(self, question: Question) -> dict[str, int]:
        if known := self.answers.mean_tokens(question.prompt.id):
            return {"tokens_in": round(known[0]), "tokens_out": round(known[1])}
        asked = len(question.text) // 4 + self._picture * len(question.pictures)
        return {"tokens_in": asked, "tokens_out": self._answer}
