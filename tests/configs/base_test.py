"""The recipes: each has a tiny form that builds a model."""

import pytest

from configs import context_blip, context_cir, covr2, pictogram_sets, pictograms
from contextjax.variants import make_model, make_spec


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [(pictograms, "tiny"), (context_cir, "tiny"), (covr2, "tiny"), (covr2, "fashion_iq,tiny"),
     *((context_blip, f"{stage},tiny") for stage in context_blip.STAGES),
     *((pictogram_sets, f"{stage},tiny") for stage in pictogram_sets.LATE_STAGES), (pictogram_sets, "few,paper,tiny")],
    ids=str,
)  # fmt: skip
def test_every_recipe_has_a_tiny_form(recipe, argument):
    config = recipe.get_config(argument)
    assert not config.model.pretrained and config.model.dtype == "float32"
    assert (config.training.steps, config.data.batch_size, config.model.vision.layers) == (12, 8, 1)
    assert config.optimizer.warmup_steps <= 4 and config.data.text_length <= 32
    make_model(make_spec(config.model, vocabulary=config.data.vocabulary))
