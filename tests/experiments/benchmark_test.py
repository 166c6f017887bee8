"""The benchmark's command: a record of one run, and two results side by side."""

import json

import pytest

from tests.commands import in_process


@pytest.mark.long
def test_a_run_is_recorded_and_compared(tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    recipe = "--config=configs/pictograms.py:no_consistency,sum,tiny"
    done = in_process(
        "benchmark", recipe, "--mode=embedding", "--batch=2", "--steps=1", "--nocompile", "--nokeep_memory",
        f"--output={files[0]}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(files[0].read_text())
    assert (record["mode"], record["batch"], record["steps"], record["data"]) == ("embedding", 2, 1, "synthetic")
    assert record["freed_memory"] == "given back" and "embedding, S16" in done.stdout
    files[1].write_text(json.dumps(record | {"batch": 4}))
    done = in_process("benchmark", f"--compare={files[0]},{files[1]}")
    assert done.returncode == 0 and "batch differs: 2 and 4" in done.stdout


def test_a_result_is_compared_with_another():
    done = in_process("benchmark", "--compare=one.json")
    assert done.returncode == 2 and "--compare got 1 files; expected two" in done.stderr
