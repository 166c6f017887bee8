"""The independent parser of comparisons, on scenes made by hand."""

import pytest

from data_pipelines.datasets.pictograms.comparison_parser import target_of
from data_pipelines.datasets.pictograms.scenes import Scene, Thing


def scene(*things):
    """A scene of (name, centre down, centre right, side)."""
    return Scene(tuple(Thing(place, name, "small", at=at) for place, (name, *at) in enumerate(things)))


SCENES = [  # an owl that grows and moves to the right, and one, two and four dogs
    scene(("owl", 0.5, 0.2, 0.1), ("dog", 0.5, 0.9, 0.1)),
    scene(("owl", 0.5, 0.4, 0.2), *[("dog", 0.5, 0.9, 0.1)] * 2),
    scene(("owl", 0.3, 0.6, 0.3), *[("dog", 0.5, 0.9, 0.1)] * 4),
]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("The one where the owl is largest.", 2),
        ("The picture in which the owl is second largest.", 1),
        ("The owl is further left here than in all the other pictures.", 0),
        ("The one with the most dogs.", 2),
        ("There are fewer dogs here than in any other picture.", 0),
        ("The owl is higher up here than in all the other pictures.", 2),
        ("The one with the most cats.", None),  # none has any
        ("In no other picture is the owl the same size.", None),  # true of all three
    ],
)
def test_a_text_has_the_one_picture_it_is_true_of(text, target):
    assert target_of(text, SCENES) == target


def test_a_near_equal_is_equal():
    nearly = [*SCENES[:2], scene(("owl", 0.5, 0.4, 0.205), ("dog", 0.5, 0.9, 0.1))]
    assert target_of("The one where the owl is largest.", nearly) is None


@pytest.mark.parametrize("text", ["The owl is nice.", "The one where the owl is largest"])
def test_other_texts_are_errors(text):
    with pytest.raises(ValueError, match="expected one of the 13 known forms"):
        target_of(text, SCENES)
    with pytest.raises(ValueError, match="speaks of 'the cat', of which there are 0"):
        target_of("The one where the cat is largest.", SCENES)
