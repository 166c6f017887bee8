"""The pseudo-word network learns from texts alone, and CLIP does not learn from it."""

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.objectives.pseudo_word import PseudoWordObjective
from contextjax.types import SLOT, TextBatch


def test_its_network_alone_gets_gradients_and_they_lower_the_loss(tiny):
    model = tiny.model(query="pseudo_word")
    params, texts = tiny.params(model), tiny.texts(6)
    batch = TextBatch(texts, texts._replace(ids=texts.ids.at[:, 1].set(SLOT)), jnp.arange(6))
    objective = PseudoWordObjective(model)

    def loss(params, key):
        total, count = objective.terms(objective.represent(params, batch, key), batch)["pseudo_word"]
        return total / count

    step = jax.jit(jax.value_and_grad(loss))
    value, gradients = step(params, jax.random.key(0))
    again, other = step(params, jax.random.key(0))[0], step(params, jax.random.key(1))[0]
    assert value == again != other  # noise and dropout are the key's
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradients["clip"]))
    assert all(np.asarray(g).any() for g in jax.tree.leaves(gradients["pseudo_word"]))
    plain = jax.jit(loss, static_argnums=1)
    before = plain(params, None)
    for seed in range(30):
        gradients = step(params, jax.random.key(seed))[1]
        params = {**params, "pseudo_word": jax.tree.map(
            lambda x, g: x - 0.3 * g, params["pseudo_word"], gradients["pseudo_word"]
        )}  # fmt: skip
    assert plain(params, None) < before
