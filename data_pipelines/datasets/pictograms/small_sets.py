"""Comparisons of two and of five pictures of a comparative set: what a model learns before it compares ten."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from data_pipelines.datasets.pictograms import comparison_parser
from data_pipelines.datasets.pictograms.candidate_sets import FEW
from data_pipelines.datasets.pictograms.comparisons import comparison_text, comparisons_of
from data_pipelines.datasets.pictograms.scenes import Scene

TEXTS = 10  # of each size, of a set
FORMS = {
    2: {"most": 1, "least": 1},
    FEW: {"most": 1, "least": 1, "second most": 1, "second least": 1, "alone": 2},
}  # how often each is drawn, by the number of scenes
SIZES = tuple(FORMS)
TRIES = 60  # draws of scenes for a form, which some sets do not have

SmallSet = tuple[int, tuple[int, ...], str]  # index of the scene that the text is true of, indices of the others, text


def small_sets(scenes: Sequence[Scene], size: int, rng: Random) -> list[SmallSet]:
    """Draws `size` of a comparative set's scenes, and a comparison that is true of one of them, up to TEXTS times."""
    drawn = (_draw(scenes, size, rng) for _ in range(TEXTS))
    return [each for each in drawn if each is not None]


def _draw(scenes: Sequence[Scene], size: int, rng: Random) -> SmallSet | None:
    form = rng.choices(list(FORMS[size]), list(FORMS[size].values()))[0]
    for _ in range(TRIES):
        indices = rng.sample(range(len(scenes)), size)
        some = [scenes[index] for index in indices]
        asked: dict[str, list] = {}
        for comparison in comparisons_of(some):
            if comparison.form == form:
                asked.setdefault(comparison.quantity, []).append(comparison)
        if asked:
            comparison = rng.choice(asked[rng.choice(sorted(asked))])
            text = comparison_text(comparison, rng)
            if comparison_parser.target_of(text, some) != comparison.target:
                raise AssertionError(f"'{text}' was meant of {comparison.target}, but reads otherwise, of {some}.")
            right = indices.pop(comparison.target)
            return right, tuple(indices), text
    return None
