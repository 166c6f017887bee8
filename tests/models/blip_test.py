"""BLIP's matching logits read both picture and text (tests/pretrained/golden_test.py has its numbers)."""

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.models.blip import BLIP
from tests.models.context_blip_test import BLIP as CONFIG
from tests.models.context_blip_test import random_params


def test_matching_reads_picture_and_text_and_no_padding(tiny):
    model, pictures, (ids, mask) = BLIP(CONFIG), tiny.pictures(3), tiny.texts(3)
    params = random_params(model)
    run = jax.jit(lambda pictures, ids: model.apply({"params": params}, pictures, ids, mask))
    image, text, logits = run(pictures, ids)
    assert logits.shape == (3, 2)
    np.testing.assert_allclose(run(pictures, jnp.where(mask, ids, 9))[2], logits, atol=1e-5)
    order = jnp.asarray([1, 2, 0])
    other_image, same_text, other_pictures = run(pictures[order], ids)
    np.testing.assert_allclose(other_image, image[order], atol=1e-5)
    np.testing.assert_allclose(same_text, text, atol=1e-5)
    other_texts = run(pictures, ids.at[:, 1].set((ids[:, 1] + 1) % tiny.vocabulary))[2]
    for other in (other_pictures, other_texts):
        assert (np.abs(other - logits).max(-1) > 1e-4).all()
