"""What all commands share: the config of a workdir, and a disk that is full."""

import os

import pytest

from configs import pictograms
from contextjax.files import write_whole
from contextjax.types import UserError
from experiments.shared import cli, run_config


def changed(**values):
    config = pictograms.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in values.items()})
    return config


def test_a_run_goes_on_wherever_it_is_computed_and_nowhere_as_another(tmp_path):
    run_config.write_config(tmp_path, changed(mesh="data:4,fsdp:2"))
    moved = changed(mesh="data:2", data__workers=3, data__cache_mb=7)
    run_config.write_config(tmp_path, moved)
    assert run_config.config_hash(moved) == run_config.config_hash(changed())
    assert run_config.read_config(tmp_path).mesh == "data:4,fsdp:2"  # as it began
    other = changed(data__batch_size=4)
    with pytest.raises(UserError, match=r"is of another config: data\.batch_size was"):
        run_config.write_config(tmp_path, other)
    assert run_config.config_hash(other) != run_config.config_hash(changed())


def test_a_full_disk_is_one_sentence_and_no_traceback(tmp_path, capsys):
    full = tmp_path / f".config.json.{os.getpid()}.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(SystemExit) as ended:
        cli._guard(lambda: write_whole(tmp_path / "config.json", "{}"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: {tmp_path / 'config.json'} can't be written or read (No space left on device);")
    with pytest.raises(FileNotFoundError):  # a bug, as far as anyone knows
        cli._guard((tmp_path / "no").read_text)
