"""Methods are applied by name or as functions; without a key nothing is dropped."""

import jax
import numpy as np

from contextjax.objectives.runner import runner


def test_a_key_drops_and_without_one_nothing_is(tiny):
    model = tiny.model(query="combiner")
    params = tiny.params(model)
    image, text = (jax.random.normal(jax.random.key(seed), (4, 8)) for seed in (0, 1))
    plain = runner(model, params)("compose_features", image, text)
    again = runner(model, params)(lambda m, *inputs: m.compose_features(*inputs), image, text)
    np.testing.assert_array_equal(plain, again)
    dropped = [runner(model, params, jax.random.key(seed))("compose_features", image, text) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped[0] - plain).max() > 1e-3 and np.abs(dropped[0] - dropped[2]).max() > 1e-3
