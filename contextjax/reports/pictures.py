"""Pictures of a page: data URIs, heat maps laid over a picture, outlined patches, the sheet of a phrase."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from contextjax.evaluation import Pictures
from contextjax.reports.maps import PhraseMaps
from contextjax.types import Picture

Box = tuple[int, int, int, int]  # pixels: left, top, right, bottom

SIDE = 128  # the largest side of a picture on the page
HEAT = np.asarray((226, 74, 12), np.float32)  # over grey, so that a picture's own colours can't be read as heat
FADE, VEIL = 0.15, 0.75  # how much of the picture is covered, where the model looks by white, elsewhere by UNSEEN
UNSEEN = 205
PALE = 0.6  # how much white covers the patches that are not outlined
FAINT = 0.02  # a map whose largest weight is below this is hardly read
FLAT = 0.2  # a map whose spread is below this share of its largest weight is nearly flat

# The sheet of a phrase.
INK, SOFT, PAPER, PHRASE = (28, 33, 38), (90, 100, 110), (255, 255, 255), (180, 56, 4)
MARGIN, GAP = 24, 20
COLUMN = 300  # the least width of a column, which fits the words below its picture
TITLE, SMALL = 24, 17  # letter heights


def data_uri(picture: Picture, *, side: int = SIDE) -> str:
    """Returns a data: URI (WebP) of a uint8 picture [H, W, 3], made smaller where its longer side exceeds `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def scaled(picture: Picture, side: int) -> Picture:
    """Resizes a picture so that its longer side is `side` pixels."""
    height, width = picture.shape[:2]
    size = [max(1, round(length * side / max(height, width))) for length in (width, height)]
    return np.asarray(Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.LANCZOS))


def overlay(picture: Picture, heat: np.ndarray, *, seen: Box | None = None) -> Picture:
    """Draws a heat map [h, w] of weights over the picture in grey.

    The smallest weight gets no colour, the largest the full one, which is paler where the map is faint or flat, so that
    noise doesn't look like a finding. Patches keep their hard edges, since the map is no finer than them.

    Args:
      picture: uint8 [H, W, 3].
      heat: weights of the patches.
      seen: the part of the picture that the map covers; the rest is veiled. None: the whole picture.

    Returns:
      uint8 [H, W, 3].
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
    """Outlines some patches of a picture and fades the others.

    Args:
      picture: uint8 [H, W, 3].
      chosen: bool [h, w], the patches to outline.
    """
    height, width = picture.shape[:2]
    rows, columns = chosen.shape
    edges_of = lambda length, count: np.linspace(0, length, count + 1).round().astype(int).tolist()
    ys, xs = edges_of(height, rows), edges_of(width, columns)
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


@dataclasses.dataclass(frozen=True)
class CaptionedPictures:
    """Pictures by row, and their captions, which may be missing."""

    pictures: Pictures
    captions: Sequence[str] = ()

    def __getitem__(self, row: int) -> Picture:
        return self.pictures[row]

    def row(self, id: str) -> int:
        """Returns the row of a picture."""
        return self.pictures.row[id]

    def alt(self, role: str, row: int) -> str:
        """Returns a picture's alternative text: its role on the page, and its caption, or else its id."""
        caption = self.captions[row] if row < len(self.captions) else ""
        return f"{role}: {caption or self.pictures.ids[row]}"


@dataclasses.dataclass(frozen=True)
class Heat:
    """A map laid over its picture, and its smallest and largest weight in words."""

    picture: str  # a data: URI
    alt: str
    label: str
    weights: str


@dataclasses.dataclass(frozen=True)
class PhraseHeats:
    """A part of a text, and the maps of where it is read."""

    label: str
    heats: tuple[Heat, ...]


def make_heat(picture: Picture, heat: np.ndarray, label: str, alt: str) -> Heat:
    """Lays the map [grid, grid] over the picture at a page's size."""
    return Heat(data_uri(overlay(scaled(picture, SIDE), heat)), alt, label, weight_range(heat))


def weight_range(heat: np.ndarray) -> str:
    """Formats the smallest and the largest weight of a map as 0.150–0.250."""
    low, peak = float(heat.min()), float(heat.max())
    return "below 0.001" if peak < 0.001 else f"{low:.3f}–{peak:.3f}"


def phrase_sheet(picture: Picture, text: str, maps: PhraseMaps, *, seen: Box | None = None) -> Picture:
    """Draws one picture that explains a phrase: the text, the query picture, and both maps.

    Args:
      picture: the query picture uint8 [H, W, 3]; it is shown at its own size, three times.
      text: the modification text that the phrase is part of.
      maps: the phrase's maps.
      seen: the part of the picture that the maps cover; None: the whole picture.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = picture.shape[:2]
    heats = {"in context": maps.in_context, "alone": maps.alone}
    whole = seen in (None, (0, 0, width, height))
    panels = {"query picture" if whole else "query picture; grey is not read": picture} | {
        f"{how}: {weight_range(heat).replace('–', ' to ')}": overlay(picture, heat, seen=seen)
        for how, heat in heats.items()
    }
    step = max(width, COLUMN) + GAP
    right = 2 * MARGIN + len(panels) * step - GAP
    words, top = _flow(text, _font(TITLE), right - 2 * MARGIN)
    sheet = Image.new("RGB", (right, MARGIN + top + GAP + height + 3 * GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for word, start, x, y in words:
        in_phrase = start < maps.end and maps.start < start + len(word)
        draw.text((MARGIN + x, MARGIN + y), word, PHRASE if in_phrase else INK, _font(TITLE))
    top += MARGIN + GAP
    for place, (caption, panel) in enumerate(panels.items()):
        left = MARGIN + place * step
        sheet.paste(Image.fromarray(panel), (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(221, 225, 229))
        draw.text((left, top + height + GAP // 2), caption, INK, _font(SMALL))
    _legend(sheet, draw, MARGIN + step, top + height + 2 * GAP)
    return np.asarray(sheet)


def _flow(text: str, font: Any, width: int) -> tuple[list[tuple[str, int, float, int]], int]:
    """Breaks a text into lines: (word, its first character, x, y) of each word, and the height of all lines."""
    placed, x, y, line = [], 0.0, 0, round(1.4 * TITLE)
    for match in re.finditer(r"\S+", text):
        length = font.getlength(match[0])
        if x and x + length > width:
            x, y = 0.0, y + line
        placed.append((match[0], match.start(), x, y))
        x += length + font.getlength(" ")
    return placed, y + line


def _legend(sheet: Image.Image, draw: Any, left: int, top: int) -> None:
    """Draws the colour scale and the meaning of its ends."""
    bar = overlay(np.full((SMALL, 60, 3), 255, np.uint8), np.linspace(0, 1, 60)[None])
    x = left + round(_font(SMALL).getlength("smallest "))
    draw.text((left, top), "smallest", SOFT, _font(SMALL))
    sheet.paste(Image.fromarray(bar), (x, top + 2))
    draw.text((x + 68, top), "largest weight of each map, paler where nearly flat", SOFT, _font(SMALL))


def _font(size: int) -> Any:
    """Returns DejaVu Sans, or else Pillow's own font, which has only the letters of English."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
