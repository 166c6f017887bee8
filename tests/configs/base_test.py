"""The keys of all recipes: sizes that are resolved once, unknown fields, and the tiny form of each."""

import pytest

from configs import context_blip, context_cir, pictogram_sets, pictograms
from configs.pictograms import get_config
from contextjax.variants import VARIANTS, make_model, make_spec, resolve


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [(pictograms, "tiny"), (context_cir, "tiny"),
     *((recipe, f"{stage},tiny") for recipe in (context_blip, pictogram_sets) for stage in recipe.STAGES)],
    ids=str,
)  # fmt: skip
def test_every_recipe_has_a_tiny_form(recipe, argument):
    config = recipe.get_config(argument)
    assert not config.model.pretrained and config.model.dtype == "float32"
    assert (config.training.steps, config.data.batch_size, config.model.vision.layers) == (12, 8, 1)
    assert config.optimizer.warmup_steps <= 4 and config.data.text_length <= 32
    make_model(make_spec(config.model, vocabulary=config.data.vocabulary))


@pytest.mark.parametrize("variant", VARIANTS)
def test_resolved_sizes_build_the_same_model(variant):
    from configs.base import base

    config = base("context_blip" if variant.startswith("BLIP") else "context_cir")
    config.model.variant = variant
    if variant == "BLIP-S16":  # whose width is that of a small model
        config.model.decoder_heads = config.model.context_heads = 4
    before = make_model(make_spec(config.model))
    with config.unlocked():
        config.model = resolve(config.model)
    assert make_model(make_spec(config.model)) == before


def test_an_unknown_field_of_a_tower_is_told():
    from contextjax.types import UserError

    config = get_config()
    with config.unlocked():
        config.model.vision.widht = 3
    with pytest.raises(UserError, match="widht"):
        make_model(make_spec(config.model))
