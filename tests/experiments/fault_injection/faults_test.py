"""A fault is there for its block, and leaves a run as it was."""

import os
import shutil
from pathlib import Path

import pytest

from experiments.fault_injection import faults
from experiments.fault_injection.interruptions import kill
from experiments.fault_injection.workdirs import resume_state, safe_step
from tests.experiments.fault_injection import scripts


@pytest.mark.parametrize("name", list(faults.FAULTS))
def test_a_fault_is_there_and_then_is_not(whole, processes, tmp_path, name):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    before = sorted(path.relative_to(workdir) for path in workdir.rglob("*"))
    process = processes.start(scripts.idle, 60, log=tmp_path / "log")
    with faults.FAULTS[name](process.pid, workdir):
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="utf-8")
        is_limited = "descriptors" in name and "Max open files            3" in limits
        assert is_limited or not (workdir / "checkpoints").is_dir() or os.geteuid()
    kill(process, workdir, None)
    assert sorted(path.relative_to(workdir) for path in workdir.rglob("*")) == before
    assert resume_state(workdir)[0] == 12


def test_what_a_run_makes_in_place_of_its_folder_is_kept(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    with faults.FAULTS["the folder is gone"](os.getpid(), workdir):
        shutil.copytree(whole[0] / "checkpoints" / "12", workdir / "checkpoints" / "14")
    assert safe_step(workdir) == 14 and (workdir / "checkpoints" / "12").is_dir()
