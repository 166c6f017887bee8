"""The consistency loss against its definition, and its traps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.losses.consistency import consistency_loss, phrase_attention


def maps(seed=0, phrases=5, patches=4):
    rng = np.random.default_rng(seed)
    valid = np.ones(phrases, bool)
    valid[1] = False
    return rng.random((phrases, patches)) / 10, rng.random((phrases, patches)) / 10, valid


def loss_of(in_context, alone, valid, **options):
    return consistency_loss(
        jnp.asarray(in_context, jnp.float32), jnp.asarray(alone, jnp.float32), jnp.asarray(valid), **options
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.03])
@pytest.mark.parametrize("normalize", [False, True])
def test_it_is_the_definition(epsilon, normalize):
    in_context, alone, valid = maps()
    got = loss_of(in_context, alone, valid, epsilon=epsilon, normalize=normalize)
    total = 0.0
    for a, b in zip(in_context[valid], alone[valid], strict=True):
        if normalize:
            a, b = a / a.sum(), b / b.sum()
        total += np.mean([max(abs(x - y) - epsilon, 0) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(got, (total, 4), rtol=1e-5)


def test_differences_below_epsilon_cost_nothing_and_pull_nothing():
    in_context, alone, valid = maps()
    assert loss_of(in_context, alone, valid, epsilon=0.2) == (0.0, 4.0)
    gradient = jax.grad(lambda x: loss_of(x, alone, valid, epsilon=0.2)[0])(jnp.asarray(in_context, jnp.float32))
    assert not np.asarray(gradient).any()


def test_the_normalised_form_does_not_see_a_constant_factor():
    in_context, alone, valid = maps(1)
    plain, scaled = (loss_of(in_context * f, alone, valid, normalize=True)[0] for f in (1, 3))
    np.testing.assert_allclose(plain, scaled, rtol=1e-5)
    assert loss_of(alone * 3, alone, valid, normalize=True)[0] < 1e-6
    assert loss_of(alone * 3, alone, valid)[0] > 0.1


@pytest.mark.parametrize("normalize", [False, True])
def test_no_phrases_is_zero_with_a_zero_gradient(normalize):
    in_context, alone, valid = maps()
    loss = lambda x: loss_of(x, alone, np.zeros_like(valid), normalize=normalize)[0]
    assert loss_of(in_context, alone, np.zeros_like(valid), normalize=normalize) == (0.0, 0.0)
    assert not np.asarray(jax.grad(loss)(jnp.asarray(in_context, jnp.float32))).any()
    empty = np.zeros((0, 4))
    assert loss_of(empty, empty, np.zeros(0, bool), normalize=normalize) == (0.0, 0.0)


def test_an_empty_map_stays_finite_when_normalised():
    zeros = jnp.zeros((2, 4))
    value, gradient = jax.value_and_grad(lambda x: loss_of(x, zeros, np.ones(2, bool), normalize=True)[0])(zeros)
    assert value == 0 and np.isfinite(np.asarray(gradient)).all()


def test_phrase_attention_is_the_mean_over_its_tokens_without_the_cls_row():
    attention = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    spans = np.asarray([[1, 2], [2, 6], [0, 7]], np.int32)
    got = phrase_attention(jnp.asarray(attention), jnp.asarray(spans))
    expected = np.stack([a[1:, start:end].mean(-1) for a, (start, end) in zip(attention, spans, strict=True)])
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    attention[:, 0] = 99.0
    np.testing.assert_array_equal(phrase_attention(jnp.asarray(attention), jnp.asarray(spans)), got)


def test_an_empty_span_is_zero():
    got = phrase_attention(jnp.ones((2, 3, 4)), jnp.asarray([[0, 0], [1, -1]]))
    assert not np.asarray(got).any()
