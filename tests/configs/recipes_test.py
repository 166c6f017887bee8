"""The shipped recipes: every argument gives a config that builds a model and its objective."""

import pytest

from configs.pictograms import ARGUMENTS, get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.variants import VARIANTS, make_context_cir, resolve
from experiments import assembly


@pytest.mark.parametrize("argument", ["", *ARGUMENTS, "demo,no_consistency"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    model = make_context_cir(config.model, vocabulary=500)
    phases = assembly.make_phases(config, model)
    assert phases[0].start == 0 and phases[-1].start < config.training.steps
    weights = dict(phases[-1].objective.weights)
    has_consistency = "no_consistency" not in argument and config.model.query == "fusion"
    assert ("consistency" in weights) == has_consistency and weights["captions"] == 0.2
    make_optimizer(config.optimizer, steps=config.training.steps)
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    assert float(schedule(config.training.steps)) == pytest.approx(0, abs=1e-8)


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'demos'; it has demo"):
        get_config("demos")


@pytest.mark.parametrize("variant", VARIANTS)
def test_resolved_sizes_build_the_same_model(variant):
    config = get_config()
    config.model.variant = variant
    before = make_context_cir(config.model)
    with config.unlocked():
        config.model = resolve(config.model)
    assert make_context_cir(config.model) == before


def test_an_unknown_field_of_a_tower_is_told():
    from contextjax.types import UserError

    config = get_config()
    with config.unlocked():
        config.model.vision.widht = 3
    with pytest.raises(UserError, match="widht"):
        make_context_cir(config.model)
