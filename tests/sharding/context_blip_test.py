"""ContextBLIP's hard negatives are those of the global batch, on any mesh."""

import jax
import numpy as np

from contextjax.objectives.context_blip import CaptionObjective
from contextjax.sharding import make_mesh, place_batch
from tests.models.context_blip_test import caption_batch, jit, small_model

MESHES = ("data:8", "data:4,tensor:2", "fsdp:4,data:2", "fsdp:8")
KEY = jax.random.key(3)


def test_negatives_are_drawn_from_the_global_batch(tiny):
    """The same ones on any mesh, and pictures of other devices among them."""
    batch = caption_batch(tiny, 8)
    batch = batch._replace(image_ids=batch.image_ids.at[5].set(2))
    objective = CaptionObjective(small_model(selection="none", context_layers=0), (("matching", 1.0),))
    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(8, 4)).astype(np.float32) for _ in range(2))

    def draw(text, image, batch, key):
        return objective._draw(key, text @ image.T, batch)

    keys = [jax.random.fold_in(KEY, i) for i in range(3)]
    expected = [jit(draw)(text, image, batch, key) for key in keys]
    for name in MESHES:
        mesh = make_mesh(name)
        inputs = place_batch((text, image, jax.tree.map(np.asarray, batch)), mesh)
        run = jit(draw)
        for key, drawn in zip(keys, expected, strict=True):
            jax.tree.map(np.testing.assert_array_equal, run(*inputs, key), drawn)
    far = [np.abs(np.asarray(drawn.negative_image) - np.arange(8)) > 1 for drawn in expected]
    assert np.mean(far) > 0.5
    assert len({tuple(np.asarray(drawn.negative_image).tolist()) for drawn in expected}) == 3
