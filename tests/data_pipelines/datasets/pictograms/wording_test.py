"""Modification texts: the independent parser understands each as meant, and there are many wordings."""

from random import Random

from data_pipelines.datasets.pictograms.edits import Edit, difference
from data_pipelines.datasets.pictograms.scenes import Thing, make_scene
from data_pipelines.datasets.pictograms.text_parser import parse_modification
from data_pipelines.datasets.pictograms.wording import modification_text
from tests.data_pipelines.datasets.pictograms.random_scenes import random_pairs

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
