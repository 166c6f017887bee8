"""A training step of each further system on a mesh is that of one device, dropout and noise included."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.clip import CLIP
from contextjax.models.composed_blip import ComposedBLIP, ComposedBLIPConfig
from contextjax.models.covr2 import CoVR2, CoVR2Config
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.objectives.covr2 import CoVR2Objective
from contextjax.objectives.pseudo_word import PseudoWordObjective
from contextjax.types import SLOT, CaptionBatch, FeaturePairs, TextBatch
from tests.models import blip2_test
from tests.models.composed_blip_test import BLIP
from tests.models.context_blip_test import random_params
from tests.sharding.equality_test import EVERY, one_step


def combiner(tiny):
    """Cached features, dropout, one direction."""
    model = tiny.model(query="combiner")
    features = (jax.random.normal(jax.random.key(seed), (16, 8)) for seed in range(3))
    batch = FeaturePairs(*features, jnp.arange(16), jnp.arange(16, 32).at[3].set(20), jnp.arange(16))
    options = {"temperature": 0.1, "one_direction": True, "mask_false_negatives": True}
    return ContextCIRObjective(model, (("contrastive", 1.0),), **options), tiny.params(model), batch


def pseudo_word(tiny):
    """Noise and dropout."""
    model, texts = tiny.model(query="pseudo_word"), tiny.texts(8)
    batch = TextBatch(texts, texts._replace(ids=texts.ids.at[:, 1].set(SLOT)), jnp.arange(8))
    return PseudoWordObjective(model), tiny.params(model), batch


def composed_blip(tiny):
    """Captions, the recall surrogate both ways; a modification that is missing."""
    heads = dataclasses.replace(BLIP, text=dataclasses.replace(BLIP.text, heads=4))
    model = ComposedBLIP(ComposedBLIPConfig(heads, fused_token=3, reverse_token=4))
    batch = tiny.batch(8, 2)._replace(phrases=None)
    weights = (("captions", 0.5), ("recall", 4.0), ("reverse", 2.0))
    return ContextCIRObjective(model, weights), random_params(model), batch


def clip(tiny):
    """A learned temperature; two captions of one picture."""
    model = tiny.model(query="sum")
    batch = CaptionBatch(tiny.pictures(8), tiny.texts(8), jnp.arange(8).at[5].set(2), jnp.arange(8))
    objective = CaptionObjective(CLIP(model.config.clip), (("contrastive", 1.0),), None)
    return objective, tiny.params(model)["clip"], batch


def covr2(tiny):
    """Several vectors of a query, HN-NCE against pictures and captions; a modification that is missing."""
    model = CoVR2(CoVR2Config(blip2_test.CONFIG))
    objective = CoVR2Objective(model, (("captions", 0.5), ("hard_negative", 0.5)))
    return objective, blip2_test.random_params(model), tiny.batch(8, 2)


@pytest.mark.long
@pytest.mark.parametrize("case", [combiner, pseudo_word, composed_blip, covr2, clip])
@pytest.mark.parametrize("mesh", [EVERY, pytest.param("data:8", marks=pytest.mark.slow)])
def test_a_step_on_a_mesh_is_that_of_one_device(tiny, case, mesh):
    loss, gradients = one_step(case(tiny))
    found, found_gradients = one_step(case(tiny), mesh=mesh)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradients))
    check = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest)
    jax.tree.map(check, found_gradients, gradients)
