"""The suite of measurements: what is run, left out, kept and tried again; at tiny size, whole."""

import json

import pytest

from experiments.benchmarks import suite
from tests.commands import in_process, interpreter

WRITES = "import sys; open(sys.argv[-1].removeprefix('--output='), 'w').write('{}')"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A suite of three modules: one that fails until `mended` is there, one that works, one that can't be run."""
    (tmp_path / "works.py").write_text(WRITES.replace("{}", '{"value": 1}'))
    (tmp_path / "fails.py").write_text(f"import pathlib\nassert pathlib.Path('mended').exists(), 'broken'\n{WRITES}")
    monkeypatch.chdir(tmp_path)
    found = [suite.Case("fails", ("fails",)), suite.Case("works", ("works",)), suite.Case("torch", (), "no torch")]
    monkeypatch.setattr(suite, "cases", lambda *_: found)
    monkeypatch.setattr(suite, "table", lambda done: "")
    return tmp_path / "results"


def results(folder):
    return json.loads((folder / "suite.json").read_text())["cases"]


def test_a_failed_case_is_told_and_tried_again_and_a_done_one_is_kept(small, capsys):
    suite.run("accelerator_tiny", small, minutes=5)
    assert results(small) == {
        "fails": {"failed": "exit code 1: AssertionError: broken"}, "works": {"value": 1},
        "torch": {"left_out": "no torch"},
    }  # fmt: skip
    assert "fails: exit code 1" in capsys.readouterr().out and (small / "fails.log").exists()
    (small / "works.json").write_text('{"value": 2}')
    (small.parent / "mended").touch()
    suite.run("accelerator_tiny", small, minutes=5)
    assert results(small)["fails"] == {} and results(small)["works"] == {"value": 2}
    assert not (small / "fails.log").exists()


def test_no_case_is_begun_when_the_time_is_up(small):
    suite.run("accelerator_tiny", small, minutes=0)
    assert results(small)["works"] == {"left_out": "the time was up; the same command continues"}
    assert not (small / "works.json").exists()


def test_a_machine_without_an_accelerator_is_told(tmp_path):
    done = in_process("benchmark", "--suite=accelerator", f"--output={tmp_path / 'new'}")
    assert done.returncode == 2 and "JAX finds no accelerator here" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_suite_needs_a_folder_and_a_run_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    done = in_process("benchmark", "--suite=accelerator_tiny", f"--output={file}")
    assert done.returncode == 2 and "expected a folder to write to" in done.stderr
    done = in_process("benchmark", "--config=configs/context_cir.py:tiny", f"--output={tmp_path}")
    assert done.returncode == 2 and "expected a file to write" in done.stderr
    done = in_process("benchmark", "--suite=accelerator_tiny")
    assert done.returncode == 2 and "--output is missing" in done.stderr


@pytest.mark.parametrize(("platform", "kind"), [("gpu", "NVIDIA H100 80GB HBM3"), ("tpu", "TPU v5e"), ("cpu", "cpu")])
def test_what_is_run_on_a_device(platform, kind):
    found = {case.name: case for case in suite.cases("accelerator", platform, kind)}
    assert set(suite.AIMS) < set(found)
    assert bool(found["L14_training_cudnn"].without) == (platform != "gpu")
    planned = found["L14_training_planned"]
    assert bool(planned.without) == (platform == "cpu")
    assert ("--target=H100:1x1x1" in planned.command) == (platform == "gpu")
    assert ("--dtype=bfloat16" in found["B32_embedding"].command) == (platform != "cpu")


def test_the_table_has_memory_beside_its_plan_and_pytorch_beside_ours():
    done = {
        "L14_training": {"samples_per_second": 100.0, "mfu_of_peak": 0.45, "peak_memory_bytes": 49.3e9},
        "L14_training_planned": {"device_bytes": {"peak": 50.1e9}},
        "B32_training": {"failed": "exit code 1: no memory"},
        "L14_beside_pytorch": {"rates": {"step-64-bfloat16": {"images/s": 200.0, "PyTorch images/s": 150.0}}},
    }
    lines = suite.table(done).splitlines()
    assert lines[2] == "| L14_training | 100 | 45.0 % | 40 % | 49.30 GB | 50.10 GB | - |"
    assert "no memory" in lines[3] and lines[4].endswith("| 200 | | | | | 150 |")


@pytest.mark.long
def test_the_suite_at_tiny_size(tmp_path):
    """Run twice: the second time measures nothing."""
    for _ in range(2):
        done = interpreter("benchmark", "--suite=accelerator_tiny", f"--output={tmp_path}")
        assert done.returncode == 0, done.stderr
        found = results(tmp_path)
        assert not {name: each for name, each in found.items() if "failed" in each}, found
        moments = {name: each["date"] for name, each in found.items() if "date" in each}
        assert {"L14_training", "B32_training", "stage1_training", "L14_embedding", "B32_embedding"} <= set(moments)
        assert found["L14_training_planned"] == {"left_out": f"there is no compile target for '{kind()}'"}
        if not _:
            first = moments
    assert moments == first


def kind():
    import jax

    return jax.devices()[0].device_kind
