"""The launcher: lines, exit codes, and that nobody outlives a run that failed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contextjax.types import UserError
from experiments.shared import local_processes
from tests.commands import ROOT

# Process 1 fails once the others are there; 2 hears no SIGTERM, like one that is stopped.
FAILS = """
import os, pathlib, signal, sys, time
number, folder, way = int(os.environ["CONTEXTJAX_PROCESS"]), pathlib.Path(sys.argv[1]), sys.argv[2]
if number == 2:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / str(number)).write_text(str(os.getpid()))
while len(list(folder.iterdir())) < int(os.environ["CONTEXTJAX_PROCESSES"]):
    time.sleep(0.01)
if number == 1:
    if way == "exit":
        sys.exit(7)
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


def start(code: str, *arguments: str, processes: int = 3, gpus: bool = False) -> int:
    return local_processes.run_together([sys.executable, "-c", code, *arguments], processes=processes, gpus=gpus)


def assert_gone(folder: Path, count: int) -> None:
    paths = list(folder.iterdir())
    assert len(paths) == count
    for path in paths:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_every_process_knows_which_it_is_and_its_lines_begin_with_its_number(capfd):
    code = """
import os, sys
print(*(os.environ[f"CONTEXTJAX_{name}"] for name in ("PROCESS", "PROCESSES", "COORDINATOR")))
print("trouble", file=sys.stderr)
"""
    assert start(code) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sorted(line for line in lines if "trouble" in line) == [f"[{number}] trouble" for number in range(3)]
    told = sorted(line for line in lines if "127.0.0.1:" in line)
    assert [line[:7] for line in told] == [f"[{number}] {number} 3" for number in range(3)]
    assert len({line[8:] for line in told}) == 1


@pytest.mark.parametrize(("way", "code", "how"), [("exit", 7, "exit code 7"), ("kill", 137, "signal SIGKILL")])
def test_when_one_fails_the_others_are_ended_and_its_exit_code_is_passed_on(
    capfd, tmp_path, monkeypatch, way, code, how
):
    monkeypatch.setattr(local_processes, "GRACE", 0.5)
    begin = time.monotonic()
    assert start(FAILS, str(tmp_path), way) == code
    assert time.monotonic() - begin < 60
    assert f"error: Process 1 of 3 has ended with {how}; the others are ended." in capfd.readouterr().err
    assert_gone(tmp_path, 3)


def test_when_one_can_t_be_started_those_that_were_are_ended(monkeypatch):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            if started:
                raise OSError("no more processes")
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(OSError, match="no more processes"):
        start("import time; time.sleep(600)")
    assert [process.wait(60) for process in started] == [-signal.SIGTERM]


def test_an_interrupted_launcher_leaves_no_process(tmp_path):
    # Where the tests run in the background of a shell, SIGINT is ignored by whatever they start.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from experiments.shared.local_processes import run_together; run_together(sys.argv[1:], processes=2)"
    command = [sys.executable, "-c", code, sys.executable, "-c", FAILS, str(tmp_path), "wait"]
    started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len([path for path in tmp_path.iterdir() if path.read_text()]) < 2:
        assert started.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert started.wait(60) != 0
    assert_gone(tmp_path, 2)


SAVES = """
import os, pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1]) / os.environ["CONTEXTJAX_PROCESS"]
def save(*_):
    time.sleep(1)
    path.with_suffix(".saved").write_text(str(os.getpid()))
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
path.write_text(str(os.getpid()))
time.sleep(600)
"""


def test_an_impatient_user_leaves_the_processes_the_time_to_save_and_none_of_them_behind(tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from experiments.shared import local_processes; "
    )
    code += "local_processes.GRACE = 0.1; local_processes.run_together(sys.argv[1:], processes=2)"
    command = [sys.executable, "-c", code, sys.executable, "-c", SAVES, str(tmp_path)]
    started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len([path for path in tmp_path.iterdir() if path.read_text()]) < 2:
        assert started.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    for _ in range(3):
        started.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert started.wait(60) != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "0.saved", "1", "1.saved"]
    assert_gone(tmp_path, 4)


def test_the_processes_have_one_deadline_together(tmp_path):
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    options = {"stdout": subprocess.PIPE, "start_new_session": True}
    running = [subprocess.Popen([sys.executable, "-c", deaf], **options) for _ in range(4)]
    for process in running:
        with process.stdout as lines:
            lines.readline()
    begin = time.monotonic()
    local_processes._end(running, 2.0)
    assert time.monotonic() - begin < 6  # and not eight
    assert [process.wait(60) for process in running] == [-signal.SIGKILL] * 4


def test_each_process_gets_a_gpu_of_its_own(capfd, monkeypatch):
    code = "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])"
    seen = lambda: [line.split("sees ")[1] for line in sorted(capfd.readouterr().out.splitlines())]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert start(code, processes=2, gpus=True) == 0 and seen() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert start(code, processes=2, gpus=True) == 0 and seen() == ["4", "6"]
    with pytest.raises(UserError, match="--processes is 4, but CUDA_VISIBLE_DEVICES names 3 GPUs"):
        start(code, processes=4, gpus=True)
