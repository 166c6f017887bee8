"""Edits: each difference between two scenes is found, has one reading, and leads from the one to the other."""

from random import Random

import pytest

from data_pipelines.datasets.pictograms import edits
from data_pipelines.datasets.pictograms.edits import OPERATIONS, TWO_STEP, Edit, difference, kind_of
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from tests.data_pipelines.datasets.pictograms.random_scenes import random_pairs

DOG = Thing(0, "dog", "small")
CAT = Thing(1, "cat", "large")
BACK = {"add": "remove", "remove": "add"}


def test_difference_leads_from_one_scene_to_the_other_and_is_as_long_on_the_way_back():
    kinds = set()
    for reference, target, _ in random_pairs(0, 3000):
        found, back = difference(reference, target), difference(target, reference)
        assert (found is None) == (back is None)
        if found and back:
            assert edits.steps(found, reference) == target
            assert BACK.get(kind_of(found), kind_of(found)) == kind_of(back)
            kinds.add(kind_of(found))
    assert kinds == {*OPERATIONS, TWO_STEP}


def test_two_edits_are_never_used_where_one_would_do_nor_on_what_comes_or_goes():
    for reference, target, _ in random_pairs(1, 3000):
        found = difference(reference, target)
        if found and len(found) == 2:
            assert all(edits.steps([edit], reference) != target for edit in found)
            names = [edit.name for edit in found]
            if names[0] == names[1]:
                assert {edit.operation for edit in found} == {"move", "resize"} or "swap" in [
                    edit.operation for edit in found
                ]


@pytest.mark.parametrize(
    "target",
    [
        make_scene([DOG, CAT]),  # nothing to do
        make_scene([Thing(0, "fox", "large"), CAT]),  # another thing of another size in the same place
        make_scene([Thing(2, "fox", "large"), Thing(3, "owl", "large")]),  # four changes
    ],
)
def test_no_clean_difference(target):
    assert difference(make_scene([DOG, CAT]), target) is None


@pytest.mark.parametrize(
    "edit",
    [
        Edit("remove", "fox"),
        Edit("add", "fox", 0, "small"),
        Edit("add", "dog", 2, "small"),
        Edit("move", "dog", 1),
        Edit("replace", "dog", other="cat"),
        Edit("resize", "dog", size="small"),
        Edit("swap", "dog", other="dog"),
        Edit("paint", "dog"),
    ],
)
def test_edits_that_do_not_apply_are_refused(edit):
    with pytest.raises(ValueError, match=r"Got|does not apply"):
        edits.apply(edit, make_scene([DOG, CAT]))


def test_what_is_not_touched_stays_where_it_was_drawn():
    scene = make_scene([Thing(0, "dog", "small", (0.5, -0.5)), CAT])
    changed = edits.apply(Edit("resize", "cat", size="small"), scene, Random(0))
    assert changed.things[0].jitter == (0.5, -0.5)
    assert changed.things[1].jitter != (0.0, 0.0)
