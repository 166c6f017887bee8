"""Modification texts, worded as a person would.

The meaning of a text is defined in `text_parser`, which knows nothing of the edits behind it.
"""

# Which fields an Edit has follows from its operation, which a type checker cannot know.
# pyright: reportArgumentType=false, reportOptionalOperand=false, reportReturnType=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import permutations
from random import Random

from data_pipelines.datasets.pictograms.edits import Edit, apply, steps
from data_pipelines.datasets.pictograms.names import a
from data_pipelines.datasets.pictograms.scenes import PLACES, Scene, Thing

MIN_WORDS, MAX_WORDS = 3, 18

_SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
_VERTICAL = {0: 2, 1: 3, 2: 0, 3: 1}  # place -> the place above or below it
_HORIZONTAL = {0: 1, 1: 0, 2: 3, 3: 2}  # place -> the place beside it

# Operation -> mood -> clauses. Two steps are worded in one mood; fragments stand alone. Where an operation lacks a
# mood, its commands are used. The clauses of "unmoved" are commands for things that are where the reader sees them.
_CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "add": {
        "command": ("{verb} {new} {where}",),
        "statement": (
            "there is also {new} {where}", "there is now {new} {where}", "there should be {new} {where}",
            "{where} there is {new}",
        ),
        "fragment": ("with {new} {where}", "also {new} {where}"),
    },
    "remove": {
        "command": (
            "remove {the}", "remove {the}", "take away {the}", "take the {name} away", "take out {the}",
            "get rid of {the}", "delete {the}",
        ),
        "unmoved": ("clear the {corner}", "remove the thing {in_corner}"),
        "statement": ("{the} is gone", "the {name} is no longer there", "there is no {name} anymore"),
        "fragment": ("without {the}", "no more {name}", "same picture without {the}"),
    },
    "replace": {
        "command": (
            "replace {the} with {new}", "replace {the} with {new}", "replace {the} by {new}", "swap {the} for {new}",
            "exchange {the} for {new}", "change {the} to {new}", "change {the} into {new}", "turn {the} into {new}",
            "put {new} in place of {the}",
        ),
        "unmoved": ("replace the thing {in_corner} with {new}",),
        "statement": ("{the} becomes {new}", "{the} is replaced by {new}", "there is {new} where {the} was"),
        "fragment": ("{new} instead of {the}", "has {new} instead of {the}"),
    },
    "move": {
        "command": ("{verb} the {name} {where}", "put the {name} {placed}", "place the {name} {placed}"),
        "statement": (
            "the {name} moves {where}", "the {name} is {placed} now", "the {name} is now {placed}",
            "the {name} should be {placed}",
        ),
    },
    "move up or down": {
        "command": ("move the {name} {way}", "shift the {name} {way}"),
        "statement": ("the {name} moves {way}",),
    },
    "move sideways": {
        "command": (
            "move the {name} to the {side}", "shift the {name} to the {side}", "slide the {name} over to the {side}",
        ),
        "statement": ("the {name} moves to the {side}",),
    },
    "swap": {
        "command": (
            "swap the {x} and the {y}", "swap the {x} with the {y}", "switch the {x} and the {y}",
            "exchange the {x} and the {y}", "swap the places of the {x} and the {y}",
            "switch the positions of the {x} and the {y}", "let the {x} and the {y} swap places",
        ),
        "statement": (
            "the {x} and the {y} trade places", "the {x} and the {y} change places",
            "the {x} is where the {y} was and vice versa",
        ),
    },
    "resize": {
        "command": ("make the {name} {word}", "make {the} {more}", "{verb} {the}", "{verb} the {name}"),
        "unmoved": ("make the thing {in_corner} {more}",),
        "statement": (
            "the {name} is {more}", "the {name} should be {word}", "the {name} gets {more}", "the {name} is {word} now",
        ),
    },
}  # fmt: skip
# Operation -> clauses for two edits of that operation.
_MERGED: dict[str, tuple[str, ...]] = {
    "remove": (
        "remove the {x} and the {y}", "remove both the {x} and the {y}", "take away the {x} and the {y}",
        "get rid of the {x} and the {y}", "no {x} and no {y}", "without the {x} and the {y}",
    ),
    "resize": (
        "make the {x} and the {y} {word}", "make both the {x} and the {y} {more}", "the {x} and the {y} are {more}",
        "the {x} and the {y} should be {word}", "{verb} the {x} and the {y}",
    ),
}  # fmt: skip
# Operation -> clauses for the second edit of the same thing.
_ABOUT_IT: dict[str, tuple[str, ...]] = {
    "resize": ("make it {more}", "make it {word}", "{verb} it"),
    "move": ("move it {where}", "bring it {where}", "put it {placed}"),
}
_JOINTS = {
    "command": (" and ", " and ", " and ", ", and ", ", then ", " and then ", "; then ", " and also ", ", and also ",
                "; "),
    "statement": (" and ", " and ", ", and ", "; "),
    "clear": (", and ", ", and ", "; ", ", and also "),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _View:
    """The things that a clause may refer to: of the scene it applies to, of the reference that the reader sees."""

    scene: Scene
    reference: Scene
    touched: set[str]  # names of the things that the text changes

    @property
    def same_places_taken(self) -> bool:
        """True if "the empty corner" means the same before and after the text's first step."""
        return {t.place for t in self.scene.things} == {t.place for t in self.reference.things}

    def __getitem__(self, name: str) -> Thing:
        return next(thing for thing in self.scene.things if thing.name == name)

    def is_unmoved(self, thing: Thing) -> bool:
        """Returns whether the reader sees the thing where the clause finds it."""
        return any(t.name == thing.name and t.place == thing.place for t in self.reference.things)


def modification_text(edits: Sequence[Edit], scene: Scene, rng: Random) -> str:
    """Writes a text of 3 to 18 words (27 for three edits) that asks for the edits, said of the reference `scene`.

    Long names of a user's own pictograms may need more words.
    """
    say, most = (_sentence, MAX_WORDS) if len(edits) < 3 else (_three_steps, MAX_WORDS * 3 // 2)
    return of_length(lambda: finish(say(list(edits), scene, rng), rng), MIN_WORDS, most)


def of_length(say: Callable[[], str], fewest: int, most: int) -> str:
    """Returns the first text of a proper length; if there is none in many tries, the one that comes closest."""
    texts = []
    for _ in range(50):
        texts.append(say())
        if fewest <= len(texts[-1].split()) <= most:
            return texts[-1]
    return min(texts, key=lambda text: abs(len(text.split()) - most))


def finish(text: str, rng: Random) -> str:
    """Capitalises some texts and ends some with a full stop, as a minority of writers do."""
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
        clause = _clause(first, now, rng, "command")
        return clause + rng.choice(_JOINTS["command"]) + _clause_about_it(second, then, rng)
    mood = rng.choices(("command", "statement"), (3, 1))[0]
    left, right = _clause(first, now, rng, mood), _clause(second, then, rng, mood)
    # After "the dog and the cat" a bare "and" would be hard to follow.
    return left + rng.choice(_JOINTS["clear" if " and " in left + right else mood]) + right


def _three_steps(edits: list[Edit], scene: Scene, rng: Random) -> str:
    """Words three edits as three clauses in one mood, in an order that works."""
    orders = [list(order) for order in permutations(edits) if steps(order, scene) is not None]
    mood, reference = rng.choices(("command", "statement"), (3, 1))[0], scene
    touched = set[str]().union(*(edit.touched for edit in edits))
    clauses = []
    for edit in rng.choice(orders):
        clauses.append(_clause(edit, _View(scene, reference, touched), rng, mood))
        scene = apply(edit, scene)
    first, last = rng.choice(((", ", ", and "), (", ", " and "), ("; ", "; "), (", then ", ", and then ")))
    if any(" and " in clause for clause in clauses):  # a bare "and" would be hard to follow
        last = last.replace(" and ", ", and ") if last == " and " else last
    return clauses[0] + first + clauses[1] + last + clauses[2]


def _merged(first: Edit, second: Edit, now: _View, then: _View, rng: Random) -> str | None:
    """Words two edits of the same operation in one clause: "remove the dog and the cat"."""
    if first.operation != second.operation:
        return None
    x, y = first.name, second.name
    match first.operation:
        case "remove":
            return rng.choice(_MERGED["remove"]).format(x=x, y=y)
        case "resize" if first.size == second.size:
            words = {"word": _size_word(first.size, rng), "more": _comparative(first.size, rng)}
            return rng.choice(_MERGED["resize"]).format(x=x, y=y, verb=_resize_verb(first.size), **words)
        case "add":
            one = f"{new_thing(x, first.size, rng)} {_where(first.place, now, rng)}"
            two = f"{new_thing(y, second.size, rng)} {_where(second.place, then, rng)}"
            return f"{rng.choice(('add', 'add', 'put', 'there should be', 'include'))} {one} and {two}"
        case "replace":
            verb, joint = rng.choice((("replace", "with"), ("swap", "for"), ("exchange", "for")))
            return f"{verb} the {x} {joint} {a(first.other)} and the {y} {joint} {a(second.other)}"
        case "move":
            one, two = in_corner(first.place, rng, "to"), in_corner(second.place, rng, "to")
            return f"move the {x} {one} and the {y} {two}"
    return None


def _clause(edit: Edit, view: _View, rng: Random, mood: str) -> str:
    """Words one edit."""
    name, words = _words(edit, view, rng)
    clauses = _CLAUSES[name]
    choices = clauses.get(mood, ())
    if mood == "command" or not choices:
        choices = clauses["command"] + (clauses["unmoved"] if "in_corner" in words else ())
    return rng.choice(choices).format(**words)


def _words(edit: Edit, view: _View, rng: Random) -> tuple[str, dict[str, str]]:
    """Draws the words of an edit.

    Returns:
      (key of _CLAUSES, placeholder -> words); "in_corner" is there only for a thing that the reader sees in its place.
    """
    name, operation = edit.name, edit.operation
    if operation == "add":
        words = {"new": new_thing(name, edit.size, rng), "where": _where(edit.place, view, rng)}
        return operation, words | {"verb": rng.choice(("add", "add", "put", "place", "include"))}
    if operation == "swap":
        x, y = rng.sample((name, edit.other), 2)
        return operation, {"x": x, "y": y}
    thing = view[name]
    if operation == "move":
        return _words_of_move(edit, thing.place, view, rng)
    words = {"name": name, "the": _the(thing, view, rng)}
    if operation == "replace":
        words["new"] = new_thing(edit.other, thing.size, rng) if rng.random() < 0.2 else a(edit.other)
    elif operation == "resize":
        words |= {"word": _size_word(edit.size, rng), "more": _comparative(edit.size, rng)}
        words["verb"] = _resize_verb(edit.size)
    if view.is_unmoved(thing):
        if operation == "remove":
            words["corner"] = _corner(thing.place, rng)
        words["in_corner"] = in_corner(thing.place, rng)
    return operation, words


def _words_of_move(edit: Edit, start: int, view: _View, rng: Random) -> tuple[str, dict[str, str]]:
    name, verb = edit.name, rng.choice(("move", "move", "bring", "shift"))
    if edit.place == _VERTICAL[start] and rng.random() < 0.4:
        return "move up or down", {"name": name, "way": "down" if edit.place >= 2 else "up"}
    if edit.place == _HORIZONTAL[start] and rng.random() < 0.4:
        return "move sideways", {"name": name, "side": "right" if edit.place % 2 else "left"}
    where, placed = _where(edit.place, view, rng, "to"), _where(edit.place, view, rng)
    return "move", {"name": name, "verb": verb, "where": where, "placed": placed}


def _clause_about_it(edit: Edit, view: _View, rng: Random) -> str:
    if edit.operation == "resize":
        words = {"more": _comparative(edit.size, rng), "word": _size_word(edit.size, rng)}
        words["verb"] = _resize_verb(edit.size)
    else:
        words = {"where": _where(edit.place, view, rng, "to"), "placed": _where(edit.place, view, rng)}
    return rng.choice(_ABOUT_IT[edit.operation]).format(**words)


def _the(thing: Thing, view: _View, rng: Random) -> str:
    """Words a thing by its name, now and then by its size or place too."""
    draw = rng.random()
    if draw < 0.15:
        return f"the {_size_word(thing.size, rng)} {thing.name}"
    if draw < 0.25 and view.is_unmoved(thing):
        return f"the {thing.name} {in_corner(thing.place, rng)}"
    return f"the {thing.name}"


def new_thing(name: str, size: str, rng: Random) -> str:
    """Words a thing that comes in: "a small dog"."""
    return f"a {_size_word(size, rng)} {name}"


def _size_word(size: str, rng: Random) -> str:
    return rng.choice(_SIZE_WORDS[size])


def _comparative(size: str, rng: Random) -> str:
    return "smaller" if size == "small" else rng.choice(("larger", "bigger"))


def _resize_verb(size: str) -> str:
    return "shrink" if size == "small" else "enlarge"


def _corner(place: int, rng: Random) -> str:
    return PLACES[place] + rng.choice((" corner", ""))


def in_corner(place: int, rng: Random, preposition: str = "in") -> str:
    """Words a place by its corner: "in the top left"."""
    return f"{preposition} the {_corner(place, rng)}"


def _where(place: int, view: _View, rng: Random, preposition: str = "in") -> str:
    """Words an empty place so that it is singled out: by its corner, or by a neighbour that stays as it is."""
    around = [thing for thing in view.scene.things if thing.name not in view.touched]
    taken = {thing.place for thing in view.scene.things} if view.same_places_taken else set()
    if len(taken) == 3 and rng.random() < 0.15:
        return f"{preposition} the {rng.choice(('empty', 'free'))} corner"
    if not around or rng.random() < 0.45:
        return in_corner(place, rng, preposition)
    return beside(place, rng.choice(around), rng, taken) or in_corner(place, rng, preposition)


def beside(place: int, anchor: Thing, rng: Random, taken: set[int]) -> str | None:
    """Words a place as seen from the anchor; from across the canvas the result is mostly None."""
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
