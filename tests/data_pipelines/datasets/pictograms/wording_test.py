"""Modification texts and captions: the independent parser understands each as meant, and there are many wordings."""

from random import Random

from data_pipelines.datasets.pictograms.edits import Edit, difference
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from data_pipelines.datasets.pictograms.text_parser import parse_caption, parse_modification
from data_pipelines.datasets.pictograms.wording import caption, modification_text
from tests.data_pipelines.datasets.pictograms.random_scenes import random_pairs, random_scene

DOG = Thing(0, "dog", "small")
CAT = Thing(1, "cat", "large")


def test_texts_read_back_as_the_target():
    for reference, target, rng in random_pairs(2, 6000):
        found = difference(reference, target)
        if found:
            text = modification_text(found, reference, rng)
            assert parse_modification(text, reference) == target, text
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
        assert len({modification_text([edit], scene, rng).lower() for _ in range(300)}) >= 10


def test_captions_read_back_as_the_scene():
    rng = Random(4)
    for _ in range(3000):
        scene = random_scene(rng)
        text = caption(scene, rng)
        assert parse_caption(text) == scene, text
        assert len(text.split()) <= 30
