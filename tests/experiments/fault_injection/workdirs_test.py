"""Leftovers of an interruption are named."""

import shutil

from experiments.fault_injection.workdirs import leftovers


def test_leftovers_are_named(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    assert leftovers(workdir) == []
    (workdir / ".config.json.123.partial").touch()
    (workdir / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints" / "8").mkdir()
    assert leftovers(workdir) == [".config.json.123.partial", "checkpoints/8", "checkpoints/9.orbax-checkpoint-tmp"]
