"""Edits, the texts that ask for them, and the reader that takes the texts at their word."""

from random import Random

import pytest

from data_pipelines.datasets.pictograms import edits
from data_pipelines.datasets.pictograms.edits import OPERATIONS, TWO_STEP, Edit, caption, difference, kind_of, phrase
from data_pipelines.datasets.pictograms.text_parser import read, read_caption
from data_pipelines.datasets.pictograms.scenes import SIZES, Scene, Thing, make_scene
from data_pipelines.datasets.pictograms.names import PICTOGRAMS

DOG = Thing(0, "dog", "small")
CAT = Thing(1, "cat", "large")
BACK = {"add": "remove", "remove": "add"}


def random_scene(rng: Random) -> Scene:
    count = rng.randint(1, 4)
    chosen = zip(rng.sample(range(4), count), rng.sample(PICTOGRAMS, count), strict=True)
    return make_scene(Thing(place, name, rng.choice(SIZES)) for place, name in chosen)


def random_edit(scene: Scene, rng: Random) -> Edit:
    names = [thing.name for thing in scene.things]
    new = rng.choice([name for name in PICTOGRAMS if name not in names])
    return Edit(
        rng.choice(OPERATIONS),
        *[rng.choice([new, *names])],
        place=rng.randrange(4),
        size=rng.choice(SIZES),
        other=rng.choice([new, *names]),
    )


def random_pairs(seed: int, count: int):
    """Pairs of scenes one or two random edits apart."""
    rng = Random(seed)
    while count:
        reference = target = random_scene(rng)
        for _ in range(rng.choice((1, 2))):
            while (changed := edits.steps([random_edit(target, rng)], target)) is None:
                pass
            target = changed
        if target.things and target != reference:
            count -= 1
            yield reference, target, rng


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


def test_texts_read_back_as_the_target():
    for reference, target, rng in random_pairs(2, 6000):
        found = difference(reference, target)
        if found:
            text = phrase(found, reference, rng)
            assert read(text, reference) == target, text
            assert 3 <= len(text.split()) <= 18
            assert "  " not in text and text == text.strip()


def test_each_operation_is_said_in_many_ways():
    scene = make_scene([DOG, CAT])
    rng = Random(3)
    for edit in (
        Edit("add", "fox", 2, "small"),
        Edit("remove", "dog"),
        Edit("replace", "dog", other="owl"),
        Edit("move", "dog", 3),
        Edit("swap", "cat", other="dog"),
        Edit("resize", "dog", size="large"),
    ):
        assert len({phrase([edit], scene, rng).lower() for _ in range(300)}) >= 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remove the dog", [CAT]),
        ("Replace the cat with an owl.", [DOG, Thing(1, "owl", "large")]),
        ("move the dog below the cat", [Thing(3, "dog", "small"), CAT]),
        ("swap the dog and the cat and make the cat smaller", [Thing(0, "cat", "small"), Thing(1, "dog", "small")]),
        ("move the dog down and enlarge it", [Thing(2, "dog", "large"), CAT]),
        ("clear the top left, then add a big fox in the bottom right", [CAT, Thing(3, "fox", "large")]),
    ],
)
def test_the_reader_takes_hand_written_texts_at_their_word(text, expected):
    assert read(text, make_scene([DOG, CAT])) == make_scene(expected)


@pytest.mark.parametrize(
    "text",
    [
        "remove the fox",  # not there
        "remove the large dog",  # it is small
        "move the dog above the cat",  # outside
        "add a small fox in the top left",  # taken
        "put a small fox next to the dog and the cat",
        "make the dog small",  # it is
        "shiny happy pictures",
        "make it big",
    ],
)
def test_the_reader_refuses_what_is_untrue_or_unclear(text):
    with pytest.raises(ValueError, match="Can't read"):
        read(text, make_scene([DOG, CAT]))


def test_captions_read_back_as_the_scene():
    rng = Random(4)
    for _ in range(3000):
        scene = random_scene(rng)
        text = caption(scene, rng)
        assert read_caption(text) == scene, text
        assert len(text.split()) <= 30
