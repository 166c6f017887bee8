"""BERT reads both ways, no padding, and the context that each text is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.multimodal import BertEncoder, Context
from tests.models.context_blip_test import BLIP, random_params


@pytest.fixture(scope="module")
def encode(tiny):
    """(ids, mask, image tokens) -> TextOutput of two blocks."""
    tower = BertEncoder(dataclasses.replace(BLIP.text, layers=2))
    image = jnp.zeros((3, 5, 16))
    params = random_params(tower, *tiny.texts(3), Context(image))
    return jax.jit(lambda ids, mask, image: tower.apply({"params": params}, ids, mask, Context(image)))


def test_every_token_reads_every_real_token_and_no_padding(tiny, encode):
    ids, mask = tiny.texts(3)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)
    out = encode(ids, mask, image)
    padding = encode(jnp.where(mask, ids, 9), mask, image)
    np.testing.assert_allclose(padding.states[mask], out.states[mask], atol=1e-5)
    np.testing.assert_array_equal(out.pooled, out.states[:, 0])
    changed = encode(ids.at[:, 1].set((ids[:, 1] + 1) % tiny.vocabulary), mask, image)
    assert (np.abs(changed.states[:, 0] - out.states[:, 0]).max(-1) > 1e-4).all()  # a later token is read, too


def test_attention_is_a_mean_of_distributions_over_the_context(tiny, encode):
    ids, mask = tiny.texts(3)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)
    out = encode(ids, mask, image)
    assert out.attention.shape == (*ids.shape, 5)
    np.testing.assert_allclose(out.attention.sum(-1), 1, rtol=1e-5)
    other = encode(ids, mask, image.at[1].add(1.0))
    np.testing.assert_allclose(other.states[0], out.states[0], atol=1e-5)
    assert np.abs(other.states[1] - out.states[1]).max() > 1e-3
