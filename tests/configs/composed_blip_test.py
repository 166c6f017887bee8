"""The recipe of composed BLIP: what each argument changes."""

import pytest

from configs.composed_blip import get_config
from contextjax.variants import make_model, make_spec
from experiments.shared import systems

TERMS = {"": {"recall"}, "reverse": {"recall", "reverse"}, "covr": {"contrastive"},
         "covr,reverse": {"contrastive", "reverse"}}  # fmt: skip


@pytest.mark.parametrize("data", ["cirr", "lasco", "fashion_iq"])
@pytest.mark.parametrize("options", TERMS)
def test_every_argument_gives_a_whole_recipe(data, options):
    config = get_config(f"{data},{options},tiny")
    spec = make_spec(config.model, vocabulary=500)
    assert spec.title == "composed BLIP (unverified form)" and spec.query == "composed"
    (phase,) = systems.of(config).make_phases(config, make_model(spec))
    assert set(dict(phase.objective.weights)) == TERMS[options]
    assert config.data.reader == data and config.optimizer.freeze[0] == "blip/vision"


def test_the_published_size_is_blips_at_384_pixels():
    config = get_config()
    model = make_model(make_spec(config.model))
    assert model.config.blip.vision.image_size == 384 and model.config.fused_token == 30523
    with pytest.raises(ValueError, match="no argument 'case'; it has cirr, lasco"):
        get_config("case")
