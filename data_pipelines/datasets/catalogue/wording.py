"""English texts about products and about changes of their attributes."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from data_pipelines.datasets.catalogue.layout import ROLES

# The last words of names that are said without "a": pairs, also where a table has one of the two ("shoe"), ...
PAIRS = frozenset(
    "binoculars booties boots boxers briefs brogues capris chinos churidar clogs cufflinks culottes earbuds earphones "
    "earrings flops gloves goggles headphones heels jeans jeggings joggers knickers leggings loafers mittens moccasins "
    "pajamas panties pants pyjamas sandals scissors shoes shorts slacks slippers sneakers socks spectacles stockings "
    "sunglasses suspenders sweatpants tights trainers trousers trunks tweezers".split()
)
# ... and things that come in numbers.
PLURAL_ONLY = PAIRS | frozenset(
    "accessories bottoms chains clothes essentials flats glasses laces lips nails outdoors overalls patiala skins "
    "warmers".split()
)
# Those that are said without "a" and have no plural.
UNCOUNTABLE = frozenset("care clothing equipment furniture jewellery jewelry luggage makeup".split())
SINGULAR = frozenset("atlas canvas chassis gas iris lens tennis".split())  # which end in "s", as those in "us" and "ss"
# Of words in "ies" that are no plural of one in "y".
ENDS_IN_IE = frozenset("beanies brownies cookies hoodies movies onesies selfies smoothies ties veggies".split())
SPELLINGS = {"tshirt": "t-shirt", "tshirts": "t-shirts", "mens": "men's", "womens": "women's"}
SEVERAL = "multi", "multicolor", "multicolour", "multi color", "multi colour", "multi-color", "multi-colour"
AUDIENCES = {"unisex": "anyone", "man": "men", "male": "men", "mens": "men", "men's": "men", "woman": "women",
             "female": "women", "womens": "women", "women's": "women", "boy": "boys", "girl": "girls",
             "kid": "kids"}  # fmt: skip


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
    of = lambda role: [(c, canonical(v, r)) for r, c, v in zip(roles, columns, values, strict=True) if r == role and v]
    words = [value for _, value in of("colour")]
    words += [value for _, value in of("kind")] or ["product"]
    words += [f"for {value}" for _, value in of("audience")]
    words += [f"with {name(column)} {value}" for column, value in of("plain")]
    return " ".join(words)


def canonical(value: str, role: str) -> str:
    """Returns a value as texts say it; what is said alike is one value.

    Args:
      value: of an attribute, as the table has it.
      role: the attribute's, one of layout.ROLES.

    Example:
      >>> canonical("Tshirts", "kind"), canonical("Unisex", "audience"), canonical("Multi", "colour")
      ('t-shirt', 'anyone', 'several colours')
    """
    plain = " ".join(unicodedata.normalize("NFC", value).lower().split())
    return {"audience": audience, "kind": bare, "colour": colour}.get(role, spelled)(plain)


def spelled(value: str) -> str:
    """Returns a value as a text has it: "tshirts" as "t-shirts"."""
    return " ".join(SPELLINGS.get(word, word) for word in value.split())


def colour(value: str) -> str:
    """Returns the words of a colour: "multi" as "several colours"."""
    return "several colours" if value in SEVERAL else value


def audience(value: str) -> str:
    """Returns the word for people whom a product is for: "unisex" as "anyone"."""
    return AUDIENCES.get(value, value)


def name(column: str) -> str:
    """Returns the words of a column's name: "baseColour" and "base_colour" as "base colour"."""
    return " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column.replace("_", " ")).lower().split())


@functools.cache
def bare(kind: str) -> str:
    """Returns one of a kind without an article: "shirts" as "shirt", and what comes in pairs as it is, "jeans"."""
    *before, last = spelled(kind).split() or [""]
    if f"{last}s" in PAIRS:
        last += "s"
    elif last in ENDS_IN_IE:
        last = last[:-1]
    elif last not in PLURAL_ONLY | UNCOUNTABLE | SINGULAR and not last.endswith(("us", "ss")):
        last = _english().singular_noun(last) or last
    return " ".join((*before, last))


@functools.cache
def one_of(kind: str) -> str:
    """Returns one of a kind with its article: "shirts" as "a shirt", "jeans" as "jeans"."""
    said = bare(kind)
    last = said.split()[-1]
    return said if last in PLURAL_ONLY | UNCOUNTABLE or last.endswith("wear") else _english().a(said)


@functools.cache
def _english() -> Any:
    import inflect

    return inflect.engine()


def _said(change: Change) -> dict[str, str]:
    say = lambda value: one_of(value) if change.role == "kind" else canonical(value, change.role)
    return {"new": say(change.after), "old": say(change.before), "what": name(change.column)}
