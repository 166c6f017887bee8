"""Sets of ten nearly identical scenes, with descriptions that each pick one of them.

A set starts from a base scene; its other nine members are the base after one or two small edits. The member that a
description is about is drawn before the set is made and kept through every retry, so neither the base nor a scene that
is easy to describe is the target more often than another: a model that ignores the text scores 10 % by construction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from random import Random

from data_pipelines.datasets.pictograms.descriptions import describe, options_about, tell_apart
from data_pipelines.datasets.pictograms.scenes import PLACES, SIZES, Scene, Thing, make_scene, share_of

CANDIDATES = 10
DESCRIPTIONS = 2  # in a set, each of another target
TRAIN_DESCRIPTIONS = CANDIDATES  # with two, a model memorises the texts of 3,000 sets
PAIRS = 5  # short statements that tell a described candidate from one other
FEW = 5  # scenes of a task that is larger than a pair and smaller than a set
FEW_TEXTS = 2  # short statements that tell a described candidate from FEW - 1 others
SECOND_EDIT_SHARE = 0.35
REPEATED_NAME_SHARE = 0.3  # of the base scenes: two things of one name, to be counted
BASE_THINGS = (2, 3, 3, 3, 4)  # drawn uniformly
RANGES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}  # of share_of(names)
SPLITS = (*RANGES, "unseen")

Accept = Callable[[Scene], bool]  # returns whether a scene may appear in a split


@dataclasses.dataclass(frozen=True)
class CandidateSet:
    """Ten different scenes and texts about them.

    Attributes:
      scenes: the candidates.
      descriptions: (target index, text) each, no target twice.
      base: the index of the scene that the others were made from, for tests of fairness.
      pairs: (right index, wrong index, text) of short statements, true of the one scene and false of the other.
      few: the same with several wrong indices, FEW scenes in all: (right index, wrong indices, text).
    """

    scenes: tuple[Scene, ...]
    descriptions: tuple[tuple[int, str], ...]
    base: int
    pairs: tuple[tuple[int, int, str], ...] = ()
    few: tuple[tuple[int, tuple[int, ...], str], ...] = ()


def make_set(
    names: Sequence[str], rng: Random, *, accept: Accept = lambda scene: True, descriptions: int = DESCRIPTIONS
) -> CandidateSet:
    """Draws one candidate set over `names`; every scene in it passes `accept`.

    Raises:
      ValueError: `names` are too few for ten similar scenes.
    """
    roles = rng.sample(range(CANDIDATES), descriptions)  # 0 is the base, the others are edits of it
    for _ in range(1000):
        scenes = _similar_scenes(names, accept, rng)
        if scenes is None:
            continue
        order = rng.sample(range(CANDIDATES), CANDIDATES)  # order[index] = role
        shuffled = tuple(scenes[role] for role in order)
        texts, pairs, few = [], [], []
        for role in roles:
            index = order.index(role)
            others = shuffled[:index] + shuffled[index + 1 :]
            options = options_about(shuffled[index], others)
            text = describe(shuffled[index], others, rng, options=options)
            if text is None:
                break
            texts.append((index, text))
            for (other,), statement in tell_apart(options, Random(text), count=PAIRS):
                pairs.append((index, other + (other >= index), statement))
            for wrong, statement in tell_apart(options, Random(f"few/{text}"), count=FEW_TEXTS, others=FEW - 1):
                few.append((index, tuple(other + (other >= index) for other in wrong), statement))
        if len(texts) == len(roles):
            return CandidateSet(shuffled, tuple(texts), order.index(0), tuple(pairs), tuple(few))
    raise ValueError(
        f"Got {len(names)} pictogram names, with which no set of {CANDIDATES} similar scenes could be found: "
        "add pictograms (about 20 are enough)."
    )


def _similar_scenes(names: Sequence[str], accept: Accept, rng: Random) -> list[Scene] | None:
    """Draws a base scene and nine different edits of it; returns None when the base has too few."""
    base = _base_scene(names, accept, rng)
    if base is None:
        return None
    # The set speaks of few names: its edits bring in the same one or two newcomers again and again.
    newcomers = rng.sample([name for name in names if name not in base.names], 3)
    scenes = [base]
    for _ in range(20 * CANDIDATES):
        scene = edit(base, newcomers, names, accept, rng)
        if scene is not None and rng.random() < SECOND_EDIT_SHARE:
            scene = edit(scene, newcomers, names, accept, rng)
        if scene is not None and scene not in scenes:
            scenes.append(scene)
            if len(scenes) == CANDIDATES:
                return scenes
    return None


def _base_scene(names: Sequence[str], accept: Accept, rng: Random) -> Scene | None:
    """Draws an accepted scene with a thing that can be removed; without it, splits would differ in their edits."""
    for _ in range(2000):
        count = rng.choice(BASE_THINGS)
        chosen = rng.sample(names, count)
        if rng.random() < REPEATED_NAME_SHARE:
            chosen[1] = chosen[0]
        places = rng.sample(range(len(PLACES)), count)
        things = [
            Thing(place, name, rng.choice(SIZES), _jitter(rng)) for place, name in zip(places, chosen, strict=True)
        ]
        scene = make_scene(things)
        if accept(scene) and any(accept(_without(scene, thing)) for thing in things):
            return scene
    return None


def _jitter(rng: Random) -> tuple[float, float]:
    return rng.uniform(-1, 1), rng.uniform(-1, 1)


def _without(scene: Scene, thing: Thing) -> Scene:
    return make_scene(t for t in scene.things if t.place != thing.place)


# --- Edits: scene -> scene, or None where the edit is not possible


def edit(scene: Scene, newcomers: Sequence[str], names: Sequence[str], accept: Accept, rng: Random) -> Scene | None:
    """Makes one random small edit. Names that come in are of `newcomers` if the split allows, else of `names`."""
    change = rng.choice((_move, _move, _resize, _resize, _replace, _replace, _add, _remove, _duplicate, _swap))
    changed = change(scene, rng, _newcomer_order(scene, newcomers, names, rng), accept)
    return changed if changed is not None and accept(changed) else None


def _newcomer_order(scene: Scene, newcomers: Sequence[str], names: Sequence[str], rng: Random) -> list[str]:
    """Returns the names to try one after another: the set's newcomers first, then any."""
    present = set(scene.names)
    return [n for n in (*rng.sample(newcomers, len(newcomers)), *rng.sample(names, len(names))) if n not in present]


def _free_places(scene: Scene) -> list[int]:
    return [place for place in range(len(PLACES)) if all(t.place != place for t in scene.things)]


def _with(scene: Scene, old: Thing, **changes) -> Scene:
    return make_scene([*(t for t in scene.things if t.place != old.place), dataclasses.replace(old, **changes)])


def _move(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    free = _free_places(scene)
    return _with(scene, rng.choice(scene.things), place=rng.choice(free)) if free else None


def _resize(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene:
    thing = rng.choice(scene.things)
    return _with(scene, thing, size=SIZES[1 - SIZES.index(thing.size)])


def _replace(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    thing = rng.choice(scene.things)
    return next((s for name in order if accept(s := _with(scene, thing, name=name))), None)


def _add(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if not (free := _free_places(scene)):
        return None
    thing = Thing(rng.choice(free), "", rng.choice(SIZES), _jitter(rng))
    added = (make_scene([*scene.things, dataclasses.replace(thing, name=name)]) for name in order)
    return next((s for s in added if accept(s)), None)


def _remove(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if len(scene.things) < 2:
        return None
    fewer = [s for thing in scene.things if accept(s := _without(scene, thing))]
    return rng.choice(fewer) if fewer else None


def _duplicate(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    """Puts a second thing of a name into a free place, or in the place of another thing."""
    made = []
    for thing in scene.things:
        for place in range(len(PLACES)):
            if place != thing.place:
                twin = dataclasses.replace(thing, place=place, jitter=_jitter(rng))
                made.append(make_scene([*(t for t in scene.things if t.place != place), twin]))
    made = [s for s in made if s != scene and accept(s)]
    return rng.choice(made) if made else None


def _swap(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if len(scene.things) < 2:
        return None
    one, two = rng.sample(scene.things, 2)
    rest = [t for t in scene.things if t.place not in (one.place, two.place)]
    swapped = dataclasses.replace(one, place=two.place), dataclasses.replace(two, place=one.place)
    return make_scene([*rest, *swapped])


# --- Splits


def split_accept(split: str, held_out: frozenset[str]) -> Accept:
    """Returns the test for a split's scenes: splits are cut by the combination of names, so none is in two of them."""
    if split == "unseen":
        return lambda scene: any(t.name in held_out for t in scene.things)
    low, high = RANGES[split]
    return lambda scene: low <= share_of(scene.names) < high


def names_of(split: str, seen: Sequence[str], held_out: Sequence[str]) -> Sequence[str]:
    """Returns the names that a split's sets are drawn from."""
    if split == "unseen":  # a few held-out names of a small folder are shown among the others
        return held_out if len(held_out) >= 8 else (*held_out, *seen)
    return seen


def set_of(
    split: str, index: int, seen: Sequence[str], held_out: Sequence[str], *, seed: int = 0, descriptions: int = 0
) -> CandidateSet:
    """Makes the `index`-th candidate set of a split, a pure function of the arguments."""
    names = names_of(split, seen, held_out)
    rng = Random(f"imagecode/{seed}/{split}/{index}")
    count = descriptions or (TRAIN_DESCRIPTIONS if split == "train" else DESCRIPTIONS)
    return make_set(names, rng, accept=split_accept(split, frozenset(held_out)), descriptions=count)
