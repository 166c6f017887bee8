"""Token pooling: the formula in plain numpy, and what must not change it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.token_pooling import TokenPooling

S, J, K, N, W, D, HEADS = 3, 2, 4, 5, 6, 8, 2


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    tokens, pooled = draw(S, K, N, W), draw(S, J, W)
    model = TokenPooling(D, HEADS)
    run = lambda model, tokens, pooled: model.cosine(model.read_image(tokens), model.read_text(pooled))
    params = nn.unbox(model.init(jax.random.key(1), tokens, pooled, method=run))["params"]
    params = jax.tree.map(lambda x: draw(*x.shape), params)
    return lambda *inputs: np.asarray(model.apply({"params": params}, *inputs, method=run)), params, tokens, pooled


def test_it_is_attention_and_a_cosine(made):
    run, params, tokens, pooled = made
    linear = lambda name, x: x @ np.asarray(params[name]["kernel"], float) + np.asarray(params[name]["bias"], float)
    got = run(tokens, pooled)
    assert got.shape == (S, J, K)
    tokens, pooled = np.asarray(tokens, float), np.asarray(pooled, float)
    for s, j, k in np.ndindex(S, J, K):
        query, what = linear("query", pooled[s, j]), linear("what", pooled[s, j])
        key, value = linear("key", tokens[s, k]), linear("value", tokens[s, k])
        answer = []
        for head in np.split(np.arange(D), HEADS):
            weights = np.exp(key[:, head] @ query[head] / np.sqrt(len(head)))
            answer.append(weights / weights.sum() @ value[:, head])
        answer = np.concatenate(answer)
        expected = answer @ what / np.linalg.norm(answer) / np.linalg.norm(what)
        assert got[s, j, k] == pytest.approx(expected, abs=1e-5)


def test_pictures_may_be_the_same_for_all_texts(made):
    run, _, tokens, pooled = made
    same = jnp.broadcast_to(tokens[:1], tokens.shape)
    np.testing.assert_allclose(run(tokens[:1], pooled), run(same, pooled), atol=1e-6)


def test_the_order_of_tokens_does_not_matter_and_that_of_pictures_moves_scores(made):
    run, _, tokens, pooled = made
    got = run(tokens, pooled)
    np.testing.assert_allclose(run(tokens[:, :, ::-1], pooled), got, atol=1e-6)
    np.testing.assert_allclose(run(tokens[:, ::-1], pooled), got[..., ::-1], atol=1e-6)
