"""Groups of six scenes whose queries ask for three edits each: the validation slice "multi".

Three things of a scene each have two states: there or absent, small or large, one name or another, one place or
another; or two things change places. The eight combinations make four pairs of opposites, three of which are a group.
A query asks for the opposite of its reference, so that the other four pictures satisfy only one or two of the three
conditions. The opposite is also the picture that looks least like the reference: a model that knows this needs no text,
so none must be trained on such groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random

from data_pipelines.datasets.pictograms.edits import difference, kind_of, new_jitter
from data_pipelines.datasets.pictograms.groups import MAX_TRIES, AllowedScenes, Query, checked_text
from data_pipelines.datasets.pictograms.scenes import SIZES, Scene, Thing, make_scene

MULTI = "multi"
STEPS = 3
PLACES_TAKEN = {"presence": 1, "size": 1, "name": 1, "place": 2, "swap": 2}  # of the four, by each change
NAMING = ("presence", "name")  # changes of which names are shown: at most two, or few combinations are the split's own

State = tuple[Thing, ...]  # the things that one of the three changes shows


def compose_three_step_groups(
    allowed: AllowedScenes, rng: Random, *, count: int
) -> Iterator[tuple[tuple[Scene, ...], tuple[Query, ...]]]:
    """Yields `count` groups: six scenes, none of which is in two groups, and a query from each to its opposite.

    There are fewer groups where a folder of one's own has too few pictograms for more.
    """
    taken: set[Scene] = set()
    for _ in range(count):
        for _ in range(MAX_TRIES):
            pairs = _propose(allowed, rng)
            if pairs and not taken.intersection(itertools.chain(*pairs)):
                break
        else:
            return
        scenes = [*itertools.chain(*pairs)]
        taken.update(scenes)
        opposites = {scene: other for pair in pairs for scene, other in (pair, pair[::-1])}
        rng.shuffle(scenes)
        yield tuple(scenes), tuple(_queries(scenes, opposites, rng))


def _queries(scenes: Sequence[Scene], opposites: dict[Scene, Scene], rng: Random) -> Iterator[Query]:
    for row, reference in enumerate(scenes):
        target = opposites[reference]
        edits = difference(reference, target, most=STEPS)
        assert edits is not None and len(edits) == STEPS, "opposites differ by three edits"
        yield Query(row, scenes.index(target), checked_text(edits, reference, target, rng), kind_of(edits))


def _propose(allowed: AllowedScenes, rng: Random) -> list[tuple[Scene, Scene]] | None:
    """Draws three pairs of opposites, or None if this try failed."""
    changes = rng.choices(tuple(PLACES_TAKEN), k=STEPS)
    if sum(PLACES_TAKEN[change] for change in changes) > 4 or sum(change in NAMING for change in changes) > 2:
        return None
    names = _names(changes, allowed, rng)
    if names is None:
        return None
    places = rng.sample(range(4), 4)
    states = [_states(change, names, places, rng) for change in changes]
    corners = {bits: make_scene(itertools.chain(*(own[bit] for own, bit in zip(states, bits, strict=True))))
               for bits in itertools.product(range(2), repeat=STEPS)}  # fmt: skip
    pairs = [(corners[bits], corners[tuple(1 - bit for bit in bits)]) for bits in corners if bits[0] == 0]
    clean = [
        pair for pair in pairs if len(difference(*pair, most=STEPS) or ()) == STEPS and all(x.things for x in pair)
    ]
    return rng.sample(clean, STEPS) if len(clean) >= STEPS else None


def _names(changes: Sequence[str], allowed: AllowedScenes, rng: Random) -> list[str] | None:
    """Returns the names that the changes take, in their order, so that every combination is the split's own.

    Returns None if this try failed.
    """
    always = {"presence": 0, "swap": 2}
    shown = rng.sample(allowed.seen, sum(always.get(change, 1) for change in changes))
    if not allowed.allows(shown):
        return None
    names, combinations = [], [frozenset(shown)]
    for change in changes:
        own = [shown.pop() for _ in range(always.get(change, 1))]
        names += own
        if change not in NAMING:
            continue
        for name in rng.sample(allowed.seen, len(allowed.seen)):
            more = [(known - set(own)) | {name} for known in combinations]
            if not any(name in known for known in combinations) and all(map(allowed.allows, more)):
                break
        else:
            return None
        names.append(name)
        combinations += more
    return names


def _states(change: str, names: list[str], places: list[int], rng: Random) -> tuple[State, State]:
    """Returns the two states of a change; takes its names from the front, and its places."""
    size = rng.choice(SIZES)
    put = lambda name, place, size: Thing(place, name, size, new_jitter(rng))
    place, name = places.pop(), names.pop(0)
    thing = put(name, place, size)
    match change:
        case "presence":
            return (thing,), ()
        case "size":
            return (thing,), (put(name, place, next(other for other in SIZES if other != size)),)
        case "name":
            return (thing,), (put(names.pop(0), place, size),)
        case "place":
            return (thing,), (put(name, places.pop(), size),)
    other = put(names.pop(0), places.pop(), rng.choice(SIZES))  # a swap
    return (thing, other), (put(name, other.place, size), put(other.name, place, other.size))
