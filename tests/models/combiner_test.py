"""The Combiner and the pseudo-word network: sizes, beginnings, and the published formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.combiner import Combiner, PseudoWord


def count(module, *widths):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *(jnp.zeros((1, width)) for width in widths))
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("width", "published"), [(640, 59_003_521), (512, 37_765_633), (768, 84_960_001)])
def test_the_combiner_has_the_published_number_of_parameters(width, published):
    assert count(Combiner(), width, width) == published


def linear(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def drawn(module, *inputs):
    import flax.linen as nn

    return nn.unbox(module.init(jax.random.key(3), *inputs)["params"])


def test_the_combiner_is_the_published_formula_in_float64():
    image, text = (3 * jax.random.normal(jax.random.key(seed), (5, 6)) for seed in (0, 1))
    params = drawn(Combiner(), image, text)
    relu = lambda x: np.maximum(x, 0)
    f, t = np.asarray(image, np.float64), np.asarray(text, np.float64)
    read = np.concatenate([relu(linear(params["text_layer"], t)), relu(linear(params["image_layer"], f))], -1)
    vector = linear(params["output"], relu(linear(params["vector_layer"], read)))
    share = 1 / (1 + np.exp(-linear(params["share"], relu(linear(params["share_layer"], read)))))
    expected = vector + share * t + (1 - share) * f
    np.testing.assert_allclose(Combiner().apply({"params": params}, image, text), expected, rtol=1e-5, atol=1e-6)
    kernel, bias = params["vector_layer"]["kernel"], params["vector_layer"]["bias"]
    bound = 1 / np.sqrt(kernel.shape[0])
    assert 0.9 * bound < np.abs(kernel).max() <= bound and 0.5 * bound < np.abs(bias).max() <= bound


def test_a_pseudo_word_depends_on_the_direction_of_a_feature_alone():
    feature = jax.random.normal(jax.random.key(0), (3, 8))
    module = PseudoWord(5)
    params = drawn(module, feature)
    run = lambda x: module.apply({"params": params}, x)
    assert run(feature).shape == (3, 5) and params["second_layer"]["kernel"].shape == (32, 32)
    np.testing.assert_allclose(run(7 * feature), run(feature), atol=1e-6)
    assert np.abs(run(-feature) - run(feature)).max() > 1e-3
