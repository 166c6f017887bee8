"""Crops of pictures, and listings of folders."""

import io

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.records import Crop, list_pictures

WIDTH, HEIGHT = 40, 30


@pytest.fixture
def path(tmp_path):
    """Red tells the column, green the row; no pixel is black."""
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    Image.fromarray(np.stack([columns, rows, np.full_like(rows, 9)], -1).astype(np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def pixels(crop):
    return np.asarray(Image.open(io.BytesIO(crop.read_bytes())))


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_is_a_square_with_the_very_pixels_of_the_box(path, seed):
    rng = np.random.default_rng(seed)
    left, top = int(rng.integers(0, WIDTH - 1)), int(rng.integers(0, HEIGHT - 1))
    width, height = int(rng.integers(1, WIDTH - left)), int(rng.integers(1, HEIGHT - top))
    found = pixels(Crop(path, (left, top, width, height)))
    side = max(width, height)
    assert found.shape == (side, side, 3)
    filled = found[..., 2] == 9
    inner = found[filled].reshape(height, width, 3)
    np.testing.assert_array_equal(inner, np.asarray(Image.open(path))[top : top + height, left : left + width])
    assert not found[~filled].any()
    rows, columns = np.nonzero(filled)
    assert rows.min() == (side - height) // 2 and columns.min() == (side - width) // 2


def test_dilation_goes_as_published():
    """To the left and up; to the right and down only what the picture's edge keeps from it there."""
    corners = lambda *box: Crop("a.png", box, dilation=0.5).corners(100, 100)
    assert corners(40, 60, 20, 10) == (30, 55, 60, 70)
    assert corners(4, 0, 20, 10) == (0, 0, 30, 15)
    assert corners(90, 95, 20, 10) == (80, 90, 100, 100)


def test_a_crop_says_where_it_is_from(path):
    assert str(Crop(path, (0, 0, 1, 1))) == str(path)
    with pytest.raises(FileNotFoundError):
        Crop(path.with_name("b.png"), (0, 0, 1, 1)).read_bytes()


@pytest.mark.parametrize("box", [(WIDTH, 0, 5, 5), (0, HEIGHT + 3, 5, 5), (3, 3, 0.2, 5)])
def test_a_box_without_a_pixel_is_reported(path, box):
    with pytest.raises(UserError, match=r"holds no pixel of .*a\.png, which has 40 x 30"):
        Crop(path, box).read_bytes()


def test_listing(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    for name in ("1/a.jpg", "1/b.png", "1/b.jpg", "1/c.txt", "2/a.png", "2/d.JPEG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = {"a": first / "a.jpg", "b": first / "b.png", "d": second / "d.JPEG"}
    assert list_pictures(first, tmp_path / "3", second) == expected
