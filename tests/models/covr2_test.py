"""CoVR-2: the frozen side is BLIP-2's, the query reads the reference and the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax import programs
from contextjax.models.blip2 import BLIP2
from contextjax.models.covr2 import COPIES, CoVR2, CoVR2Config
from tests.models.blip2_test import CONFIG, random_params

MODEL = CoVR2(CoVR2Config(CONFIG))


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.mark.long
def test_the_gallery_is_that_of_the_frozen_blip2(params, tiny):
    pictures, (ids, mask) = tiny.pictures(3), tiny.texts(3)
    frozen = BLIP2(CONFIG), params["blip2"]
    for program in (programs.embed_gallery, programs.embed_gallery_tokens):
        np.testing.assert_array_equal(program(MODEL, params, pictures), program(*frozen, pictures))
    np.testing.assert_array_equal(
        programs.embed_text(MODEL, params, ids, mask), programs.embed_text(*frozen, ids, mask)
    )


@pytest.mark.long
def test_the_query_reads_reference_and_text_and_starts_as_blip2s_matching_pass(params, tiny):
    pictures, (ids, mask) = tiny.pictures(3), tiny.texts(3)
    tokens = programs.embed_query_tokens(MODEL, params, pictures, ids, mask)
    assert tokens.shape == (3, 3, 8)
    query = programs.embed_query(MODEL, params, pictures, ids, mask, mode="token_mean")
    np.testing.assert_allclose(query, tokens.mean(1), atol=1e-6)
    rows = jnp.asarray([1, 1, 0])
    by_rows = programs.embed_query(MODEL, params, pictures, ids, mask, rows, mode="token_max")
    expected = programs.embed_query(MODEL, params, pictures[rows], ids, mask, mode="token_mean")
    np.testing.assert_allclose(by_rows, expected, atol=1e-6)
    for inputs in ((pictures[::-1][:3], ids, mask), (pictures, (ids + 1) % 32, mask)):
        assert np.abs(programs.embed_query_tokens(MODEL, params, *inputs) - tokens).max() > 1e-4
    copied = {**params, **{own: params["blip2"][theirs] for own, theirs in COPIES.items()}}

    def as_in_blip2(model):
        image = model.encode_image(pictures)
        states = model.text.read_both(model.normalize_tokens(image.tokens), ids, mask)
        projected = model.text_projection(states)
        return projected / jnp.linalg.norm(projected, axis=-1, keepdims=True)

    expected = jax.jit(lambda p: BLIP2(CONFIG).apply({"params": p}, method=as_in_blip2))(params["blip2"])
    np.testing.assert_allclose(programs.embed_query_tokens(MODEL, copied, pictures, ids, mask), expected, atol=1e-5)
