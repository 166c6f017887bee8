"""The shipped recipes: every argument gives a config that builds a model and its objective."""

import pytest

from configs.pictograms import ARGUMENTS, NUMBERED, REAL, SYNTHETIC, get_config
from contextjax.optim import make_optimizer, make_schedule
from contextjax.variants import make_model, make_spec
from experiments.shared import systems
from experiments.shared.validation import best_rule, evaluations


@pytest.mark.parametrize("argument", ["", *ARGUMENTS, "demo,no_consistency"])
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    model = make_model(make_spec(config.model, vocabulary=500))
    phases = systems.of(config).make_phases(config, model)
    assert phases[0].start == 0 and phases[-1].start < config.training.steps
    weights = dict(phases[-1].objective.weights)
    without = ("no_consistency", "sum", "image", "text", "depth0", "towers")
    assert ("consistency" in weights) == (not any(name in argument.split(",") for name in without))
    assert weights.get("captions") == {"towers": 1.0, "frozen": None}.get(argument, 0.2)
    make_optimizer(config.optimizer, steps=config.training.steps)
    schedule = make_schedule(config.optimizer, steps=config.training.steps)
    assert float(schedule(config.training.steps)) == pytest.approx(0, abs=1e-8)


def test_arguments_with_numbers():
    config = get_config("weight0.8,normalized,no_pronouns")
    assert config.loss.weights.consistency == 0.8 and config.loss.normalize_maps and not config.data.pronouns
    assert get_config("").loss.weights.consistency == 0.08 and get_config("").data.pronouns
    assert get_config("phrases4").data.phrases_per_text == 4
    assert get_config("weight0").loss.weights.consistency == 0
    with pytest.raises(ValueError, match="has 'weight' twice"):
        get_config("weight8,weight80")
    for wrong in ("weight", "weight-1", "tripletsmany", *NUMBERED):
        with pytest.raises(
            ValueError, match=f"no argument '{wrong}'; it has .*, weightNUMBER, phrasesNUMBER, triplets"
        ):
            get_config(wrong)


@pytest.mark.parametrize("query", ["", "sum", "no_consistency"])
def test_the_papers_regime_chooses_its_checkpoint_on_another_split_than_it_reports(query):
    config = get_config(f"triplets500,clip0.1,{query}")
    assert config.data.records == 500 and config.data.folder == REAL and config.data.val_split == "test1"
    assert set(best_rule(config)) == {"cirr/val/R@1", "cirr/val/Rs@1"}
    (phase,) = systems.of(config).make_phases(config, make_model(make_spec(config.model, vocabulary=500)))
    weights = {"contrastive": 1.0} | ({"consistency": 0.08} if not query else {})
    assert dict(phase.objective.weights) == weights and phase.objective.temperature == 0.07
    assert config.optimizer.multipliers.to_dict() == {"clip": 0.1}
    assert not get_config("triplets500").optimizer.multipliers


def test_the_papers_regime_with_synthesized_triplets():
    both = get_config("triplets2000,synthesized8000").data
    assert {name: (each.folder, each.records) for name, each in both.sources.items()} == {
        "real": (REAL, 2000), "synthetic": (SYNTHETIC, 8000)
    }  # fmt: skip
    alone = get_config("synthesized8000").data
    assert list(alone.sources) == ["synthetic"] and alone.records == 0


def test_towers_are_evaluated_by_their_captions():
    config = get_config("towers")
    assert evaluations(config)["captions/val"][1:] == (REAL, "val")
    assert evaluations(config)["captions/val"][0].query == "text"


def test_an_unknown_argument_names_the_known_ones():
    with pytest.raises(ValueError, match="no argument 'demos'; it has demo"):
        get_config("demos")
