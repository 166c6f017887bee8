"""English texts about products and about changes of their attributes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from data_pipelines.datasets.catalogue.layout import ROLES

# The last words of names that are said without "a": pairs, and things that come in numbers.
PLURAL_ONLY = frozenset(
    "accessories bottoms boxers bras briefs capris chains churidar clothes cufflinks earrings flats flops glasses "
    "gloves goggles heels innerwear jeans jeggings jewellery leggings lips nails outdoors overalls pajamas pants "
    "patiala pyjamas sandals scissors shoes shorts skins socks stockings suits sunglasses swimwear tights trousers "
    "tweezers underwear".split()
)
SPELLINGS = {"tshirt": "t-shirt", "tshirts": "t-shirts", "multi": "several colours", "multicolor": "several colours"}
AUDIENCES = {"unisex": "anyone", "man": "men", "male": "men", "woman": "women", "female": "women", "boy": "boys",
             "girl": "girls", "kid": "kids"}  # fmt: skip


class Change(NamedTuple):
    """A change of one attribute: its role, its column, and its values before and after."""

    role: str
    column: str
    before: str
    after: str


SAME_COLOUR = "in the same colour"
# {new}, {old}: the values as the role says them; {what}: the name of a plain attribute.
SINGLE = {
    "colour": (
        "in {new} instead", "the same in {new}", "make it {new}", "i want this one in {new}", "this, but {new}",
        "do you have it in {new}?", "{new} instead of {old}", "the same thing, only {new}",
        "change the colour to {new}",
    ),
    "audience": (
        "the same for {new}", "something like this for {new}", "this one, but for {new}", "for {new} instead of {old}",
        "do you have it for {new}?", "a version for {new}",
    ),
    "kind": (
        "{new} instead of {old}", "{new} instead", "{new} like this", "the same style, but {new}", "rather {new}",
        "{new} " + SAME_COLOUR,
    ),
    "plain": (
        "the same with {what} {new}", "with {what} {new} instead of {old}", "this, but {what} {new}",
        "change the {what} to {new}", "{what}: {new}",
    ),
}  # fmt: skip
PIECE = {"colour": "in {new}", "audience": "for {new}", "kind": "as {new}", "plain": "with {what} {new}"}
DOUBLE = (
    "the same {one} and {two}", "this, but {one} and {two}", "{one} and {two} instead",
    "something like this {one}, {two}",
    "i want it {one} and {two}",
    "do you have this {one} and {two}?",
)  # fmt: skip


def ask_for(changes: Sequence[Change], random: Random, *, roles: Sequence[str] = ROLES) -> str:
    """Returns a text that asks for one change, or for two at once.

    Args:
      changes: one or two changes, of different attributes.
      random: chooses the phrasing.
      roles: of all attributes that the products have: no text says "the same colour" where they have none.

    Example:
      >>> ask_for([Change("colour", "baseColour", "white", "navy blue")], Random(0))
    """
    if len(changes) == 1:
        known = [text for text in SINGLE[changes[0].role] if "colour" in roles or SAME_COLOUR not in text]
        return random.choice(known).format(**_said(changes[0]))
    pieces = [PIECE[change.role].format(**_said(change)) for change in changes]
    one, two = random.sample(pieces, 2)
    return random.choice(DOUBLE).format(one=one, two=two)


def describe(roles: Sequence[str], columns: Sequence[str], values: Sequence[str]) -> str:
    """Returns a text with all values of a product that there are, such as "navy blue shirt for men"."""
    of = lambda role: [(c, v) for r, c, v in zip(roles, columns, values, strict=True) if r == role and v]
    words = [spelled(value) for _, value in of("colour")]
    words += [bare(value) for _, value in of("kind")] or ["product"]
    words += [f"for {audience(value)}" for _, value in of("audience")]
    words += [f"with {name(column)} {spelled(value)}" for column, value in of("plain")]
    return " ".join(words)


def spelled(value: str) -> str:
    """Returns a value as a text has it: "tshirts" as "t-shirts", "multi" as "several colours"."""
    return " ".join(SPELLINGS.get(word, word) for word in value.split())


def audience(value: str) -> str:
    """Returns the word for people whom a product is for: "unisex" as "anyone"."""
    return AUDIENCES.get(value, value)


def name(column: str) -> str:
    """Returns the words of a column's name: "baseColour" and "base_colour" as "base colour"."""
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in column.replace("_", " "))
    return " ".join(spaced.lower().split())


@functools.cache
def bare(kind: str) -> str:
    """Returns one of a kind without an article: "shirts" as "shirt", and what comes in pairs as it is."""
    said = spelled(kind)
    if said.split()[-1] in PLURAL_ONLY:
        return said
    return _english().singular_noun(said) or said


@functools.cache
def one_of(kind: str) -> str:
    """Returns one of a kind with its article: "shirts" as "a shirt", "jeans" as "jeans"."""
    said = bare(kind)
    return said if said.split()[-1] in PLURAL_ONLY else _english().a(said)


@functools.cache
def _english() -> Any:
    import inflect

    return inflect.engine()


def _said(change: Change) -> dict[str, str]:
    say = {"audience": audience, "kind": one_of}.get(change.role, spelled)
    return {"new": say(change.after), "old": say(change.before), "what": name(change.column)}
