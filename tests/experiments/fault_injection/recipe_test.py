"""The small recipes are the shipped ones with their argument `tiny`."""

import pytest

from configs import pictogram_sets, pictograms
from experiments.fault_injection.recipe import SYSTEMS, get_config


@pytest.mark.parametrize("name", [*SYSTEMS, "interrupted"])
def test_towers_losses_and_optimizer_are_those_of_the_shipped_recipe(name):
    config = get_config(name)
    shipped = pictogram_sets.get_config("1,tiny") if name == "context_blip" else pictograms.get_config("tiny")
    assert config.model.system == shipped.model.system and config.model.vision.layers == shipped.model.vision.layers
    if name in SYSTEMS:
        assert config.loss == shipped.loss and config.optimizer == shipped.optimizer
    else:
        assert dict(config.training.best) == {"val/R@5": 1.0}  # so that a checkpoint has a score
