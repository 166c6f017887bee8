"""CLIP's embeddings are its projected pooled states at norm one (tests/pretrained/golden_test.py has its numbers)."""

import jax
import numpy as np

from contextjax.models.clip import CLIP
from tests.models.context_blip_test import random_params


def test_embeddings_are_projected_pooled_states(tiny):
    model = CLIP(tiny.clip)
    params, pictures, texts = random_params(model), tiny.pictures(3), tiny.texts(3)

    def states(model):
        image = model.encode_image(pictures)
        return image.pooled, model.pool_image(image.tokens), model.project_image(image.pooled)

    run = lambda method, *inputs: jax.jit(lambda params: model.apply({"params": params}, *inputs, method=method))(
        params
    )
    pooled, again, projected = run(states)
    np.testing.assert_array_equal(pooled, again)
    np.testing.assert_allclose(projected, pooled @ params["visual_projection"]["kernel"], atol=1e-5)
    image, text = run(None, pictures, *texts)
    np.testing.assert_allclose(image, projected / np.linalg.norm(projected, axis=-1, keepdims=True), atol=1e-5)
    assert image.shape == text.shape and np.abs(image[0] - image[1]).max() > 1e-3
