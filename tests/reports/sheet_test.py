"""A sheet holds the picture as it is and both maps of it, under the whole text."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.reports import phrase_sheet
from contextjax.reports.maps import PhraseMaps
from contextjax.reports.pictures import overlay
from contextjax.reports.sheet import COLUMN, PHRASE, TITLE, _flow, _font

TEXT = "swap the dog for a cat"


def maps(start=5, end=12):
    rng = np.random.default_rng(0)
    return PhraseMaps(start, end, TEXT[start:end], rng.uniform(0, 0.2, (4, 4)), rng.uniform(0, 0.4, (4, 4)))


def places(sheet, picture):
    """Where the picture stands in the sheet: (top, left)."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    return np.argwhere((windows == picture).all((2, 3, 4))).tolist()


@pytest.mark.parametrize(
    ("shape", "seen"), [((40, 40), None), ((24, 60), (18, 0, 42, 24)), ((60, 20), (0, 20, 20, 40))]
)
def test_the_picture_and_its_maps_stand_side_by_side(shape, seen):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    found = maps()
    sheet = phrase_sheet(picture, TEXT, found, seen=seen)
    heats = (overlay(picture, heat, seen=seen) for heat in (found.in_context, found.alone))
    at = [places(sheet, panel) for panel in (picture, *heats)]
    assert all(len(place) == 1 for place in at)
    (top, first), (second_top, second), (third_top, third) = (place[0] for place in at)
    assert top == second_top == third_top and first + COLUMN < second < third - COLUMN
    assert sheet.shape[1] > 3 * COLUMN


def test_the_phrase_is_coloured_in_the_text():
    picture = np.full((40, 40, 3), 255, np.uint8)
    coloured = lambda start, end: (phrase_sheet(picture, TEXT, maps(start, end))[:60] == PHRASE).all(-1).any(0)
    first, last = coloured(0, 4), coloured(17, 22)
    assert first.any() and last.any()
    assert np.flatnonzero(first).max() < np.flatnonzero(last).min()


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.text(min_size=1), st.integers(50, 900))
def test_every_word_of_a_text_has_its_place(text, width):
    font = _font(TITLE)
    words, height = _flow(text, font, width)
    assert [word for word, *_ in words] == text.split()
    assert all(text[start:].startswith(word) for word, start, *_ in words)
    assert all(0 <= y < height and (x == 0 or x + font.getlength(word) <= width) for word, _, x, y in words)
