"""Grounding: how well the attention map of a phrase covers the thing it names, over all records that have boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax import images, metrics
from contextjax.evaluation.shared import Pictures
from contextjax.types import CandidateRecord, ComposedRecord, PictureBoxes

BATCH = 256  # texts whose maps are held at a time


class MapMaker(Protocol):
    """A system as the measure of grounding needs it."""

    fit: str

    @property
    def has_attention_maps(self) -> bool:
        """True where texts and pictures attend to each other."""
        ...

    def attention_maps(self, images: Sequence[Any], texts: Sequence[str], *, layers: str = "all") -> Sequence[Any]:
        """Returns a system.TokenMap of each picture and its text."""
        ...


def evaluate_grounding(
    system: MapMaker,
    records: Sequence[ComposedRecord] | Sequence[CandidateRecord],
    pictures: Pictures,
    *,
    layers: str = "last",
) -> dict[str, float]:
    """Returns how well attention maps cover the things that texts name (metrics.grounding): percent, mean over phrases.

    A phrase is an occurrence of the name of a thing in the record's picture: the reference of a composed query, or the
    described picture. Each kind of thing counts once a text, at its first occurrence.

    Args:
      system: makes the maps.
      records: those without boxes are left out, and those with a secret target.
      pictures: the pictures by row.
      layers: "last" for the maps of the last layer of cross-attention, or "all" for their mean.

    Returns:
      grounding/pointing and grounding/mass, each with the value of an uninformative map (pointing_chance, mass_chance),
      and the number of phrases. Composed queries also have alone_pointing and alone_mass, from the maps of the phrases
      encoded as texts by themselves. Empty if there are no phrases or the system has no maps.
    """
    asked = [(record, name) for record in records if record.boxes and (name := record.boxed_picture) is not None]
    if not asked or not system.has_attention_maps:
        return {}
    results: list[metrics.Grounding] = []
    alone: list[metrics.Grounding] = []
    for begin in range(0, len(asked), BATCH):
        batch = asked[begin : begin + BATCH]
        seen = [pictures[pictures.row[name]] for _, name in batch]
        maps = system.attention_maps(seen, [record.text for record, _ in batch], layers=layers)
        phrases: list[tuple[Any, str, Any]] = []  # picture, phrase, (its boxes, size of the picture)
        for (record, _), picture, tokens in zip(batch, seen, maps, strict=True):
            boxes, size = _seen_boxes(record.boxes, system.fit)
            for name, start, end in named_things(record.text, list(boxes)):
                if tokens.offsets[:, 1].max() < end:
                    continue  # the text was cut before
                place = np.asarray(boxes[name]), size
                results.append(_grounding(tokens.phrase(start, end), *place))
                phrases.append((picture, record.text[start:end], place))
        if phrases and isinstance(batch[0][0], ComposedRecord):
            pictured, texts, places = zip(*phrases, strict=True)
            maps = system.attention_maps(pictured, texts, layers=layers)
            whole = [tokens.phrase(0, len(text)) for tokens, text in zip(maps, texts, strict=True)]
            alone += [_grounding(values, *place) for values, place in zip(whole, places, strict=True)]
    if not results:
        return {}
    means = dict(zip(metrics.Grounding._fields, (100 * np.asarray(results, np.float64).mean(0)).tolist(), strict=True))
    if alone:
        by_itself = (100 * np.asarray(alone, np.float64).mean(0)).tolist()
        means |= {"alone_pointing": by_itself[0], "alone_mass": by_itself[1]}
    return {**{f"grounding/{field}": value for field, value in means.items()}, "grounding/phrases": len(results)}


def _grounding(values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> metrics.Grounding:
    """Returns how well a map covers boxes; a map of zeros counts as an uninformative one."""
    return metrics.grounding(values if values.any() else np.ones_like(values), boxes, size)


def named_things(text: str, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yields (name, start, end) of the first occurrence of each name in a text, in the singular or the plural.

    Where one name holds another ("red apple", "apple"), a place counts for the longer one.
    """
    taken: list[tuple[int, int]] = []
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        places = re.finditer(rf"\b(?:{'|'.join(map(re.escape, _forms(name)))})\b", text, re.IGNORECASE)
        free = [m.span() for m in places if all(m.end() <= start or end <= m.start() for start, end in taken)]
        taken += free
        if free:
            yield name, *free[0]


def _forms(name: str) -> list[str]:
    """Returns a name and how its plural may be written; longer ones first."""
    unit, of, counted = name.partition(" of ")
    plurals = [f"{unit}s", f"{unit}es", re.sub("y$", "ies", unit), re.sub("fe?$", "ves", unit)]
    plurals += [re.sub("man$", "men", unit), re.sub("ouse$", "ice", unit), re.sub("ctus$", "cti", unit)]
    return sorted({name, *(many + of + counted for many in plurals)}, key=len, reverse=True)


def _seen_boxes(boxes: PictureBoxes | None, fit: str) -> tuple[dict[str, list[tuple[float, ...]]], tuple[int, int]]:
    """Returns name -> boxes within the part of a picture that the model sees, and the size of that part in pixels."""
    if boxes is None:
        return {}, (0, 0)
    left, top, right, bottom = images.seen(*boxes.size, fit=fit)
    kept: dict[str, list[tuple[float, ...]]] = {}
    for name, (x0, y0, x1, y1) in boxes.things:
        cut = max(x0, left) - left, max(y0, top) - top, min(x1, right) - left, min(y1, bottom) - top
        if cut[0] < cut[2] and cut[1] < cut[3]:
            kept.setdefault(name, []).append(cut)
    return kept, (right - left, bottom - top)
