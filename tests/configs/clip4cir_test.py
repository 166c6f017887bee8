"""CLIP4Cir's recipe: its stages have the published settings."""

import numpy as np
import pytest

from configs.clip4cir import get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.variants import make_model, make_spec
from experiments.shared import systems


@pytest.mark.parametrize("argument", ["", "finetune,B32", "combiner,L14,fashion_iq", "combiner,squarepad,tiny", "tiny"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    is_combiner = "combiner" in argument
    model = make_model(make_spec(config.model, vocabulary=500))
    (phase,) = systems.of(config).make_phases(config, model)
    objective = phase.objective
    assert dict(objective.weights) == {"contrastive": 1.0} and objective.temperature == 0.01
    assert objective.one_direction and not objective.reference_negatives
    assert model.config.query == ("combiner" if is_combiner else "raw_sum") and config.data.cached == is_combiner
    assert model.config.clip.vision.fit == ("squarepad" if "squarepad" in argument else "targetpad")
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    np.testing.assert_allclose([schedule(0), schedule(10_000)], 2e-5 if is_combiner else 2e-6, rtol=1e-6)
    make_optimizer(config.optimizer, steps=config.training.steps)
    assert sum(config.training.best.values()) == pytest.approx(1)
    if not argument:
        assert (config.data.batch_size, config.training.steps) == (128, 22_050)


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'RN50x4'; expected some of finetune, combiner, B16"):
        get_config("RN50x4")
