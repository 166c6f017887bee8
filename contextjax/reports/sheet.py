"""A phrase's maps as one picture that explains itself: the text, the query picture, the maps in context and alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from contextjax.reports.maps import PhraseMaps, weights
from contextjax.reports.pictures import Box, overlay
from contextjax.types import Picture

INK, SOFT, PAPER, PHRASE = (28, 33, 38), (90, 100, 110), (255, 255, 255), (180, 56, 4)
MARGIN, GAP = 24, 20
COLUMN = 300  # the least width of a column, for what stands under its picture
TITLE, SMALL = 24, 17  # letter heights


def phrase_sheet(picture: Picture, text: str, maps: PhraseMaps, *, seen: Box | None = None) -> Picture:
    """One picture of a phrase: uint8 [H, W, 3].

    Args:
      picture: the query picture; shown in its own size, three times.
      text: the modification text that the phrase is of.
      maps: the phrase's maps.
      seen: the part of the picture that the maps are of; default: the whole.
    """
    height, width = picture.shape[:2]
    heats = {"in context": maps.in_context, "alone": maps.alone}
    whole = seen in (None, (0, 0, width, height))
    panels = {"query picture" if whole else "query picture; grey is not read": picture} | {
        f"{how}: {weights(heat).replace('–', ' to ')}": overlay(picture, heat, seen=seen) for how, heat in heats.items()
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
    """The words of a text in lines: (word, its first character, x, y), and the height of all lines."""
    placed, x, y, line = [], 0.0, 0, round(1.4 * TITLE)
    for match in re.finditer(r"\S+", text):
        length = font.getlength(match[0])
        if x and x + length > width:
            x, y = 0.0, y + line
        placed.append((match[0], match.start(), x, y))
        x += length + font.getlength(" ")
    return placed, y + line


def _legend(sheet: Image.Image, draw: Any, left: int, top: int) -> None:
    """From no colour to the full one: what the colours of each map mean."""
    bar = overlay(np.full((SMALL, 60, 3), 255, np.uint8), np.linspace(0, 1, 60)[None])
    x = left + round(_font(SMALL).getlength("smallest "))
    draw.text((left, top), "smallest", SOFT, _font(SMALL))
    sheet.paste(Image.fromarray(bar), (x, top + 2))
    draw.text((x + 68, top), "largest weight of each map, paler where nearly flat", SOFT, _font(SMALL))


def _font(size: int) -> Any:
    """DejaVu Sans where the machine has it; Pillow's own knows the letters of English only."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
