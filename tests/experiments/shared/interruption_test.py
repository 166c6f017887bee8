"""Ctrl-C and SIGTERM end a command with one sentence and their exit code, wherever they come."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.shared import cli, interruption
from tests.commands import ROOT, environment

STATES = "nothing that was saved is lost, and the same command continues."


@pytest.fixture
def ended(monkeypatch):
    """The exit codes that this process would have had."""
    codes = []

    def end(number):
        codes.append(128 + number)
        raise SystemExit(128 + number)

    monkeypatch.setattr(interruption, "leave", end)
    before = {number: signal.getsignal(number) for number in interruption.SENTENCES}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the background of a shell ignores it
    interruption.listen()
    yield codes
    interruption.listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interruption.SENTENCES)
def test_a_signal_ends_a_command_whatever_it_makes_of_it(number, ended):
    def passes_it_on():
        signal.raise_signal(number)

    def makes_an_error_of_it():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise RuntimeError("some library's") from error

    def swallows_it():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)

    for main in (passes_it_on, makes_an_error_of_it, swallows_it):
        interruption.listen()
        with pytest.raises(SystemExit):
            cli.guard(main)
    assert set(ended) == {128 + number}


IN_A_DESTRUCTOR = """
import signal, time
from experiments.shared import cli, interruption
interruption.listen()
interruption.watch()
class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
def main():
    Late()
    time.sleep(30)
cli.guard(main)
"""


AMID_THE_SHUTDOWN = """
import os, signal
from experiments.shared import cli, interruption
interruption.listen()
interruption.watch()
class Last:
    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.SIGINT):
        kill(own, number)
last = Last()
cli.guard(lambda: None)
"""


IN_A_COMPILER = """
import ctypes, signal, sys
from experiments.shared import cli, interruption
interruption.listen()
interruption.watch()
interruption.PATIENCE = 0.5
def main():
    print("begun", flush=True)
    ctypes.PyDLL(None).sleep(30)  # with Python's lock or without it, the main thread hears nothing
cli.guard(main)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "code", "said"),
    [(IN_A_DESTRUCTOR, 130, f"Interrupted; {STATES}\n"), (AMID_THE_SHUTDOWN, 0, "")],
    ids=["raised once more in a destructor", "ignored when the command has ended"],
)
def test_a_signal_where_nothing_can_be_raised(script, code, said):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_the_main_thread_does_not_hear_ends_the_process(number, code):
    script = IN_A_COMPILER.replace("PyDLL", "CDLL")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code and STATES in said and said.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("command", ["export", "plan", "train"])
def test_ctrl_c_at_any_moment_is_one_sentence(command, tiny_run, pictograms, tmp_path):
    flags = {
        "export": [f"--workdir={tiny_run}"],
        "plan": ["--config=configs/pictograms.py:tiny", "--mesh=data:1"],
        "train": ["--config=configs/pictograms.py:tiny", f"--workdir={tmp_path / 'run'}",
                  f"--config.data.folder={pictograms}"],
    }[command]  # fmt: skip
    line = [sys.executable, "-m", f"experiments.{command}", *flags]
    for seconds in (3.0, 6.0, 10.0):  # Python itself, before any of our modules, has a sentence of its own
        # An export that is through before the signal is no fault, and nothing is exported over it.
        target = [f"--target={tmp_path / f'export{seconds:.0f}'}"] if command == "export" else []
        process = subprocess.Popen(
            [*line, *target], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode in (0, 130), said  # through already
        assert process.returncode == 0 or (said.startswith("Interrupted") and "Traceback" not in said), said
