"""The recipe of systems side by side: every argument gives a config that builds a model and its objective."""

import jax
import pytest
from flax.linen import unbox

from configs.pictograms import get_config as pictograms
from configs.systems import ARGUMENTS, SYSTEMS, get_config
from contextjax.pretrained import abstract_params
from contextjax.variants import make_model, make_spec
from experiments.shared import models, systems

TERMS = {
    "context_cir": {"contrastive", "consistency", "captions"},
    "pseudo_word": {"captions", "pseudo_word"},
}


@pytest.mark.long
@pytest.mark.parametrize("argument", [*SYSTEMS, "tiny", *(f"tiny,{name}" for name in SYSTEMS)])
def test_every_system_has_its_terms_and_the_same_training(argument):
    config, reference = get_config(argument), pictograms("tiny" if "tiny" in argument else "")
    config.model = models.resolve_model(config)
    name = argument.removeprefix("tiny").strip(",") or "context_cir"
    model = make_model(make_spec(config.model, vocabulary=500))
    objective = systems.of(config).make_phases(config, model)[-1].objective
    assert set(dict(objective.weights)) == TERMS.get(name, {"contrastive", "captions"})
    assert config.optimizer == reference.optimizer and config.training == reference.training
    assert config.data.to_json() == reference.data.to_json()
    assert make_spec(config.model, vocabulary=500).vision["width"] == (32 if "tiny" in argument else 128)

    def terms(params, batch):
        return objective.terms(objective.represent(params, batch, jax.random.key(0)), batch)

    made = jax.eval_shape(terms, unbox(abstract_params(model)), systems.of(config).abstract_batch(config))
    assert set(dict(objective.weights)) <= set(made)


def test_an_unknown_argument_and_a_second_system_are_refused():
    with pytest.raises(ValueError, match="no argument 'demo'; it has context_cir"):
        get_config("demo")
    with pytest.raises(ValueError, match="two systems, sum and combiner"):
        get_config("sum,combiner")
    assert set(ARGUMENTS) == {*SYSTEMS, "tiny"}
