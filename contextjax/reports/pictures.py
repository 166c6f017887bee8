"""Pictures for a page: data URIs, heat maps laid over a picture, patches outlined in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from contextjax.types import Picture

Box = tuple[int, int, int, int]  # pixels: left, top, right, bottom

SIDE = 128  # the largest side of a picture on the page
HEAT = np.asarray((226, 74, 12), np.float32)  # over grey, so that a picture's own colours can't be read as heat
FADE, VEIL = 0.15, 0.75  # how much of the picture is covered, where the model looks by white, elsewhere by UNSEEN
UNSEEN = 205
PALE = 0.6  # how much white covers the patches that are not outlined
FAINT = 0.02  # a map whose largest weight is below this is hardly read
FLAT = 0.2  # a map whose spread is below this share of its largest weight is nearly flat


def data_uri(picture: Picture, *, side: int = SIDE) -> str:
    """A data: URI (WebP) of a uint8 picture [H, W, 3], made smaller where its longer side exceeds `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def scaled(picture: Picture, side: int) -> Picture:
    """The picture with its longer side brought to `side`."""
    height, width = picture.shape[:2]
    size = [max(1, round(length * side / max(height, width))) for length in (width, height)]
    return np.asarray(Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.LANCZOS))


def overlay(picture: Picture, heat: np.ndarray, *, seen: Box | None = None) -> Picture:
    """The picture in grey under a heat map [h, w] of weights: its smallest gets no colour, its largest the full one.

    The full colour is paler where the map is faint or flat, so that noise doesn't look like a finding. Patches
    keep their hard edges: the map knows nothing finer than them. `seen` is the part of the picture that the map is
    of, where that is not the whole: the rest is veiled. Returns uint8 [H, W, 3], of the picture's size.
    """
    height, width = picture.shape[:2]
    left, top, right, bottom = seen or (0, 0, width, height)
    low, peak = float(heat.min()), float(heat.max())
    share = (heat - low) / (peak - low) if peak > low else np.zeros_like(heat)
    strength = min(1.0, peak / FAINT, (peak - low) / (FLAT * peak)) if peak > 0 else 0.0
    patches = Image.fromarray((255 * share).round().astype(np.uint8))
    patches = patches.resize((right - left, bottom - top), Image.Resampling.NEAREST)
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., None]
    base = VEIL * UNSEEN + (1 - VEIL) * grey
    base[top:bottom, left:right] = FADE * 255 + (1 - FADE) * grey[top:bottom, left:right]
    opacity = np.zeros((height, width, 1), np.float32)
    opacity[top:bottom, left:right, 0] = 0.75 * strength * np.asarray(patches, np.float32) / 255
    return (base * (1 - opacity) + HEAT * opacity).round().astype(np.uint8)


def outlined(picture: Picture, chosen: np.ndarray) -> Picture:
    """The picture with some of its patches outlined, and the others faded.

    Args:
      picture: uint8 [H, W, 3].
      chosen: bool [h, w], the patches to outline.
    """
    height, width = picture.shape[:2]
    rows, columns = chosen.shape
    edges = lambda length, count: np.linspace(0, length, count + 1).round().astype(int).tolist()
    ys, xs = edges(height, rows), edges(width, columns)
    out = (PALE * 255 + (1 - PALE) * picture).round().astype(np.uint8)
    for row, column in np.argwhere(chosen).tolist():
        patch = np.s_[ys[row] : ys[row + 1], xs[column] : xs[column + 1]]
        out[patch] = picture[patch]
    image = Image.fromarray(out)
    draw = ImageDraw.Draw(image)
    for row, column in np.argwhere(chosen).tolist():
        box = (xs[column], ys[row], xs[column + 1] - 1, ys[row + 1] - 1)
        draw.rectangle(box, outline=tuple(HEAT.astype(int).tolist()), width=2)
    return np.asarray(image)


def alt_text(role: str, row: int, ids: Sequence[str], captions: Sequence[str]) -> str:
    """A picture in words: what it is here, and its caption, or its id where it has none."""
    return f"{role}: {(captions[row] if row < len(captions) else '') or ids[row]}"
