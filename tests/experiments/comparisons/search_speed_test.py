"""The benchmark of search, small: it runs, agrees with FAISS, and counts as it says. Skipped without FAISS."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.comparisons.search_case import summary, table
from tests.commands import environment

ROOT = Path(__file__).parents[3]


def test_the_command_writes_timings_and_recall(tmp_path):
    pytest.importorskip("faiss", reason="needs the extra [peers] or [milvus]")
    sizes = ["--rows=3000", "--dimension=32", "--batch=5", "--rounds=2", "--seconds=0", "--threads=1"]
    command = [
        sys.executable,
        "-m",
        "experiments.comparisons.search_speed",
        *sizes,
        f"--output={tmp_path / 'out.json'}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["recall"]["float32"]["recall"] == 1 and found["recall"]["float32"]["difference"] < 1e-5
    assert 0.9 < found["recall"]["int8"]["recall"] <= 1 and all(len(times) == 2 for times in found["seconds"].values())
    assert len(done.stdout.splitlines()[-5:]) == 5 and "| int8 |" in done.stdout


def test_ratios_and_shares():
    names = "read", "faiss", "faiss, one", "float32", "float32, one", "int8", "int8, one"
    times = dict(zip(names, ([1.0], [4.0], [3.0], [2.0], [2.0], [8.0], [0.5]), strict=True))
    found = summary(times, {"float32": 4_000_000_000, "int8": 1_000_000_000})
    assert found["read_gb_per_second"] == 4 and found["float32_of_faiss"] == 2 and found["int8_of_faiss"] == 0.5
    assert found["float32_one_query_of_bandwidth"] == 0.5 == found["int8_one_query_of_bandwidth"]
    assert found["float32_one_query_of_faiss"] == 1.5
    sizes = {"float32": 4_000_000_000, "int8": 1_000_000_000}
    recall = {name: {"recall": 1.0} for name in sizes}
    lines = table({"summary": found, "bytes": sizes, "recall": recall}).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1 and np.isfinite(found["int8_of_faiss_max"])
