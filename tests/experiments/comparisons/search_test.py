"""The comparison of search, small: the command runs and agrees with FAISS; shares of the bandwidth."""

import json

import pytest

from experiments.comparisons import search
from tests.commands import in_own_process


def test_the_command_writes_timings_and_recall(tmp_path):
    pytest.importorskip("faiss", reason="needs the extra [comparisons] or [milvus]")
    sizes = ["--rows=3000", "--dimension=32", "--batch=5", "--pairs=2", "--seconds=0", "--threads=1"]
    output = tmp_path / "out.json"
    done = in_own_process("comparisons", "search", *sizes, f"--output={output}")
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    storages = result["storages"]
    assert storages["float32"]["recall"] == 1 and storages["float32"]["difference"] < 1e-5
    assert 0.9 < storages["int8"]["recall"] <= 1
    assert len(result["programs"]) == 9 and all(len(row["seconds"]) == 2 for row in result["programs"].values())
    assert result["options"]["rows"] == 3000 and "faiss-cpu" in result["versions"] and result["cpu"]
    assert "| faiss, one query / int8, one query |" in done.stdout and "| int8 |" in done.stdout


def test_shares_of_the_bandwidth():
    names = search.READING, "float32, one query", "int8, one query"
    programs = {name: {"seconds": [t]} for name, t in zip(names, (1.0, 2.0, 0.5), strict=True)}
    shares = search.bandwidth(programs, {"float32": {"bytes": 4e9}, "int8": {"bytes": 1e9}}, 4_000_000_000)
    assert {row["read bandwidth, bytes/s"] for row in shares.values()} == {4e9}
    assert shares["float32"]["share of the read bandwidth"] == 0.5 == shares["int8"]["share of the read bandwidth"]
