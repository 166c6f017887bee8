"""Edits that turn one scene into another, and the texts that ask for them.

`difference` finds the edits between two scenes, `phrase` words them as a person would. What a text
means is decided elsewhere, by `reading.read`, which knows nothing of the edits.

Within a composed scene all names differ, so "the dog" is unambiguous.
"""

# Which fields an Edit has follows from its operation; a type checker can't know.
# pyright: reportArgumentType=false, reportOptionalOperand=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from random import Random

from data_pipelines.datasets.pictograms.scene import PLACES, Scene, Thing, make_scene
from data_pipelines.datasets.pictograms.vocabulary import a

OPERATIONS = ("add", "remove", "replace", "move", "swap", "resize")
TWO_STEP = "two-step"
KINDS = (*OPERATIONS, TWO_STEP)
MIN_WORDS, MAX_WORDS = 3, 18
MAX_CAPTION_WORDS = 30

_SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
_VERTICAL = {0: 2, 1: 3, 2: 0, 3: 1}  # place -> the place above or below it
_HORIZONTAL = {0: 1, 1: 0, 2: 3, 3: 2}  # place -> the place beside it


@dataclasses.dataclass(frozen=True)
class Edit:
    """One operation on the thing called `name`; which other fields count depends on the operation.

    add: `place`, `size`. replace: `other`, the new name in the same place and size. move: `place`, an
    empty one. swap: `other`, the thing to change places with. resize: `size`. remove: none.
    """

    operation: str
    name: str
    place: int | None = None
    size: str | None = None
    other: str | None = None

    @property
    def touched(self) -> set[str]:
        """Names of the things the edit changes or brings."""
        return {self.name} if self.other is None else {self.name, self.other}


def kind_of(edits: Sequence[Edit]) -> str:
    """One of `KINDS`: the operation's name, or two-step."""
    return edits[0].operation if len(edits) == 1 else TWO_STEP


def new_jitter(rng: Random) -> tuple[float, float]:
    """A random offset for a thing that is put down anew."""
    return (round(rng.uniform(-1, 1), 3), round(rng.uniform(-1, 1), 3))


def apply(edit: Edit, scene: Scene, rng: Random | None = None) -> Scene:
    """The scene after the edit. What it touches gets a new jitter from `rng`, the rest keeps its own.

    Raises ValueError if the edit does not apply, e.g. if what it removes is not there.
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


def difference(reference: Scene, target: Scene) -> tuple[Edit, ...] | None:
    """The one or two edits that turn `reference` into `target`, in an order that works; None if there is no clean one.

    Each change has one reading: a new thing in the place of a gone one of the same size is a replacement
    (of another size: no clean answer), two things that exchanged places are a swap. So nothing is ever
    added and taken away again, or replaced and then changed.
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
        if len(edits) > 2:
            return None
    edits.extend(Edit("remove", thing.name) for thing in gone.values())
    if not 1 <= len(edits) <= 2:
        return None
    if edits[0].place in was_at:  # taken, until the other edit has cleared it
        edits.reverse()
    return tuple(edits)


def steps(edits: Sequence[Edit], scene: Scene) -> Scene | None:
    """The scene after all edits one after the other; None if one of them does not apply."""
    for edit in edits:
        try:
            scene = apply(edit, scene)
        except ValueError:
            return None
    return scene


# ---- Words


@dataclasses.dataclass(frozen=True)
class _View:
    """What a clause may refer to: the scene it applies to, the reference the reader sees, what the text changes."""

    scene: Scene
    reference: Scene
    touched: set[str]

    @property
    def same_places_taken(self) -> bool:
        """Whether "the empty corner" means the same before and after the text's first step."""
        return {t.place for t in self.scene.things} == {t.place for t in self.reference.things}

    def __getitem__(self, name: str) -> Thing:
        return next(thing for thing in self.scene.things if thing.name == name)

    def unmoved(self, thing: Thing) -> bool:
        """Whether the thing is seen where the clause finds it."""
        return any(t.name == thing.name and t.place == thing.place for t in self.reference.things)


def phrase(edits: Sequence[Edit], scene: Scene, rng: Random) -> str:
    """A text of 3 to 18 words that asks for the edits, said of the reference `scene`.

    Long names of a user's own pictograms may need more words.
    """
    return _of_length(lambda: _finish(_sentence(list(edits), scene, rng), rng), MIN_WORDS, MAX_WORDS)


def _of_length(say: Callable[[], str], fewest: int, most: int) -> str:
    """The first text of a proper length; if there is none in many tries, the one that comes closest."""
    texts = []
    for _ in range(50):
        texts.append(say())
        if fewest <= len(texts[-1].split()) <= most:
            return texts[-1]
    return min(texts, key=lambda text: abs(len(text.split()) - most))


def _finish(text: str, rng: Random) -> str:
    # Most people write lower-case and no full stop; some do.
    draw = rng.random()
    if draw < 0.1:
        return text[0].upper() + text[1:] + "."
    return text + "." if draw < 0.15 else text


def _sentence(edits: list[Edit], scene: Scene, rng: Random) -> str:
    if len(edits) == 1:
        mood = rng.choices(("command", "statement", "fragment"), (6, 3, 1))[0]
        return _clause(edits[0], _View(scene, scene, edits[0].touched), rng, mood)
    if rng.random() < 0.5 and steps(edits[::-1], scene) == steps(edits, scene):
        edits.reverse()
    first, second = edits
    touched = first.touched | second.touched
    now, then = _View(scene, scene, touched), _View(apply(first, scene), scene, touched)
    if rng.random() < 0.5 and (merged := _merged(first, second, now, then, rng)):
        return merged
    if first.name == second.name and {first.operation, second.operation} == {"move", "resize"}:
        return (
            _clause(first, now, rng, "command") + rng.choice(_JOINTS["command"]) + _clause_about_it(second, then, rng)
        )
    mood = rng.choices(("command", "statement"), (3, 1))[0]
    left, right = _clause(first, now, rng, mood), _clause(second, then, rng, mood)
    # After "the dog and the cat" a bare "and" would be hard to follow.
    joints = _CLEAR_JOINTS if " and " in left + right else _JOINTS[mood]
    return left + rng.choice(joints) + right


_JOINTS = {
    "command": (
        " and ",
        " and ",
        " and ",
        ", and ",
        ", then ",
        " and then ",
        "; then ",
        " and also ",
        ", and also ",
        "; ",
    ),
    "statement": (" and ", " and ", ", and ", "; "),
}
_CLEAR_JOINTS = (", and ", ", and ", "; ", ", and also ")


def _merged(first: Edit, second: Edit, now: _View, then: _View, rng: Random) -> str | None:
    """One clause for two edits of the same sort: "remove the dog and the cat"."""
    if first.operation != second.operation:
        return None
    x, y = first.name, second.name
    if first.operation == "remove":
        return rng.choice(
            (
                f"remove the {x} and the {y}",
                f"remove both the {x} and the {y}",
                f"take away the {x} and the {y}",
                f"get rid of the {x} and the {y}",
                f"no {x} and no {y}",
                f"without the {x} and the {y}",
            )
        )
    if first.operation == "resize" and first.size == second.size:
        word = _size_word(first.size, rng)
        more = _comparative(first.size, rng)
        return rng.choice(
            (
                f"make the {x} and the {y} {word}",
                f"make both the {x} and the {y} {more}",
                f"the {x} and the {y} are {more}",
                f"the {x} and the {y} should be {word}",
                f"{_verb(first.size)} the {x} and the {y}",
            )
        )
    if first.operation == "add":
        one = f"{_new(x, first.size, rng)} {_where(first.place, now, rng)}"
        two = f"{_new(y, second.size, rng)} {_where(second.place, then, rng)}"
        return f"{rng.choice(('add', 'add', 'put', 'there should be', 'include'))} {one} and {two}"
    if first.operation == "replace":
        verb, joint = rng.choice((("replace", "with"), ("swap", "for"), ("exchange", "for")))
        return f"{verb} the {x} {joint} {a(first.other)} and the {y} {joint} {a(second.other)}"
    if first.operation == "move":
        one, two = _in_corner(first.place, rng, "to"), _in_corner(second.place, rng, "to")
        return f"move the {x} {one} and the {y} {two}"
    return None


def _clause(edit: Edit, view: _View, rng: Random, mood: str) -> str:
    """One edit in words."""
    wording = _WORDING[edit.operation](edit, view, rng)
    return rng.choice(wording.get(mood) or wording["command"])


# Each wording returns {mood: clauses}: commands ("remove the dog"), statements ("the dog is gone")
# and fragments ("without the dog"). Two steps are told in one mood; fragments stand alone.


def _add(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    new = _new(edit.name, edit.size, rng)
    where = _where(edit.place, view, rng)
    verb = rng.choice(("add", "add", "put", "place", "include"))
    return {
        "command": [f"{verb} {new} {where}"],
        "statement": [
            f"there is also {new} {where}",
            f"there is now {new} {where}",
            f"there should be {new} {where}",
            f"{where} there is {new}",
        ],
        "fragment": [f"with {new} {where}", f"also {new} {where}"],
    }


def _remove(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    thing = view[edit.name]
    name, the = edit.name, _the(thing, view, rng)
    command = [f"remove {the}", f"remove {the}", f"take away {the}", f"take the {name} away", f"take out {the}"]
    command += [f"get rid of {the}", f"delete {the}"]
    if view.unmoved(thing):
        command += [f"clear the {_corner(thing.place, rng)}", f"remove the thing {_in_corner(thing.place, rng)}"]
    return {
        "command": command,
        "statement": [f"{the} is gone", f"the {name} is no longer there", f"there is no {name} anymore"],
        "fragment": [f"without {the}", f"no more {name}", f"same picture without {the}"],
    }


def _replace(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    thing = view[edit.name]
    the = _the(thing, view, rng)
    new = _new(edit.other, thing.size, rng) if rng.random() < 0.2 else a(edit.other)
    command = [
        f"replace {the} with {new}",
        f"replace {the} with {new}",
        f"replace {the} by {new}",
        f"swap {the} for {new}",
        f"exchange {the} for {new}",
        f"change {the} to {new}",
        f"change {the} into {new}",
        f"turn {the} into {new}",
        f"put {new} in place of {the}",
    ]
    if view.unmoved(thing):
        command.append(f"replace the thing {_in_corner(thing.place, rng)} with {new}")
    return {
        "command": command,
        "statement": [f"{the} becomes {new}", f"{the} is replaced by {new}", f"there is {new} where {the} was"],
        "fragment": [f"{new} instead of {the}", f"has {new} instead of {the}"],
    }


def _move(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    name, start = edit.name, view[edit.name].place
    verb = rng.choice(("move", "move", "bring", "shift"))
    if edit.place == _VERTICAL[start] and rng.random() < 0.4:
        way = "down" if edit.place >= 2 else "up"
        return {
            "command": [f"move the {name} {way}", f"shift the {name} {way}"],
            "statement": [f"the {name} moves {way}"],
        }
    if edit.place == _HORIZONTAL[start] and rng.random() < 0.4:
        side = "right" if edit.place % 2 else "left"
        command = [f"move the {name} to the {side}", f"shift the {name} to the {side}"]
        return {
            "command": [*command, f"slide the {name} over to the {side}"],
            "statement": [f"the {name} moves to the {side}"],
        }
    where, placed = _where(edit.place, view, rng, "to"), _where(edit.place, view, rng)
    return {
        "command": [f"{verb} the {name} {where}", f"put the {name} {placed}", f"place the {name} {placed}"],
        "statement": [
            f"the {name} moves {where}",
            f"the {name} is {placed} now",
            f"the {name} is now {placed}",
            f"the {name} should be {placed}",
        ],
    }


def _swap(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    x, y = rng.sample((edit.name, edit.other), 2)
    return {
        "command": [
            f"swap the {x} and the {y}",
            f"swap the {x} with the {y}",
            f"switch the {x} and the {y}",
            f"exchange the {x} and the {y}",
            f"swap the places of the {x} and the {y}",
            f"switch the positions of the {x} and the {y}",
            f"let the {x} and the {y} swap places",
        ],
        "statement": [
            f"the {x} and the {y} trade places",
            f"the {x} and the {y} change places",
            f"the {x} is where the {y} was and vice versa",
        ],
    }


def _resize(edit: Edit, view: _View, rng: Random) -> dict[str, list[str]]:
    thing = view[edit.name]
    name, the = edit.name, _the(thing, view, rng)
    word, more, verb = _size_word(edit.size, rng), _comparative(edit.size, rng), _verb(edit.size)
    command = [f"make the {name} {word}", f"make {the} {more}", f"{verb} {the}", f"{verb} the {name}"]
    if view.unmoved(thing):
        command.append(f"make the thing {_in_corner(thing.place, rng)} {more}")
    return {
        "command": command,
        "statement": [
            f"the {name} is {more}",
            f"the {name} should be {word}",
            f"the {name} gets {more}",
            f"the {name} is {word} now",
        ],
    }


def _clause_about_it(edit: Edit, view: _View, rng: Random) -> str:
    if edit.operation == "resize":
        return rng.choice(
            (
                f"make it {_comparative(edit.size, rng)}",
                f"make it {_size_word(edit.size, rng)}",
                f"{_verb(edit.size)} it",
            )
        )
    where = _where(edit.place, view, rng, "to")
    placed = _where(edit.place, view, rng)
    return rng.choice((f"move it {where}", f"bring it {where}", f"put it {placed}"))


_WORDING = {"add": _add, "remove": _remove, "replace": _replace, "move": _move, "swap": _swap, "resize": _resize}


def _the(thing: Thing, view: _View, rng: Random) -> str:
    """The thing by its name, now and then by size or place too."""
    draw = rng.random()
    if draw < 0.15:
        return f"the {_size_word(thing.size, rng)} {thing.name}"
    if draw < 0.25 and view.unmoved(thing):
        return f"the {thing.name} {_in_corner(thing.place, rng)}"
    return f"the {thing.name}"


def _new(name: str, size: str, rng: Random) -> str:
    word = _size_word(size, rng)
    return f"a {word} {name}"


def _size_word(size: str, rng: Random) -> str:
    return rng.choice(_SIZE_WORDS[size])


def _comparative(size: str, rng: Random) -> str:
    return "smaller" if size == "small" else rng.choice(("larger", "bigger"))


def _verb(size: str) -> str:
    return "shrink" if size == "small" else "enlarge"


def _corner(place: int, rng: Random) -> str:
    return PLACES[place] + rng.choice((" corner", ""))


def _in_corner(place: int, rng: Random, preposition: str = "in") -> str:
    return f"{preposition} the {_corner(place, rng)}"


def _where(place: int, view: _View, rng: Random, preposition: str = "in") -> str:
    """An empty place in words that single it out: by its corner, or by a neighbour that stays as it is."""
    around = [thing for thing in view.scene.things if thing.name not in view.touched]
    taken = {thing.place for thing in view.scene.things} if view.same_places_taken else set()
    if len(taken) == 3 and rng.random() < 0.15:
        return f"{preposition} the {rng.choice(('empty', 'free'))} corner"
    if not around or rng.random() < 0.45:
        return _in_corner(place, rng, preposition)
    return _beside(place, rng.choice(around), rng, taken) or _in_corner(place, rng, preposition)


def _beside(place: int, anchor: Thing, rng: Random, taken: set[int]) -> str | None:
    """The place seen from the anchor; from across the canvas mostly None."""
    the = f"the {anchor.name}"
    if place == _VERTICAL[anchor.place]:
        return rng.choice(("below", "below", "under") if place >= 2 else ("above",)) + f" {the}"
    if place == _HORIZONTAL[anchor.place]:
        side = "right" if place % 2 else "left"
        options = [f"to the {side} of {the}"] * 2 + [f"on the {side} of {the}"]
        if _VERTICAL[anchor.place] in taken:  # else "next to" could be above or below
            options += [f"next to {the}", f"beside {the}"]
        return rng.choice(options)
    return f"diagonally across from {the}" if rng.random() < 0.3 else None


# ---- Captions


def caption(scene: Scene, rng: Random) -> str:
    """A true description of the scene that gives every thing's size and place, in at most 30 words.

    Long names of a user's own pictograms may need more words.
    """
    return _of_length(lambda: _description(scene, rng), 1, MAX_CAPTION_WORDS)


def _description(scene: Scene, rng: Random) -> str:
    things = rng.sample(scene.things, len(scene.things))
    corner_first = rng.random() < 0.15
    few = len(things) < 4  # four things leave no room for words that can be spared
    parts: list[str] = []
    for i, thing in enumerate(things):
        new = _new(thing.name, thing.size, rng)
        where = _caption_place(thing, things[:i], rng)
        if not few:
            where = where.removesuffix(" corner")
        if corner_first:
            parts.append(f"in the {PLACES[thing.place]} {new}")
        else:
            parts.append(f"{new} {where}")
    if corner_first:
        text = _listed([parts[0].replace(" a ", " there is a ", 1), *parts[1:]])
    else:
        start = rng.choice(("", "", "", "there is ", "a picture of ", "a picture with ", "we see ")) if few else ""
        text = start + _listed(parts)
    return _finish(text, rng)


def _caption_place(thing: Thing, before: list[Thing], rng: Random) -> str:
    if not before or rng.random() < 0.5:
        return _in_corner(thing.place, rng)
    if len(before) == 1:
        first = dataclasses.replace(before[0], name="_")
        seen = _beside(thing.place, first, rng, set())
        return seen.replace("the _", "it") if seen else _in_corner(thing.place, rng)
    return _beside(thing.place, rng.choice(before), rng, set()) or _in_corner(thing.place, rng)


def _listed(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " and " + parts[-1]
