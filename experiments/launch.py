"""Runs a command in several processes of this machine, which are one run: training, evaluation.

python -m experiments.launch --processes=4 -- experiments.train --config=configs/NAME.py --workdir=DIR

Their lines begin with the process's number. When one fails, the others are ended, and its exit code is this command's.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

PROCESSES = flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
GPUS = flags.DEFINE_bool("gpus", False, "Give each process a GPU of its own, by CUDA_VISIBLE_DEVICES.")
TAKES_ARGUMENTS = True  # the command to run, and its flags
GRACE = 10  # seconds between asking a process to end and ending it
GRACE_TO_SAVE = 120  # the same, where this command has been told to end: training saves first


def main(command: Sequence[str]) -> None:
    """Starts the processes, and waits for them."""
    if not command:
        raise UserError("There is no command; give it after two dashes, as -- experiments.train --workdir=DIR.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.STOPPED))  # so that what has to be ended is
    sys.exit(launch([sys.executable, "-m", *command], processes=PROCESSES.value, gpus=GPUS.value))


def launch(command: Sequence[str], *, processes: int, gpus: bool = False) -> int:
    """Runs `command` in so many processes; returns the exit code of the one that failed first, or 0."""
    address = f"127.0.0.1:{_free_port()}"
    environments = [_environment(address, processes, index, gpus) for index in range(processes)]
    running: list[subprocess.Popen] = []
    threads: list[threading.Thread] = []
    ended: queue.Queue[int] = queue.Queue()  # in the order in which they end
    code, grace = 0, GRACE
    try:
        for own in environments:
            running.append(subprocess.Popen(
                command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            ))  # fmt: skip
            threads += _follow(len(running) - 1, running[-1], ended)
        for _ in environments:
            index = ended.get()
            if code := running[index].returncode:
                how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
                print(f"error: Process {index} of {processes} has ended with {how}; the others are ended.",
                      file=sys.stderr, flush=True)  # fmt: skip
                break
    except (SystemExit, KeyboardInterrupt):
        grace = GRACE_TO_SAVE
        raise
    finally:
        told = (signal.SIGTERM, signal.SIGINT)  # again: to end is what is being done
        before = [signal.signal(number, signal.SIG_IGN) for number in told]
        _end(running, grace)
        for thread in threads:
            thread.join()
        for number, handler in zip(told, before, strict=True):
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _environment(address: str, processes: int, index: int, gpus: bool) -> dict[str, str]:
    """The variables by which a process knows which one it is (contextjax/sharding/processes.py)."""
    names = ("CONTEXTJAX_COORDINATOR", "CONTEXTJAX_PROCESSES", "CONTEXTJAX_PROCESS")
    found = {**os.environ, **dict(zip(names, (address, str(processes), str(index)), strict=True))}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(processes)]
        if len(devices) < processes:
            raise UserError(
                f"--processes is {processes}, but CUDA_VISIBLE_DEVICES names {len(devices)} GPUs; start one for each."
            )
        found["CUDA_VISIBLE_DEVICES"] = devices[index]
    return found


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _follow(index: int, process: subprocess.Popen, ended: queue.Queue) -> list[threading.Thread]:
    """Threads that print what a process prints, and tell when it has ended."""
    threads = [
        threading.Thread(target=_tell, args=(index, process)),
        threading.Thread(target=_wait, args=(index, process, ended)),
    ]
    for thread in threads:
        thread.start()
    return threads


def _tell(index: int, process: subprocess.Popen) -> None:
    """Prints what a process prints, line by line."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            print(f"[{index}] {line.decode(errors='replace')}", end="", flush=True)


def _wait(index: int, process: subprocess.Popen, ended: queue.Queue) -> None:
    process.wait()
    ended.put(index)


def _end(running: Sequence[subprocess.Popen], grace: float) -> None:
    """Asks those that still run to end, then ends them, for one that is stopped hears nothing; their loaders too.

    `grace`: seconds that all of them together have.
    """
    until = time.monotonic() + grace
    left = [process for process in running if process.poll() is None]
    for process in left:
        process.terminate()
    for process in left:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0))
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    cli.run(main)
