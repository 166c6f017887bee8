"""Scenes and their drawing: each thing appears in its own place, larger when it is large."""

import numpy as np
import pytest

from data_pipelines.datasets.pictograms.scenes import (
    PLACES,
    Thing,
    draw,
    folder_pictograms,
    make_scene,
    pictogram_art,
    share_of,
    twemoji_pictograms,
)


def ink(picture: np.ndarray) -> np.ndarray:
    """The number of pixels that are not white, in each of the four places."""
    cells = (picture != 255).any(-1).reshape(2, 16, 2, 16)
    return cells.sum((1, 3)).ravel()


@pytest.mark.parametrize("place", range(4))
def test_a_thing_is_drawn_in_its_place_and_by_its_size(place):
    small, large = (
        draw(make_scene([Thing(place, "dog", size, (1.0, -1.0))]), twemoji_pictograms(), canvas=32)
        for size in ("small", "large")
    )
    assert small.shape == (32, 32, 3) and small.dtype == np.uint8
    assert ink(small)[place] == ink(small).sum() > 0
    assert ink(large)[place] == ink(large).sum() > 1.5 * ink(small)[place]


def test_two_things_in_one_place_are_refused():
    with pytest.raises(ValueError, match="share a place"):
        make_scene([Thing(0, "dog", "small"), Thing(0, "cat", "small")])


def test_scenes_are_equal_whatever_the_jitter_and_named_in_json():
    scene = make_scene([Thing(2, "cat", "large"), Thing(0, "dog", "small", (0.5, 0.5))])
    assert scene == make_scene([Thing(0, "dog", "small"), Thing(2, "cat", "large")])
    assert scene.names == ("cat", "dog")
    assert scene.to_json()[1] == {"name": "cat", "place": PLACES[2], "size": "large"}


def test_shares_of_combinations_are_spread_evenly():
    shares = np.sort([share_of((str(i), "x")) for i in range(1000)])
    assert np.abs(shares - np.arange(1000) / 1000).max() < 0.06


def test_the_art_of_a_folder_is_named_after_its_files(tmp_path):
    twemoji_pictograms()["dog"].save(tmp_path / "My_Dog.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert list(folder_pictograms(tmp_path)) == list(pictogram_art(str(tmp_path))) == ["my dog"]
    assert pictogram_art(None) is twemoji_pictograms()


def test_boxes_hold_what_is_drawn():
    """A thing alone leaves nothing outside of its box, and touches it on some sides; the drawing may be translucent."""
    for place, at in ((1, None), (2, None), (0, (0.3, 0.6, 0.4))):
        scene = make_scene([Thing(place, "dog", "large", (0.7, -0.4), at)])
        picture = draw(scene, twemoji_pictograms(), canvas=128)
        ((name, (left, top, right, bottom)),) = [(t["name"], t["box"]) for t in scene.boxes(128)]
        down, across = np.nonzero((picture != 255).any(-1))
        assert name == "dog" and 0 <= left < right <= 128 and right - left == bottom - top
        assert left <= across.min() and across.max() < right and top <= down.min() and down.max() < bottom
        assert max(across.max() - across.min(), down.max() - down.min()) > 0.8 * (right - left)
