"""ContextBLIP's recipes: every argument is a whole recipe, and the published numbers are the paper's."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import pytest

from configs import context_blip, pictogram_sets
from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.optim import make_optimizer, make_schedule
from contextjax.pretrained import abstract_params
from contextjax.variants import make_model, make_spec
from experiments.shared import systems


def arguments_of(recipe):
    """Every stage alone, and with each further argument."""
    others = [None, *(name for name in recipe.ARGUMENTS if name not in recipe.STAGES)]
    given = [stage if name is None else f"{stage},{name}" for stage, name in itertools.product(recipe.STAGES, others)]
    return [pytest.param(recipe, argument, id=f"{recipe.__name__}:{argument}") for argument in given]


RECIPES = [
    param
    for recipe in (context_blip, pictogram_sets)
    for param in arguments_of(recipe)
    if param.values[1] not in ("2b,card", "pairs,dual", "2a,dual", "2b,dual")  # which there are not
]


def whole(config):
    """(model, shapes of its parameters, phases); without the weights that it would start from.

    The blocks of a tower are stacked, which is the same model and is traced once instead of twelve times.
    """
    config.model.pretrained = ""
    config.model.vision.scan = config.model.text.scan = True
    model = make_model(make_spec(config.model))
    phases = systems.of(config).make_phases(config, model)
    return model, shapes_of(model), phases


@functools.cache
def shapes_of(model):
    return nn.unbox(abstract_params(model))


@pytest.mark.parametrize(("recipe", "argument"), RECIPES)
def test_every_argument_gives_a_whole_recipe(recipe, argument):
    """A model with the parts that its objective and its optimizer name, and a schedule over its steps."""
    config = recipe.get_config(argument)
    model, params, phases = whole(config)
    stage = argument.split(",")[0]
    assert [phase.start for phase in phases] == [0] and config.training.steps > 0
    objective = phases[0].objective
    assert isinstance(objective, CaptionObjective if stage == "1" else SelectionObjective)
    assert ("selection" in dict(objective.weights)) == (stage not in ("1", "pairs")) and objective.weights
    if "masking" in dict(objective.weights):
        assert ("attended" if "card" in argument else "decoder") in params
    assert ("context" in params) == (stage == "2b") == config.data.cached
    state = jax.eval_shape(make_optimizer(config.optimizer, steps=config.training.steps).init, params)
    moments = sum(math.prod(x.shape) for x in jax.tree.leaves(state) if x.shape)
    trained = {name: part for name, part in params.items() if name not in config.optimizer.freeze}
    size = sum(math.prod(x.shape) for x in jax.tree.leaves(trained))
    assert size and size <= moments <= 2 * size + 1  # a moment or two of each
    assert ("context" in trained) == (stage == "2b") and ("blip" in trained) == ("blip" not in config.optimizer.freeze)
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    rates = [float(schedule(step)) for step in (0, config.optimizer.warmup_steps, config.training.steps - 1)]
    assert rates[1] == pytest.approx(config.optimizer.learning_rate, rel=1e-4) == max(rates) and rates[2] > 0
    assert config.data.text_length <= model.config.blip.text.positions


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [
        (context_blip, "3"),
        (context_blip, "card"),
        (context_blip, "2a,2b"),
        (context_blip, "2a,cards"),
        (context_blip, ""),
        (context_blip, "2b,card"),
    ],
)
def test_other_arguments_are_refused(recipe, argument):
    wrong = argument.split(",")[-1]
    with pytest.raises(ValueError, match=rf"{recipe.__name__.split('.')[-1]}\.py .*'{wrong}'.*1.*2a"):
        recipe.get_config(argument)


# ------------------------------------------------------------------------------- as published (reference, 4 and 5)


def test_the_base_model_is_blips():
    for stage in context_blip.STAGES:
        config = context_blip.get_config(stage)
        assert "blip" in config.model.pretrained and config.data.text_length == 30 and config.data.clean
        model, _, _ = whole(config)
        vision, text = model.config.blip.vision, model.config.blip.text
        assert (vision.image_size, vision.patch_size, vision.width, vision.layers, vision.heads) == (
            224,
            16,
            768,
            12,
            12,
        )
        assert vision.taps == (3, 6, 9, 12) and not vision.pre_norm and vision.patch_bias
        assert (text.vocabulary, text.width, text.layers, text.heads) == (30524, 768, 12, 12)
        assert (model.config.adapter, model.config.adapter_reduction) == ("taps", 2)
        assert (model.config.fused_token, model.config.blip.projection) == (30523, 256)


def test_stage_1_is_the_papers():
    config = context_blip.get_config("1")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adamw", 3e-4, 0.05)
    assert (optimizer.beta1, optimizer.beta2) == (0.9, 0.999)  # PyTorch's own
    assert config.data.batch_size == 4 * 256 and config.data.augment == "caption"
    epoch = context_blip.CAPTIONS // 1024
    assert config.training.steps == pytest.approx(20 * epoch, rel=1e-3)
    schedule = make_schedule(optimizer, steps=config.training.steps)
    rates = [float(schedule(3000 + epochs * epoch)) for epochs in (0, 1, 2, 18)]
    assert rates == pytest.approx([3e-4 * 0.9**n for n in (0, 1, 2, 18)], rel=1e-4)
    assert float(schedule(1500)) == pytest.approx(1.5e-4, rel=1e-3)
    model, params, (phase,) = whole(config)
    assert phase.objective.weights == (("masking", 1.0), ("matching", 1.0))
    assert (model.config.masking, model.config.mask_rate, model.config.selection) == ("pixels", 0.25, "none")
    assert (model.config.decoder_layers, model.config.decoder_heads) == (4, 8)
    sizes = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(part)) for name, part in params.items()}
    assert optimizer.freeze == ("blip",) and sizes["adapter"] == 2_359_296
    assert sizes["decoder"] == pytest.approx(37.8e6 + 1.3e6, rel=0.005) and set(sizes) == {"blip", "adapter", "decoder"}


def test_stage_2a_is_the_papers():
    config = context_blip.get_config("2a")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.epsilon) == ("adam", 0.9, 0.98, 1e-6)
    assert (optimizer.weight_decay, optimizer.freeze, optimizer.warmup_steps) == (0.2, (), 0)
    assert optimizer.clip_norm > 1e6  # the published loop does not clip
    rate = optimizer.learning_rate
    assert rate == 1e-4 and {k: v * rate for k, v in optimizer.multipliers.items()} == pytest.approx(
        {"blip": 2e-6, "adapter": 2e-6}
    )
    epoch = 16_594 // 36
    assert config.data.batch_size == 36 and config.data.candidates == 10
    assert config.training.steps == pytest.approx(40 * epoch, rel=3e-3)
    schedule = make_schedule(optimizer, steps=config.training.steps)
    rates = [float(schedule(epochs * epoch)) for epochs in (0, 1, 39)]
    assert rates == pytest.approx([1e-4 * 0.95**n for n in (0, 1, 39)], rel=1e-4)
    model, params, (phase,) = whole(config)
    assert phase.objective.weights == (("selection", 36.0),)  # the published loop sums its 36 gradients
    assert (model.config.selection, model.config.masking, set(params)) == ("head", "none", {"blip", "adapter", "head"})
    assert config.data.augment == "set" and context_blip.get_config("2a,published").data.augment == "published"


def test_stage_2b_is_the_papers():
    config = context_blip.get_config("2b")
    model, params, (phase,) = whole(config)
    c = model.config
    assert (c.context_layers, c.context_heads, c.context_positions, c.context_dropout) == (
        2,
        8,
        10,
        0.1,
    )
    assert not c.context_relative and phase.objective.weights == (("selection", 36.0),)
    assert set(params) - set(config.optimizer.freeze) == {"context"} and config.data.cached
    assert config.data.augment == "none"
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    assert [float(schedule(step)) for step in (0, 1000, 9000)] == pytest.approx([2e-6] * 3)
    assert config.optimizer.name == "adam" and config.training.steps == pytest.approx(20 * (16_594 // 36), rel=3e-3)


def test_the_card_is_what_it_says():
    first, second = (context_blip.get_config(f"{stage},card") for stage in ("1", "2a"))
    model, params, _ = whole(first)
    assert set(params) == {"blip", "adapter", "attended"} and model.config.adapter == "convolutions"
    model, params, (phase,) = whole(second)
    assert set(params) == {"blip", "adapter", "logit_scale"} and model.config.selection == "itc"
    assert dict(phase.objective.weights) == {"selection": 36.0}
