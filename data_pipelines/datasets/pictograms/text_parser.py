"""An independent parser of modification texts and captions: text -> scene.

The parser is written against the language of the texts and not against the code that words them, so that a text with
another meaning than the edit behind it is caught (see `groups`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from data_pipelines.datasets.pictograms.scenes import PLACES, Scene, Thing, make_scene

_SIZES = {
    **dict.fromkeys(("small", "smaller", "little", "shrink"), "small"),
    **dict.fromkeys(("large", "larger", "big", "bigger", "enlarge"), "large"),
}
_SIZE = "(?:small|little|large|big)"
_CHANGE = "(smaller|small|little|larger|large|bigger|big)"
_CORNER = "((?:top|bottom) (?:left|right))(?: corner)?"
_NAME = "[a-z0-9 ]+?"
_THE = f"(the {_NAME}|it)"  # `_SUBJECT` looks closer
_NEW = f"(an? {_NAME})"
_WHERE = r"((?:in|to|above|below|under|on|next|beside|diagonally|up|down)\b.*?)"

_SUBJECT = re.compile(f"the (?:({_SIZE}) )?({_NAME})(?: in the {_CORNER})?")
_NOUN = re.compile(f"an? (?:({_SIZE}) )?({_NAME})")
_LOCATION = re.compile(
    f"(?:in|to) the {_CORNER}"
    "|(?:in|to) the (empty|free) corner"
    "|(above|below|under|to the left of|to the right of|on the left of|on the right of|next to|beside"
    f"|diagonally across from) the ({_NAME})"
)
_JOINT = re.compile(r"(?:[,;]? (?:and then|and also|and|then) |[;,] |\. )")
_LEADING_VERB = re.compile(
    r"(?:add|put|place|include|there should be|with|without|remove|take away|get rid of|replace|swap|exchange|move"
    r"|shrink|enlarge)\b"
)


class _Canvas:
    """A scene that a text edits; `it` is the place of the thing mentioned last."""

    def __init__(self, scene: Scene):
        self.things = {thing.place: (thing.name, thing.size) for thing in scene.things}
        self.it: int | None = None

    def place_of(self, name: str) -> int:
        """Returns the place of the thing called `name`. Raises ValueError: there is none."""
        for place, (other, _) in self.things.items():
            if other == name:
                return place
        raise ValueError(f"The text speaks of '{name}', which is not there.")

    def find(self, words: str) -> int:
        """Returns the place of "the small dog", "the thing in the top left" or "it"."""
        if words == "it":
            if self.it is None:
                raise ValueError("The text says 'it' of nothing.")
            return self.it
        match = _SUBJECT.fullmatch(words)
        if not match:
            raise ValueError(f"Can't parse '{words}' as a thing.")
        size, name, corner = match.groups()
        place = PLACES.index(corner) if name == "thing" and corner else self.place_of(name)
        if place not in self.things:
            raise ValueError(f"The text speaks of '{words}', where nothing is.")
        if (corner and PLACES[place] != corner) or (size and _SIZES[size] != self.things[place][1]):
            raise ValueError(f"The text speaks of '{words}', which is not true.")
        self.it = place
        return place

    def locate(self, words: str, mover: int | None = None) -> int:
        """Returns the empty place that words single out; `mover` is the present place of the thing that moves there."""
        if mover is not None and words in ("up", "down", "to the left", "to the right"):
            place = mover ^ (2 if words in ("up", "down") else 1)
            if (place > mover) != (words in ("down", "to the right")):
                raise ValueError(f"There is no way '{words}'.")
        else:
            place = self._location(words)
        if place in self.things:
            raise ValueError(f"'{words}' is not empty.")
        return place

    def _location(self, words: str) -> int:
        match = _LOCATION.fullmatch(words)
        if not match:
            raise ValueError(f"Can't parse '{words}' as a place.")
        corner, empty, relation, name = match.groups()
        if corner:
            return PLACES.index(corner)
        if empty:
            (place,) = set(range(4)) - set(self.things)
            return place
        anchor = self.place_of(name)
        beside, across = anchor ^ 1, anchor ^ 2  # places are numbered row by row, two a row
        place = {"diagonally": 3 - anchor, "above": across, "below": across, "under": across}.get(
            relation.split()[0], beside
        )
        side = "left" if "left" in relation else "right" if "right" in relation else None
        if (relation == "above" and place > anchor) or (relation in ("below", "under") and place < anchor):
            raise ValueError(f"Nothing can be {words}.")
        if side and (side == "right") != (place > anchor):
            raise ValueError(f"Nothing can be {words}.")
        return place


def _add(canvas: _Canvas, noun: str, where: str) -> None:
    size, name = _noun(noun)
    if size is None or any(name == other for other, _ in canvas.things.values()):
        raise ValueError(f"'{noun}' can't be added.")
    canvas.things[canvas.locate(where)] = (name, size)


def _remove(canvas: _Canvas, the: str) -> None:
    del canvas.things[canvas.find(the)]


def _replace(canvas: _Canvas, the: str, noun: str) -> None:
    place = canvas.find(the)
    size, name = _noun(noun)
    if size not in (None, canvas.things[place][1]):
        raise ValueError(f"'{noun}' is not of the size of what it replaces.")
    canvas.things[place] = (name, canvas.things[place][1])


def _move(canvas: _Canvas, the: str, where: str) -> None:
    place = canvas.find(the)
    goal = canvas.locate(where, place)
    canvas.things[goal] = canvas.things.pop(place)
    canvas.it = goal


def _swap(canvas: _Canvas, one: str, other: str) -> None:
    p, q = canvas.find(one), canvas.find(other)
    canvas.things[p], canvas.things[q] = canvas.things[q], canvas.things[p]


def _resize(canvas: _Canvas, the: str, word: str) -> None:
    place = canvas.find(the)
    name, size = canvas.things[place]
    if size == _SIZES[word]:
        raise ValueError(f"The {name} is {size} already.")
    canvas.things[place] = (name, _SIZES[word])


def _resize_both(canvas: _Canvas, one: str, other: str, word: str) -> None:
    _resize(canvas, one, word)
    _resize(canvas, other, word)


def _noun(words: str) -> tuple[str | None, str]:
    match = _NOUN.fullmatch(words)
    if not match or " and " in match[2]:
        raise ValueError(f"Can't parse '{words}' as a new thing.")
    return _SIZES.get(match[1]), match[2]


def _flipped(act: Callable) -> Callable:
    return lambda canvas, one, other: act(canvas, other, one)


# (possible first words of a clause, pattern of the clause, the edit that it makes with the pattern's groups)
_LANGUAGE: tuple[tuple[str, str, Callable], ...] = (
    ("add put place include with also", rf"\w+ {_NEW} {_WHERE}", _add),
    ("there", f"there (?:is also|is now|should be) {_NEW} {_WHERE}", _add),
    ("in above below under to on next beside diagonally", f"{_WHERE} there is {_NEW}", _flipped(_add)),
    ("remove delete without", rf"\w+ {_THE}", _remove),
    ("take", f"take (?:away|out) {_THE}", _remove),
    ("take", f"take {_THE} away", _remove),
    ("get", f"get rid of {_THE}", _remove),
    ("the", f"{_THE} is gone", _remove),
    ("the", f"{_THE} is no longer there", _remove),
    ("same", f"same picture without {_THE}", _remove),
    ("no", f"no (?:more )?({_NAME})", lambda canvas, name: _remove(canvas, f"the {name}")),
    ("there", f"there is no ({_NAME}) anymore", lambda canvas, name: _remove(canvas, f"the {name}")),
    ("clear", f"clear the {_CORNER}", lambda canvas, corner: _remove(canvas, f"the thing in the {corner}")),
    ("replace", f"replace {_THE} (?:with|by) {_NEW}", _replace),
    ("swap exchange", rf"\w+ {_THE} for {_NEW}", _replace),
    ("change turn", rf"\w+ {_THE} (?:to|into) {_NEW}", _replace),
    ("the", f"{_THE} (?:becomes|is replaced by) {_NEW}", _replace),
    ("a an has", f"(?:has )?{_NEW} instead of {_THE}", _flipped(_replace)),
    ("there", f"there is {_NEW} where {_THE} was", _flipped(_replace)),
    ("put", f"put {_NEW} in place of {_THE}", _flipped(_replace)),
    ("swap exchange switch", rf"\w+ {_THE} (?:and|with) {_THE}", _swap),
    ("swap switch", rf"\w+ the (?:places|positions) of {_THE} and {_THE}", _swap),
    ("the", f"{_THE} and {_THE} (?:trade|change) places", _swap),
    ("let", f"let {_THE} and {_THE} swap places", _swap),
    ("the", f"{_THE} is where {_THE} was and vice versa", _swap),
    ("move bring shift slide put place", rf"\w+ {_THE}(?: over)? {_WHERE}", _move),
    ("the", f"{_THE} moves {_WHERE}", _move),
    ("the", f"{_THE} (?:is(?: now)?|should be) {_WHERE}(?: now)?", _move),
    ("make", f"make {_THE} {_CHANGE}", _resize),
    ("make", f"make {_THE} and {_THE} {_CHANGE}", _resize_both),
    ("the", f"{_THE} (?:is|gets|should be) {_CHANGE}(?: now)?", _resize),
    ("the", f"{_THE} and {_THE} (?:are|should be) {_CHANGE}", _resize_both),
    ("shrink enlarge", rf"(\w+) {_THE}", _flipped(_resize)),
)
_BY_FIRST_WORD: dict[str, list[tuple[re.Pattern, Callable]]] = {}
for _words, _clause, _act in _LANGUAGE:
    for _word in _words.split():
        _BY_FIRST_WORD.setdefault(_word, []).append((re.compile(_clause), _act))


def parse_modification(text: str, scene: Scene) -> Scene:
    """Returns the scene that a modification text asks for, given the reference scene.

    Raises:
      ValueError: the text cannot be understood, or mentions what is not there.
    """
    plain = text.lower().removesuffix(".").replace(" both ", " ")
    problems = []
    for clauses in _ways_to_split(plain):
        canvas = _Canvas(scene)
        try:
            for clause in clauses:
                _do(canvas, clause)
        except ValueError as problem:
            problems.append(str(problem))
            continue
        return make_scene(Thing(place, name, size) for place, (name, size) in canvas.things.items())
    raise ValueError(f"Can't parse '{text}' of {scene}: {problems}")


def _ways_to_split(text: str):
    """Yields the text as one clause, then as two or three; the second of two may leave out the verb of the first."""
    yield (text,)
    joints = list(_JOINT.finditer(text))
    for joint in joints:
        yield text[: joint.start()], text[joint.end() :]
    for one, other in itertools.combinations(joints, 2):
        yield text[: one.start()], text[one.end() : other.start()], text[other.end() :]
    verb = _LEADING_VERB.match(text)
    if verb:
        for joint in joints:
            yield text[: joint.start()], f"{verb[0]} {text[joint.end() :]}"


def _do(canvas: _Canvas, clause: str) -> None:
    problem = f"Can't parse '{clause}'."
    for pattern, act in _BY_FIRST_WORD.get(clause.split(" ", 1)[0], ()):
        match = pattern.fullmatch(clause)
        if not match:
            continue
        before = dict(canvas.things)
        try:
            act(canvas, *match.groups())
        except ValueError as error:
            canvas.things = before
            problem = str(error)
        else:
            return
    raise ValueError(problem)


# ---- Captions

_START = re.compile("there is |a picture (?:of|with) |we see ")
_COMMA = re.compile(f"(?:, | and )(?=an? {_SIZE} |in the (?:top|bottom) )")
_PHRASE = re.compile(f"an? ({_SIZE}) ({_NAME}) {_WHERE}")
_PLACE_FIRST = re.compile(f"(in the {_CORNER}) (?:there is )?(.*)")


def parse_caption(text: str) -> Scene:
    """Returns the scene that a caption describes.

    Raises:
      ValueError: the caption cannot be understood.
    """
    plain = text.lower().removesuffix(".")
    plain = plain[match.end() :] if (match := _START.match(plain)) else plain
    canvas = _Canvas(Scene(()))
    for phrase in _COMMA.split(plain):
        if placed := _PLACE_FIRST.fullmatch(phrase):
            phrase = f"{placed[3]} {placed[1]}"
        match = _PHRASE.fullmatch(phrase)
        if not match:
            raise ValueError(f"Can't parse '{phrase}' in the caption '{text}'.")
        size, name, where = match.groups()
        first = next(iter(canvas.things.values()), ("", ""))[0]
        canvas.things[canvas.locate(re.sub(r"\bit\b", f"the {first}", where))] = (name, _SIZES[size])
    return make_scene(Thing(place, name, size) for place, (name, size) in canvas.things.items())
