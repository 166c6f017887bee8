"""ConText-CIR's recipes: every argument is a whole recipe, the published one is the paper's, and a mixture trains."""

import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import contextjax
from configs.context_cir import MIXTURES, PRETRAINED, SCHEDULES, get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from contextjax.variants import make_model, make_spec
from experiments.shared import systems
from experiments.shared.validation import best_rule


def objective_of(config):
    config.model.pretrained = ""  # its sizes are the variant's; no hub here
    phases = systems.of(config).make_phases(config, make_model(make_spec(config.model)))
    assert [phase.start for phase in phases] == [0]
    return phases[0].objective


@pytest.mark.parametrize("size", PRETRAINED)  # CLIPs and SigLIPs
def test_the_published_recipe_is_the_papers(size):
    """arXiv 2505.20764: the numbers of its section on training, at every size."""
    config = get_config(size)
    assert config.model.variant == size and size[0] in config.model.pretrained.upper()
    assert config.model.dtype == "bfloat16" and config.data.batch_size == 256 and config.training.steps == 35_000
    objective = objective_of(config)
    assert objective.model.config.fusion_layers == 4 and objective.model.config.fusion_heads == 8
    assert objective.model.config.fusion_head == "own"
    assert objective.weights == (("consistency", 0.08), ("contrastive", 1.0)) and objective.temperature == 0.07
    assert objective.reference_negatives and not objective.mask_false_negatives and objective.epsilon == 0
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    rates = [float(schedule(step)) for step in (250, 500, 3000, 8000, 18000)]
    assert rates == pytest.approx([5e-6, 1e-5, 1e-5, 1e-5, 1e-5], rel=1e-2)
    assert dict(config.training.best) == {"cirr/val/R@5": 0.5, "circo/val/mAP@10": 0.5}
    assert config.training.evaluate_every == 2000


@pytest.mark.parametrize(
    ("mixture", "schedule"), [*itertools.product([*MIXTURES, "manifest", "cirr+manifest"], SCHEDULES)]
)
def test_every_mixture_and_schedule_is_whole(mixture, schedule):
    config = get_config(f"B32,{mixture},{schedule}")
    assert get_config(f"{schedule},{mixture},B32").to_dict() == config.to_dict()
    sets = MIXTURES.get(mixture, mixture).split("+")
    if sets == ["cirr"] or sets == ["fashion_iq"]:
        assert config.data.reader == sets[0] and not config.data.sources
    else:
        assert sorted(config.data.sources) == sorted(sets) and config.data.reader == "cirr"
        assert {source.weight for source in config.data.sources.values()} == {1.0}
    for chosen in config.data.evaluations.values():
        chosen.folder = "DIR"
    metrics = {"fashion_iq_original/val/Avg"} if mixture == "fashion_iq" else {"cirr/val/R@5", "circo/val/mAP@10"}
    assert set(best_rule(config)) == metrics == {*config.training.best}
    schedule_of = make_schedule(config.optimizer, steps=config.training.steps)
    peak = max(float(schedule_of(step)) for step in range(0, config.training.steps, 500))
    assert peak == pytest.approx(config.optimizer.learning_rate, rel=1e-3)
    objective = objective_of(config)
    if schedule == "modern":
        assert objective.temperature is None and objective.mask_false_negatives
        assert float(schedule_of(35_000)) == pytest.approx(0, abs=1e-9)


def test_options_change_the_consistency_loss_and_the_towers_rate():
    config = get_config("B32,weight8,normalized,no_pronouns,clip0.1")
    objective = objective_of(config)
    assert dict(objective.weights)["consistency"] == 8 and objective.normalize_maps and not config.data.pronouns
    assert config.optimizer.multipliers.clip == 0.1
    assert get_config("modern").optimizer.multipliers.clip == 0.1  # the schedule's own
    assert get_config("modern,clip0.5").optimizer.multipliers.clip == 0.5
    assert dict(objective_of(get_config("weight0")).weights) == {"contrastive": 1.0}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("B64", "no argument 'B64'; expected some of B32, B16, L14, H14, SigLIP-B16"),
        ("B32,cirr+laion", "no argument 'cirr\\+laion'"),
        ("B32,L14", "a second size, 'L14'"),
        ("cirr,aggregated", "a second mixture, 'aggregated'"),
        ("modern,published", "a second schedule"),
    ],
)
def test_other_arguments_are_told(argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        get_config(argument)


@pytest.mark.long
@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_the_backbone_has_its_own_rate(tiny, scale):
    """backbone_lr_scale: all of CLIP, and nothing else; the modern recipe's temperature has one above it."""
    config = get_config("modern").optimizer
    config.warmup_steps = 0
    params = tiny.params(tiny.model())
    gradients = jax.tree.map(jnp.ones_like, params)

    def updates(**multipliers):
        with config.unlocked():
            config.multipliers = multipliers
        optimizer = make_optimizer(config, steps=10)
        return jax.jit(optimizer.update)(gradients, optimizer.init(params), params)[0]

    plain, scaled = updates(), updates(clip=scale, **{"clip/logit_scale": 100.0})
    own = {name: tree for name, tree in plain.items() if name != "clip"}
    assert own
    for name, tree in own.items():
        jax.tree.map(np.testing.assert_array_equal, scaled[name], tree)
    for name, tree in plain["clip"].items():
        factor = scale * (100 if name == "logit_scale" else 1)
        jax.tree.map(lambda a, b, f=factor: np.testing.assert_allclose(a, f * b, rtol=1e-5), scaled["clip"][name], tree)


@pytest.fixture(scope="module")
def trained(pictograms, tmp_path_factory):
    """A mixture of two sets in one folder by the modern schedule, small, with two evaluations."""
    from experiments.shared.training import train

    config = get_config("tiny,cirr_r,modern")
    changes = {
        "training.steps": 6,
        "training.diagnose_every": 4,
        "training.evaluate_every": 2,
        "training.checkpoint_every": 4,
        "optimizer.warmup_steps": 1,
        "optimizer.learning_rate": 3e-3,
        "data.folder": str(pictograms),
        "data.sources.cirr_r.reader": "cirr",  # in CIRR's folder, as CIRR_R is
        "data.sources.cirr_r.weight": 0.5,
        "data.evaluations.circo.protocol": "cirr",
        "data.evaluations.circo.folder": str(pictograms),
        "data.evaluations.circo.split": "unseen",
    }
    with config.unlocked():
        config.update_from_flattened_dict(changes)
        config.training.best = {"cirr/val/R@5": 0.5, "circo/unseen/R@10": 0.5}
    workdir = tmp_path_factory.mktemp("recipe") / "run"
    train(config, workdir)
    return workdir


@pytest.mark.long
def test_a_mixture_trains_and_its_best_checkpoint_is_what_is_loaded(trained):
    lines = read_metrics(trained)
    scored = {line["step"]: line for line in lines if "score" in line}
    assert sorted(scored) == [2, 4, 6]
    for line in scored.values():
        assert line["score"] == pytest.approx(0.5 * line["cirr/val/R@5"] + 0.5 * line["circo/unseen/R@10"])
    best = max(scored, key=lambda step: (scored[step]["score"], step))
    for asked, step in (("", best), ("best", best), ("newest", 6), (6, 6)):
        assert contextjax.load(trained, checkpoint=asked).fingerprint.endswith(f"-{step}")
    with pytest.raises(UserError, match="has no checkpoint '3'; expected best, newest, or one of the steps"):
        contextjax.load(trained, checkpoint=3)
    module = [sys.executable, "-m", "experiments.evaluate", f"--workdir={trained}", "--nobaselines"]
    done = subprocess.run([*module, "--checkpoint=newest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((trained / "evaluation.json").read_text())
    assert found["step"] == 6 and found["metrics"]["R@5"] == pytest.approx(scored[6]["cirr/val/R@5"])


@pytest.mark.long
def test_what_is_logged_is_what_the_method_asks_for(trained):
    """Raw consistency in both forms, matched phrases, the ratio of the gradients, false negatives, the temperature."""
    lines = read_metrics(trained)
    steps = [line for line in lines if "loss" in line]
    shares = [f"phrases/{name}" for name in ("matched", "no_room", "truncated", "unaligned")]
    for line in steps:
        assert {"contrastive", "consistency", "temperature", "batch_recall", "recompiles"} <= set(line)
        assert sum(line[name] for name in shares) == pytest.approx(1) and line["phrases/matched"] > 0.5
    assert steps[0]["temperature"] == pytest.approx(0.07, rel=1e-5) != steps[-1]["temperature"]
    (told,) = [line for line in lines if "consistency/raw" in line]
    assert told["step"] == 4 and told["consistency/normalized"] > 0 and told["consistency/raw"] > 0
    ratio = told["grad_norm/consistency"] / told["grad_norm/contrastive"]
    assert told["grad_norm/consistency_to_contrastive"] == pytest.approx(ratio, rel=1e-4)
    assert (
        0 < told["false_negatives/another_target"] + told["false_negatives/a_reference"] <= 2
    )  # few pictures, big batch


@pytest.mark.long
@pytest.mark.parametrize(("argument", "rate"), [("L14,lora8", 10.0), ("modern,lora16", 1.0), ("tiny,lora2", 10.0)])
def test_adapters_are_trained_instead_of_clip(argument, rate):
    from flax.linen import unbox

    from contextjax.pretrained import abstract_params
    from experiments.shared import models

    config = get_config(argument)
    assert config.optimizer.multipliers.lora == pytest.approx(rate)  # 1e-4
    config.model.pretrained, config.model.vision.scan = "", True
    model, lora = make_model(make_spec(config.model)), models.lora_of(config)
    assert (lora.rank, lora.alpha) == (int(argument.split("lora")[1]), 2.0 * lora.rank)
    lora.check(unbox(abstract_params(model)), config.optimizer.freeze)
    params = unbox(jax.eval_shape(lora.add, abstract_params(model), jax.random.key(0)))
    state = jax.eval_shape(make_optimizer(config.optimizer, steps=config.training.steps).init, params)
    held = lambda *names: sum(x.size for name in names for x in jax.tree.leaves(params[name]))
    trained = held(*(set(params) - {"clip"})) + 1  # and the temperature
    assert sum(x.size for x in jax.tree.leaves(state) if x.shape) == 2 * (trained - 1)


@pytest.mark.parametrize("argument", ["lora0", "lora1.5", "lora8,clip0.1", "lora8,lora4"])
def test_adapters_that_do_not_go_together_are_reported(argument):
    with pytest.raises(ValueError, match="lora"):
        get_config(argument)
