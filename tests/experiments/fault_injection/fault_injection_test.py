"""The drills on a toy training: they pass where nothing is wrong, and find what is put there."""

import dataclasses
import datetime
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from contextjax import checksums, drills
from experiments.fault_injection import faults
from experiments.fault_injection.workdirs import acknowledged, differences, leftovers, taken
from tests.commands import environment
from tests.experiments.fault_injection import toy

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    """The workdir of an uninterrupted run, and the records of its batches."""
    workdir = tmp_path_factory.mktemp("toy") / "whole"
    rows = []
    toy.train(workdir, through=functools.partial(drills.cut_after, count=0, rows=rows))
    return workdir, rows


def train(workdir, cut, **options) -> list[np.ndarray]:
    rows = []
    try:
        toy.train(workdir, through=functools.partial(drills.cut_after, count=cut, rows=rows), **options)
    except drills.Cut:
        assert cut
    return rows


# ------------------------------------------------------------------------------------------------ damage


def test_every_damage_is_noticed(whole, tmp_path):
    row = drills.damage(whole[0], tmp_path / "scratch", times=0)
    files = [path for path in (whole[0] / "checkpoints" / "12").rglob("*") if path.is_file()]
    assert row.passed and row.times == 3 * len(files) > 30, row
    assert not differences(tmp_path / "scratch", whole[0])[1:]  # but for the log: the copy is as it was


def test_a_check_that_sees_nothing_is_found_out(whole, tmp_path, monkeypatch):
    seen = checksums.damage
    blind = lambda folder: "" if seen(folder).startswith("meta") else seen(folder)
    monkeypatch.setattr(checksums, "damage", blind)
    row = drills.damage(whole[0], tmp_path / "scratch", times=0)
    assert row.corrupt >= 3 and not row.passed
    assert all("of meta/" in problem for problem in row.problems)


# ------------------------------------------------------------------------------------------- interruptions


def start(workdir: Path) -> subprocess.Popen:
    log = workdir.parent / "log"
    with log.open("ab") as file:
        command = [sys.executable, "-m", "tests.experiments.fault_injection.toy", str(workdir)]
        return subprocess.Popen(command, cwd=ROOT, env=environment(devices=8), stdout=file, stderr=file)


def test_kills_and_sigterm_lose_nothing_and_a_loss_is_counted(whole, tmp_path):
    """After the last kill the newest checkpoint is taken away: a run that goes on before it has lost one."""
    safe = []

    def disturb(run, workdir, rng):
        problems = (drills.killed, drills.terminated, drills.killed)[len(safe)](run, workdir, rng)
        safe.append(acknowledged(workdir))
        if len(safe) == 3:
            shutil.rmtree(workdir / "checkpoints" / str(safe[-1]))
        return problems

    row = drills.interrupt("all", start, tmp_path / "run", whole[0], times=3, disturb=disturb, seed=3)
    said = (tmp_path / "log").read_text()
    assert safe[2] > 0, said
    assert (row.times, row.lost, row.corrupt, list(row.problems)) == (3, 1, 0, []), (row, said)
    assert "Told to end" in said


def test_a_run_that_does_not_save_what_it_has_made_is_told(whole, tmp_path):
    """Its log is at step 12, its last checkpoint, after SIGTERM, at step 10."""
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        problems = drills.terminated(run, tmp_path / "run", np.random.default_rng(0))
    assert problems == ["the run was told to end after step 12, and 10 is saved"]


DEAF = """
import json, pathlib, sys, time
workdir = pathlib.Path(sys.argv[1])
workdir.mkdir(exist_ok=True)
(workdir / "metrics.jsonl").unlink(missing_ok=True)
with (workdir / "metrics.jsonl").open("w", buffering=1) as log:
    for step in range(1, 12):
        print(json.dumps({"step": step}), file=log)
        time.sleep(0.3)
"""


def test_a_run_that_does_not_hear_sigterm_is_found_out(whole, tmp_path):
    """It is at its steps, and just ends."""
    deaf = lambda workdir: subprocess.Popen([sys.executable, "-c", DEAF, str(workdir)])
    row = drills.interrupt("SIGTERM", deaf, tmp_path / "run", whole[0], times=1, disturb=drills.terminated, seed=1)
    assert row.times == 1 and not row.passed, row
    assert any("SIGTERM ended the run after step" in problem for problem in row.problems), row


def test_a_run_that_can_not_go_on_is_told(whole, tmp_path):
    broken = lambda workdir: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    row = drills.interrupt("kill -9", broken, tmp_path / "run", whole[0], times=2, disturb=drills.killed)
    assert not row.passed and row.times == 0 and "exit code 3" in row.problems[0]


# ---------------------------------------------------------------------------------------------------- soak

LONG_RUN = """
import json, pathlib, sys, time
workdir, grows, compiles = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
workdir.mkdir()
held, log = [], (workdir / "metrics.jsonl").open("a", buffering=1)
for step in range(1, 41):
    held.append(bytes(range(256)) * 4096 if grows else b"")  # a megabyte
    print(json.dumps({"step": step, "recompiles": compiles * (step > 20)}), file=log)
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("grows", "compiles", "said"), [(0, 0, ""), (1, 0, "memory grows by"), (0, 2, "2 programs were compiled")]
)
def test_a_run_that_grows_or_compiles_again_is_found_out(tmp_path, monkeypatch, grows, compiles, said):
    monkeypatch.setattr(sys.modules["experiments.fault_injection.soak"], "EVERY", 0.02)
    start = lambda workdir: subprocess.Popen([sys.executable, "-c", LONG_RUN, str(workdir), str(grows), str(compiles)])
    row = drills.soak("soak", start, tmp_path / "run", steps=40)
    assert (row.times, row.lost, row.corrupt, row.passed) == (40, 0, 0, not said), row
    assert len(row.problems) == bool(said) and all(said in problem for problem in row.problems), row
    short = drills.soak("soak", start, tmp_path / "other", steps=400)
    assert any("is not through" in problem for problem in short.problems)


def test_what_saves_add_is_told_apart_from_what_steps_add():
    growth = sys.modules["experiments.fault_injection.soak"]._growth
    steps = np.arange(500, 2000, 5)
    size = lambda by_step, by_save: 400 + by_step * steps + by_save * (steps // 250)
    for by_step, by_save in ((0.0, 3.0), (0.01, 0.0), (0.01, 2.0)):
        rows = np.stack([0.1 * steps, size(by_step, by_save), steps], axis=1)  # ten steps a second
        slope, saves = growth(rows, 250)
        np.testing.assert_allclose(slope, by_step * 600, atol=1e-6)
        np.testing.assert_allclose(saves, by_save + 250 * by_step, atol=1e-6)


def test_what_a_save_adds_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["experiments.fault_injection.soak"], "EVERY", 0.02)
    code = LONG_RUN.replace("if grows else", "* 4 if grows and step % 8 == 0 else")  # four megabytes
    start = lambda workdir: subprocess.Popen([sys.executable, "-c", code, str(workdir), "1", "0"])
    row = drills.soak("soak", start, tmp_path / "run", steps=40, every=8)
    assert any("MB a save" in problem for problem in row.problems) and "over all" in row.note, row


# --------------------------------------------------------------------------------------------------- steps


def sick_run(workdir, sick) -> list[np.ndarray]:
    rows = []
    toy.train(workdir, through=functools.partial(drills.poisoned, sick=sick, rows=rows))
    return rows


def test_sick_steps_leave_no_trace_and_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "CONFIG", dataclasses.replace(toy.CONFIG, checkpoint_every=1))
    row = drills.sick_steps(sick_run, tmp_path / "run", steps=toy.STEPS)
    assert row.passed and row.times == 2, row


def test_steps_that_are_not_sick_are_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "CONFIG", dataclasses.replace(toy.CONFIG, checkpoint_every=1))
    row = drills.sick_steps(lambda workdir, _: sick_run(workdir, ()), tmp_path / "run", steps=toy.STEPS)
    assert row.corrupt and any("['params']['w'] differs" in problem or "'w'" in problem for problem in row.problems)
    assert any("tells the records of the sick steps []" in problem for problem in row.problems)


def test_a_stall_that_ends_otherwise_or_says_nothing_is_found_out():
    said = 'File "steps.py", line 40 in hanging\n(most recent call first)'
    assert drills.stalls([(75, said)] * 2) == drills.Row("a loader that hangs", 2, problems=[])
    assert len(drills.stalls([(0, said), (75, "")]).problems) == 2


# -------------------------------------------------------------------------------------------------- faults


class Bystander:
    """A run that is there and does nothing."""

    pid = os.getpid()

    def poll(self):
        return None

    def wait(self, timeout=None):
        raise subprocess.TimeoutExpired("", timeout)


@pytest.mark.parametrize("name", list(faults.FAULTS))
def test_a_fault_is_there_and_then_is_not(whole, tmp_path, name):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    before = sorted(path.relative_to(workdir) for path in workdir.rglob("*"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as run:
        with faults.FAULTS[name](run.pid, workdir):
            is_limited = "descriptors" in name and "Max open files            3" in Path(
                f"/proc/{run.pid}/limits"
            ).read_text(encoding="utf-8")
            assert is_limited or not (workdir / "checkpoints").is_dir() or os.geteuid()
        run.communicate(b"\n")
    assert sorted(path.relative_to(workdir) for path in workdir.rglob("*")) == before
    assert taken(workdir)[0] == 12


def test_what_a_run_makes_in_place_of_its_folder_is_kept(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    with faults.FAULTS["the folder is gone"](os.getpid(), workdir):
        shutil.copytree(whole[0] / "checkpoints" / "12", workdir / "checkpoints" / "14")
    assert acknowledged(workdir) == 14 and (workdir / "checkpoints" / "12").is_dir()


# -------------------------------------------------------------------------------------------------- resume


def test_a_cut_run_is_the_whole_one(whole, tmp_path):
    workdir, rows = whole
    row = drills.resume("cut", train, tmp_path / "cut", workdir, rows, [3, 1, 6])
    assert row.passed and row.times == 3, row
    assert np.unique(np.concatenate(rows), return_counts=True)[1].tolist() == [1] * 96


def test_a_cut_that_cuts_nothing_is_told_and_does_not_count(whole, tmp_path):
    workdir, rows = whole
    row = drills.resume("cut", train, tmp_path / "cut", workdir, rows, [3, 10])
    assert row.times == 1 and list(row.problems) == ["10 batches after step 2 cut nothing, the run has 12"], row


def test_another_order_of_data_is_found_out(whole, tmp_path):
    workdir, rows = whole
    starts = []

    def shifted(place, cut):
        starts.append(cut)
        return train(place, cut, shift=len(starts) - 1)

    row = drills.resume("cut", shifted, tmp_path / "cut", workdir, rows, [5])
    assert not row.passed and "the batches after step 4 are not those" in row.problems[0]


def test_another_state_is_found_out(whole, tmp_path):
    workdir, rows = whole

    def forgetful(place, cut):
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return train(place, cut)

    row = drills.resume("cut", forgetful, tmp_path / "cut", workdir, rows, [5], exact=False)
    assert not row.passed  # it has begun anew, at step 0, and not at step 4


def test_leftovers_are_named(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    assert leftovers(workdir) == []
    (workdir / ".config.json.123.partial").touch()
    (workdir / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints" / "8").mkdir()
    assert leftovers(workdir) == [".config.json.123.partial", "checkpoints/8", "checkpoints/9.orbax-checkpoint-tmp"]


def test_a_ledger_that_does_not_add_up_is_found_out(tmp_path):
    now = int(time.time())
    line = lambda begin, seconds: json.dumps(
        {
            "began": f"{datetime.datetime.fromtimestamp(begin, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "steps": [0, 1],
            "seconds": {"start": 2.0, "step": seconds - 2.0},
        }
    )
    for seconds, problems in (((90, 50), 0), ((150, 50), 1), ((90, 58), 1), ((90, 40), 1)):
        (tmp_path / "goodput.jsonl").write_text(f"{line(now - 150, seconds[0])}\n{line(now - 50, seconds[1])}\n")
        row = drills.accounts(tmp_path)
        assert row.times == 2 and len(row.problems) == problems, row


def test_a_table_says_what_failed():
    rows = [drills.Row("one", 5), drills.Row("two", 7, lost=1, problems=["it was gone"], note="+0.1 MB")]
    assert drills.table(rows).splitlines()[2:] == [
        "| one | 5 | 0 | 0 | pass |", "| two | 7 | 1 | 0 | FAIL, +0.1 MB |", "", "two: it was gone",
    ]  # fmt: skip
