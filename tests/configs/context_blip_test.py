"""ContextBLIP's recipes: every argument is a whole recipe, and the published numbers are the paper's."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs import context_blip, pictogram_sets
from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.optim import make_optimizer, make_schedule
from contextjax.pretrained import abstract_params
from contextjax.pretrained.names import flatten
from contextjax.training.step import whole_batch
from contextjax.variants import make_model, make_spec
from experiments.shared import systems
from experiments.shared.models import resolve_model
from tests.models.context_blip_test import jit, random_params


def arguments_of(recipe):
    """Every stage alone, and with each further argument."""
    others = [None, *(name for name in recipe.ARGUMENTS if name not in recipe.STAGES)]
    given = [stage if name is None else f"{stage},{name}" for stage, name in itertools.product(recipe.STAGES, others)]
    return [pytest.param(recipe, argument, id=f"{recipe.__name__}:{argument}") for argument in given]


def has_stage(stage, others):
    return stage in pictogram_sets.stages(others)


RECIPES = [
    param
    for recipe in (context_blip, pictogram_sets)
    for param in arguments_of(recipe)
    if param.values[1] != "1,no_adapter" or recipe is not context_blip
    if recipe is not pictogram_sets or has_stage(*param.values[1].partition(",")[::2])
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


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "argument"), RECIPES)
def test_every_argument_gives_a_whole_recipe(recipe, argument):
    """A model with the parts that its objective and its optimizer name, and a schedule over its steps."""
    config = recipe.get_config(argument)
    model, params, phases = whole(config)
    stage = argument.split(",")[0]
    assert [phase.start for phase in phases] == [0] and config.training.steps > 0
    objective = phases[0].objective
    assert isinstance(objective, CaptionObjective if stage == "1" else SelectionObjective)
    late = recipe is pictogram_sets and not set(argument.split(",")) & set(pictogram_sets.PAPER)
    assert ("selection" in dict(objective.weights)) == (stage != "1" and not (late and stage == "pairs"))
    assert objective.weights
    if "masking" in dict(objective.weights):
        assert ("attended" if "summary" in argument else "decoder") in params
    assert config.data.cached == (stage == "2b")
    others = set(argument.split(",")[1:])
    in_2a = recipe is pictogram_sets and not late and "2a_longer" not in others  # the encoder trains there, too
    assert ("context" in params) == (stage in {"2b", *("few", "2a") * in_2a} and "no_context" not in others)
    state = jax.eval_shape(make_optimizer(config.optimizer, steps=config.training.steps).init, params)
    moments = sum(math.prod(x.shape) for x in jax.tree.leaves(state) if x.shape)
    freeze = tuple(f"{path}/" for path in config.optimizer.freeze)
    trained = {path: x for path, x in flatten(params).items() if not f"{path}/".startswith(freeze or "none")}
    size = sum(math.prod(x.shape) for x in trained.values())
    assert size and size <= moments <= 2 * size + 1  # a moment or two of each
    parts = {path.split("/")[0] for path in trained}
    assert ("context" in parts) == ("context" in params) and ("blip" in parts) == (
        "blip" not in config.optimizer.freeze
    )
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    rates = [float(schedule(step)) for step in (0, config.optimizer.warmup_steps, config.training.steps - 1)]
    assert rates[1] == pytest.approx(config.optimizer.learning_rate, rel=1e-4) == max(rates) and rates[2] > 0
    assert config.data.text_length <= model.config.blip.text.positions


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [
        (context_blip, "3"),
        (context_blip, "summary"),
        (context_blip, "2a,card"),
        (context_blip, "1,no_adapter"),
        (context_blip, "2a,2b"),
        (context_blip, "2a,cards"),
        (context_blip, ""),
    ],
)
def test_other_arguments_are_refused(recipe, argument):
    wrong = argument.split(",")[-1]
    with pytest.raises(ValueError, match=rf"{recipe.__name__.split('.')[-1]}\.py .*'{wrong}'.*1.*2a"):
        recipe.get_config(argument)


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [
        (context_blip, "2a,summary,no_adapter"),
        (context_blip, "2b,summary,no_context"),
        (pictogram_sets, "2a,paper,dual"),
    ],
)
def test_arguments_of_two_forms_are_refused_together(recipe, argument):
    _, one, other = argument.split(",")
    with pytest.raises(ValueError, match=f"'{one}' .*'{other}'.*; give one"):
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
    assert config.data.batch_size == 4 * 256 and config.data.augment == "published"
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


def test_the_summary_form_is_what_it_says():
    first, second, third = (context_blip.get_config(f"{stage},summary") for stage in context_blip.STAGES)
    model, params, _ = whole(first)
    assert set(params) == {"blip", "adapter", "attended"} and model.config.adapter == "convolutions"
    model, params, (phase,) = whole(second)
    assert set(params) == {"blip", "adapter", "logit_scale"} and model.config.selection == "adapted"
    assert dict(phase.objective.weights) == {"selection": 36.0}
    model, params, (phase,) = whole(third)
    assert set(params) - set(third.optimizer.freeze) == {"context"}
    assert params["context"]["position_embedding"].shape == (10, model.config.blip.projection)


def test_what_the_parts_are_compared_with_lacks_them_alone():
    tuned, plain, beside = (whole(context_blip.get_config(a))[1] for a in ("2a,no_adapter", "2b,no_context", "2b"))
    assert set(tuned) == {"blip", "head"} and set(beside) - set(plain) == {"context"}
    config, other = context_blip.get_config("2b,no_context"), context_blip.get_config("2b")
    assert set(plain) - set(config.optimizer.freeze) == {"head"}
    assert config.training == other.training and config.data == other.data


# ------------------------------------------------------------------------------- what each part learns


def random_batch(config):
    """A batch of the recipe's shapes: frames in order, whole sets, texts of three tokens and more."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].name
        if name == "mask":
            return np.broadcast_to(np.arange(x.shape[-1]) < 3 + x.shape[-1] // 2, x.shape)
        if x.dtype == bool:
            return np.ones(x.shape, bool)
        if x.dtype == np.float32:
            return rng.normal(size=x.shape).astype(np.float32)
        high = {"target": config.data.candidates, "images": 256}.get(name, config.data.vocabulary)
        rows = name in ("image_ids", "records")
        return np.arange(len(x)).astype(x.dtype) if rows else rng.integers(0, high, x.shape).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(draw, systems.of(config).abstract_batch(config))


@functools.cache
def gradients_of(model, objective, freeze, batch):
    """The paths of all kernels, and of what has no path but one, that the loss moves at random parameters."""
    step = jit(lambda params, batch: whole_batch(objective, params, batch, jax.random.key(0), freeze)[1])
    gradients = step(random_params(model), batch.value)
    return {path: float(np.abs(x).max()) for path, x in flatten(gradients).items()}


class Same:
    """A batch that is the same for all recipes of one shape, and so one key of a cache."""

    def __init__(self, value):
        self.value = value
        self.key = str(jax.tree.map(lambda x: x.shape, value))

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key


ADDED = ("adapter", "decoder", "attended", "head", "pooling", "context", "truth_bias", "logit_scale")


# The paper's form and the summary's. A model of the late interaction has all parts from its first stage on; each of its
# stages trains some.
FORMS = [
    param
    for param in RECIPES
    if not param.values[1].endswith("tiny")
    and (param.values[0] is context_blip or set(param.values[1].split(",")) & set(pictogram_sets.PAPER))
]


@pytest.mark.long  # a dozen steps are compiled
@pytest.mark.parametrize(("recipe", "argument"), FORMS)
def test_every_part_that_a_recipe_names_learns(recipe, argument):
    """Every kernel of what is added to BLIP has a gradient, and BLIP itself; at tiny size, unless it is frozen."""
    config = recipe.get_config(f"{argument},tiny")
    config.model, config.data.batch_size = type(config)(resolve_model(config)), 4
    model = make_model(make_spec(config.model, vocabulary=config.data.vocabulary))
    objective = systems.of(config).make_phases(config, model)[0].objective
    freeze = tuple(config.optimizer.freeze)
    sizes = gradients_of(model, objective, freeze, Same(random_batch(config)))
    parts = {path.partition("/")[0] for path in sizes}
    trained = parts - set(freeze)
    for part in trained:
        assert max(x for path, x in sizes.items() if path.split("/")[0] == part) > 1e-6, part
    assert not any(x for path, x in sizes.items() if f"{path}/".startswith(tuple(f"{name}/" for name in freeze)))
    kernels = {path: x for path, x in sizes.items() if path.split("/")[0] in trained & set(ADDED) and "kernel" in path}
    assert not [path for path, x in kernels.items() if not x > 1e-7]


def test_adapters_are_trained_instead_of_blip_in_2a_alone():
    from experiments.shared import models

    for stage in ("1", "2b"):
        assert context_blip.get_config(f"{stage},lora8").to_dict() == context_blip.get_config(stage).to_dict()
    config = context_blip.get_config("2a,lora8")
    assert config.optimizer.freeze == ("blip",) and config.optimizer.multipliers.lora == pytest.approx(1.0)
    _, params, _ = whole(config)
    lora = models.lora_of(config)
    lora.check(params, config.optimizer.freeze)
    adapters = flatten(jax.eval_shape(lora.add, params, jax.random.key(0))["lora"])
    parts = {"/".join(path.split("/")[1:4]) for path in adapters}
    assert parts == {"vision/layers/attention", "vision/layers/mlp", "text/layers/attention", "text/layers/mlp",
                     "text/layers/cross_attention"}  # fmt: skip
    with pytest.raises(ValueError, match="lora0"):
        context_blip.get_config("2a,lora0")
