"""The long form of all cases, as `selftest --long` runs it; docs/results/fault_injection.md has its figures."""

import re

import pytest

from tests.commands import in_process, interpreter


@pytest.mark.slow
def test_nothing_is_lost():
    """50 kills, 50 SIGTERM, 10 full disks, 10 I/O errors, 300 damages, cuts of both systems, meshes, 20,000 steps."""
    done = interpreter("selftest", "--long")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| ([^|]+) \| ([0-9]+) \| 0 \| 0 \| pass", done.stdout, re.MULTILINE)
    times = {name: int(number) for name, number in rows}
    assert times["kill -9"] >= 50 and times["SIGTERM"] >= 50 and times["full disk"] >= 10 and times["I/O errors"] >= 10
    assert sum(number for name, number in times.items() if name.startswith("cut and resumed")) >= 20
    assert sum(number for name, number in times.items() if name.startswith("flips")) >= 300


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = in_process("selftest", f"--workdir={tmp_path}")
    assert done.returncode == 2 and f"{tmp_path} is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
