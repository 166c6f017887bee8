"""A map of weights laid over the picture that it is of."""

from __future__ import annotations

import dataclasses

import numpy as np

from contextjax.reports.maps import weights
from contextjax.reports.pictures import SIDE, data_uri, overlay, scaled
from contextjax.types import Picture


@dataclasses.dataclass(frozen=True)
class Heat:
    """A map laid over its picture, and its smallest and largest weight in words."""

    picture: str  # a data: URI
    alt: str
    weights: str


def make_heat(picture: Picture, found: np.ndarray, alt: str) -> Heat:
    """The map [grid, grid] over the picture, at a page's size."""
    return Heat(data_uri(overlay(scaled(picture, SIDE), found)), alt, weights(found))
