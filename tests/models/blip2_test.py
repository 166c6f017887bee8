"""BLIP-2's scores read both picture and text (tests/parity has its numbers)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.blip2 import BLIP2, BLIP2Config
from contextjax.models.qformer import QFormerConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained import abstract_params

CONFIG = BLIP2Config(
    VisionConfig(16, 8, width=16, layers=1, heads=4, mlp=32, pre_norm=False, patch_bias=True, fit="squash"),
    QFormerConfig(32, 12, width=16, layers=2, heads=4, mlp=24, query_tokens=3),
    8,
)


def random_params(model):
    """Random parameters, those that start at zero or one too."""
    from flax.linen import unbox

    rng = np.random.default_rng(0)
    shapes = unbox(abstract_params(model))
    return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32), shapes)


@pytest.mark.long
def test_a_picture_has_a_vector_for_each_query_token_and_its_embedding_is_their_mean(tiny):
    model, pictures, (ids, mask) = BLIP2(CONFIG), tiny.pictures(3), tiny.texts(3)
    params = random_params(model)

    def outputs(model):
        image = model.encode_image(pictures)
        return model.embed_image_tokens(image), model.embed_image(image), model.image_features(image)

    tokens, mean, features = jax.jit(lambda p: model.apply({"params": p}, method=outputs))(params)
    assert tokens.shape == (3, 3, 8) and features.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(mean, tokens.mean(1), atol=1e-6)
    assert (np.linalg.norm(mean, axis=-1) < 1).all()  # not normalised again, as published
    run = jax.jit(lambda p, pictures, ids: model.apply({"params": p}, pictures, ids, mask))
    _, text, logits = run(params, pictures, ids)
    assert logits.shape == (3, 2) and text.shape == (3, 8)
    for inputs in ((pictures[jnp.asarray([1, 2, 0])], ids), (pictures, ids.at[:, 1].set((ids[:, 1] + 1) % 32))):
        assert (np.abs(run(params, *inputs)[2] - logits).max(-1) > 1e-5).all()
