"""The shipped recipes: every argument gives a config that builds a model and its objective."""

import pytest

from configs.pictograms import ARGUMENTS, get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.variants import make_model, make_spec
from experiments.shared import systems


@pytest.mark.parametrize("argument", ["", *ARGUMENTS, "demo,no_consistency"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    model = make_model(make_spec(config.model, vocabulary=500))
    phases = systems.of(config).make_phases(config, model)
    assert phases[0].start == 0 and phases[-1].start < config.training.steps
    weights = dict(phases[-1].objective.weights)
    without = ("no_consistency", "sum", "image", "text", "depth0", "towers")
    assert ("consistency" in weights) == (not any(name in argument.split(",") for name in without))
    assert weights.get("captions") == {"towers": 1.0, "frozen": None}.get(argument, 0.2)
    make_optimizer(config.optimizer, steps=config.training.steps)
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    assert float(schedule(config.training.steps)) == pytest.approx(0, abs=1e-8)


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'demos'; it has demo"):
        get_config("demos")
