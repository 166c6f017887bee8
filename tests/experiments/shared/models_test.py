"""The model of a config: a pretrained one fixes the sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.context_cir import get_config
from contextjax.models.clip import CLIP
from contextjax.pretrained import write_pretrained
from contextjax.pretrained.names import flatten, restack
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from experiments.shared import models
from tests.pretrained.conftest import random_params


def test_the_towers_of_a_pretrained_model_are_scanned_each_for_itself(tiny, tmp_path):
    config = get_config("B32")
    config.model.pretrained = str(write_pretrained(tmp_path / "clip", tiny.clip, random_params(CLIP(tiny.clip))))
    for scanned in ({"vision"}, {"text"}, {"vision", "text"}, set()):
        for tower in ("vision", "text"):
            config.model[tower].scan = tower in scanned  # a key of every recipe, no new one
        resolved = models.resolve_model(config)
        assert {tower for tower in ("vision", "text") if resolved[tower]["scan"]} == scanned


def test_a_size_of_a_tower_is_replaced_and_the_others_are_the_variants():
    config = get_config("B32")
    config.model.update({"pretrained": "", "variant": "B32"})
    expected = models.resolve_model(config)
    expected["vision"] |= {"image_size": 384, "layers": 2}
    expected["text"] |= {"positions": 100}
    config.model.vision.image_size, config.model.vision.layers, config.model.text.positions = 384, 2, 100
    assert models.resolve_model(config) == expected


def test_a_pretrained_model_is_read_at_another_size_and_has_its_own_width(tiny, tmp_path):
    config = get_config("B32")
    config.model.pretrained = str(write_pretrained(tmp_path / "clip", tiny.clip, random_params(CLIP(tiny.clip))))
    config.model.vision.image_size = 2 * tiny.clip.vision.image_size
    assert models.resolve_model(config)["vision"]["image_size"] == 2 * tiny.clip.vision.image_size
    config.model.text.width = 8
    with pytest.raises(UserError, match="fixes the sizes, but width is given"):
        models.resolve_model(config)


@pytest.mark.parametrize("scan", [False, True])
def test_a_run_starts_from_one_with_layers_stacked_or_not(scan, tiny, tmp_path, capsys):
    """Every parameter is taken: the layers are the same ones."""
    from contextjax.pretrained import write_own
    from contextjax.spec import SystemSpec
    from contextjax.variants import make_model, make_spec

    config = get_config("tiny")
    specs = {}
    for is_scanned in (False, True):
        config.model.vision.update({"layers": 2, "scan": is_scanned})
        config.model.text.update({"layers": 2, "scan": is_scanned})
        specs[is_scanned] = make_spec(config.model)
    params = {is_scanned: random_params(make_model(spec)) for is_scanned, spec in specs.items()}
    write_own(tmp_path / "start", specs[scan], params[scan])
    config.model.start = str(tmp_path / "start")
    assert SystemSpec.read(tmp_path / "start").vision["scan"] is scan
    other = jax.tree.map(jnp.asarray, params[not scan])
    got = models.make_start(config)(other)
    assert "the others are new" in capsys.readouterr().out
    expected = restack(flatten(params[scan]), {path: x.shape for path, x in flatten(other).items()})
    for path, value in flatten(got).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.parametrize("system", ["clip", "context_cir"])
def test_a_clip_and_a_context_cir_start_from_each_other_with_both_towers(system, tmp_path, monkeypatch):
    from configs.clip import get_config as get_clip
    from contextjax.pretrained import write_own
    from contextjax.variants import make_model, make_spec

    recipes = {"clip": get_clip("tiny"), "context_cir": get_config("tiny")}
    config, other = recipes.pop(system), *recipes.values()
    for recipe in (config, other):
        recipe.data.vocabulary = 300
    specs = [make_spec(recipe.model, vocabulary=300) for recipe in (config, other)]
    mine, theirs = (random_params(make_model(spec)) for spec in specs)
    theirs = jax.tree.map(lambda x: x + 1, theirs)
    write_own(tmp_path / "start", specs[1], theirs)
    train_tokenizer(["a dog"], vocabulary=300, length=8).save(tmp_path / "start" / "tokenizer.json")
    config.model.start = str(tmp_path / "start")
    got = models.make_start(config)(jax.tree.map(jnp.asarray, mine))
    towers = lambda params: params.get("clip", params)
    for name in towers(got):
        jax.tree.map(np.testing.assert_array_equal, towers(got)[name], towers(theirs)[name])
    (tmp_path / "run").mkdir()
    tokenizer = models.make_tokenizer(config, tmp_path / "run", None)
    assert tokenizer.vocabulary <= 300 and (tmp_path / "run" / "tokenizer.json").exists()
