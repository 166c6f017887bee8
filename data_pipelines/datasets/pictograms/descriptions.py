"""Statements about a scene graph, and descriptions that pick one scene among ten.

A description joins two to six statements: all of them hold in the target, and each of the other
scenes breaks at least one. Where possible no statement does that alone, so a reader has to put
several of them together; that is what makes the description contextual. Every text is read back
by `description_reading`, which knows nothing of the statements behind it.

What the words mean: "left of", "above" and so on compare columns and rows, whatever the other
axis says (two things in opposite corners are also left and right of each other); "directly above"
asks for the same column; "next to" for cells that share a side. "The dog" needs exactly one dog.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from random import Random

from data_pipelines.datasets.pictograms import description_reading
from data_pipelines.datasets.pictograms.scene import PLACES, SIZES, Scene, Thing
from data_pipelines.datasets.pictograms.vocabulary import a, plural

WORDS = (20, 40)  # shortest and longest description
NUMBERS = ("no", "one", "two", "three", "four")
REGIONS: dict[str, tuple[int, ...]] = {place: (index,) for index, place in enumerate(PLACES)} | {
    "top half": (0, 1),
    "bottom half": (2, 3),
    "left half": (0, 2),
    "right half": (1, 3),
}
HALVES = tuple(region for region in REGIONS if region.endswith("half"))
RELATIONS = ("left of", "right of", "above", "below", "directly above", "directly below", "next to", "across from")
COMPARISONS = ("larger than", "smaller than", "same size")
# How often a description is asked to contain each family. Others come in by chance, so the shares that
# come out are higher (tests measure them from the texts).
ASKED = {"negation": 0.5, "relation": 0.65, "size": 0.3, "count": 0.2}
MAX_STATEMENTS = 6
TRIES, SHARED_TRIES = 120, 60
NEGATED_WEIGHT = 0.25  # of a negated statement where its positive form would do as well


@dataclasses.dataclass(frozen=True)
class Ref:
    """A definite reference: "the dog", or "the large dog" where a scene has two dogs."""

    name: str
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class Present:
    """A dog (of this size, in this region) is there."""

    name: str
    size: str | None
    region: str


@dataclasses.dataclass(frozen=True)
class OneOf:
    """There are exactly `count` dogs, and one of them is in this place."""

    count: int
    name: str
    place: str


@dataclasses.dataclass(frozen=True)
class Absent:
    """There is no fox."""

    name: str


@dataclasses.dataclass(frozen=True)
class Empty:
    """Nothing is in the region; negated: something is."""

    region: str
    negated: bool = False


@dataclasses.dataclass(frozen=True)
class Sized:
    """The dog is (not) large."""

    ref: Ref
    size: str
    negated: bool = False


@dataclasses.dataclass(frozen=True)
class Placed:
    """The dog is (not) in the region."""

    ref: Ref
    region: str
    negated: bool = False


@dataclasses.dataclass(frozen=True)
class Related:
    """The dog is (not) above the apple."""

    ref: Ref
    other: Ref
    relation: str
    negated: bool = False


@dataclasses.dataclass(frozen=True)
class Compared:
    """The dog is (not) larger than the apple."""

    ref: Ref
    other: Ref
    comparison: str
    negated: bool = False


@dataclasses.dataclass(frozen=True)
class BothSized:
    """The dog and the apple are both small."""

    ref: Ref
    other: Ref
    size: str


@dataclasses.dataclass(frozen=True)
class AllSized:
    """Everything is small. Of two things or more."""

    size: str


@dataclasses.dataclass(frozen=True)
class Total:
    """There are exactly `count` things (of this size)."""

    count: int
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class Named:
    """There are exactly `count` dogs; with a size, all of them have it."""

    count: int
    name: str
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class InHalf:
    """Exactly `count` things are in this half."""

    count: int
    region: str


Statement = (
    Present
    | OneOf
    | Absent
    | Empty
    | Sized
    | Placed
    | Related
    | Compared
    | BothSized
    | AllSized
    | Total
    | Named
    | InHalf
)


# How often each kind of statement is drawn, relative to the others.
WEIGHTS = {
    Present: 3.0,
    OneOf: 1.0,
    Absent: 1.0,
    Empty: 0.6,
    Sized: 0.8,
    Placed: 0.6,
    Related: 2.5,
    Compared: 1.0,
    BothSized: 0.7,
    AllSized: 0.4,
    Total: 0.3,
    Named: 0.4,
    InHalf: 0.3,
}


def related(first: Thing, second: Thing, relation: str) -> bool:
    """Whether `first` stands in `relation` to `second`, by the cells they are in."""
    down = second.place // 2 - first.place // 2  # positive: second is lower
    right = second.place % 2 - first.place % 2
    return {
        "left of": right > 0,
        "right of": right < 0,
        "above": down > 0,
        "below": down < 0,
        "directly above": down > 0 and right == 0,
        "directly below": down < 0 and right == 0,
        "next to": abs(down) + abs(right) == 1,
        "across from": abs(down) + abs(right) == 2,
    }[relation]


def compared(first: Thing, second: Thing, comparison: str) -> bool:
    """Whether the sizes of two things compare as said."""
    difference = SIZES.index(first.size) - SIZES.index(second.size)
    return {"larger than": difference > 0, "smaller than": difference < 0, "same size": difference == 0}[comparison]


def resolve(ref: Ref, scene: Scene) -> Thing | None:
    """The one thing a definite reference means, or None when there is none or more than one."""
    found = [t for t in scene.things if t.name == ref.name and ref.size in (None, t.size)]
    return found[0] if len(found) == 1 else None


def holds(statement: Statement, scene: Scene) -> bool:
    """Whether a statement is true of a scene. A reference that fails ("the dog" of two) makes it false."""
    things = scene.things
    match statement:
        case Present(name, size, region):
            places = REGIONS[region]
            return any(t.name == name and size in (None, t.size) and t.place in places for t in things)
        case OneOf(count, name, place):
            found = [t.place for t in things if t.name == name]
            return len(found) == count and REGIONS[place][0] in found
        case Absent(name):
            return all(t.name != name for t in things)
        case Empty(region, negated):
            return any(t.place in REGIONS[region] for t in things) == negated
        case Sized(ref, size, negated):
            thing = resolve(ref, scene)
            return thing is not None and (thing.size == size) != negated
        case Placed(ref, region, negated):
            thing = resolve(ref, scene)
            return thing is not None and (thing.place in REGIONS[region]) != negated
        case Related(ref, other, relation, negated):
            first, second = resolve(ref, scene), resolve(other, scene)
            return first is not None and second is not None and related(first, second, relation) != negated
        case Compared(ref, other, comparison, negated):
            first, second = resolve(ref, scene), resolve(other, scene)
            return first is not None and second is not None and compared(first, second, comparison) != negated
        case BothSized(ref, other, size):
            pair = resolve(ref, scene), resolve(other, scene)
            return all(thing is not None and thing.size == size for thing in pair)
        case AllSized(size):
            return len(things) > 1 and all(t.size == size for t in things)
        case Total(count, size):
            return sum(size in (None, t.size) for t in things) == count
        case Named(count, name, size):
            found = [t.size for t in things if t.name == name]
            return len(found) == count and all(size in (None, s) for s in found)
        case InHalf(count, region):
            return sum(t.place in REGIONS[region] for t in things) == count
    raise TypeError(f"Got {statement!r}, expected one of the statements of this module.")


def statements_about(target: Scene, others: Sequence[Scene]) -> list[Statement]:
    """Every true statement about `target` that speaks of the names and places of the set."""
    things = target.things
    counts = Counter(t.name for t in things)
    foreign = sorted({t.name for scene in others for t in scene.things} - set(counts))
    single = [t for t in things if counts[t.name] == 1]
    refs = [Ref(t.name) for t in single]
    for thing in things:  # "the large dog" where two dogs differ in size
        ref = Ref(thing.name, thing.size)
        if counts[thing.name] > 1 and resolve(ref, target) is not None:
            refs.append(ref)

    found: list[Statement] = [Absent(name) for name in foreign]
    found.append(Total(len(things)))
    found += [Total(n, s) for s in SIZES if 0 < (n := sum(t.size == s for t in things)) < len(things)]
    found += [InHalf(n, h) for h in HALVES if (n := sum(t.place in REGIONS[h] for t in things))]
    found += [Empty(region) for region in REGIONS] + [Empty(place, negated=True) for place in PLACES]
    found += [AllSized(size) for size in SIZES]
    for name, count in counts.items():
        found.append(Named(count, name))
        if count > 1:
            found += [Named(count, name, size) for size in SIZES]
            found += [OneOf(count, name, place) for place in PLACES]
    for thing in single:
        found += [Present(thing.name, size, region) for size in (None, thing.size) for region in REGIONS]
    for ref in refs:
        found += [Placed(ref, region, negated) for region in REGIONS for negated in (False, True)]
        if ref.size is None:
            found += [Sized(ref, size, negated) for size in SIZES for negated in (False, True)]
    for first, second in itertools.permutations(refs, 2):
        for negated in (False, True):
            found += [Related(first, second, relation, negated) for relation in RELATIONS]
            if first.size is None and second.size is None:
                found += [Compared(first, second, comparison, negated) for comparison in COMPARISONS]
    for first, second in itertools.combinations([ref for ref in refs if ref.size is None], 2):
        found += [BothSized(first, second, size) for size in SIZES]
    return [statement for statement in found if holds(statement, target)]


def families(statement: Statement) -> frozenset[str]:
    """Which of the families in ASKED a statement belongs to."""
    found = set()
    if getattr(statement, "negated", False) != isinstance(statement, Empty) or isinstance(statement, Absent):
        found.add("negation")
    if isinstance(statement, Related):
        found.add("relation")
    if isinstance(statement, Sized | Compared | BothSized | AllSized) or (
        isinstance(statement, Present | Total | Named) and statement.size
    ):
        found.add("size")
    if isinstance(statement, Total | Named | InHalf | OneOf):
        found.add("count")
    return frozenset(found)


def topics(statement: Statement) -> frozenset[tuple]:
    """What a statement is about. Two statements that share a topic would say much the same twice."""
    match statement:
        case Present(name, size, region):
            return frozenset({("place", name), ("name", name), ("at", region)} | ({("size", name)} if size else set()))
        case OneOf(_, name, place):
            return frozenset({("count", name), ("place", name), ("at", place)})
        case Absent(name):
            return frozenset({("absent", name)})
        case Empty(region, negated):
            return frozenset({("at", region), ("empty", "filled" if negated else "half" in region)})
        case Sized(ref, _, _):
            return frozenset({("size", ref.name)})
        case Placed(ref, region, negated):
            return frozenset({("not at", ref.name)} if negated else {("place", ref.name), ("at", region)})
        case Related(ref, other, _, _):
            return frozenset({("relation", *sorted((ref.name, other.name)))})
        case Compared(ref, other, _, _) | BothSized(ref, other, _):
            return frozenset({("sizes", *sorted((ref.name, other.name)))})
        case AllSized():
            return frozenset({("sizes",), ("total", "size")})
        case Total(_, size):
            return frozenset({("total",)} | ({("total", "size")} if size else set()))
        case Named(_, name, _):
            return frozenset({("count", name), ("name", name)})
        case InHalf(_, region):
            return frozenset({("half", region in ("top half", "bottom half")), ("empty", True)})
    raise TypeError(f"Got {statement!r}, expected one of the statements of this module.")


@dataclasses.dataclass(frozen=True)
class Option:
    """A statement that may be drawn; bit i of `mask` is set where it is false in the i-th other scene."""

    statement: Statement
    mask: int
    weight: float
    families: frozenset[str]
    topics: frozenset[tuple]


def options_of(statements: Sequence[Statement], masks: Sequence[int]) -> list[Option]:
    """The statements to draw from; each kind gets its weight, however many statements it has."""
    weights = [NEGATED_WEIGHT if getattr(s, "negated", False) else 1.0 for s in statements]
    totals: dict[type, float] = defaultdict(float)
    for statement, weight in zip(statements, weights, strict=True):
        totals[type(statement)] += weight
    return [
        Option(s, mask, WEIGHTS[type(s)] * weight / totals[type(s)], families(s), topics(s))
        for s, mask, weight in zip(statements, masks, weights, strict=True)
    ]


def _repetitive(option: Option, said: set[tuple]) -> bool:
    """Whether a statement only repeats what statements on the topics `said` already fix."""
    if option.topics & said:
        return True
    match option.statement:
        case Related(ref, other, _, _):
            return ("place", ref.name) in said and ("place", other.name) in said
        case Compared(ref, other, _, _) | BothSized(ref, other, _):
            return ("size", ref.name) in said or ("size", other.name) in said or ("sizes",) in said
        case Placed(ref, _, True):
            return ("place", ref.name) in said
        case Present(name, size, _) | Named(_, name, size):
            return ("not at", name) in said or (size is not None and ("sizes",) in said)
        case Placed(ref, _, False):
            return ("not at", ref.name) in said
        case Sized(ref, _, _):
            return ("sizes",) in said or any(ref.name in topic[1:] for topic in said if topic[0] == "sizes")
        case AllSized():
            return any(topic[0] in ("size", "sizes") for topic in said)
    return False


def choose_statements(options: Sequence[Option], n_others: int, rng: Random) -> list[Statement] | None:
    """Draws statements that together exclude every other scene, or None when the draw runs dry."""
    everyone = (1 << n_others) - 1
    chosen: list[Option] = []
    said: set[tuple] = set()
    excluded = 0

    def add(gain: Callable[[int], float], family: str | None = None) -> bool:
        """Draws one more; `gain` is what a statement is worth that excludes so many further scenes."""
        nonlocal excluded
        fitting = [o for o in options if (family is None or family in o.families) and not _repetitive(o, said)]
        weights = [o.weight * gain((o.mask & ~excluded).bit_count()) for o in fitting]
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


def masks(statements: Sequence[Statement], others: Sequence[Scene]) -> list[int]:
    """For each statement the bit mask of the scenes in which it is false."""
    return [sum(1 << i for i, scene in enumerate(others) if not holds(statement, scene)) for statement in statements]


def options_about(target: Scene, others: Sequence[Scene]) -> list[Option]:
    """All true statements about `target` that may be drawn."""
    statements = statements_about(target, others)
    return options_of(statements, masks(statements, others))


def tell_apart(options: Sequence[Option], rng: Random, *, count: int) -> list[tuple[int, str]]:
    """`count` single statements in words, each with the index of one of the other scenes, in which it is false.

    None where no statement is false anywhere else.
    """
    telling = [option for option in options if option.mask]
    if not telling:
        return []
    pairs = []
    for option in rng.choices(telling, [option.weight for option in telling], k=count):
        other = rng.choice([i for i in range(option.mask.bit_length()) if option.mask >> i & 1])
        pairs.append((other, say([option.statement], rng)))
    return pairs


def describe(
    target: Scene, others: Sequence[Scene], rng: Random, *, options: Sequence[Option] | None = None
) -> str | None:
    """A description of 20 to 40 words that is true of `target` and false of each of `others`.

    None when no draw gave one. In the first draws no single statement excludes all others; only
    when they fail may one. `options`: those of options_about, where they are known already.
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
    """Whether the independent reader finds the text true of the target and of no other scene."""
    predicates = description_reading.read(text)
    return description_reading.all_true(predicates, target) and not any(
        description_reading.all_true(predicates, other) for other in others
    )


# --- Wording -------------------------------------------------------------------------------------

ORDER = {Total: 0, InHalf: 1, Named: 1, Present: 1, OneOf: 2, Placed: 2, Sized: 2, AllSized: 2, Empty: 3, Absent: 4}


def arrange(statements: Sequence[Statement], rng: Random) -> list[Statement]:
    """An order to say them in: what is there first, what is missing last, one subject at a time."""
    rest = sorted(statements, key=lambda s: ORDER.get(type(s), 2.5) + 1.4 * rng.random())
    ordered = [rest.pop(0)]
    while rest:
        name = subject(ordered[-1])
        same = [s for s in rest if name is not None and subject(s) == name]
        follow = same[0] if same and rng.random() < 0.8 else rest[0]
        rest.remove(follow)
        ordered.append(follow)
    return ordered


def subject(statement: Statement) -> str | None:
    """The thing a statement is about, when it is about one."""
    match statement:
        case Present(name, _, _):
            return name
        case Sized(ref) | Placed(ref) | Related(ref) | Compared(ref):
            return f"{ref.size} {ref.name}" if ref.size else ref.name
    return None


def say(statements: Sequence[Statement], rng: Random) -> str:
    """The statements as one to three English sentences, in the order given."""
    sentences = []
    rest = _merge(statements, rng)
    longest = 3 if len(rest) > 4 else 2  # clauses in a sentence
    while rest:
        left = 3 - len(sentences)
        least = -(-len(rest) // left)  # all must fit into three sentences
        size = rng.randint(least, max(least, min(longest, len(rest))))
        sentences.append(_sentence(rest[:size], before_text=" ".join(sentences).lower(), rng=rng))
        rest = rest[size:]
    return " ".join(sentences)


def _merge(statements: Sequence[Statement], rng: Random) -> list[tuple[Statement, ...]]:
    """Groups neighbours that one clause can say: two things present or absent, two verbs of one subject."""
    merged: list[tuple[Statement, ...]] = []
    for statement in statements:
        last = merged[-1] if merged else ()
        fits = len(last) == 1 and (
            (isinstance(last[0], Absent) and isinstance(statement, Absent))
            or (isinstance(last[0], Present) and isinstance(statement, Present) and last[0].region != statement.region)
            or (_has_verb(last[0]) and _has_verb(statement) and subject(last[0]) == subject(statement))
        )
        if fits and rng.random() < 0.8:
            merged[-1] = (*last, statement)
        else:
            merged.append((statement,))
    return merged


def _has_verb(statement: Statement) -> bool:
    """Whether a statement is worded "the dog is …", so that another "and is …" can follow."""
    return isinstance(statement, Sized | Placed | Related | Compared)


def _may_say_it(before: tuple[Statement, ...], statement: Statement) -> bool:
    """Whether "it" is clear: right after a clause in which nothing else could be meant."""
    last, *more = before
    if more or not isinstance(last, Present | Sized | Placed) or isinstance(statement, Present):
        return False
    return subject(last) == subject(statement)


def _sentence(groups: Sequence[tuple[Statement, ...]], *, before_text: str, rng: Random) -> str:
    clauses: list[str] = []
    for index, group in enumerate(groups):
        it = index > 0 and _may_say_it(groups[index - 1], group[0])
        drafts = [clause(group, it=it, rng=rng) for _ in range(3)]
        clauses.append(min(drafts, key=lambda draft: _repeats(draft, " ".join((before_text, *clauses)))))
    text = clauses[0]
    if len(clauses) == 2:
        text = rng.choice(_joints(*groups)).join(clauses)
    elif len(clauses) > 2:
        text = ", ".join(clauses[:-1]) + ", and " + clauses[-1]
    if not before_text and "picture" not in text and rng.random() < 0.25:
        text = rng.choice(("In this picture, ", "Here, ")) + text
    return text[0].upper() + text[1:] + "."


STOCK = ("can be seen", "picture", "there is", "there are", "shows", "exactly", "only", " corner", "n't", "both ")


def _repeats(draft: str, text: str) -> int:
    """How many stock phrases a clause would repeat."""
    return sum(phrase in draft and phrase in text for phrase in STOCK)


def _joints(first: tuple[Statement, ...], second: tuple[Statement, ...]) -> Sequence[str]:
    """What may join two clauses: "but" and "while" need a contrast."""
    negated = ["negation" in families(group[0]) for group in (first, second)]
    if negated == [False, True] and isinstance(second[0], Absent | Empty):
        return ", but ", ", but ", ", and "
    if subject(first[0]) and subject(second[0]) and subject(first[0]) != subject(second[0]):
        return ", and ", ", while ", "; "
    return ", and ", ", and ", "; "


def clause(group: tuple[Statement, ...], *, it: bool, rng: Random) -> str:
    """One clause for one statement, or for two that were merged; `it`: say "it" for the subject."""
    if len(group) == 2 and isinstance(group[0], Absent):
        one, two = (a(s.name) for s in group)  # type: ignore[union-attr]
        return rng.choice((f"there is neither {one} nor {two}", f"neither {one} nor {two} can be seen"))
    if len(group) == 2 and _has_verb(group[0]):
        first, second = (rng.choice(_wordings(s, True, rng)).removeprefix("it ") for s in group)
        return f"{_definite(group[0].ref, it)} {first} and {second}"  # type: ignore[union-attr]
    if len(group) == 2:
        (one, here), (two, there) = ((_indefinite(s), _where(s.region, rng)) for s in group)  # type: ignore
        return rng.choice(
            (f"there is {one} in {here} and {two} in {there}", f"{one} is in {here} and {two} is in {there}")
        )
    return rng.choice(_wordings(group[0], it, rng))


def _wordings(statement: Statement, it: bool, rng: Random) -> Sequence[str]:
    """All the ways to say one statement."""
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
            return (
                f"nothing is in {where}",
                f"there is nothing in {where}",
                f"{where} is empty",
                f"{where} shows nothing",
            )
        case Empty(region, True):
            return f"something is in {_where(region, rng)}", f"{_where(region, rng)} is not empty"
        case Sized(ref, size, negated):
            be = _be(negated, rng)
            return (f"{_definite(ref, it)} {be} {size}",)
        case Placed(ref, region, negated):
            return (f"{_definite(ref, it)} {_be(negated, rng)} in {_where(region, rng)}",)
        case Related(ref, other, relation, negated):
            return _relation_wordings(_definite(ref, it), _definite(other, False), relation, negated, it, rng)
        case Compared(ref, other, comparison, negated):
            return _comparison_wordings(_definite(ref, it), _definite(other, False), comparison, negated, it, rng)
        case BothSized(ref, other, size):
            one, two = _definite(ref, False), _definite(other, False)
            return f"both {one} and {two} are {size}", f"{one} and {two} are both {size}"
        case AllSized(size):
            opposite = SIZES[1 - SIZES.index(size)]
            return f"everything is {size}", f"everything in the picture is {size}", f"nothing is {opposite}"
    return _count_wordings(statement, rng)


def _relation_wordings(one: str, two: str, relation: str, negated: bool, it: bool, rng: Random) -> Sequence[str]:
    be = _be(negated, rng)
    phrases = {
        "left of": ("to the left of", "left of", "further left than"),
        "right of": ("to the right of", "right of", "further right than"),
        "above": ("above", "higher up than"),
        "below": ("below", "lower down than"),
        "next to": ("next to", "right beside"),
        "across from": ("diagonally across from", "diagonally opposite"),
    }.get(relation, (relation,))
    found = [f"{one} {be} {phrase} {two}" for phrase in phrases]
    if relation == "across from" and not it:
        found.append(f"{one} and {two} are {'not ' if negated else ''}in opposite corners")
    return found


def _comparison_wordings(one: str, two: str, comparison: str, negated: bool, it: bool, rng: Random) -> Sequence[str]:
    be = _be(negated, rng)
    phrases = {
        "larger than": ("larger than", "bigger than"),
        "smaller than": ("smaller than",),
        "same size": ("the same size as",),
    }[comparison]
    found = [f"{one} {be} {phrase} {two}" for phrase in phrases]
    if comparison == "same size" and not it:
        found.append(f"{one} and {two} " + ("differ in size" if negated else "are the same size"))
    return found


def _count_wordings(statement: Statement, rng: Random) -> Sequence[str]:
    """Ways to say a number: always with a word that makes it exact."""
    count = statement.count  # type: ignore[union-attr]
    exactly = rng.choice(("only", "just", "exactly") if count == 1 else ("exactly", "exactly", "only"))
    number, be = f"{exactly} {NUMBERS[count]}", "is" if count == 1 else "are"
    match statement:
        case Total(_, None):
            things = "thing" if count == 1 else "things"
            return (f"there {be} {number} {things}", f"the picture shows {number} {things}",
                    f"{number} {things} can be seen", f"there {be} {NUMBERS[count]} {things} in total")  # fmt: skip
        case Total(_, size):
            things = "thing" if count == 1 else "things"
            return f"{number} {size} {things} can be seen", f"{number} of the things {be} {size}"
        case Named(_, name, None):
            names = name if count == 1 else plural(name)
            return (f"there {be} {number} {names}", f"{number} {names} can be seen",
                    f"the picture shows {number} {names}")  # fmt: skip
        case Named(_, name, size):
            together = "both" if count == 2 else f"all {NUMBERS[count]}"
            return f"{together} {plural(name)} are {size}", f"{together} of the {plural(name)} are {size}"
        case InHalf(_, region):
            things, where = "thing" if count == 1 else "things", _where(region, rng)
            return f"{number} {things} {be} in {where}", f"there {be} {number} {things} in {where}"
    raise TypeError(f"Got {statement!r}, expected one of the statements of this module.")


def _be(negated: bool, rng: Random) -> str:
    return rng.choice(("is not", "is not", "isn't")) if negated else "is"


def _definite(ref: Ref, it: bool) -> str:
    return "it" if it else f"the {ref.size} {ref.name}" if ref.size else f"the {ref.name}"


def _indefinite(statement: Present) -> str:
    return f"a {statement.size} {statement.name}" if statement.size else a(statement.name)


def _where(region: str, rng: Random) -> str:
    """A region in words: "the top left", "the upper left corner", "the left half"."""
    if rng.random() < 0.3:
        region = region.replace("top", "upper").replace("bottom", "lower")
    return f"the {region}" + (" corner" if "half" not in region and rng.random() < 0.3 else "")
