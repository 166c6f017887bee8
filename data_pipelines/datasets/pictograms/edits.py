"""Edits that turn one scene into another.

Within a composed scene all names differ, so that a name stands for one thing.
"""

# Which fields an Edit has follows from its operation; a type checker can't know.
# pyright: reportArgumentType=false, reportOptionalOperand=false
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import permutations
from random import Random

from data_pipelines.datasets.pictograms.scenes import Scene, Thing, make_scene

OPERATIONS = ("add", "remove", "replace", "move", "swap", "resize")
TWO_STEP, THREE_STEP = "two-step", "three-step"
KINDS = (*OPERATIONS, TWO_STEP)


@dataclasses.dataclass(frozen=True)
class Edit:
    """One operation on the thing called `name`; which other fields are set depends on the operation.

    add: `place` and `size`. replace: `other`, the new name in the same place and size. move: `place`, an empty one.
    swap: `other`, the thing to change places with. resize: `size`. remove: none.
    """

    operation: str
    name: str
    place: int | None = None
    size: str | None = None
    other: str | None = None

    @property
    def touched(self) -> set[str]:
        """Names of the things that the edit changes or adds."""
        return {self.name} if self.other is None else {self.name, self.other}


def kind_of(edits: Sequence[Edit]) -> str:
    """Returns the kind of one to three edits: the operation's name, "two-step" or "three-step"."""
    return (edits[0].operation, TWO_STEP, THREE_STEP)[len(edits) - 1]


def new_jitter(rng: Random) -> tuple[float, float]:
    """Draws the offset of a thing that is added or moved."""
    return (round(rng.uniform(-1, 1), 3), round(rng.uniform(-1, 1), 3))


def apply(edit: Edit, scene: Scene, rng: Random | None = None) -> Scene:
    """Returns the scene after an edit. The things that it touches get a new jitter from `rng`, the rest keep theirs.

    Raises:
      ValueError: the edit does not apply; for example, the thing that it removes is not there.
    """
    things = {thing.name: thing for thing in scene.things}

    def known(name: str) -> Thing:
        if name not in things:
            raise ValueError(f"Got an edit of '{name}', but the scene shows {sorted(things)}.")
        return things[name]

    def put(name: str, place: int, size: str) -> None:
        things[name] = Thing(place, name, size, new_jitter(rng) if rng else (0.0, 0.0))

    def need(condition: bool) -> None:
        if not condition:
            raise ValueError(f"{edit} does not apply to {scene}.")

    if edit.operation == "add":
        need(edit.name not in things and all(t.place != edit.place for t in scene.things))
        put(edit.name, edit.place, edit.size)
        return make_scene(things.values())
    thing = known(edit.name)
    if edit.operation == "remove":
        del things[edit.name]
    elif edit.operation == "replace":
        need(edit.other not in things)
        del things[edit.name]
        put(edit.other, thing.place, thing.size)
    elif edit.operation == "move":
        need(all(t.place != edit.place for t in scene.things))
        put(edit.name, edit.place, thing.size)
    elif edit.operation == "swap":
        other = known(edit.other)
        need(other is not thing)
        put(thing.name, other.place, thing.size)
        put(other.name, thing.place, other.size)
    elif edit.operation == "resize":
        need(edit.size != thing.size)
        put(thing.name, thing.place, edit.size)
    else:
        raise ValueError(f"Got the operation '{edit.operation}', expected one of {OPERATIONS}.")
    return make_scene(things.values())


def difference(reference: Scene, target: Scene, *, most: int = 2) -> tuple[Edit, ...] | None:
    """Returns the at most `most` edits that turn `reference` into `target`, in an order that works; None without any.

    Each change has one reading: a new thing in the place of a removed one of the same size is a replacement (of another
    size: there is no clean answer), and two things that exchanged places are a swap. So nothing is ever added and
    removed again, or replaced and then changed.
    """
    before = {thing.name: thing for thing in reference.things}
    after = {thing.name: thing for thing in target.things}
    gone = {thing.place: thing for name, thing in before.items() if name not in after}
    was_at = {thing.place: name for name, thing in before.items()}
    edits: list[Edit] = []
    for name, new in after.items():
        old = before.get(name)
        if old is None:
            replaced = gone.pop(new.place, None)
            if replaced is None:
                edits.append(Edit("add", name, new.place, new.size))
            elif replaced.size == new.size:
                edits.append(Edit("replace", replaced.name, other=name))
            else:
                return None
            continue
        if old.place != new.place:
            other = was_at.get(new.place)
            if other in after and after[other].place == old.place:
                if name < other:  # said once for the two
                    edits.append(Edit("swap", name, other=other))
            else:
                edits.append(Edit("move", name, new.place))
        if old.size != new.size:
            edits.append(Edit("resize", name, size=new.size))
        if len(edits) > most:
            return None
    edits.extend(Edit("remove", thing.name) for thing in gone.values())
    if not 1 <= len(edits) <= most:
        return None
    if len(edits) == 3:
        return next((order for order in permutations(edits) if steps(order, reference) is not None), None)
    if edits[0].place in was_at:  # taken, until the other edit has cleared it
        edits.reverse()
    return tuple(edits)


def steps(edits: Sequence[Edit], scene: Scene) -> Scene | None:
    """Returns the scene after all edits, one after the other; None if one of them does not apply."""
    for edit in edits:
        try:
            scene = apply(edit, scene)
        except ValueError:
            return None
    return scene
