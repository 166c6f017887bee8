"""Values that `fit` is given: their defaults do nothing, and records are named by their numbers."""

from pathlib import Path

import numpy as np

from contextjax.training.task import Callbacks, FitConfig, row_numbers


def test_records_are_named_by_their_numbers():
    assert row_numbers(np.asarray([[3, 1], [0, 20]])) == ["3", "1", "0", "20"]


def test_what_is_left_out_is_not_done():
    callbacks = Callbacks()
    assert callbacks.diagnose is None and callbacks.evaluate is None and callbacks.writers == ()
    assert callbacks.name_records(np.asarray([5])) == ["5"]
    config = FitConfig(Path(), 1, 1, 1, 1, 1, 0, {}, "data:-1", (), {})
    assert (config.step_timeout, config.micro_batches, config.spike_factor, config.profile) == (0, 1, 0.0, None)
