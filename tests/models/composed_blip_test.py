"""The query of composed BLIP is a text that has read the picture; the gallery is plain BLIP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.models.blip import BLIPConfig
from contextjax.models.composed_blip import ComposedBLIP, ComposedBLIPConfig
from contextjax.models.multimodal import BertConfig
from tests.conftest import CLIP, LENGTH, VOCABULARY
from tests.models.context_blip_test import random_params

BLIP = BLIPConfig(
    dataclasses.replace(CLIP.vision, pre_norm=False, patch_bias=True), BertConfig(VOCABULARY, LENGTH, 8, 1, 2, 16), 8
)
MODEL = ComposedBLIP(ComposedBLIPConfig(BLIP, fused_token=3, reverse_token=4))


def test_the_query_reads_picture_and_text_and_its_first_token(tiny):
    params = random_params(MODEL)
    pictures, (ids, mask) = tiny.pictures(2), tiny.texts(2, 3)

    def everything(model):
        image = jax.tree.map(lambda x: x[:, None], model.encode_image(pictures))
        compose = lambda ids, **options: model.compose(image, ids, mask, **options)
        shared, repeated = compose(ids), model.compose(jax.tree.map(lambda x: jnp.repeat(x, 3, 1), image), ids, mask)
        other = model.compose(jax.tree.map(lambda x: x[::-1], image), ids, mask)
        read = model.blip.read(model.blip.normalize_tokens(image.tokens), ids.at[:, :, 0].set(3), mask)
        by_hand = model.blip.text_projection(read.pooled)
        return shared, repeated, other, compose(jnp.where(mask, ids, 9)), compose(ids, reverse=True), by_hand

    shared, repeated, other, junk, reverse, by_hand = jax.jit(
        lambda params: MODEL.apply({"params": params}, method=everything)
    )(params)
    np.testing.assert_allclose(shared.query, by_hand, atol=1e-6)
    np.testing.assert_allclose(shared.query, repeated.query, atol=1e-5)
    np.testing.assert_allclose(shared.query, junk.query, atol=1e-5)
    assert shared.attention.shape == (2, 3, 5, LENGTH)  # tokens of the picture, CLS first, and of the text
    np.testing.assert_allclose(shared.attention.sum(-2), 1, rtol=1e-5)
    for different in (other, reverse):
        assert (np.abs(different.query - shared.query).max(-1) > 1e-4).all()
