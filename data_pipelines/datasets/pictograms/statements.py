"""Statements about a scene graph: when they hold, what they are about, and all that hold of a scene.

"Left of", "above" and so on compare columns and rows alone: two things in opposite corners are also left and right of
each other. "Directly above" requires the same column. "Next to" requires the same row; of two things, one above the
other, neither it nor its negation is said, since readers differ. "The dog" requires exactly one dog: where there is
none, or where there are two, a statement about it is false.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from data_pipelines.datasets.pictograms.scenes import PLACES, SIZES, Scene, Thing

REGIONS: dict[str, tuple[int, ...]] = {place: (index,) for index, place in enumerate(PLACES)} | {
    "top half": (0, 1),
    "bottom half": (2, 3),
    "left half": (0, 2),
    "right half": (1, 3),
}
HALVES = tuple(region for region in REGIONS if region.endswith("half"))
# Tests of two things by how many rows the second is lower, and how many columns further right.
RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "left of": lambda down, right: right > 0,
    "right of": lambda down, right: right < 0,
    "above": lambda down, right: down > 0,
    "below": lambda down, right: down < 0,
    "directly above": lambda down, right: down > 0 and right == 0,
    "directly below": lambda down, right: down < 0 and right == 0,
    "next to": lambda down, right: down == 0 and right != 0,
    "across from": lambda down, right: abs(down) + abs(right) == 2,
}
COMPARISONS = ("larger than", "smaller than", "same size")  # by the size of the first thing


@dataclasses.dataclass(frozen=True)
class Ref:
    """A definite reference: "the dog", or "the large dog" where a scene has two dogs."""

    name: str
    size: str | None = None

    def resolve(self, scene: Scene) -> Thing | None:
        """Returns the one thing that is meant, or None where there is none or more than one."""
        things = [t for t in scene.things if t.name == self.name and self.size in (None, t.size)]
        return things[0] if len(things) == 1 else None

    def __str__(self) -> str:
        return f"{self.size} {self.name}" if self.size else self.name


class Statement:
    """The base class of all statements.

    Attributes:
      weight: how often statements of this class are drawn, relative to the other classes.
      order: where statements of this class stand in a description; low comes first.
      family: what the statement belongs to beside "size" and "negation", which follow from its fields.
    """

    weight: float
    order: float = 2.5
    family: str | None = None

    @property
    def families(self) -> frozenset[str]:
        """Which of negation, relation, size and count the statement belongs to."""
        size = "size" if getattr(self, "size", None) else None
        is_negative = getattr(self, "negated", False) != isinstance(self, Empty)
        return frozenset(filter(None, (self.family, size, "negation" if is_negative else None)))

    @property
    def subject(self) -> str | None:
        """The thing that the statement is about, where it is about one."""
        return None


@dataclasses.dataclass(frozen=True)
class Present(Statement):
    """A dog (of this size) is in this region."""

    name: str
    size: str | None
    region: str
    weight, order = 3.0, 1

    @property
    def subject(self) -> str:
        """The name of the thing."""
        return self.name


@dataclasses.dataclass(frozen=True)
class OneOf(Statement):
    """There are exactly `count` dogs, and one of them is in this place."""

    count: int
    name: str
    place: str
    weight, order, family = 1.0, 2, "count"


@dataclasses.dataclass(frozen=True)
class Absent(Statement):
    """There is no fox."""

    name: str
    weight, order, family = 1.0, 4, "negation"


@dataclasses.dataclass(frozen=True)
class Empty(Statement):
    """Nothing is in the region; negated: something is."""

    region: str
    negated: bool = False
    weight, order = 0.6, 3


@dataclasses.dataclass(frozen=True)
class About(Statement):
    """The base class of statements worded "the dog is ...", so that another "and is ..." can follow."""

    ref: Ref

    @property
    def subject(self) -> str:
        """The name of the thing, with its size where the reference has it."""
        return str(self.ref)


@dataclasses.dataclass(frozen=True)
class Sized(About):
    """The dog is (not) large."""

    size: str
    negated: bool = False
    weight, order = 0.8, 2


@dataclasses.dataclass(frozen=True)
class Placed(About):
    """The dog is (not) in the region."""

    region: str
    negated: bool = False
    weight, order = 0.6, 2


@dataclasses.dataclass(frozen=True)
class Related(About):
    """The dog is (not) above the apple."""

    other: Ref
    relation: str
    negated: bool = False
    weight, family = 2.5, "relation"


@dataclasses.dataclass(frozen=True)
class Compared(About):
    """The dog is (not) larger than the apple."""

    other: Ref
    comparison: str
    negated: bool = False
    weight, family = 1.0, "size"


@dataclasses.dataclass(frozen=True)
class BothSized(Statement):
    """The dog and the apple are both small."""

    ref: Ref
    other: Ref
    size: str
    weight = 0.7


@dataclasses.dataclass(frozen=True)
class AllSized(Statement):
    """Everything is small; there are two things or more."""

    size: str
    weight, order = 0.4, 2


@dataclasses.dataclass(frozen=True)
class Total(Statement):
    """There are exactly `count` things (of this size)."""

    count: int
    size: str | None = None
    weight, order, family = 0.3, 0, "count"


@dataclasses.dataclass(frozen=True)
class Named(Statement):
    """There are exactly `count` dogs; with a size, all of them have it."""

    count: int
    name: str
    size: str | None = None
    weight, order, family = 0.4, 1, "count"


@dataclasses.dataclass(frozen=True)
class InHalf(Statement):
    """Exactly `count` things are in this half."""

    count: int
    region: str
    weight, order, family = 0.3, 1, "count"


def holds(statement: Statement, scene: Scene) -> bool:
    """Returns whether a statement is true of a scene. A reference that fails ("the dog" of two) makes it false."""
    things = scene.things
    match statement:  # the most frequent cases first
        case Related(ref, other, relation, negated) | Compared(ref, other, relation, negated):
            first, second = ref.resolve(scene), other.resolve(scene)
            if first is None or second is None:
                return False
            if relation == "next to" and first.place % 2 == second.place % 2:
                return False
            return related(first, second, relation) != negated
        case Present(name, size, region):
            return any(t.name == name and size in (None, t.size) and t.place in REGIONS[region] for t in things)
        case OneOf(count, name, place):
            places = [t.place for t in things if t.name == name]
            return len(places) == count and REGIONS[place][0] in places
        case Absent(name):
            return all(t.name != name for t in things)
        case Empty(region, negated):
            return any(t.place in REGIONS[region] for t in things) == negated
        case Sized(ref, size, negated):
            thing = ref.resolve(scene)
            return thing is not None and (thing.size == size) != negated
        case Placed(ref, region, negated):
            thing = ref.resolve(scene)
            return thing is not None and (thing.place in REGIONS[region]) != negated
        case BothSized(ref, other, size):
            pair = ref.resolve(scene), other.resolve(scene)
            return all(thing is not None and thing.size == size for thing in pair)
        case AllSized(size):
            return len(things) > 1 and all(t.size == size for t in things)
        case Total(count, size):
            return sum(size in (None, t.size) for t in things) == count
        case Named(count, name, size):
            sizes = [t.size for t in things if t.name == name]
            return len(sizes) == count and all(size in (None, each) for each in sizes)
        case InHalf(count, region):
            return sum(t.place in REGIONS[region] for t in things) == count
    raise TypeError(f"Got {statement!r}, expected one of the statements of this module.")


def topics(statement: Statement) -> frozenset[tuple]:
    """Returns the topics of a statement. Two statements that share a topic would say much the same twice."""
    match statement:
        case Present(name, size, region):
            return frozenset({("place", name), ("name", name), ("at", region)} | ({("size", name)} if size else set()))
        case OneOf(_, name, place):
            return frozenset({("count", name), ("place", name), ("at", place)})
        case Absent(name):
            return frozenset({("absent", name)})
        case Empty(region, negated):
            return frozenset({("at", region), ("empty", "filled" if negated else "half" in region)})
        case Sized(ref):
            return frozenset({("size", ref.name)})
        case Placed(ref, region, negated):
            return frozenset({("not at", ref.name)} if negated else {("place", ref.name), ("at", region)})
        case Related(ref, other):
            return frozenset({("relation", *sorted((ref.name, other.name)))})
        case Compared(ref, other) | BothSized(ref, other):
            return frozenset({("sizes", *sorted((ref.name, other.name)))})
        case AllSized():
            return frozenset({("sizes",), ("total", "size")})
        case Total(_, size):
            return frozenset({("total",)} | ({("total", "size")} if size else set()))
        case Named(_, name):
            return frozenset({("count", name), ("name", name)})
        case InHalf(_, region):
            return frozenset({("half", region in ("top half", "bottom half")), ("empty", True)})
    raise TypeError(f"Got {statement!r}, expected one of the statements of this module.")


def is_repetition(statement: Statement, said: set[tuple]) -> bool:
    """Returns whether a statement only repeats what statements on the topics `said` already fix."""
    match statement:
        case Related(ref, other):
            return ("place", ref.name) in said and ("place", other.name) in said
        case Compared(ref, other) | BothSized(ref, other):
            return bool(said & {("size", ref.name), ("size", other.name), ("sizes",)})
        case Placed(ref, _, negated):
            return ("place" if negated else "not at", ref.name) in said
        case Present(name, size) | Named(_, name, size):
            return ("not at", name) in said or (size is not None and ("sizes",) in said)
        case Sized(ref):
            return ("sizes",) in said or any(ref.name in topic[1:] for topic in said if topic[0] == "sizes")
        case AllSized():
            return any(topic[0] in ("size", "sizes") for topic in said)
    return False


def related(first: Thing, second: Thing, relation: str) -> bool:
    """Returns whether `first` stands in a relation to `second`: one of RELATIONS, by cells, or COMPARISONS, by size."""
    if test := RELATIONS.get(relation):
        return test(second.place // 2 - first.place // 2, second.place % 2 - first.place % 2)
    larger = SIZES.index(first.size) - SIZES.index(second.size)
    return COMPARISONS[0 if larger > 0 else 1 if larger < 0 else 2] == relation


def statements_about(target: Scene, others: Sequence[Scene]) -> list[Statement]:
    """Returns every true statement about `target` that speaks of the names and places of the set."""
    things = target.things
    counts = Counter(t.name for t in things)
    foreign = sorted({t.name for scene in others for t in scene.things} - set(counts))
    single = [t for t in things if counts[t.name] == 1]
    plain = [Ref(t.name) for t in single]
    doubles = [Ref(t.name, t.size) for t in things if counts[t.name] > 1]
    refs = plain + [ref for ref in doubles if ref.resolve(target) is not None]  # "the large dog" of two dogs

    statements: list[Statement] = [Absent(name) for name in foreign]
    statements.append(Total(len(things)))
    statements += [Total(n, s) for s in SIZES if 0 < (n := sum(t.size == s for t in things)) < len(things)]
    statements += [InHalf(n, h) for h in HALVES if (n := sum(t.place in REGIONS[h] for t in things))]
    statements += [Empty(region) for region in REGIONS] + [Empty(place, negated=True) for place in PLACES]
    statements += [AllSized(size) for size in SIZES]
    for name, count in counts.items():
        statements.append(Named(count, name))
        if count > 1:
            statements += [Named(count, name, size) for size in SIZES]
            statements += [OneOf(count, name, place) for place in PLACES]
    for thing in single:
        statements += [Present(thing.name, size, region) for size in (None, thing.size) for region in REGIONS]
    for ref in refs:
        statements += [Placed(ref, region, negated) for region in REGIONS for negated in (False, True)]
        if ref.size is None:
            statements += [Sized(ref, size, negated) for size in SIZES for negated in (False, True)]
    for first, second in itertools.permutations(refs, 2):
        for negated in (False, True):
            statements += [Related(first, second, relation, negated) for relation in RELATIONS]
            if first.size is None and second.size is None:
                statements += [Compared(first, second, comparison, negated) for comparison in COMPARISONS]
    for first, second in itertools.combinations(plain, 2):
        statements += [BothSized(first, second, size) for size in SIZES]
    return [statement for statement in statements if holds(statement, target)]
