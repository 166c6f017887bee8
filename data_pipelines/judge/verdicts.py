"""Reads a judge's answers (a picture, an order, yes or no; log-probabilities where it gives them) as scores."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.json_files import parse_json
from data_pipelines.chat.questions import NoAnswer, Reply
from data_pipelines.chat.reading import answered, find_json, plain

Odds = Sequence[tuple[str, Mapping[str, float]]]  # the tokens of an answer, each with the log-probabilities there
_NUMBER = re.compile(r"[^\w-]*(\d+)[^\w]*")
_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def read_choice(reply: Reply, count: int) -> np.ndarray:
    """Returns the scores [count] of the pictures by an answer {"picture": n}.

    They are the probabilities of the numbers where the answer has log-probabilities, else 1 for the named picture.

    Raises:
      NoAnswer: the answer is a refusal, can't be read, or names another picture than 1 to `count`.
    """
    text = answered(reply)
    number = text.strip()
    if not number.isdecimal():
        number = find_json(dict, text).get("picture")
    named = _whole(number)
    if named is None or not 1 <= named <= count:
        raise NoAnswer(f"names the picture {plain(str(number))[:20]!r} of {count}")
    probabilities = number_probabilities(read_odds(reply), count)
    if probabilities is None or not probabilities[named - 1]:  # they are of another number in its text
        return np.eye(count)[named - 1]
    return probabilities


def read_order(reply: Reply, count: int) -> np.ndarray:
    """Returns the scores [count] of the pictures by an answer {"order": [n, ...]}: 1 for the first, less for each next.

    Raises:
      NoAnswer: the answer is a refusal, can't be read, or is no order of exactly the pictures 1 to `count`.
    """
    order = [_whole(value) for value in find_json(list, answered(reply))]
    if sorted(number or 0 for number in order) != list(range(1, count + 1)):
        shown = ", ".join(map(str, order[:30]))
        raise NoAnswer(f"orders {len(order)} pictures ({shown}), not each of {count} once")
    scores = np.zeros(count)
    for place, number in enumerate(order):
        scores[number - 1] = 1 - place / count  # type: ignore[operator]
    return scores


def read_verification(reply: Reply) -> float:
    """Returns the probability of "yes" against "no" where the answer has log-probabilities, else 1 for yes, 0 for no.

    Raises:
      NoAnswer: the answer is a refusal, or does not say exactly one of them.
    """
    words = {word.lower() for word in _WORD.findall(answered(reply))}
    if len(words) != 1:
        raise NoAnswer(f"is neither yes nor no ({plain(reply.text)[:60]!r})")
    for token, others in read_odds(reply):
        if _word(token) in ("yes", "no"):
            yes, no = (
                sum(math.exp(p) for other, p in others.items() if _word(other) == word) for word in ("yes", "no")
            )
            if yes + no > 0:
                return yes / (yes + no)
    return float(words == {"yes"})


def read_odds(reply: Reply) -> Odds:
    """Returns the first tokens of an answer with their log-probabilities; none where the answer has none."""
    return [(token, dict(others)) for token, others in parse_json(reply.odds)] if reply.odds else []


def number_probabilities(odds: Odds, count: int) -> np.ndarray | None:
    """Returns the probabilities [count] of the numbers 1 to `count` where an answer says one; None where unknown.

    A number may be several tokens ("1", "0"). The tokens that may follow are known for the answer's own first token
    alone, so any other first token counts as a number by itself. The probabilities sum to one.
    """
    text = "".join(token for token, _ in odds)
    keys = [match.end() for match in re.finditer(r"picture\W*(?=\d)", text)]
    begin = keys[-1] if keys else next((at for at, c in enumerate(text) if c.isdecimal()), len(text))
    places = np.cumsum([len(token) for token, _ in odds])
    place = int(np.searchsorted(places, begin, side="right"))
    if place >= len(odds):
        return None
    values: dict[str, float] = {}
    for other, probability in _numbers(odds[place][1]):
        values[other] = values.get(other, 0.0) + probability
    own = _NUMBER.fullmatch(odds[place][0])
    if own and odds[place][0].endswith(own[1]) and place + 1 < len(odds) and own[1] in values:
        whole = values[own[1]]
        for other, probability in _numbers(odds[place + 1][1], starts=True):
            values[own[1] + other] = values.get(own[1] + other, 0.0) + whole * probability
            values[own[1]] -= whole * probability
    scores = np.asarray([max(values.get(str(number), 0.0), 0.0) for number in range(1, count + 1)])
    return scores / scores.sum() if scores.sum() > 0 else None


def _numbers(others: Mapping[str, float], *, starts: bool = False) -> list[tuple[str, float]]:
    """Returns the numbers among tokens with their probabilities; `starts`: only of tokens that begin with a digit."""
    matches = [(_NUMBER.fullmatch(token), p) for token, p in others.items()]
    return [(m[1], math.exp(p)) for m, p in matches if m and (not starts or m.string.startswith(m[1]))]


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(token: str) -> str:
    return re.sub(r"\W", "", token).lower()
