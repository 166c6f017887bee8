"""CoVR-2's recipe: which terms take part, what a batch looks like, and what training starts from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.covr2 import get_config
from contextjax.models.blip2 import BLIP2
from contextjax.models.covr2 import COPIES
from contextjax.pretrained import write_pretrained
from contextjax.pretrained.names import flatten
from contextjax.types import UserError
from contextjax.variants import make_model
from experiments.shared import covr2, models
from tests.models import blip2_test
from tests.pretrained.conftest import BLIP2_CONFIG, random_params


def changed(**changes):
    config = get_config("tiny")
    config.update_from_flattened_dict(changes)
    config.model = models.resolve_model(config)
    return config


def test_a_batch_has_the_shapes_of_what_is_trained():
    batch = covr2.abstract_batch(changed())
    assert batch.references.shape == (8, 64, 64, 3) and batch.targets.shape == (8, 1, 64, 64, 3)
    assert batch.captions is None and batch.texts.ids.shape == (8, 1, 32)
    assert covr2.abstract_batch(changed(**{"loss.weights.captions": 0.5})).captions.ids.shape == (8, 2, 36)
    config = changed(**{"loss.weights.hard_negative": 0.0})
    with pytest.raises(UserError, match="No loss term has a weight; give one"):
        covr2.make_phases(config, make_model(models.make_spec(config)))
    assert models.make_spec(get_config("tiny")).text_length == 64  # read further than in training


@pytest.mark.long
def test_training_starts_from_blip2_and_its_copies(tmp_path):
    published = random_params(BLIP2(BLIP2_CONFIG))
    folder = write_pretrained(tmp_path / "blip2", BLIP2_CONFIG, published)
    config = get_config("tiny")
    config.model.pretrained, config.model.variant = str(folder), ""
    config.model.vision = {"image_size": 16, "scan": False}
    config.model.text = {"scan": False}
    config.model = models.resolve_model(config)
    model = make_model(models.make_spec(config))
    fresh = blip2_test.random_params(model)
    start = models.make_start(config)(fresh)
    equal = lambda a, b: [np.testing.assert_array_equal(x, flatten(b)[path]) for path, x in flatten(a).items()]
    equal(start["blip2"], published)
    for own, theirs in COPIES.items():
        equal(start[own], published[theirs])
    assert jax.tree.structure(start) == jax.tree.structure(fresh)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(start) if isinstance(x, jnp.ndarray)]
    assert len(buffers) == len(set(buffers))  # a step may donate each of them
