"""Random batches: whole, and within their ranges."""

import jax
import numpy as np
import pytest

from configs.pictogram_sets import get_config as pictogram_sets
from configs.pictograms import get_config as pictograms
from experiments.benchmarks.synthetic import synthetic_batch
from experiments.shared import systems
from experiments.shared.abstract_step import with_sizes


@pytest.mark.parametrize("config", [pictograms(), pictogram_sets("pairs"), pictogram_sets("1"), pictogram_sets("2b")])
def test_synthetic_batches_are_whole_and_within_their_ranges(config):
    config = with_sizes(config)
    shapes = systems.of(config).abstract_batch(config, cuts=2)
    batch = synthetic_batch(shapes, vocabulary=50)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, shapes, batch)
    assert all(jax.tree.leaves(same))
    for path, x in jax.tree_util.tree_leaves_with_path(batch):
        name = path[-1].name
        assert name != "ids" or (x.min() >= 3 and x.max() < 50)
        assert x.dtype != np.bool_ or x.all() == (name != "ordered")
    if hasattr(batch, "target_ids"):
        assert not np.intersect1d(batch.target_ids, batch.reference_ids).size
