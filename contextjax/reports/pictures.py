"""Pictures for a page: data URIs, and heat maps laid over a picture."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from contextjax.types import Picture

SIDE = 128  # the largest side of a picture on the page
HEAT_SIDE = 96
HEAT = np.asarray((226, 74, 12), np.float32)  # over grey, so that a picture's own colours can't be read as heat
FAINT = 0.02  # a map whose largest weight is below this is hardly read
FLAT = 0.2  # a map whose spread is below this share of its largest weight is nearly flat


def data_uri(picture: Picture, *, side: int = SIDE) -> str:
    """A data: URI (WebP) of a uint8 picture [H, W, 3], made smaller where its longer side exceeds `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def overlay(picture: Picture, heat: np.ndarray, *, side: int = HEAT_SIDE) -> Picture:
    """The picture in grey under a heat map [h, w] of weights: its smallest gets no colour, its largest the full one.

    The full colour is paler where the map is faint or flat, so that noise doesn't look like a finding. Patches
    keep their hard edges: the map knows nothing finer than them. Returns uint8 [side, side, 3].
    """
    low, peak = float(heat.min()), float(heat.max())
    share = (heat - low) / (peak - low) if peak > low else np.zeros_like(heat)
    strength = min(1.0, peak / FAINT, (peak - low) / (FLAT * peak)) if peak > 0 else 0.0
    patches = Image.fromarray((255 * share).round().astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    grey = Image.fromarray(picture).convert("L").resize((side, side), Image.Resampling.LANCZOS)
    base = 0.15 * 255 + 0.85 * np.asarray(grey, np.float32)[..., None]
    opacity = 0.75 * strength * np.asarray(patches, np.float32)[..., None] / 255
    return (base * (1 - opacity) + HEAT * opacity).round().astype(np.uint8)
