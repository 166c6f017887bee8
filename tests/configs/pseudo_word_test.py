"""The recipe of a pseudo-word network sees texts alone, and trains nothing of CLIP."""

import pytest

from configs.pseudo_word import get_config
from contextjax.objectives.pseudo_word import PseudoWordObjective
from contextjax.types import TextBatch
from contextjax.variants import make_model, make_spec
from experiments.shared import systems


@pytest.mark.parametrize("argument", ["", "L14", "tiny"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    spec = make_spec(config.model, vocabulary=500)
    assert spec.query == "pseudo_word" and spec.template == "a photo of * that {}"
    (phase,) = systems.of(config).make_phases(config, make_model(spec))
    assert isinstance(phase.objective, PseudoWordObjective) and config.optimizer.freeze == ("clip",)
    assert isinstance(systems.of(config).abstract_batch(config), TextBatch)


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'G14'; expected one of B32, B16"):
        get_config("G14")
