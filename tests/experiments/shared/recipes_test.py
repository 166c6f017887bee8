"""Recipes and the settings of flags: each mistake is one sentence that says where it is."""

import pytest

from contextjax.types import UserError
from experiments.shared.recipes import check_settings, load_recipe
from tests.commands import in_process

TINY = "--config=configs/pictograms.py:tiny"
RECIPE = "from configs.base import base\ndef get_config():\n    config = base()\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(\n  x = = 1\n", "recipe.py, line 1: '(' was never closed; mend the recipe."),
        (RECIPE + "    return config.nothing\n", "recipe.py, line 4: AttributeError: "),
        (RECIPE + "    config.seed = 'x'\n    return config\n", "recipe.py, line 4: TypeError: "),
        (RECIPE + "    return int('x')\n", "recipe.py, line 4: ValueError: invalid literal"),
        (RECIPE + "    raise ValueError('no argument x.')\n", "no argument x."),
        ("import no_such_package\n", "recipe.py, line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys\nsys.exit(3)\n", "recipe.py, line 2: SystemExit: 3; mend the recipe."),
        ("from ml_collections import ConfigDict as get_config\n", "recipe.py has no data, loss, mesh, model"),
        ("x = 1\n", "recipe.py has no function get_config"),
        ("def get_config():\n    return {'a': 1}\n", "returns a dict; expected a config"),
        ("def get_config(argument):\n    pass\n", "recipe.py: TypeError: get_config() missing 1 required"),
    ],
)
def test_a_recipe_that_fails_is_one_sentence_with_its_line(tmp_path, text, sentence):
    (tmp_path / "recipe.py").write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(str(tmp_path / "recipe.py"))
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["unknown.key=1"], "'unknown.key' is not a key of the config; its sections and keys are data, loss, mesh"),
        (["optimizer.lerning_rate=1"], "the nearest is 'optimizer.learning_rate'; optimizer has beta1, beta2"),
        (["batch_size=3"], "'batch_size' is not a key of the config; the nearest is 'data.batch_size'"),
        (["data.candidates=3"], "'data.candidates' is a key of the other system"),
        (["training=1"], "'training' is a section of the config, with the keys best, checkpoint_every"),
        (["seed=x", "training.steps=1.5"], "seed is 'x', expected a whole number; training.steps is '1.5'"),
        (["loss.learned_temperature=maybe"], "loss.learned_temperature is 'maybe', expected True or False"),
        (["optimizer.freeze=clip"], "optimizer.freeze is 'clip', expected a tuple, as ('clip',)"),
        (["optimizer.multipliers.clip=fast"], "optimizer.multipliers.clip is 'fast', expected a number"),
        (["training.best.R@1=half"], "training.best.R@1 is 'half', expected a number"),
        (["model.visions.width=8"], "'model.visions.width' is not a key of the config"),
        (["optimizer.learning_rate=fast"], "optimizer.learning_rate is 'fast', expected a number"),
    ],
)
def test_a_setting_that_no_config_takes_is_named_with_what_there_is(settings, sentence):
    with pytest.raises(UserError) as error:
        check_settings([TINY, *(f"--config.{setting}" for setting in settings)])
    assert sentence in str(error.value)
    with pytest.raises(UserError) as error:  # a flag may begin with one dash
        check_settings([TINY, *(f"-config.{setting}" for setting in settings)])
    assert sentence in str(error.value)


def test_a_negated_setting_is_checked_too():
    with pytest.raises(UserError, match=r"'foo.bar' is not a key of the config"):
        check_settings([TINY, "--noconfig.foo.bar"])
    check_settings([TINY, "--noconfig.loss.learned_temperature"])


def test_commands_say_it_in_one_line_and_write_nothing(tmp_path):
    for flags in (["--config.unknown.key=1"], ["--config.seed=-1", "--config.training.log_every=0"]):
        done = in_process("train", TINY, f"--workdir={tmp_path / 'run'}", *flags)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert "seed is -1" in done.stderr and "training.log_every is 0" in done.stderr
    assert not (tmp_path / "run").exists()
