"""Pictures of a page: their size, heat maps and outlines over them, and the sheet of a phrase."""

import base64
import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from contextjax.reports import phrase_sheet
from contextjax.reports.maps import PhraseMaps
from contextjax.reports.pictures import (
    COLUMN,
    PHRASE,
    TITLE,
    _flow,
    _font,
    data_uri,
    outlined,
    overlay,
    scaled,
    weight_range,
)

TEXT = "swap the dog for a cat"


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_pictures_are_made_smaller_and_keep_their_shape():
    assert decoded(data_uri(np.zeros((300, 600, 3), np.uint8))).shape == (64, 128, 3)
    assert decoded(data_uri(np.zeros((48, 48, 3), np.uint8))).shape == (48, 48, 3)


def test_heat_lies_where_the_map_says_and_scales_to_its_own_range():
    white = np.full((64, 64, 3), 255, np.uint8)
    heated = overlay(white[:8, :8], np.asarray([[0.0, 0.02], [0.0, 0.0]]))
    assert (heated[4:] == 255).all() and (heated[:, :4] == 255).all()
    assert (heated[:4, 4:] == heated[0, 4]).all()
    assert heated[0, 4, 0] > heated[0, 4, 2] + 100  # warm
    assert (overlay(white, np.zeros((2, 2))) == 255).all()


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_the_warmest_patch_is_the_maps_largest_and_the_rest_of_the_picture_stays_grey(data):
    rows, columns = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    height, width = data.draw(st.tuples(st.integers(rows, 90), st.integers(columns, 90)))
    left, top = data.draw(st.tuples(st.integers(0, width - columns), st.integers(0, height - rows)))
    right, bottom = data.draw(st.tuples(st.integers(left + columns, width), st.integers(top + rows, height)))
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    row, column = data.draw(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)))
    heat = np.random.default_rng(1).uniform(0.1, 0.3, (rows, columns))
    heat[row, column] = 0.4
    heated = overlay(picture, heat, seen=(left, top, right, bottom))
    assert heated.shape == picture.shape and heated.dtype == np.uint8
    outside = np.ones((height, width), bool)
    outside[top:bottom, left:right] = False
    assert (heated[outside] == heated[outside][:, :1]).all()
    if rows * columns > 1:
        y = top + (2 * row + 1) * (bottom - top) // (2 * rows)
        x = left + (2 * column + 1) * (right - left) // (2 * columns)
        warmth = heated[..., 0].astype(int) - heated[..., 2]
        assert warmth[y, x] >= max(100, warmth.max() - 1)  # rounding


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (300, 200), (1, 100)])
def test_pictures_are_scaled_by_their_longer_side(shape):
    height, width = scaled(np.zeros((*shape, 3), np.uint8), 60).shape[:2]
    assert max(height, width) == 60 and (height > width) == (shape[0] > shape[1])


def test_faint_and_flat_maps_are_paler():
    white = np.full((64, 64, 3), 255, np.uint8)
    green = lambda low, peak: int(overlay(white, np.asarray([[low, peak]]))[0, 63, 1])
    clear = green(0.1, 0.4)
    assert green(0.0, 0.05) == clear, "the level does not count, once it is not faint"
    assert clear < green(0.0, 0.002) < 255
    assert clear < green(0.38, 0.4) < 255


def test_chosen_patches_keep_their_colours_inside_an_outline_and_the_others_fade():
    picture = np.random.default_rng(0).integers(0, 200, (40, 60, 3), np.uint8)
    chosen = np.zeros((2, 3), bool)
    chosen[1, 2] = True
    found = outlined(picture, chosen)
    assert (found[23:37, 43:57] == picture[23:37, 43:57]).all()
    assert (found[20:40, 40] == found[20, 40]).all() and (found[20, 40:60] == found[20, 40]).all()
    assert (found[:20] > picture[:20]).all() and (found[:, :40] > picture[:, :40]).all()
    assert (outlined(picture, ~chosen)[22:38, 42:58] > picture[22:38, 42:58]).all()


def test_weights_in_words():
    assert weight_range(np.asarray([[0.15, 0.2504]])) == "0.150–0.250"
    assert weight_range(np.asarray([[0.0, 0.0009]])) == "below 0.001"


def maps(start=5, end=12):
    rng = np.random.default_rng(0)
    return PhraseMaps(start, end, TEXT[start:end], rng.uniform(0, 0.2, (4, 4)), rng.uniform(0, 0.4, (4, 4)))


def places(sheet, picture):
    """Finds the picture in the sheet: (top, left) of each place."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    return np.argwhere((windows == picture).all((2, 3, 4))).tolist()


@pytest.mark.long
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
