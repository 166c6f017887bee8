"""Groups of six similar scenes, and the queries about them.

Within a group every picture can be turned into every other by one or two edits, and every picture is equally often the
target of every other. So a model that ignores the text is at chance among the other five.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from data_pipelines.datasets.pictograms.edits import KINDS, TWO_STEP, Edit, difference, kind_of, new_jitter
from data_pipelines.datasets.pictograms.scenes import SIZES, Scene, Thing, make_scene, share_of
from data_pipelines.datasets.pictograms.text_parser import parse_modification
from data_pipelines.datasets.pictograms.wording import modification_text

GROUP_SIZE = 6
TRAIN_TARGETS = 4  # modifications a reference has in training; the other splits have one
SPLITS = ("train", "val", "test1", "unseen")
SHARES = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test1": (0.9, 1.0), "unseen": (0.9, 1.0), "multi": (0.8, 0.9)}
GOAL = {**dict.fromkeys(KINDS, 0.12), TWO_STEP: 0.28}  # of the ordered pairs of a group
PROPOSALS = 5  # candidates of which the one that brings the mix closest to the goal is kept
MAX_TRIES = 2000  # proposals for a group; about 15 are needed with the default pictograms
# Shares among the proposals, chosen so that the goal is reached in practice.
BACKGROUND = (3, 4, 1)  # weights of one, two and three things around the one in focus
SWAPPED = 0.65  # groups with two arrangements of the background
ELSEWHERE = 0.1  # groups with a change beside the thing in focus
RENAMED = 0.3  # groups where the states of the thing in focus differ mostly by name; else by place and size
ABSENT = 0.55  # groups where that thing is missing in some picture
_BACK = {"add": "remove", "remove": "add"}  # the kind of the way back, where it differs


@dataclasses.dataclass(frozen=True)
class Query:
    """One modification.

    Attributes:
      reference: position in the group.
      target: position in the group.
      text: the modification text.
      kind: one of edits.KINDS.
    """

    reference: int
    target: int
    text: str
    kind: str


@dataclasses.dataclass(frozen=True)
class AllowedScenes:
    """The scenes that a split may show, by the names of their pictograms."""

    split: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def allows(self, names: Iterable[str]) -> bool:
        """Returns whether a combination of names belongs to this split. No combination belongs to two."""
        names = sorted(names)
        if any(name in self.held_out for name in names):
            return self.split == "unseen"
        low, high = SHARES[self.split]
        return low <= share_of(tuple(names)) < high


def compose_groups(
    allowed: AllowedScenes, rng: Random, *, count: int, unique: bool = False
) -> Iterator[tuple[tuple[Scene, ...], tuple[Query, ...]]]:
    """Yields `count` groups: six scenes and their queries.

    Queries are never chosen by what they ask for, which would make some pictures likelier targets than others; the mix
    of edits is steered by choosing among whole groups.

    Args:
      allowed: the scenes of the split.
      rng: the same state gives the same groups.
      count: groups.
      unique: no scene is in two groups.

    Raises:
      ValueError: there are too few pictograms.
    """
    mix: Counter[str] = Counter()
    taken: set[Scene] = set()
    for done in range(count):
        candidates = []
        tries = 0
        while len(candidates) < PROPOSALS:
            tries += 1
            if tries > MAX_TRIES:
                raise ValueError(
                    f"Got {len(allowed.seen) + len(allowed.held_out)} pictograms, too few for {count} groups in the "
                    f"split '{allowed.split}' ({done} were found): add pictures (about 20 are enough)."
                )
            scenes = _propose(allowed, rng)
            kinds = _kinds(scenes) if scenes else None
            if scenes and kinds and not (unique and taken.intersection(scenes)):
                candidates.append((_distance(mix + kinds), len(candidates), kinds, scenes))
        _, _, kinds, scenes = min(candidates)
        mix += kinds
        if unique:
            taken.update(scenes)
        rng.shuffle(scenes)
        yield tuple(scenes), tuple(_queries(scenes, rng, TRAIN_TARGETS if allowed.split == "train" else 1))


def _queries(scenes: Sequence[Scene], rng: Random, targets: int) -> Iterator[Query]:
    # The members are shuffled and each offset serves all references alike: every member is a target
    # equally often, and each of the five others is as likely as the next.
    for offset in rng.sample(range(1, GROUP_SIZE), targets):
        for reference in range(GROUP_SIZE):
            target = (reference + offset) % GROUP_SIZE
            edits = difference(scenes[reference], scenes[target])
            assert edits is not None, "groups have only pairs with a difference"
            yield Query(reference, target, checked_text(edits, scenes[reference], scenes[target], rng), kind_of(edits))


def checked_text(edits: Sequence[Edit], reference: Scene, target: Scene, rng: Random) -> str:
    """Writes a text for the edits and checks that the independent parser understands it as meant."""
    text = modification_text(edits, reference, rng)
    understood = parse_modification(text, reference)
    if understood != target:
        raise AssertionError(f"'{text}' of {reference} was meant as {target} but reads as {understood}.")
    return text


def _kinds(scenes: Sequence[Scene]) -> Counter[str] | None:
    """Counts the kinds of all 30 ordered pairs; returns None if a pair has no clean difference."""
    kinds: Counter[str] = Counter()
    for i, scene in enumerate(scenes):
        for other in scenes[:i]:
            edits = difference(scene, other)
            if edits is None:
                return None
            kind = kind_of(edits)
            kinds[kind] += 1
            kinds[_BACK.get(kind, kind)] += 1
    return kinds


def _distance(mix: Counter[str]) -> float:
    total = sum(mix.values())
    return sum((mix[kind] / total / goal - 1) ** 2 for kind, goal in GOAL.items())


# ---- Proposals. A thing in focus takes several states (a place, a name and a size, or absent: None); the things around
# it stay, are swapped, or one of them changes too.


def _propose(allowed: AllowedScenes, rng: Random) -> list[Scene] | None:
    """Draws six scenes, or None if this try failed; their differences are not yet checked."""
    around = _background(allowed, rng)
    if around is None:
        return None
    shape = rng.random()
    if shape < SWAPPED and len(around) >= 2:  # two arrangements of the background x three states
        states = _states(around, allowed, rng, 3)
        one, other = rng.sample(around, 2)
        swapped = [t for t in around if t not in (one, other)]
        swapped += [_put(one.name, other.place, one.size, rng), _put(other.name, one.place, other.size, rng)]
        members = [_with(things, state) for things in (around, swapped) for state in states]
    elif shape < SWAPPED + ELSEWHERE:  # five states, and one of them with a change elsewhere
        states = _states(around, allowed, rng, 5)
        members = [_with(around, state) for state in states]
        members += [_with(_changed(around, allowed, rng), state) for state in states[:1]]
    else:
        members = [_with(around, state) for state in _states(around, allowed, rng, 6)]
    scenes = [scene for scene in members if scene is not None and allowed.allows(scene.names)]
    return scenes if len(scenes) == len(set(scenes)) == len(members) == GROUP_SIZE else None


def _with(around: Sequence[Thing], state: Thing | None) -> Scene | None:
    things = [*around, state] if state else list(around)
    names, places = {t.name for t in things}, {t.place for t in things}
    return make_scene(things) if things and len(names) == len(places) == len(things) else None


def _put(name: str, place: int, size: str, rng: Random) -> Thing:
    return Thing(place, name, size, new_jitter(rng))


def _background(allowed: AllowedScenes, rng: Random) -> list[Thing] | None:
    """Draws one to three things of a combination that the split allows; returns None if none was found."""
    count = rng.choices((1, 2, 3), BACKGROUND)[0]
    places = rng.sample(range(4), count)
    for _ in range(100):
        names = rng.sample(allowed.seen, count)
        if allowed.held_out and rng.random() < 0.5:
            names[0] = rng.choice(allowed.held_out)
        things = [_put(name, place, rng.choice(SIZES), rng) for name, place in zip(names, places, strict=True)]
        if allowed.allows(names):
            return things
    return None


def _names_beside(around: Sequence[Thing], allowed: AllowedScenes, rng: Random, count: int) -> list[str]:
    """Draws names that together with the background's make a combination of this split."""
    names: list[str] = []
    pool, others = allowed.held_out or allowed.seen, [thing.name for thing in around]
    for _ in range(40 * count):
        name = rng.choice(pool)
        if name not in others and name not in names and allowed.allows([*others, name]):
            names.append(name)
            if len(names) == count:
                break
    return names


def _states(around: Sequence[Thing], allowed: AllowedScenes, rng: Random, count: int) -> list[Thing | None]:
    """Draws different states of one thing, each one step from an earlier one; fewer than `count` if that fails."""
    renamed = rng.random() < RENAMED
    weights = (12, 1, 1) if renamed else (0, 1, 1)
    names = _names_beside(around, allowed, rng, count if renamed else 1)
    places = [place for place in range(4) if all(t.place != place for t in around)]
    if not names:
        return []
    first = _put(names[0], rng.choice(places), rng.choice(SIZES), rng)
    states: list[Thing | None] = [first]
    if rng.random() < ABSENT:
        states.append(None)
    for _ in range(4 * count):
        if len(states) == count:
            break
        state = _step(rng.choice([s for s in states if s]), names, places, weights, rng)
        if state not in states:
            states.append(state)
    return states


def _step(state: Thing, names: Sequence[str], places: Sequence[int], weights: Sequence[int], rng: Random) -> Thing:
    way = rng.choices(("replace", "move", "resize"), weights)[0]
    if way == "replace":
        return _put(rng.choice(names), state.place, state.size, rng)
    if way == "move":
        return _put(state.name, rng.choice(places), state.size, rng)
    return _put(state.name, state.place, "small" if state.size == "large" else "large", rng)


def _changed(around: Sequence[Thing], allowed: AllowedScenes, rng: Random) -> list[Thing]:
    """Returns the background with one thing resized, replaced, moved or removed; two may share a place then."""
    thing = rng.choice(around)
    rest = [other for other in around if other is not thing]
    changes = (
        _put(thing.name, thing.place, "small" if thing.size == "large" else "large", rng),
        _put(rng.choice(allowed.seen), thing.place, thing.size, rng),
        _put(thing.name, rng.randrange(4), thing.size, rng),
        None,
    )
    change = rng.choice(changes)
    return [*rest, change] if change else rest
