"""A model on top of CLIP or BLIP embeds as they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.blip import BLIP
from contextjax.models.clip import CLIP
from contextjax.models.dual_encoder import temperature_of
from tests.models import context_blip_test


@pytest.mark.long
@pytest.mark.parametrize("name", ["clip", "blip"])
def test_a_model_on_top_embeds_as_its_towers_do(tiny, name):
    if name == "clip":
        model, plain = tiny.model(query="sum"), CLIP(tiny.clip)
    else:
        model = context_blip_test.small_model(selection="none", context_layers=0, masking="none")
        plain = BLIP(context_blip_test.BLIP)
    params, pictures, texts = context_blip_test.random_params(model), tiny.pictures(2), tiny.texts(2)

    def embed(model):
        return model.embed_image(model.encode_image(pictures)), model.embed_text(model.encode_text(*texts))

    apply = lambda model, params: jax.jit(lambda params: model.apply({"params": params}, method=embed))(params)
    for ours, theirs in zip(apply(model, params), apply(plain, params[name]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (3.0, np.exp(-3)), (9.0, 0.01)])
def test_the_temperature_is_at_least_a_hundredth(scale, expected):
    np.testing.assert_allclose(temperature_of(jnp.float32(scale)), expected, rtol=1e-5)
