"""The config of a run: it goes on wherever it is computed, and nowhere as another."""

import pytest

from configs import pictograms
from contextjax.types import UserError
from experiments.shared.run_config import config_hash, read_config, write_config


def changed(**values):
    config = pictograms.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in values.items()})
    return config


def test_a_run_goes_on_wherever_it_is_computed_and_nowhere_as_another(tmp_path):
    write_config(tmp_path, changed(mesh="data:4,fsdp:2"))
    moved = changed(mesh="data:2", data__workers=3, data__cache_mb=7)
    write_config(tmp_path, moved)
    assert config_hash(moved) == config_hash(changed())
    assert read_config(tmp_path).mesh == "data:4,fsdp:2"  # as it began
    other = changed(data__batch_size=4)
    with pytest.raises(UserError, match=r"is of another config: data\.batch_size was"):
        write_config(tmp_path, other)
    assert config_hash(other) != config_hash(changed())
