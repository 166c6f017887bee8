"""Captions: true descriptions of scenes, worded as a person would. `text_parser` defines their meaning."""

from __future__ import annotations

import dataclasses
from random import Random

from data_pipelines.datasets.pictograms.scenes import PLACES, Scene, Thing
from data_pipelines.datasets.pictograms.wording import beside, finish, in_corner, new_thing, of_length

MAX_CAPTION_WORDS = 30


def caption(scene: Scene, rng: Random) -> str:
    """Writes a true description of a scene with every thing's size and place, in at most 30 words.

    Long names of a user's own pictograms may need more words.
    """
    return of_length(lambda: _description(scene, rng), 1, MAX_CAPTION_WORDS)


def _description(scene: Scene, rng: Random) -> str:
    things = rng.sample(scene.things, len(scene.things))
    is_corner_first = rng.random() < 0.15
    few = len(things) < 4  # four things leave no words to spare
    phrases: list[str] = []
    for i, thing in enumerate(things):
        new = new_thing(thing.name, thing.size, rng)
        where = _caption_place(thing, things[:i], rng)
        if not few:
            where = where.removesuffix(" corner")
        phrases.append(f"in the {PLACES[thing.place]} {new}" if is_corner_first else f"{new} {where}")
    if is_corner_first:
        text = _listed([phrases[0].replace(" a ", " there is a ", 1), *phrases[1:]])
    else:
        start = rng.choice(("", "", "", "there is ", "a picture of ", "a picture with ", "we see ")) if few else ""
        text = start + _listed(phrases)
    return finish(text, rng)


def _caption_place(thing: Thing, before: list[Thing], rng: Random) -> str:
    if not before or rng.random() < 0.5:
        return in_corner(thing.place, rng)
    if len(before) == 1:
        where = beside(thing.place, dataclasses.replace(before[0], name="_"), rng, set())
        return where.replace("the _", "it") if where else in_corner(thing.place, rng)
    return beside(thing.place, rng.choice(before), rng, set()) or in_corner(thing.place, rng)


def _listed(phrases: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
