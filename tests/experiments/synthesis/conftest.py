"""A tiny CLIP and a folder of unlabelled pictures."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from contextjax.models.clip import CLIP
from contextjax.pretrained import write_pretrained
from contextjax.tokenizers import train_tokenizer
from experiments.synthesis.embedding import load_system
from tests.data_pipelines.synthesis.conftest import make_pipeline, pairs, pictures_folder  # noqa: F401
from tests.pretrained.conftest import random_params

TEXTS = ["Add a dog.", "Make it red.", "Remove the ball."]


@pytest.fixture(scope="session")
def clip(tiny, tmp_path_factory):
    """The folder of a tiny CLIP with random weights."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=10)
    text = dataclasses.replace(tiny.clip.text, vocabulary=280, eos_token=tokenizer._last)
    config = dataclasses.replace(tiny.clip, text=text)
    folder = tmp_path_factory.mktemp("clip") / "clip"
    write_pretrained(folder, config, random_params(CLIP(config)))
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def system(clip):
    """The tiny CLIP, loaded once: its programs are compiled once."""
    return load_system(str(clip))


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, six of them nearly the same, one that can't be read."""
    place, rng = tmp_path / "unlabelled", np.random.default_rng(0)
    place.mkdir()
    base = rng.integers(0, 256, (16, 16, 3))
    for number in range(12):
        pixels = base + rng.integers(-30, 30, base.shape) if number % 2 else rng.integers(0, 256, base.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"p{number:02}.png")
    (place / "broken.png").write_bytes(b"no picture")
    return place
