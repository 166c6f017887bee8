"""Training steps as shapes: every recipe has a batch and sizes without data, as the loader makes it."""

import math

import jax
import jax.numpy as jnp
import pytest

from configs.clip import get_config as clip
from configs.clip4cir import get_config as clip4cir
from configs.composed_blip import get_config as composed_blip
from configs.context_blip import get_config as context_blip
from configs.context_cir import get_config as context_cir
from configs.pictogram_sets import get_config as pictogram_sets
from configs.pictograms import get_config as pictograms
from configs.pseudo_word import get_config as pseudo_word
from configs.systems import get_config as all_systems
from contextjax.types import (
    SLOT,
    CandidateBatch,
    CaptionBatch,
    ComposedBatch,
    FeatureBatch,
    FeaturePairs,
    TextBatch,
    UserError,
)
from data_pipelines.ops import ComposedSamples, PhraseSamples
from experiments.shared import models, systems
from experiments.shared.abstract_step import sizes_of, with_sizes


@pytest.mark.parametrize(
    ("config", "kind", "pictures"),
    [
        (context_cir("B32"), ComposedBatch, 2),
        (context_cir("L14,modern"), ComposedBatch, 2),
        (pictograms(), ComposedBatch, 5),
        (context_blip("1"), CaptionBatch, 1),
        (context_blip("2a,summary"), CandidateBatch, 10),
        (context_blip("2b"), FeatureBatch, 0),
        (pictogram_sets("pairs"), CandidateBatch, 10),
        (clip4cir("finetune,L14"), ComposedBatch, 2),
        (clip4cir("combiner,L14"), FeaturePairs, 0),
        (composed_blip("lasco,reverse"), ComposedBatch, 2),
        (pseudo_word("L14"), TextBatch, 0),
        (clip("L14"), CaptionBatch, 1),
    ],
)
def test_every_recipe_has_a_batch_and_sizes_without_data_or_hub(config, kind, pictures):
    config = with_sizes(config)
    batch = systems.of(config).abstract_batch(config)
    size = config.model.vision.image_size
    pixels = sum(math.prod(x.shape) for x in jax.tree.leaves(batch) if x.dtype == jnp.uint8)
    assert isinstance(batch, kind) and pixels == config.data.batch_size * pictures * size * size * 3


def test_missing_sizes_are_an_error():
    config = context_cir("B16")
    config.model.variant = ""
    with pytest.raises(UserError, match=r"base-patch16', no folder on this machine, and model\.variant is empty"):
        sizes_of(config)


@pytest.mark.parametrize("recipe", ["phrases", "masked captions", "texts alone"])
def test_an_abstract_batch_is_what_the_loader_makes(pictograms_folder, tmp_path, recipe):
    """The shapes are compared one by one, for recipes with phrases and captions."""
    from data_pipelines.loader import batches
    from experiments.shared.data import load_data

    config = recipe_on(pictograms_folder, pictograms() if recipe == "phrases" else all_systems("pseudo_word"))
    if recipe == "texts alone":
        config.loss.weights.captions, config.loss.lead_steps = 0.0, 0
    data = load_data(config, "train")
    tokenizer = models.make_tokenizer(config, tmp_path, data)
    samples = systems.make_samples(config, data, tokenizer, tmp_path)
    assert isinstance(samples, PhraseSamples if recipe == "texts alone" else ComposedSamples)
    batch = next(iter(batches(samples, batch_size=4, steps=1, seed=0)))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(batch) == shapes(systems.of(config).abstract_batch(config))
    if recipe != "phrases":
        slots = (batch.masked.ids == SLOT).any(-1)
        assert slots.all() and (batch.masked.mask.sum(-1) <= batch.masked.mask.shape[-1]).all()


@pytest.fixture
def pictograms_folder(request):
    return request.getfixturevalue("pictograms")  # whose name is the recipe's here


def recipe_on(folder, config):
    config.data.folder, config.data.batch_size, config.data.vocabulary = str(folder), 4, 300
    with config.unlocked():
        config.model = models.resolve_model(config)
    return config
