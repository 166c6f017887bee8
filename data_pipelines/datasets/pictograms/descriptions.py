"""Descriptions that pick one scene among ten.

A description joins two to six statements. All of them hold in the target, and each of the other scenes breaks at least
one. Where possible no single statement excludes all the others, so that a reader has to put several together: that is
what makes the description contextual. `description_parser`, which knows nothing of the statements, checks every text.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

from data_pipelines.datasets.pictograms import description_parser
from data_pipelines.datasets.pictograms.description_wording import say
from data_pipelines.datasets.pictograms.scenes import Scene
from data_pipelines.datasets.pictograms.statements import Statement, holds, is_repetition, statements_about, topics

WORDS = (20, 40)  # shortest and longest description
# How often a description is asked to contain each family. Others come in by chance, so the resulting shares are higher
# (tests measure them from the texts).
ASKED = {"negation": 0.5, "relation": 0.65, "size": 0.3, "count": 0.2}
MAX_STATEMENTS = 6
TRIES, SHARED_TRIES = 120, 60
NEGATED_WEIGHT = 0.25  # of a negated statement where its positive form would do as well


@dataclasses.dataclass(frozen=True)
class Option:
    """A statement that may be drawn; bit i of `mask` is set where it is false in the i-th other scene."""

    statement: Statement
    mask: int
    weight: float
    families: frozenset[str]
    topics: frozenset[tuple]


def options_about(target: Scene, others: Sequence[Scene]) -> list[Option]:
    """Returns the statements about `target` to draw from; each class has its weight, however many statements it has."""
    statements = statements_about(target, others)
    masks = [sum(1 << i for i, scene in enumerate(others) if not holds(s, scene)) for s in statements]
    weights = [NEGATED_WEIGHT if getattr(s, "negated", False) else 1.0 for s in statements]
    totals: dict[type, float] = defaultdict(float)
    for statement, weight in zip(statements, weights, strict=True):
        totals[type(statement)] += weight
    return [
        Option(s, mask, s.weight * weight / totals[type(s)], s.families, topics(s))
        for s, mask, weight in zip(statements, masks, weights, strict=True)
    ]


def choose_statements(options: Sequence[Option], n_others: int, rng: Random) -> list[Statement] | None:
    """Draws statements that together exclude every other scene; returns None when the draw runs dry."""
    everyone = (1 << n_others) - 1
    chosen: list[Option] = []
    said: set[tuple] = set()
    excluded = 0

    def add(gain: Callable[[int], float], family: str | None = None) -> bool:
        """Draws one more; `gain` is the worth of a statement by how many further scenes it excludes."""
        nonlocal excluded
        fitting = [
            option
            for option in options
            if (family is None or family in option.families)
            and not (option.topics & said or is_repetition(option.statement, said))
        ]
        weights = [option.weight * gain((option.mask & ~excluded).bit_count()) for option in fitting]
        if not any(weights):
            return False
        option = rng.choices(fitting, weights)[0]
        chosen.append(option)
        said.update(option.topics)
        excluded |= option.mask
        return True

    for family, share in ASKED.items():
        if rng.random() < share and not any(family in option.families for option in chosen):
            add(lambda gained: 1 + 4 * gained, family)
    while excluded != everyone:
        if len(chosen) == MAX_STATEMENTS or not add(lambda gained: gained**2):
            return None
    least = rng.choice((3, 4, 4))
    while len(chosen) < least:
        if not add(lambda gained: 1):
            return None
    return [option.statement for option in chosen]


def tell_apart(
    options: Sequence[Option], rng: Random, *, count: int, others: int = 1
) -> list[tuple[tuple[int, ...], str]]:
    """Draws `count` single statements that are each false in some `others` of the other scenes.

    Returns:
      (indices of the other scenes, statement in words) each; nothing where no statement is false in so many.
    """
    telling = [option for option in options if option.mask.bit_count() >= others]
    if not telling:
        return []
    told = []
    for option in rng.choices(telling, [option.weight for option in telling], k=count):
        wrong = rng.sample([i for i in range(option.mask.bit_length()) if option.mask >> i & 1], others)
        told.append((tuple(wrong), say([option.statement], rng)))
    return told


def describe(
    target: Scene, others: Sequence[Scene], rng: Random, *, options: Sequence[Option] | None = None
) -> str | None:
    """Writes a description of 20 to 40 words that is true of `target` and false of each of `others`.

    In the first draws no single statement excludes all others; it may in later draws, when the first ones failed.

    Args:
      target: the scene that is described.
      others: the other scenes of the set.
      rng: the same state gives the same text.
      options: the result of options_about, where it is known already.

    Returns:
      The text, or None when no draw gave one.
    """
    everyone = (1 << len(others)) - 1
    options = options_about(target, others) if options is None else options
    shared = [option for option in options if option.mask != everyone]
    for attempt in range(TRIES):
        chosen = choose_statements(shared if attempt < SHARED_TRIES else options, len(others), rng)
        if chosen is None:
            continue
        text = say(arrange(chosen, rng), rng)
        if WORDS[0] <= len(text.split()) <= WORDS[1] and _identifies(text, target, others):
            return text
    return None


def _identifies(text: str, target: Scene, others: Sequence[Scene]) -> bool:
    """Returns whether the independent parser says that the text is true of the target and of no other scene."""
    predicates = description_parser.parse(text)
    return description_parser.all_true(predicates, target) and not any(
        description_parser.all_true(predicates, other) for other in others
    )


def arrange(statements: Sequence[Statement], rng: Random) -> list[Statement]:
    """Orders statements for a text: what is there first, what is missing last, one subject at a time."""
    rest = sorted(statements, key=lambda s: s.order + 1.4 * rng.random())
    ordered = [rest.pop(0)]
    while rest:
        subject = ordered[-1].subject
        same = [s for s in rest if subject is not None and s.subject == subject]
        follow = same[0] if same and rng.random() < 0.8 else rest[0]
        rest.remove(follow)
        ordered.append(follow)
    return ordered
