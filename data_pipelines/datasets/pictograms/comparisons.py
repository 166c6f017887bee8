"""Candidate sets whose descriptions compare: true of one picture only beside the others.

Ten pictures show the same two things, one or several times, and differ in how many there are, how large they are and
where they stand. A text names one quantity and a rank ("the second largest dog"), or the one picture that shares its
value with no other. Which range of values a set has is drawn, so a value says little by itself: `comparison_bound`
computes how far a model gets that sees one candidate at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from random import Random

import numpy as np

from data_pipelines.datasets.pictograms import comparison_parser
from data_pipelines.datasets.pictograms.candidate_sets import CANDIDATES, Accept, CandidateSet, names_of, split_accept
from data_pipelines.datasets.pictograms.names import plural
from data_pipelines.datasets.pictograms.scenes import Scene, Thing, make_scene

COMPARISONS, TRAIN_COMPARISONS = 2, 5  # texts of a set, each of another target; two of a set of numbers
FORMS = {"most": 1, "least": 1, "second most": 2, "second least": 2, "alone": 8}  # how often each is drawn
KINDS = {"most": "superlative", "least": "superlative", "second most": "ordinal", "second least": "ordinal",
         "alone": "unlike"}  # fmt: skip
LAYOUTS = {"counted": 1, "apart": 1, "sliding": 2}  # how often each is drawn: numbers, distances, places
SIDES, SMALL_SIDES = (0.18, 0.27, 0.36, 0.46), (0.16, 0.21, 0.27, 0.33)  # of a thing, as shares of the canvas
CENTRES = (0.25, 0.42, 0.58, 0.75)  # along the way that a thing slides
DISTANCES = (0.34, 0.44, 0.54, 0.65)
WAYS = {"alone": 3, "high": 1, "low": 1}  # how often a quantity has each pattern
ACROSS = 0.25, 0.75  # the two things' rows or columns
FAMILIES = {"count": "counting", "size": "size", "across": "relation", "down": "relation", "distance": "relation"}
MARGINS = {"count": 1.0, "size": 0.05, "across": 0.1, "down": 0.1, "distance": 0.08}  # that a reader sees


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A fact that sets the picture `target` apart: the rank of a quantity of a thing, or a value that no other has."""

    quantity: str  # a key of MARGINS
    names: tuple[str, ...]
    form: str  # a key of FORMS
    target: int
    values: tuple[float, ...]  # of the ten pictures

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the text: comparative, by its form, and by what it is about."""
        return "comparative", KINDS[self.form], FAMILIES[self.quantity]


def make_comparative_set(
    names: Sequence[str], rng: Random, *, accept: Accept = lambda scene: True, descriptions: int = COMPARISONS
) -> tuple[CandidateSet, tuple[Comparison, ...]]:
    """Draws one set over two of `names` that `accept` takes together; returns it with what its texts compare.

    Raises:
      ValueError: `names` are too few.
    """
    for _ in range(2000):
        one, other = rng.sample(names, 2)
        if not accept(make_scene([Thing(0, one, "small"), Thing(1, other, "small")])):
            continue
        scenes, chosen = [], []
        layout, way = rng.choices(list(LAYOUTS), list(LAYOUTS.values()))[0], _draw_way(rng)
        while len(chosen) < (count := min(descriptions, 2) if layout == "counted" else descriptions):
            scenes = _LAYOUTS[layout](one, other, rng, way)
            chosen = _choose(comparisons_of(scenes), count, rng)
        if chosen:
            texts = [(comparison.target, comparison_text(comparison, rng)) for comparison in chosen]
            for target, text in texts:
                if comparison_parser.target_of(text, scenes) != target:
                    raise AssertionError(f"'{text}' was meant of {target}, but reads otherwise, of {scenes}.")
            return CandidateSet(tuple(scenes), tuple(texts), base=-1), tuple(chosen)
    raise ValueError(f"Got {len(names)} pictogram names, too few for sets that compare: add pictograms.")


def comparative_set_of(
    split: str, index: int, seen: Sequence[str], held_out: Sequence[str], *, seed: int = 0
) -> tuple[CandidateSet, tuple[Comparison, ...]]:
    """Makes the `index`-th comparative set of a split, a pure function of the arguments."""
    names, accept = names_of(split, seen, held_out), split_accept(split, frozenset(held_out))
    count = TRAIN_COMPARISONS if split == "train" else COMPARISONS
    rng = Random(f"comparisons/{seed}/{split}/{index}")
    return make_comparative_set(names, rng, accept=accept, descriptions=count)


def comparisons_of(scenes: Sequence[Scene]) -> list[Comparison]:
    """Returns all comparisons that single out one of the scenes for every reader."""
    names = sorted({name for scene in scenes for name in scene.names})
    if len(names) < 2 or any(list(scene.names) != names for scene in scenes):
        asked = [("count", (name,)) for name in names]
    else:
        asked = [("size", (name,)) for name in names]
        for name in names:  # a place is compared along one line alone
            across, down = ({_measure(quantity, (name,), scene) for scene in scenes} for quantity in ("across", "down"))
            asked += [("across", (name,))] * (len(down) == 1) + [("down", (name,))] * (len(across) == 1)
        asked += [("distance", (names[0], names[1])), ("distance", (names[1], names[0]))]
    made = []
    for quantity, of in asked:
        values = [_measure(quantity, of, scene) for scene in scenes]
        for form in FORMS:
            target = _singled_out(values, form, MARGINS[quantity])
            if target is None or not values[target] or (form.endswith("least") and not min(values)):
                continue  # "the fewest dogs" is not said where there are none
            made.append(Comparison(quantity, of, form, target, tuple(values)))
    return made


def comparison_text(comparison: Comparison, rng: Random) -> str:
    """Writes a comparison as a sentence."""
    name, *other = comparison.names
    words = {"a": name, "as": plural(name), "b": other[0] if other else ""}
    return rng.choice(_TEXTS[comparison.quantity][comparison.form]).format(**words)


def _choose(comparisons: list[Comparison], count: int, rng: Random) -> list[Comparison]:
    """Draws comparisons of different targets, each form as often as FORMS says."""
    chosen: list[Comparison] = []
    rest = comparisons
    while rest and len(chosen) < count:
        share = {form: sum(each.form == form for each in rest) for form in FORMS}
        pick = rng.choices(rest, [FORMS[each.form] / share[each.form] for each in rest])[0]
        chosen.append(pick)
        rest = [each for each in rest if each.target != pick.target]
    return chosen


def _measure(quantity: str, names: Sequence[str], scene: Scene) -> float:
    """Returns how many there are, how large it is, where it stands, or how far it is from the other."""
    things = [thing for thing in scene.things if thing.name == names[0]]
    if quantity == "count":
        return float(len(things))
    down, right, side = things[0].spot
    if quantity != "distance":
        return {"size": side, "across": right, "down": down}[quantity]
    other = next(thing for thing in scene.things if thing.name == names[1]).spot
    return ((down - other[0]) ** 2 + (right - other[1]) ** 2) ** 0.5


def _singled_out(values: Sequence[float], form: str, margin: float) -> int | None:
    """Returns the index of the value that a form singles out; None if that is not clearly visible."""
    if form == "alone":
        near = [sum(abs(value - other) < margin / 10 for other in values) for value in values]
        clear = [all(abs(v - o) < margin / 10 or abs(v - o) > 0.99 * margin for o in values) for v in values]
        return near.index(1) if near.count(1) == 1 and all(clear) else None
    order = sorted(range(len(values)), key=lambda i: values[i], reverse=form.endswith("most"))
    gaps = [abs(values[a] - values[b]) for a, b in itertools.pairwise(order[:3])]
    is_second = form.startswith("second")
    return order[is_second] if all(gap > 0.99 * margin for gap in gaps[: 1 + is_second]) else None


# --- Scenes


def _pattern(levels: Sequence[float], rng: Random, way: str = "") -> list[float]:
    """Returns ten values of four levels, in any order.

    "alone": all levels are there, one of them once. "high": of three neighbouring levels the two upper ones once each.
    "low": the two lower ones.
    """
    way = way or _draw_way(rng)
    if way == "alone":
        alone, *shared = rng.sample(levels, len(levels))
        return rng.sample([alone, *3 * shared], CANDIDATES)
    start = rng.randrange(len(levels) - 2)
    low, middle, high = levels[start : start + 3]
    first, rest = (high, low) if way == "high" else (low, high)
    return rng.sample([first, middle, *[rest] * (CANDIDATES - 2)], CANDIDATES)


def _draw_way(rng: Random) -> str:
    return rng.choices(list(WAYS), list(WAYS.values()))[0]


def _sliding(one: str, other: str, rng: Random, way: str) -> list[Scene]:
    """Returns ten scenes of two things that slide along two rows, or two columns."""
    in_rows = rng.random() < 0.5
    columns = []
    for name, place, across in zip((one, other), (0, 3), ACROSS, strict=True):
        along, sides = _pattern(CENTRES, rng, way if name == one else ""), _pattern(SIDES, rng)
        spots = [(across, x, side) if in_rows else (x, across, side) for x, side in zip(along, sides, strict=True)]
        columns.append([Thing(place, name, "large" if spot[2] > 0.35 else "small", at=spot) for spot in spots])
    return [make_scene(things) for things in zip(*columns, strict=True)]


def _counted(one: str, other: str, rng: Random, way: str) -> list[Scene]:
    """Returns ten scenes of one to four things of the one name, and of none to three of the other."""
    scenes = []
    for count in _pattern((1, 2, 3, 4), rng, way):
        more = rng.randint(0, 4 - int(count))
        places = rng.sample(range(4), int(count) + more)
        names = [one] * int(count) + [other] * more
        jitter = lambda: (rng.uniform(-1, 1), rng.uniform(-1, 1))
        scenes.append(
            make_scene(
                Thing(place, name, rng.choice(("small", "large")), jitter())
                for place, name in zip(places, names, strict=True)
            )
        )
    return scenes


def _apart(one: str, other: str, rng: Random, way: str) -> list[Scene]:
    """Returns ten scenes of two things in a row or a column, at various distances."""
    in_row, sides = rng.random() < 0.5, [_pattern(SMALL_SIDES, rng) for _ in range(2)]
    scenes = []
    for distance, *own in zip(_pattern(DISTANCES, rng, way), *sides, strict=True):
        begin, across = rng.uniform(0.16, 0.84 - distance), rng.uniform(0.2, 0.8)
        ends = rng.sample((begin, begin + distance), 2)
        spots = [(across, x, side) if in_row else (x, across, side) for x, side in zip(ends, own, strict=True)]
        scenes.append(
            make_scene(
                Thing(place, name, "small", at=spot)
                for place, name, spot in zip((0, 3), (one, other), spots, strict=True)
            )
        )
    return scenes


_LAYOUTS = {"counted": _counted, "apart": _apart, "sliding": _sliding}


# --- Words: quantity -> form -> sentences


def _ranked(most: str, least: str, more: str, less: str, where: str) -> dict[str, tuple[str, ...]]:
    """Returns the sentences of ranks: of "largest", "smallest", "larger" and "smaller", said of "the {a} is {}"."""
    said: dict[str, tuple[str, ...]] = {}
    for form, best, better in (("most", most, more), ("least", least, less)):
        said[form] = (
            f"The one where {where.format(best)}.",
            f"The picture in which {where.format(best)}.",
            f"{where.format(better)} here than in all the other pictures.".capitalize(),
        )
        said[f"second {form}"] = (
            f"The one where {where.format(f'second {best}')}.",
            f"The picture in which {where.format(f'second {best}')}.",
            f"{where.format(better)} in only one other picture.".capitalize(),
        )
    return said


_TEXTS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {
        "most": ("The one with the most {as}.", "There are more {as} here than in any other picture."),
        "least": ("The one with the fewest {as}.", "There are fewer {as} here than in any other picture."),
        "second most": ("The one with the second most {as}.", "Only one other picture has more {as}."),
        "second least": ("The one with the second fewest {as}.", "Only one other picture has fewer {as}."),
        "alone": ("No other picture has the same number of {as}.",
                  "The one whose number of {as} is found in no other picture."),
    },
    "size": _ranked("largest", "smallest", "larger", "smaller", "the {{a}} is {}") | {
        "alone": ("In no other picture is the {a} the same size.",
                  "The one where the {a} has a size that it has in no other picture."),
    },
    "across": _ranked("furthest right", "furthest left", "further right", "further left", "the {{a}} is {}") | {
        "alone": ("In no other picture is the {a} in the same place.",
                  "The one where the {a} is in a place that it has in no other picture."),
    },
    "down": _ranked("lowest", "highest", "lower down", "higher up", "the {{a}} is {}") | {
        "alone": ("In no other picture is the {a} in the same place.",
                  "The one where the {a} is in a place that it has in no other picture."),
    },
    "distance": _ranked("furthest from the {b}", "closest to the {b}", "further from the {b}", "closer to the {b}",
                        "the {{a}} is {}") | {
        "alone": ("In no other picture are the {a} and the {b} the same distance apart.",),
    },
}  # fmt: skip


# --- What can be had without comparing


def comparison_bound(*, sets: int = 1500, seed: int = 0) -> float:
    """Returns about the share of comparisons, in percent, that the best score of each picture by itself answers right.

    A model that sees one candidate at a time gives each picture a score by its value of the quantity that a text names,
    and the highest wins. The scores are fitted to the simulated sets, for each quantity and form, by a climb of 200
    steps. So the result is an estimate: what else a picture shows may add to it, and a longer climb. Superlatives are
    all answered right, about half of the other ranks, and a quarter of the values that no other picture has.
    """
    rng = Random(f"bound/{seed}")
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for _ in range(sets):
        for comparison in make_comparative_set(("dog", "cat"), rng)[1]:
            groups.setdefault((comparison.quantity, comparison.form), []).append(comparison)
    total = sum(map(len, groups.values()))
    return 100 * sum(_best_alone(group, rng) * len(group) for group in groups.values()) / total


def _best_alone(comparisons: Sequence[Comparison], rng: Random) -> float:
    """Returns the share of targets that have the highest score, with the best scores of values that a climb finds."""
    values = np.round(np.asarray([each.values for each in comparisons]), 2)
    targets = np.asarray([each.target for each in comparisons])
    levels, rows = np.unique(values, return_inverse=True)
    rows = rows.reshape(values.shape)

    def share(scores: np.ndarray) -> float:
        own = scores[rows]
        best = own >= own.max(1, keepdims=True) - 1e-9
        return float(np.mean(best[np.arange(len(own)), targets] / best.sum(1)))

    hits = np.bincount(rows[np.arange(len(rows)), targets], minlength=len(levels))
    often = hits / np.bincount(rows.ravel(), minlength=len(levels))
    starts = [often, levels, -levels, hits.astype(float)]
    best, first = max(((share(start), i) for i, start in enumerate(starts)))
    scores = np.argsort(np.argsort(starts[first])).astype(float)
    best = max(best, share(scores))
    for _ in range(200):
        tried = scores.copy()
        tried[rng.randrange(len(levels))] = rng.randrange(-1, len(levels) + 1) + 0.5 * rng.randrange(2)
        if (now := share(tried)) >= best:
            best, scores = now, tried
    return best
