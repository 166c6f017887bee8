"""Captions: the independent parser reads each back as the scene."""

from random import Random

from data_pipelines.datasets.pictograms.captions import caption
from data_pipelines.datasets.pictograms.text_parser import parse_caption
from tests.data_pipelines.datasets.pictograms.random_scenes import random_scene


def test_captions_read_back_as_the_scene():
    rng = Random(4)
    for _ in range(3000):
        scene = random_scene(rng)
        text = caption(scene, rng)
        assert parse_caption(text) == scene, text
        assert len(text.split()) <= 30
