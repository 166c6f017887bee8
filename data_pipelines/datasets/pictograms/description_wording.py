"""Statements in English: how one is said, how two are merged into a clause, and clauses into sentences."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from data_pipelines.datasets.pictograms.names import a, plural
from data_pipelines.datasets.pictograms.scenes import SIZES
from data_pipelines.datasets.pictograms.statements import (  # fmt: skip
    About,
    Absent,
    AllSized,
    BothSized,
    Compared,
    Empty,
    InHalf,
    Named,
    OneOf,
    Placed,
    Present,
    Ref,
    Related,
    Sized,
    Statement,
    Total,
)

NUMBERS = ("no", "one", "two", "three", "four")
STOCK = ("can be seen", "picture", "there is", "there are", "shows", "exactly", "only", " corner", "n't", "both ")
PAIR_PHRASES = {  # relation or comparison -> how it is said between two things
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below",),
    "directly above": ("directly above",),
    "directly below": ("directly below",),
    "next to": ("next to", "right beside"),
    "across from": ("diagonally across from", "diagonally opposite"),
    "larger than": ("larger than", "bigger than"),
    "smaller than": ("smaller than",),
    "same size": ("the same size as",),
}
TOGETHER = {  # relation or comparison -> how it is said of "the dog and the apple", and its negation
    "across from": ("are in opposite corners", "are not in opposite corners"),
    "same size": ("are the same size", "differ in size"),
}
Clause = tuple[Statement, ...]  # one statement, or two that are said together


def say(statements: Sequence[Statement], rng: Random) -> str:
    """Writes statements as one to three English sentences, in the order given."""
    sentences = []
    rest = _merge(statements, rng)
    longest = 3 if len(rest) > 4 else 2  # clauses in a sentence
    while rest:
        left = 3 - len(sentences)
        least = -(-len(rest) // left)  # all must fit into three sentences
        size = rng.randint(least, max(least, min(longest, len(rest))))
        sentences.append(_sentence(rest[:size], before=" ".join(sentences).lower(), rng=rng))
        rest = rest[size:]
    return " ".join(sentences)


def _merge(statements: Sequence[Statement], rng: Random) -> list[Clause]:
    """Merges neighbours that one clause can say: two things present or absent, two verbs of one subject."""
    merged: list[Clause] = []
    for statement in statements:
        last = merged[-1] if merged else ()
        fits = len(last) == 1 and (
            (isinstance(last[0], Absent) and isinstance(statement, Absent))
            or (isinstance(last[0], Present) and isinstance(statement, Present) and last[0].region != statement.region)
            or (isinstance(last[0], About) and isinstance(statement, About) and last[0].subject == statement.subject)
        )
        if fits and rng.random() < 0.8:
            merged[-1] = (*last, statement)
        else:
            merged.append((statement,))
    return merged


def _sentence(group: Sequence[Clause], *, before: str, rng: Random) -> str:
    """Joins clauses to a sentence; each is the one of three drafts that repeats the least of the text `before`."""
    clauses: list[str] = []
    for index, clause in enumerate(group):
        it = index > 0 and _may_say_it(group[index - 1], clause[0])
        drafts = [_clause(clause, it=it, rng=rng) for _ in range(3)]
        text = " ".join((before, *clauses))
        clauses.append(min(drafts, key=lambda draft: sum(stock in draft and stock in text for stock in STOCK)))
    sentence = clauses[0]
    if len(clauses) == 2:
        sentence = rng.choice(_joints(*group)).join(clauses)
    elif len(clauses) > 2:
        sentence = ", ".join(clauses[:-1]) + ", and " + clauses[-1]
    if not before and "picture" not in sentence and rng.random() < 0.25:
        sentence = rng.choice(("In this picture, ", "Here, ")) + sentence
    return sentence[0].upper() + sentence[1:] + "."


def _may_say_it(before: Clause, statement: Statement) -> bool:
    """Returns whether "it" is clear: right after a clause in which nothing else could be meant."""
    last, *more = before
    if more or not isinstance(last, Present | Sized | Placed) or isinstance(statement, Present):
        return False
    return last.subject == statement.subject


def _joints(first: Clause, second: Clause) -> Sequence[str]:
    """Returns what may join two clauses: "but" and "while" need a contrast."""
    negated = ["negation" in clause[0].families for clause in (first, second)]
    if negated == [False, True] and isinstance(second[0], Absent | Empty):
        return ", but ", ", but ", ", and "
    if first[0].subject and second[0].subject and first[0].subject != second[0].subject:
        return ", and ", ", while ", "; "
    return ", and ", ", and ", "; "


def _clause(clause: Clause, *, it: bool, rng: Random) -> str:
    """Words one clause; `it`: "it" stands for the subject."""
    if len(clause) == 1:
        return rng.choice(_wordings(clause[0], it, rng))
    if isinstance(clause[0], Absent):
        one, two = (a(s.name) for s in clause)  # type: ignore[attr-defined]
        return rng.choice((f"there is neither {one} nor {two}", f"neither {one} nor {two} can be seen"))
    if isinstance(clause[0], About):
        first, second = (rng.choice(_wordings(s, True, rng)).removeprefix("it ") for s in clause)
        return f"{_definite(clause[0].ref, it)} {first} and {second}"
    (one, here), (two, there) = ((_indefinite(s), _where(s.region, rng)) for s in clause)  # type: ignore
    return rng.choice((f"there is {one} in {here} and {two} in {there}", f"{one} is in {here} and {two} is in {there}"))


def _wordings(statement: Statement, it: bool, rng: Random) -> Sequence[str]:
    """Returns all the ways to say one statement."""
    match statement:
        case Present(_, _, region):
            thing, where = _indefinite(statement), _where(region, rng)
            return (f"there is {thing} in {where}", f"{thing} is in {where}", f"{where} shows {thing}",
                    f"{thing} can be seen in {where}")  # fmt: skip
        case OneOf(count, name, place):
            return (f"one of the {NUMBERS[count]} {plural(name)} is in {_where(place, rng)}",)
        case Absent(name):
            return (f"there is no {name}", f"there is no {name} anywhere", f"no {name} is in the picture",
                    f"{a(name)} is nowhere to be seen", f"the picture does not show {a(name)}")  # fmt: skip
        case Empty(region, False):
            where = _where(region, rng)
            return (f"nothing is in {where}", f"there is nothing in {where}", f"{where} is empty",
                    f"{where} shows nothing")  # fmt: skip
        case Empty(region, True):
            return f"something is in {_where(region, rng)}", f"{_where(region, rng)} is not empty"
        case Sized(ref, size, negated):
            return (f"{_definite(ref, it)} {_be(negated, rng)} {size}",)
        case Placed(ref, region, negated):
            return (f"{_definite(ref, it)} {_be(negated, rng)} in {_where(region, rng)}",)
        case Related(ref, other, relation, negated) | Compared(ref, other, relation, negated):
            one, two, be = _definite(ref, it), _definite(other, False), _be(negated, rng)
            together = [] if it or relation not in TOGETHER else [f"{one} and {two} {TOGETHER[relation][negated]}"]
            return [f"{one} {be} {phrase} {two}" for phrase in PAIR_PHRASES[relation]] + together
        case BothSized(ref, other, size):
            one, two = _definite(ref, False), _definite(other, False)
            return f"both {one} and {two} are {size}", f"{one} and {two} are both {size}"
        case AllSized(size):
            opposite = SIZES[1 - SIZES.index(size)]
            return f"everything is {size}", f"everything in the picture is {size}", f"nothing is {opposite}"
        case Total(count) | Named(count) | InHalf(count):
            return _count_wordings(statement, count, rng)
    raise TypeError(f"Got {statement!r}, expected one of the classes of statements.py.")


def _count_wordings(statement: Total | Named | InHalf, count: int, rng: Random) -> Sequence[str]:
    """Returns the ways to say a number, always with a word that makes it exact."""
    exactly = rng.choice(("only", "just", "exactly") if count == 1 else ("exactly", "exactly", "only"))
    number, be, things = f"{exactly} {NUMBERS[count]}", "are", "things"
    if count == 1:
        be, things = "is", "thing"
    match statement:
        case Total(_, None):
            return (f"there {be} {number} {things}", f"the picture shows {number} {things}",
                    f"{number} {things} can be seen", f"there {be} {NUMBERS[count]} {things} in total")  # fmt: skip
        case Total(_, size):
            return f"{number} {size} {things} can be seen", f"{number} of the things {be} {size}"
        case Named(_, name, None):
            names = name if count == 1 else plural(name)
            return (f"there {be} {number} {names}", f"{number} {names} can be seen",
                    f"the picture shows {number} {names}")  # fmt: skip
        case Named(_, name, size):
            together = "both" if count == 2 else f"all {NUMBERS[count]}"
            return f"{together} {plural(name)} are {size}", f"{together} of the {plural(name)} are {size}"
        case InHalf(_, region):
            where = _where(region, rng)
            return f"{number} {things} {be} in {where}", f"there {be} {number} {things} in {where}"


def _be(negated: bool, rng: Random) -> str:
    return rng.choice(("is not", "is not", "isn't")) if negated else "is"


def _definite(ref: Ref, it: bool) -> str:
    return "it" if it else f"the {ref}"


def _indefinite(statement: Present) -> str:
    return f"a {statement.size} {statement.name}" if statement.size else a(statement.name)


def _where(region: str, rng: Random) -> str:
    """Words a region: "the top left", "the upper left corner", "the left half"."""
    if rng.random() < 0.3:
        region = region.replace("top", "upper").replace("bottom", "lower")
    return f"the {region}" + (" corner" if "half" not in region and rng.random() < 0.3 else "")
