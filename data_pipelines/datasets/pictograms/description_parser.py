"""An independent parser of the descriptions: English text -> predicates -> true or false of a scene.

The parser sees the text alone, never the statements that a text was made from, and defines for itself what the words
mean, so it checks the generator and the wording at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from data_pipelines.datasets.pictograms.names import FUNCTION_WORDS, plural
from data_pipelines.datasets.pictograms.scenes import Scene, Thing

_WORD = rf"(?!(?:{'|'.join(sorted(FUNCTION_WORDS))})\b)[a-z0-9]+"
_NAME = rf"(?:{_WORD} of )?{_WORD}(?: {_WORD})*"  # "pair of scissors", "teddy bear"
_SIZE = r"small|large"
_PIECES = {
    "the": rf"(?:the (?:(?P<size1>{_SIZE}) )?(?P<name1>{_NAME})|(?P<it>it))",
    "the2": rf"the (?:(?P<size2>{_SIZE}) )?(?P<name2>{_NAME})",
    "a": rf"an? (?:(?P<size1>{_SIZE}) )?(?P<name1>{_NAME})",
    "name": rf"(?P<name1>{_NAME})",
    "aname": rf"an? (?P<name1>{_NAME})",
    "aname2": rf"an? (?P<name2>{_NAME})",
    "size": rf"(?P<size>{_SIZE})",
    "region": r"the (?P<region>(?:top|upper|bottom|lower) (?:left|right)|(?:top|upper|bottom|lower|left|right) half)"
              r"(?: corner)?",
    "n": r"(?P<number>one|two|three|four)",
    "exactly": r"(?:exactly|only|just)",
    "is": r"(?:is|are)",
    "be": r"(?P<be>is|is not|isn't)",
}  # fmt: skip
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


@dataclasses.dataclass(frozen=True)
class Predicate:
    """One parsed clause.

    Attributes:
      text: the clause.
      kinds: a subset of {"negation", "relation", "size", "count", "place"}, decided by the words that are used.
      holds: returns whether the clause is true of a scene.
    """

    text: str
    kinds: frozenset[str]
    holds: Callable[[Scene], bool] = dataclasses.field(compare=False, repr=False)


Mention = Callable[[Scene], list[Thing]]  # the things of a scene that a phrase may mean


def parse(text: str) -> list[Predicate]:
    """Parses a description into predicates.

    Raises:
      ValueError: a clause has none of the known forms, or "it" has nothing to refer to.
    """
    predicates: list[Predicate] = []
    body = re.sub(r"^(in this picture|here), ", "", text.strip().lower())
    if not body.endswith("."):
        raise ValueError(f"Can't parse '{text}': expected sentences that end with a full stop.")
    for sentence in body[:-1].split(". "):
        mention: Mention | None = None  # the referent of "it": never across a full stop
        for clause in re.split(r"; |, (?:and |but |while )?", sentence):
            mention = _parse_clause(clause.strip(), mention, predicates)
    return predicates


def all_true(predicates: Sequence[Predicate], scene: Scene) -> bool:
    """Returns whether every predicate holds in the scene."""
    return all(predicate.holds(scene) for predicate in predicates)


def _parse_clause(clause: str, mention: Mention | None, predicates: list[Predicate]) -> Mention | None:
    """Appends the clause's predicates; returns what a following "it" would mean."""
    for pattern, meaning in _RULES:
        match = pattern.fullmatch(clause)
        if match is None:
            continue
        groups = match.groupdict()
        if groups.get("it") and mention is None:
            raise ValueError(f"Can't parse '{clause}': 'it' has nothing to refer to.")
        kinds, holds, next_mention = meaning(groups, mention)
        predicates.append(Predicate(clause, frozenset(kinds), holds))
        return next_mention
    if two := _TWO_PRESENT.fullmatch(clause):
        for part in (f"{two['one']} is in {two['here']}", f"{two['two']} is in {two['there']}"):
            _parse_clause(part, None, predicates)
        return None
    if two := _TWO_VERBS.fullmatch(clause):
        then = _parse_clause(f"{two['subject']} {two['one']}", mention, predicates)
        _parse_clause(f"{two['subject']} {two['two']}", mention, predicates)
        return then
    raise ValueError(f"Can't parse the clause '{clause}': expected one of the {len(_RULES)} known forms.")


# --- Meanings: (groups of the pattern, what "it" means) -> (kinds, test, what "it" means next)

Meaning = tuple[set[str], Callable[[Scene], bool], Mention | None]


def _corner(thing: Thing) -> tuple[bool, bool]:
    """Returns (is in the upper row, is in the left column)."""
    return thing.place < 2, thing.place % 2 == 0


def _inside(region: str) -> Callable[[Thing], bool]:
    """Returns the test whether a thing lies in a region given in words."""
    words = region.replace("upper", "top").replace("lower", "bottom").split()

    def inside(thing: Thing) -> bool:
        top, left = _corner(thing)
        truth = {"top": top, "bottom": not top, "left": left, "right": not left, "half": True}
        return all(truth[word] for word in words)

    return inside


def _subject(g: dict, mention: Mention | None, number: str = "1") -> Mention:
    """Returns what "the dog", "the large dog" or "it" means: nothing in scenes where it is not unique."""
    if g.get("it") and number == "1":
        assert mention is not None  # checked by _parse_clause
        return mention
    name, size = g[f"name{number}"], g[f"size{number}"]

    def unique(scene: Scene) -> list[Thing]:
        things = [t for t in scene.things if t.name == name and (size is None or t.size == size)]
        return things if len(things) == 1 else []

    return unique


def _size_kind(g: dict) -> set[str]:
    return {"size"} if g.get("size") or g.get("size1") or g.get("size2") else set()


def _present(g: dict, _: Mention | None) -> Meaning:
    inside, name, size = _inside(g["region"]), g["name1"], g["size1"]

    def mention(scene: Scene) -> list[Thing]:
        return [t for t in scene.things if t.name == name and (size is None or t.size == size) and inside(t)]

    return {"place"} | _size_kind(g), lambda scene: bool(mention(scene)), mention


def _one_of(g: dict, _: Mention | None) -> Meaning:
    inside = _inside(g["region"])

    def holds(scene: Scene) -> bool:
        things = _things_of(scene, g["name1"])
        return len(things) == _NUMBERS[g["number"]] and sum(map(inside, things)) == 1

    return {"count", "place"}, holds, None


def _things_of(scene: Scene, names: str) -> list[Thing]:
    """Returns the things of a plural name."""
    return [t for t in scene.things if plural(t.name) == names]


def _absent(g: dict, _: Mention | None) -> Meaning:
    names = {g["name1"], g.get("name2")}
    return {"negation"}, lambda scene: not any(t.name in names for t in scene.things), None


def _empty(g: dict, _: Mention | None) -> Meaning:
    inside = _inside(g["region"])
    kinds = {"place"} if "empty" in g else {"place", "negation"}
    return kinds, lambda scene: not any(map(inside, scene.things)), None


def _filled(g: dict, _: Mention | None) -> Meaning:
    inside = _inside(g["region"])
    return {"place"} | ({"negation"} if g.get("not") else set()), lambda scene: any(map(inside, scene.things)), None


def _about_one(g: dict, mention: Mention | None, kind: str, test: Callable[[Thing], bool]) -> Meaning:
    subject, expected = _subject(g, mention), g["be"] == "is"

    def holds(scene: Scene) -> bool:
        return any(test(thing) == expected for thing in subject(scene))

    return {kind} | (set() if expected else {"negation"}) | _size_kind(g), holds, subject


def _pair(
    kind: str, test: Callable[[Thing, Thing], bool], *, is_vague: Callable[[Thing, Thing], bool] = lambda x, y: False
) -> Callable[[dict, Mention | None], Meaning]:
    """Returns the meaning of a clause that relates two things; neither that nor its negation is true if it is vague."""

    def meaning(g: dict, mention: Mention | None) -> Meaning:
        first, second = _subject(g, mention), _subject(g, None, "2")
        expected = g["be"] not in ("is not", "isn't", "not")

        def holds(scene: Scene) -> bool:
            pairs = [(one, two) for one in first(scene) for two in second(scene)]
            return any(test(*pair) == expected and not is_vague(*pair) for pair in pairs)

        return {kind} | (set() if expected else {"negation"}) | _size_kind(g), holds, None

    return meaning


def _both_sized(g: dict, _: Mention | None) -> Meaning:
    first, second = _subject(g, None), _subject(g, None, "2")

    def holds(scene: Scene) -> bool:
        pair = first(scene) + second(scene)
        return len(pair) == 2 and all(t.size == g["size"] for t in pair)

    return {"size"}, holds, None


def _all_sized(g: dict, _: Mention | None) -> Meaning:
    is_negated = g.get("nothing") is not None

    def holds(scene: Scene) -> bool:
        return len(scene.things) > 1 and all((t.size == g["size"]) != is_negated for t in scene.things)

    return {"size", "negation"} if is_negated else {"size"}, holds, None


def _total(g: dict, _: Mention | None) -> Meaning:
    number, size = _NUMBERS[g["number"]], g.get("size")
    inside = _inside(g["region"]) if g.get("region") else lambda thing: True

    def holds(scene: Scene) -> bool:
        return sum((size is None or t.size == size) and inside(t) for t in scene.things) == number

    return {"count"} | _size_kind(g) | ({"place"} if g.get("region") else set()), holds, None


def _named(g: dict, _: Mention | None) -> Meaning:
    number = _NUMBERS[g["number"]]

    def holds(scene: Scene) -> bool:
        # "one dog" is a name, "two dogs" a plural; some plurals look like the name ("two fish").
        return sum((t.name if number == 1 else plural(t.name)) == g["name1"] for t in scene.things) == number

    return {"count"}, holds, None


def _all_of(g: dict, _: Mention | None) -> Meaning:
    number = _NUMBERS[g["number"] or "two"]

    def holds(scene: Scene) -> bool:
        things = _things_of(scene, g["name1"])
        return len(things) == number and all(t.size == g["size"] for t in things)

    return {"count", "size"}, holds, None


def _rank(thing: Thing) -> int:
    return 1 if thing.size == "large" else 0


def _sides(first: Thing, second: Thing) -> tuple[bool, bool, bool, bool]:
    """Returns (first is higher, first is lower, first is further left, first is further right)."""
    (top1, left1), (top2, left2) = _corner(first), _corner(second)
    return top1 and not top2, top2 and not top1, left1 and not left2, left2 and not left1


def _one_above_other(first: Thing, second: Thing) -> bool:
    """Returns whether two things touch, but not side by side: some call that "next to", others don't."""
    return any(_sides(first, second)[:2]) and not any(_sides(first, second)[2:])


_RELATIONS: dict[str, Callable[[Thing, Thing], bool]] = {
    "to the left of|left of": lambda x, y: _sides(x, y)[2],
    "to the right of|right of": lambda x, y: _sides(x, y)[3],
    "above": lambda x, y: _sides(x, y)[0],
    "below": lambda x, y: _sides(x, y)[1],
    "directly above": lambda x, y: _sides(x, y)[0] and not any(_sides(x, y)[2:]),
    "directly below": lambda x, y: _sides(x, y)[1] and not any(_sides(x, y)[2:]),
    "next to|right beside": lambda x, y: any(_sides(x, y)[2:]) and not any(_sides(x, y)[:2]),
    "diagonally across from|diagonally opposite": lambda x, y: sum(_sides(x, y)) == 2,
}
_COMPARISONS: dict[str, Callable[[Thing, Thing], bool]] = {
    "larger than|bigger than": lambda x, y: _rank(x) > _rank(y),
    "smaller than": lambda x, y: _rank(x) < _rank(y),
    "the same size as": lambda x, y: _rank(x) == _rank(y),
}


def _rule(form: str, meaning: Callable[[dict, Mention | None], Meaning]) -> tuple[re.Pattern, Callable]:
    """Compiles a form such as "{the} {be} in {region}" into a pattern."""
    return re.compile(form.format(**_PIECES)), meaning


_RULES = [
    # Present and absent things.
    _rule(r"there is {a} in {region}", _present),
    _rule(r"{a} (?:is|can be seen) in {region}", _present),
    _rule(r"{region} shows {a}", _present),
    _rule(r"one of the {n} {name} is in {region}", _one_of),
    _rule(r"there is no {name}(?: anywhere)?", _absent),
    _rule(r"no {name} is in the picture", _absent),
    _rule(r"{aname} is nowhere to be seen", _absent),
    _rule(r"the picture does not show {aname}", _absent),
    _rule(r"(?:there is )?neither {aname} nor {aname2}(?: can be seen)?", _absent),
    # Places.
    _rule(r"(?:there is nothing|nothing is) in {region}", _empty),
    _rule(r"{region} shows nothing", _empty),
    _rule(r"{region} is (?P<empty>empty)", _empty),
    _rule(r"something is in {region}", _filled),
    _rule(r"{region} is (?P<not>not) empty", _filled),
    _rule(r"{the} {be} in {region}", lambda g, mention: _about_one(g, mention, "place", _inside(g["region"]))),
    # Sizes.
    _rule(r"{the} {be} {size}", lambda g, mention: _about_one(g, mention, "size", lambda t: t.size == g["size"])),
    _rule(r"both {the} and {the2} are {size}", _both_sized),
    _rule(r"{the} and {the2} are both {size}", _both_sized),
    _rule(r"(?:everything(?: in the picture)?|(?P<nothing>nothing)) is {size}", _all_sized),
    _rule(r"(?:both|all {n})(?: of the)? {name} are {size}", _all_of),
    _rule(r"{the} and {the2} are (?P<be>the same size)", _pair("size", lambda x, y: _rank(x) == _rank(y))),
    _rule(r"{the} and {the2} (?P<be>differ in size)", _pair("size", lambda x, y: _rank(x) != _rank(y))),
    # Numbers.
    _rule(r"there {is} {exactly} {n} things?(?: in {region})?", _total),
    _rule(r"there {is} {n} things? in total", _total),
    _rule(r"the picture shows {exactly} {n} things?", _total),
    _rule(r"{exactly} {n}(?: {size})? things? can be seen", _total),
    _rule(r"{exactly} {n} of the things {is} {size}", _total),
    _rule(r"{exactly} {n} things? {is} in {region}", _total),
    _rule(r"there {is} {exactly} {n} {name}", _named),
    _rule(r"{exactly} {n} {name} can be seen", _named),
    _rule(r"the picture shows {exactly} {n} {name}", _named),
    # Two things in space.
    _rule(r"{the} and {the2} are(?: (?P<be>not))? in opposite corners",
          _pair("relation", lambda x, y: sum(_sides(x, y)) == 2)),
    *(_rule(rf"{{the}} {{be}} (?:{words}) {{the2}}",
            _pair("relation", test, is_vague=_one_above_other if "next to" in words else lambda x, y: False))
      for words, test in _RELATIONS.items()),
    *(_rule(rf"{{the}} {{be}} (?:{words}) {{the2}}", _pair("size", t)) for words, t in _COMPARISONS.items()),
]  # fmt: skip
_WHERE = r"the (?:top|upper|bottom|lower|left|right) (?:left|right|half)(?: corner)?"
_TWO_PRESENT = re.compile(
    rf"(?:there is )?(?P<one>an? [a-z0-9 ]+?)(?: is)? in (?P<here>{_WHERE})"
    rf" and (?P<two>an? [a-z0-9 ]+?)(?: is)? in (?P<there>{_WHERE})"
)
_TWO_VERBS = re.compile(
    rf"(?P<subject>the (?:(?:{_SIZE}) )?{_NAME}|it) (?P<one>(?:is|isn't) .+) and (?P<two>(?:is|isn't) .+)"
)
