"""Workdirs in an object store, against a local emulator of Google Cloud Storage."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.files import path_of, write_whole
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from tests.commands import ROOT, environment

pytest.importorskip("gcsfs", reason="gs:// needs gcsfs: pip install -e '.[storage,test-storage]'")
pytest.importorskip("gcp_storage_emulator", reason="needs an emulator: pip install -e '.[storage,test-storage]'")
pytestmark = [pytest.mark.storage, pytest.mark.filterwarnings("ignore")]  # of the emulator's client

DEADLINE = 300  # seconds that a process may take


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket; this process and those it starts find it by the environment."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    url = f"http://localhost:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.storage_emulator", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + DEADLINE
    try:
        while not answers(f"{url}/storage/v1/b/bucket"):
            assert server.poll() is None and time.monotonic() < until, "the emulator does not answer"
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", url)  # of gcsfs, by which epath reads and writes
            patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)  # of tensorstore, by which arrays are
            yield "gs://bucket"
    finally:
        server.kill()
        server.wait()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def workdir(store, request) -> Path:
    return path_of(f"{store}/{request.node.name}")


def steps_in(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_files_are_written_whole_and_again(workdir):
    for text in ("1", "2"):
        write_whole(workdir / "a" / "b.json", text)
        assert (workdir / "a" / "b.json").read_text() == text
    assert [path.name for path in (workdir / "a").iterdir()] == ["b.json"]
    assert (workdir / "a").is_dir() and not (workdir / "c").exists()


def test_a_run_goes_on_as_on_a_disk(workdir, tmp_path):
    """Lines, checkpoints, the best one; bitwise what an uninterrupted run on a disk has."""
    from tests.training import loop_test as toy

    rule = {"val/near": 1.0}
    state = toy.run(tmp_path / "disk", best=rule)
    with pytest.raises(toy.Interrupted):
        toy.run(workdir, best=rule, cut=7)
    assert read_metrics(workdir)[-1]["step"] == 6
    after = toy.run(workdir, best=rule)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert toy.lines(workdir) == toy.lines(tmp_path / "disk")
    assert steps_in(workdir) == steps_in(tmp_path / "disk")
    assert len(list((workdir / "tensorboard").iterdir())) == 2
    found = [CheckpointWriter(folder / "checkpoints") for folder in (workdir, tmp_path / "disk")]
    assert found[0].best == found[1].best is not None
    a, b = (checkpoints.restore_params()[0]["w"] for checkpoints in found)
    assert a.tobytes() == b.tobytes()
    for checkpoints in found:
        checkpoints.close()


def test_a_checkpoint_counts_when_its_marker_is_there(workdir):
    from tests.checkpoints.states import abstract, make_state, same_bits

    checkpoints = CheckpointWriter(workdir / "checkpoints")
    for step in (1, 2):
        checkpoints.save(make_state(step, step), {"step": step, "config_hash": "abc"})
    checkpoints.wait()
    assert checkpoints.latest == 2
    checkpoints.close()
    marker = workdir / "checkpoints" / "2" / "commit_success.txt"
    assert marker.exists()
    marker.unlink()  # as where a run was killed while it wrote
    again = CheckpointWriter(workdir / "checkpoints")
    assert again.latest == 1
    same_bits(again.restore(abstract(make_state()))[0], make_state(1, 1))
    with pytest.raises(UserError, match="has no checkpoint '2'"):
        again.restore_params(2)
    again.save(make_state(3, 2), {"step": 2, "config_hash": "abc"})  # the run goes on, and writes it again
    again.wait()
    assert again.latest == 2
    same_bits(again.restore_params()[0], make_state(3, 2).params)
    again.close()


@pytest.mark.slow
def test_the_commands_in_two_processes(store, tmp_path):
    """Trained by two processes, gone on with and evaluated by one, begun with by another run."""
    from tests.conftest import write_pictograms
    from tests.sharding.processes_test import launched, train

    data = write_pictograms(tmp_path / "cirr", train_groups=4)
    workdir = path_of(f"{store}/commands")
    done = launched(2, *train(data, workdir))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read_metrics(workdir)
    shutil.rmtree(tmp_path / "cirr" / "prepared")
    (workdir / "checkpoints" / "6").rmtree()

    def run(*command: str) -> str:
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment(), text=True,
                              capture_output=True, check=False, timeout=DEADLINE)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*train(data, workdir))
    for before, after in zip(lines, read_metrics(workdir), strict=True):
        assert after.get("loss", 0) == pytest.approx(before.get("loss", 0), rel=1e-5)
    run("experiments.evaluate", f"--workdir={workdir}")
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["step"] == 6 and result["metrics"]["R@5"] == lines[-1]["val/R@5"]
    said = run(*train(data, tmp_path / "next", f"--config.model.start={workdir}"))
    assert f"parameters start from {workdir}" in said


def test_a_path_that_has_to_be_local_is_refused_in_a_store(store):
    from experiments.shared.data import make_reader

    with pytest.raises(UserError, match="gs://bucket/cirr is in an object store"):
        make_reader("cirr", f"{store}/cirr")
