"""The shipped recipes: every argument gives a config that builds a model and its objective."""

import pytest

from configs.pictograms import ARGUMENTS, get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.variants import VARIANTS, make_model, resolve
from experiments import assembly


@pytest.mark.parametrize("argument", ["", *ARGUMENTS, "demo,no_consistency"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    model = make_model(config.model, vocabulary=500)
    phases = assembly.parts(config).make_phases(config, model)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_resolved_sizes_build_the_same_model(variant):
    from configs.base import base

    config = base("context_blip" if variant.startswith("BLIP") else "context_cir")
    config.model.variant = variant
    if variant == "BLIP-S16":  # whose width is that of a small model
        config.model.decoder_heads = config.model.context_heads = 4
    before = make_model(config.model)
    with config.unlocked():
        config.model = resolve(config.model)
    assert make_model(config.model) == before


def test_an_unknown_field_of_a_tower_is_told():
    from contextjax.types import UserError

    config = get_config()
    with config.unlocked():
        config.model.vision.widht = 3
    with pytest.raises(UserError, match="widht"):
        make_model(config.model)


@pytest.mark.parametrize("size", ["B32", "B16", "L14", "H14"])
def test_the_published_recipe_is_the_papers(size):
    """arXiv 2505.20764: the numbers of its section on training, at every size."""
    from configs.context_cir import get_config

    config = get_config(size)
    assert config.model.variant == size and size[0] in config.model.pretrained.upper()
    config.model.pretrained = ""  # its sizes are the variant's; no hub here
    model = make_model(config.model)
    assert model.config.fusion_layers == 4 and model.config.fusion_heads == 8 and model.config.fusion_head == "own"
    phases = assembly.parts(config).make_phases(config, model)
    assert [phase.start for phase in phases] == [0]
    objective = phases[0].objective
    assert objective.weights == (("consistency", 0.08), ("contrastive", 1.0)) and objective.temperature == 0.07
    assert objective.reference_negatives and objective.epsilon == 0
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    assert float(schedule(500)) == pytest.approx(1e-5, rel=1e-3) and float(schedule(250)) == pytest.approx(
        5e-6, rel=1e-2
    )


def test_an_unknown_size_is_told():
    from configs.context_cir import get_config

    with pytest.raises(ValueError, match="expected one of B32"):
        get_config("B64")
