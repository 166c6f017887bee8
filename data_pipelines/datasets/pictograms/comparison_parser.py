"""An independent parser of comparisons: English text and ten scenes -> the one scene that the text is true of.

It knows nothing of how a set or a text was made: it reads the words, and measures the things as they are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_pipelines.datasets.pictograms.names import FUNCTION_WORDS, plural
from data_pipelines.datasets.pictograms.scenes import Scene, Thing

CANVAS = 1000  # pixels, fine enough to measure
SAME = 10  # pixels: what a reader takes for equal; values that texts set apart differ by much more
_WORD = rf"(?!(?:{'|'.join(sorted(FUNCTION_WORDS))})\b)[a-z0-9]+"
_NAME = rf"(?:{_WORD} of )?{_WORD}(?: {_WORD})*"
_RANKS = {  # word of the highest rank, of a comparison -> (quantity, whether more of it is meant)
    ("largest", "larger"): ("side", True),
    ("smallest", "smaller"): ("side", False),
    ("furthest right", "further right"): ("x", True),
    ("furthest left", "further left"): ("x", False),
    ("lowest", "lower down"): ("y", True),
    ("highest", "higher up"): ("y", False),
    ("furthest from", "further from"): ("distance", True),
    ("closest to", "closer to"): ("distance", False),
    ("most", "more"): ("number", True),
    ("fewest", "fewer"): ("number", False),
}
_BEST = {best: meaning for (best, _), meaning in _RANKS.items()}
_BETTER = {better: meaning for (_, better), meaning in _RANKS.items()}


def _words(table: dict) -> str:
    return "|".join(sorted(table, key=len, reverse=True))


_THE = rf"the (?P<name>{_NAME})"
_OTHER = rf"(?: the (?P<other>{_NAME}))?"
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"the (?:one where|picture in which) {_THE} is (?P<second>second )?(?P<best>{_words(_BEST)}){_OTHER}",
        rf"the one with the (?P<second>second )?(?P<best>most|fewest) (?P<names>{_NAME})",
        rf"{_THE} is (?P<better>{_words(_BETTER)}){_OTHER} here than in all the other pictures",
        rf"{_THE} is (?P<better>{_words(_BETTER)}){_OTHER} in (?P<second>only one other picture)",
        rf"there are (?P<better>more|fewer) (?P<names>{_NAME}) here than in any other picture",
        rf"(?P<second>only one other picture) has (?P<better>more|fewer) (?P<names>{_NAME})",
        rf"no other picture has the same (?P<alone>number) of (?P<names>{_NAME})",
        rf"the one whose (?P<alone>number) of (?P<names>{_NAME}) is found in no other picture",
        rf"in no other picture is {_THE} the same (?P<alone>size)",
        rf"the one where {_THE} has a (?P<alone>size) that it has in no other picture",
        rf"in no other picture is {_THE} in the same (?P<alone>place)",
        rf"the one where {_THE} is in a (?P<alone>place) that it has in no other picture",
        rf"in no other picture are {_THE} and{_OTHER} the same (?P<alone>distance) apart",
    )
)


def target_of(text: str, scenes: Sequence[Scene]) -> int | None:
    """Returns the index of the only scene that the text is true of; None if there is not exactly one.

    Raises:
      ValueError: the text has none of the known forms, or names what a scene does not show.
    """
    plain = text.lower()
    match = next((m for form in _FORMS if plain.endswith(".") and (m := form.fullmatch(plain[:-1]))), None)
    if match is None:
        raise ValueError(f"Can't parse '{text}': expected one of the {len(_FORMS)} known forms.")
    words = match.groupdict()
    true = _alone(words, scenes) if words.get("alone") else _at_rank(words, scenes)
    return true[0] if len(true) == 1 else None


def _at_rank(words: dict, scenes: Sequence[Scene]) -> list[int]:
    """Returns the scenes with no scene ahead of them, or exactly one, and with no ties."""
    quantity, is_more = _BEST[words["best"]] if words.get("best") else _BETTER[words["better"]]
    values = [_value(quantity, words, scene) * (1 if is_more else -1) for scene in scenes]
    ahead = [sum(other > value + SAME for other in values) for value in values]
    level = [sum(abs(other - value) <= SAME for other in values) for value in values]
    rank = 1 if words.get("second") else 0
    return [i for i in range(len(scenes)) if ahead[i] == rank and level[i] == 1]


def _alone(words: dict, scenes: Sequence[Scene]) -> list[int]:
    """Returns the scenes whose value no other scene has."""
    about = words["alone"]
    quantities = {"number": ("number",), "size": ("side",), "distance": ("distance",)}.get(about, ("x", "y"))
    rows = [[_value(quantity, words, scene) for quantity in quantities] for scene in scenes]
    equal = lambda one, two: all(abs(x - y) <= SAME for x, y in zip(one, two, strict=True))
    return [i for i, row in enumerate(rows) if sum(equal(row, other) for other in rows) == 1]


def _value(quantity: str, words: dict, scene: Scene) -> float:
    if quantity == "number":
        # "more dogs" may be said of scenes without one
        return 100.0 * sum(plural(thing.name) == words["names"] for thing in scene.things)
    left, top, side = _only(words["name"], scene).box(CANVAS)
    x, y = left + side / 2, top + side / 2
    if quantity != "distance":
        return {"side": float(side), "x": x, "y": y}[quantity]
    left2, top2, side2 = _only(words["other"], scene).box(CANVAS)
    return ((x - left2 - side2 / 2) ** 2 + (y - top2 - side2 / 2) ** 2) ** 0.5


def _only(name: str, scene: Scene) -> Thing:
    things = [thing for thing in scene.things if thing.name == name]
    if len(things) != 1:
        raise ValueError(f"The text speaks of 'the {name}', of which there are {len(things)} in {scene}.")
    return things[0]
