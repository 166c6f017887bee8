"""Several processes are one run: the real commands in two and four processes, and what happens when one is lost."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.files import locked
from contextjax.sharding import agree, first_process_first, gather, is_first_process
from contextjax.sharding.processes import COORDINATOR, PROCESS, PROCESSES, start_processes
from contextjax.training.goodput import read_goodput
from contextjax.training.metrics_log import read_metrics
from contextjax.training.watchdog import STUCK
from contextjax.types import UserError
from tests.commands import environment
from tests.conftest import write_pictograms

ROOT = Path(__file__).parent.parent.parent
# Changes of the tiny recipe. There is room for all phrases: which of them find room depends on the parts of a batch.
SETTINGS = {
    "mesh": "fsdp:-1", "data.modifications": 2, "data.text_length": 32, "data.phrases_per_text": 6.0,
    "loss.lead_steps": 0, "optimizer.name": "adamw", "training.steps": 6,
    "training.checkpoint_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_pictograms(tmp_path_factory.mktemp("processes") / "cirr", train_groups=4)


def launched(processes: int, *command: str, **variables: str) -> subprocess.CompletedProcess:
    command = (sys.executable, "-m", "experiments.launch", f"--processes={processes}", "--", *command)
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False)


def train(data: Path, workdir: Path, *more: str) -> list[str]:
    """The command of a training; see tests/sharding/trains.py."""
    settings = [f"--config.{key}={value}" for key, value in {**SETTINGS, "data.folder": data}.items()]
    return ["tests.sharding.trains", "--config=configs/pictograms.py:tiny", f"--workdir={workdir}", *settings, *more]


@pytest.fixture(scope="module")
def two(data, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run of two processes: its workdir, and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    workdir = folder / "two"
    (folder / "records").mkdir()
    done = launched(2, *train(data, workdir), RECORDS=str(folder / "records"))
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir, done


def train_here(data: Path, workdir: Path, **settings: str):
    """The same run in this one process, on its eight devices; returns the state."""
    from configs.pictograms import get_config
    from experiments.shared.training import train

    config = get_config("tiny")
    config.update_from_flattened_dict({**SETTINGS, "data.folder": str(data), **settings})
    return train(config, workdir)


def assert_same_losses(found: list[dict], expected: list[dict]) -> None:
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for name in ("loss", "contrastive", "consistency", "captions", "phrases"):
            if name in line:
                assert line[name] == pytest.approx(other[name], rel=1e-5), (name, line, other)
        assert line.get("grad_norm", 0) == pytest.approx(other.get("grad_norm", 0), rel=1e-4)


def assert_same_gradients(state, workdir: Path) -> None:
    """The first moments are running means of the gradients."""
    moments = lambda state: jax.tree.leaves_with_path(optax_mu(state.opt_state))
    checkpoints = CheckpointWriter(workdir / "checkpoints")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    other, _ = checkpoints.restore(abstract)
    checkpoints.close()
    assert int(other.step) == int(state.step)
    largest = max(float(np.abs(x).max()) for _, x in moments(state))
    assert largest > 0
    for (path, a), (_, b) in zip(moments(state), moments(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest, err_msg=str(path))


def optax_mu(opt_state):
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")]
    assert found
    return [x.mu for x in found]


@pytest.mark.long
def test_one_that_is_told_to_end_stops_all_after_the_same_step_and_the_command_goes_on(data, two, tmp_path):
    workdir, _ = two
    done = launched(2, *train(data, tmp_path / "told"), ENDS="1")
    assert done.returncode == 143, done.stdout + done.stderr
    assert done.stdout.count("Asked to stop after step 4, which is saved") == 2
    assert steps_of(tmp_path / "told") == [3, 4]
    done = launched(2, *train(data, tmp_path / "told"))
    assert done.returncode == 0, done.stdout + done.stderr
    bare = lambda workdir: [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(workdir)]
    assert bare(tmp_path / "told") == bare(workdir)
    assert [line["steps"] for line in read_goodput(tmp_path / "told")] == [[0, 4], [4, 6]]


def steps_of(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.long
def test_the_first_process_writes_and_prints(two):
    workdir, done = two
    lines = read_metrics(workdir)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val/R@5" in line] == [6]
    assert not any(line["recompiles"] for line in lines if "recompiles" in line)
    assert "[0] step 6/6" in done.stdout
    assert not re.search(r"^\[1\] (?!\[Gloo\])", done.stdout, re.MULTILINE), done.stdout
    names = {"config.json", "metrics.jsonl", "goodput.jsonl", "system.json", "tokenizer.json", "checkpoints",
             "tensorboard", ".lock"}  # fmt: skip
    assert {path.name for path in workdir.iterdir()} == names
    assert len(list((workdir / "tensorboard").iterdir())) == 1


@pytest.mark.long
def test_an_epoch_has_every_record_once_in_one_of_the_processes(two):
    """Six batches of eight samples are just an epoch."""
    workdir, _ = two
    seen = [[json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted((workdir.parent / "records").iterdir())]  # fmt: skip
    assert [len(part) for part in seen] == [6, 6]
    records = sorted(record for part in seen for batch in part for record in batch)
    assert records == list(range(96))


@pytest.mark.long
def test_one_process_goes_on_where_two_were_with_their_batches(data, two, tmp_path):
    """Losses to 1e-5 and gradients to 1e-4: no record is missed or seen twice."""
    workdir, _ = two
    one = Path(shutil.copytree(workdir, tmp_path / "one"))
    shutil.rmtree(one / "checkpoints" / "6")
    state = train_here(data, one)
    before, after = read_metrics(workdir), read_metrics(one)
    assert sum(line.get("phrases/matched", 0) for line in before) > 0
    assert not any(line.get("phrases/no_room") for line in before)
    assert after[:3] == before[:3]
    assert_same_losses(after, before)
    assert_same_gradients(state, workdir)


def test_one_process_needs_none_of_it():
    assert start_processes(timeout=1) == 1 and is_first_process()
    with first_process_first():
        values = {"a": 1 / 3, "b": math.nan}
    assert agree(values)["a"] == 1 / 3 and list(agree(values)) == ["a", "b"]
    found = gather({"x": jax.numpy.arange(3)})
    assert isinstance(found["x"], np.ndarray) and found["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({PROCESSES: "2"}, "The environment has CONTEXTJAX_PROCESSES=2; expected CONTEXTJAX_COORDINATOR=HOST:PORT"),
        ({COORDINATOR: "h:1", PROCESSES: "2", PROCESS: "2"}, "CONTEXTJAX_PROCESS=0 to N-1"),
        ({COORDINATOR: "h:1", PROCESSES: "two", PROCESS: "0"}, "CONTEXTJAX_PROCESSES=two"),
    ],
)
def test_what_does_not_name_a_process_is_told(monkeypatch, given, sentence):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        start_processes(timeout=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.folder=no/such/folder", "no/such/folder is not there"),
        pytest.param("mesh=data:3", "data:3", marks=pytest.mark.slow),  # each looks by itself
    ],
)
def test_a_mistake_ends_every_process_with_its_sentence(data, tmp_path, setting, sentence):
    port = free_port()
    command = train(data, tmp_path / "run", f"--config.{setting}")
    with started(command, tmp_path, [explicit(index, port) for index in range(2)]) as processes:
        codes = [process.wait(timeout=300) for process in processes]
    said = [(tmp_path / f"{index}.log").read_text().splitlines() for index in range(2)]
    assert codes == [2, 2], said
    for lines in said:
        told = [line for line in lines if not line.startswith("[Gloo]")]
        assert len(told) == 1 and told[0].startswith("error: ") and sentence in told[0], lines
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_all_processes_hear_that_a_workdir_is_anothers(tmp_path):
    """Only the first looks."""
    port = free_port()
    with locked(tmp_path / "run"):
        options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        command = [sys.executable, "-m", "tests.sharding.takes_workdir", str(tmp_path / "run")]
        processes = [
            subprocess.Popen(command, env=environment(**explicit(index, port)), **options) for index in range(2)
        ]
        said = [process.communicate(timeout=120)[0] for process in processes]
    assert all(f"Another process is at work in {tmp_path / 'run'}" in text for text in said), said


# ------------------------------------------------------------------------------- four processes, lost processes


@pytest.mark.slow
def test_processes_agree_on_the_newest_checkpoint_that_is_undamaged(data, two, tmp_path):
    """The first reads and tells; both take the one before, and do the steps after it again."""
    workdir = Path(shutil.copytree(two[0], tmp_path / "again"))
    largest = max((workdir / "checkpoints" / "6").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    done = launched(2, *train(data, workdir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is not what was written); taking 3.") == 1
    assert [path.name for path in (workdir / "checkpoints.damaged").iterdir()] == ["6-0"]
    assert_same_losses(read_metrics(workdir), read_metrics(two[0]))


@pytest.mark.slow
def test_a_save_that_one_process_can_t_make_is_told_in_both_and_the_next_is_made(tmp_path):
    port = free_port()
    command, variables = ["tests.sharding.saves", str(tmp_path / "run")], [explicit(index, port) for index in range(2)]
    with started(command, tmp_path, variables) as processes:
        codes = [process.wait(timeout=300) for process in processes]
    said = [(tmp_path / f"{index}.log").read_text() for index in range(2)]
    assert codes == [0, 0], said
    for text in said:
        assert "1 is saved" in text and "3 is saved" in text, text
        assert "The checkpoint of step 2 could not be written to" in text, text
    assert "Failed writing" in said[1]  # and not that the other has not come
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["1", "3"]


@pytest.mark.slow
def test_micro_batches_and_the_ring_in_two_processes_are_the_plain_step(data, tmp_path):
    """Without phrases, of which micro-batches have budgets of their own."""
    plain = ["--config.loss.weights.consistency=0"]
    ring = [*plain, "--config.loss.contrastive=ring", "--config.training.micro_batches=2"]
    for name, more in (("plain", plain), ("ring", ring)):
        done = launched(2, *train(data, tmp_path / name, *more))
        assert done.returncode == 0, done.stdout + done.stderr
    found, expected = (read_metrics(tmp_path / name) for name in ("ring", "plain"))
    losses = lambda lines: [line["loss"] for line in lines if "loss" in line]
    assert losses(found) == pytest.approx(losses(expected), rel=1e-5) and len(losses(found)) == 6


@pytest.mark.slow
def test_four_then_two_processes_are_one_run_and_evaluate_as_one(data, tmp_path):
    """Two of four processes hold the same rows where the mesh has a tensor axis."""
    changes = {"mesh": "data:-1,tensor:2", "training.checkpoint_every": 2}
    whole = train_here(data, tmp_path / "one", **changes)
    lines = read_metrics(tmp_path / "one")
    for processes in (4, 2):
        done = launched(processes, *train(data, tmp_path / "many", *(f"--config.{k}={v}" for k, v in changes.items())))
        assert done.returncode == 0, done.stdout + done.stderr
        assert_same_losses(read_metrics(tmp_path / "many"), lines)
        assert_same_gradients(whole, tmp_path / "many")
        if processes == 4:
            shutil.rmtree(tmp_path / "many" / "checkpoints" / "6")
    done = launched(2, "experiments.evaluate", f"--workdir={tmp_path / 'many'}")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "many" / "evaluation.json").read_text())
    assert result["step"] == 6 and done.stdout.count("queries") == 1
    assert result["metrics"]["R@5"] == lines[-1]["val/R@5"]


@contextlib.contextmanager
def started(command: list[str], folder: Path, variables: list[dict[str, str]]) -> Iterator[list[subprocess.Popen]]:
    """Processes without a launcher, which would end those that are left; what each says goes to a file."""
    with contextlib.ExitStack() as files:
        processes = []
        for index, own in enumerate(variables):
            log = files.enter_context((folder / f"{index}.log").open("w"))
            options = {"stdout": log, "stderr": subprocess.STDOUT, "cwd": ROOT, "env": environment(**own)}
            processes.append(subprocess.Popen([sys.executable, "-m", *command], **options))
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def explicit(index: int, port: int) -> dict[str, str]:
    return {COORDINATOR: f"127.0.0.1:{port}", PROCESSES: "2", PROCESS: str(index)}


def slurm(index: int, port: int) -> dict[str, str]:
    """Returns the variables that srun sets on one node, as far as JAX reads them."""
    tasks = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
    return tasks | {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "lost", "variables"), [("SIGKILL", 1, slurm), ("SIGKILL", 0, explicit), ("SIGSTOP", 1, explicit)]
)
def test_when_a_process_dies_or_stops_the_other_ends_with_a_message(data, tmp_path, way, lost, variables):
    """Within the time limit for silence, and then some for a busy machine."""
    port = free_port()
    command = train(data, tmp_path / "run", "--config.training.steps=100000", "--process_timeout=10")
    command += ["--config.training.evaluate_every=100000", "--config.training.checkpoint_every=100000"]
    with started(command, tmp_path, [variables(index, port) for index in range(2)]) as processes:
        while not any(line["step"] >= 5 for line in read_metrics(tmp_path / "run")):
            assert all(process.poll() is None for process in processes), (tmp_path / "0.log").read_text()
            time.sleep(0.1)
        os.kill(processes[lost].pid, getattr(signal, way))
        assert processes[1 - lost].wait(timeout=60) != 0
    said = (tmp_path / f"{1 - lost}.log").read_text()
    assert "has lost another one" in said or "another task died" in said or "heartbeat" in said, said


@pytest.mark.slow
def test_when_a_loader_hangs_the_processes_end_and_tell_where_they_are(data, tmp_path):
    """The first watchdog ends its process, with its exit code; the other one's ends by its own, or for it lost one."""
    port = free_port()
    command = train(data, tmp_path / "run", "--config.training.steps=12", "--step_timeout=8")
    command += ["--config.training.evaluate_every=12", "--config.training.checkpoint_every=12"]
    variables = [{**explicit(index, port), "HANGS": "1"} for index in range(2)]
    with started(command, tmp_path, variables) as processes:
        codes = [process.wait(timeout=900) for process in processes]
    said = [(tmp_path / f"{index}.log").read_text() for index in range(2)]
    assert STUCK in codes and 0 not in codes, (codes, said)
    for code, text in zip(codes, said, strict=True):
        if code == STUCK:
            assert "No step has been done for 8 seconds (--step_timeout)" in text and "most recent call first" in text
