"""CLIP's embeddings are its projected pooled states at norm one (tests/pretrained/golden_test.py has its numbers)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.clip import CLIP, CLIPConfig, check_towers
from contextjax.types import UserError
from tests.models.context_blip_test import random_params
from tests.pretrained.conftest import SIGLIP_CONFIG


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


def test_siglips_texts_are_filled_up_and_every_token_reads_every_other():
    """Neither the array's length nor what stands in it behind a text changes anything."""
    model = CLIP(SIGLIP_CONFIG)
    params = random_params(model)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(3, 32, (3, 12)).astype(np.int32), np.arange(12) < np.asarray([[4], [6], [12]])
    run = jax.jit(lambda ids, mask: model.apply({"params": params}, ids, mask, method="encode_text"))
    whole = run(ids, mask)
    np.testing.assert_allclose(run(np.where(mask, ids, 7), mask).states, whole.states, atol=1e-5)
    short = run(ids[:2, :7], mask[:2, :7])
    np.testing.assert_allclose(short.states, whole.states[:2, :7], atol=1e-5)
    np.testing.assert_allclose(short.pooled, whole.pooled[:2], atol=1e-5)
    np.testing.assert_array_equal(whole.pooled, whole.states[:, -1])
    other = run(np.where(np.arange(12) == 3, 5 + ids % 2, ids), mask).states
    assert (np.abs(np.asarray(other - whole.states)).max(-1)[:, 0] > 1e-4).all()  # the first token reads the fourth


@pytest.mark.long
def test_siglips_pictures_are_pooled_by_attention_and_not_projected():
    model = CLIP(SIGLIP_CONFIG)
    params = random_params(model)
    pictures = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8))

    def states(model):
        image = model.encode_image(pictures)
        return image.tokens, image.pooled, model.image_features(image), model.pool_image(image.tokens[:, ::-1])

    tokens, pooled, features, turned = model.apply({"params": params}, method=states)
    assert tokens.shape == (2, 4, 16) and features.dtype == np.float32
    np.testing.assert_array_equal(features, pooled)
    np.testing.assert_allclose(turned, pooled, atol=1e-5)  # of a set of tokens, in any order
    bias, temperature = (model.apply({"params": params}, method=name) for name in ("pair_bias", "temperature"))
    assert bias == params["logit_bias"] and np.isclose(temperature, np.exp(-params["logit_scale"]))


@pytest.mark.parametrize(
    ("vision", "text", "projection", "said"),
    [
        ({}, {"pad_token": None}, 16, "pooling is 'attention' and text.pad_token is None"),
        ({"pooling": "cls"}, {}, 16, "expected the pooling 'attention' with an id"),
        ({}, {"pad_token": 32}, 16, "pad_token is 32, but the vocabulary has 32 ids"),
        ({}, {}, 8, "projection is 8, but the image tower 16 wide"),
    ],
)
def test_towers_that_do_not_go_together_are_refused(vision, text, projection, said):
    own = SIGLIP_CONFIG
    config = CLIPConfig(dataclasses.replace(own.vision, **vision), dataclasses.replace(own.text, **text), projection)
    with pytest.raises(UserError, match=said):
        check_towers(config, "")
