"""ConText-CIR's recipes: which terms take part, how phrases are grouped, and what a batch looks like."""

import jax
import pytest

from configs.composed_blip import get_config as composed_blip
from configs.pictograms import get_config
from contextjax.types import UserError
from experiments.shared import context_cir, models


def changed(argument="tiny", **changes):
    config = get_config(argument)
    config.update_from_flattened_dict(changes)
    config.model = models.resolve_model(config)
    return config


def test_a_term_takes_part_where_it_has_a_weight_and_something_to_act_on():
    assert set(context_cir.loss_weights(changed())) == {"contrastive", "consistency", "captions"}
    assert set(context_cir.loss_weights(changed("tiny,sum"))) == {"contrastive", "captions"}
    assert set(context_cir.loss_weights(changed(**{"model.fusion_layers": 0}))) == {"contrastive", "captions"}
    none = changed(**{f"loss.weights.{name}": 0.0 for name in ("contrastive", "consistency", "captions")})
    with pytest.raises(UserError, match="No loss term has a weight; give one"):
        context_cir.make_phases(none, None)


@pytest.mark.parametrize(
    ("references", "modifications", "cuts", "groups"),
    [(8, 4, 1, 4), (8, 4, 4, 4), (8, 4, 8, 8), (8, 8, 1, 8), (4, 1, 1, 1), (16, 4, 2, 8)],
)
def test_a_group_of_phrases_has_eight_texts_and_no_device_needs_another_s(references, modifications, cuts, groups):
    config = changed(**{"data.batch_size": references, "data.modifications": modifications})
    assert context_cir.phrase_groups(config, cuts) == groups


@pytest.mark.parametrize("cuts", [1, 2, 8])
def test_a_group_has_room_for_a_phrase_however_few_are_asked_for(cuts):
    config = changed(**{"data.batch_size": 8, "data.modifications": 2, "data.phrases_per_text": 0.25})
    phrases = context_cir.abstract_batch(config, cuts=cuts).phrases
    assert phrases.text.shape == (max(cuts, 2), {1: 2, 2: 2, 8: 1}[cuts])


def test_a_batch_has_the_shapes_of_what_is_trained():
    batch = context_cir.abstract_batch(changed(), cuts=2)
    assert batch.references.shape == (8, 64, 64, 3) and batch.targets.shape == (8, 4, 64, 64, 3)
    assert batch.phrases.text.shape[0] == 4 and batch.captions.ids.shape == (8, 5, 36)
    bare = context_cir.abstract_batch(changed(**{
        "loss.weights.consistency": 0.0, "loss.weights.captions": 0.0, "loss.lead_steps": 0
    }))  # fmt: skip
    assert bare.phrases is None and bare.captions is None
    assert len(jax.tree.leaves(bare)) < len(jax.tree.leaves(batch))


def composed(argument="tiny", **changes):
    config = composed_blip(argument)
    config.update_from_flattened_dict(changes)
    return config


WRONG = {
    "pseudo-word loss has a weight, but model.query is 'fusion'": changed(
        **{"loss.weights.pseudo_word": 1.0, "model.template": "* {}"}
    ),
    "a pseudo-word needs one \\* in it": changed(**{"model.query": "pseudo_word"}),
    "it needs the system composed_blip": changed(**{"loss.weights.reverse": 1.0}),
    "a token as model.reverse_token": composed("reverse,tiny", **{"model.reverse_token": None}),
    "takes the form of the forward one": composed("reverse,tiny", **{"loss.weights.recall": 0.0}),
    "in which phrases are not found": changed(**{"model.template": "find {}"}),
    "the query 'fusion' reads more": changed(**{"data.cached": True, "loss.lead_steps": 0}),
    "data.cached has no captions loss": changed("tiny,sum", **{"data.cached": True}),
    "neither a captions loss that leads": changed(
        "tiny,sum", **{"data.cached": True, "loss.weights.captions": 0.0, "data.augment": "light"}
    ),
}


@pytest.mark.parametrize("reason", WRONG)
def test_terms_that_go_with_neither_model_nor_data_are_one_sentence(reason):
    with pytest.raises(UserError, match=reason):
        context_cir.make_phases(WRONG[reason], None)
