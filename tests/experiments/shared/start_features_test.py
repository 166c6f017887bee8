"""Features are made by the run that a config starts from, and kept in the workdir."""

import numpy as np
import pytest

from configs.clip4cir import get_config
from contextjax.types import FeatureBatch, UserError
from experiments.shared.start_features import samples_of_start


def test_without_a_start_there_is_nothing_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"data\.cached is set, but model\.start is empty; give the run"):
        samples_of_start(get_config("combiner,tiny"), tmp_path, lambda system, path: None)


def test_the_start_makes_them_in_the_workdir(tiny_run, tmp_path):
    config, calls = get_config("combiner,tiny"), []
    config.model.start = str(tiny_run)

    def make(system, path):
        calls.append((system.spec.family, path))
        return FeatureBatch(*(np.arange(3),) * 7)

    samples = samples_of_start(config, tmp_path, make)
    assert calls == [("context_cir", tmp_path / "features.safetensors")] and len(samples) == 3
