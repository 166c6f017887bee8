"""The text tower is causal, and padding changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.text import TextTransformer, pooled_position


@pytest.fixture(scope="module")
def encode(tiny):
    model = tiny.model(query="text")
    params = tiny.params(model)
    return jax.jit(lambda ids, mask: model.apply({"params": params}, ids, mask, method="encode_text"))


def test_a_token_sees_only_what_stands_before_it(tiny, encode):
    ids, mask = tiny.texts(3)
    states = encode(ids, mask).states
    for position in (1, 4, 9):
        changed = encode(ids.at[:, position].set((ids[:, position] + 1) % tiny.vocabulary), mask).states
        np.testing.assert_allclose(changed[:, :position], states[:, :position], atol=1e-6)
        assert (np.abs(changed[:, position] - states[:, position]).max(-1) > 1e-3).all()


def test_padding_changes_no_real_token_and_not_the_pooled_state(tiny, encode):
    ids, mask = tiny.texts(6)
    out = encode(ids, mask)
    other = encode(jnp.where(mask, ids, 7), mask)
    np.testing.assert_allclose(other.states[mask], out.states[mask], atol=1e-6)
    np.testing.assert_allclose(other.pooled, out.pooled, atol=1e-6)
    length = int(mask.sum(-1).max())
    shorter = encode(ids[:, :length], mask[:, :length])
    np.testing.assert_allclose(shorter.pooled, out.pooled, atol=1e-6)


def test_the_pooled_state_is_the_one_at_eos(tiny, encode):
    ids, mask = tiny.texts(6)
    states, pooled, *_ = encode(ids, mask)
    ends = np.asarray(mask).sum(-1) - 1
    np.testing.assert_allclose(pooled, np.asarray(states)[np.arange(6), ends], atol=1e-6)


def test_leading_axes_are_only_rows(tiny, encode):
    ids, mask = tiny.texts(2, 3)
    out, flat = encode(ids, mask), encode(ids.reshape(6, -1), mask.reshape(6, -1))
    assert out.states.shape[:3] == (2, 3, 10)
    np.testing.assert_allclose(out.states.reshape(flat.states.shape), flat.states, atol=1e-6)


def test_the_pooled_position_is_the_last_real_token():
    mask = jnp.asarray([[True] * 4 + [False], [True] * 5, [False] * 5])
    assert pooled_position(mask).tolist() == [3, 4, 0]


@pytest.mark.parametrize("eos", [None, 2, 3, 31, 10**6])
def test_no_id_of_a_config_moves_the_pooled_state(tiny, eos):
    """A missing or wrong id gave every text the state of its first token; a larger id in a text, that of its own."""
    ids, mask = tiny.texts(6)
    config = dataclasses.replace(tiny.clip.text, eos_token=eos)
    params = jax.tree.map(jnp.asarray, tiny.params(tiny.model(query="text")))["clip"]["text"]
    states, pooled, *_ = TextTransformer(config).apply({"params": params}, ids, mask)
    np.testing.assert_array_equal(pooled, np.asarray(states)[np.arange(6), np.asarray(mask).sum(-1) - 1])
