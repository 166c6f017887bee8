"""The recipe of catalogues: every argument gives a config that builds a model and its objective."""

import pytest

from configs.catalogue import ARGUMENTS, get_config
from contextjax.variants import make_model, make_spec
from experiments.shared import systems


@pytest.mark.parametrize("argument", ["", *ARGUMENTS])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    assert config.data.reader == "catalogue"
    model = make_model(make_spec(config.model, vocabulary=500))
    phases = systems.of(config).make_phases(config, model)
    assert phases[-1].start < config.training.steps
    assert model.config.clip.vision.fit == ("crop" if argument == "pretrained" else "squash")


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'demo'; it has pretrained"):
        get_config("demo")


def test_the_order_of_arguments_changes_nothing():
    config = get_config("no_consistency,pretrained")
    assert config.to_dict() == get_config("pretrained,no_consistency").to_dict()
    assert config.loss.weights.consistency == 0


def test_a_pretrained_clip_keeps_its_own_sizes():
    assert "layers" not in get_config("pretrained").model.vision
