"""Several processes of this machine that are one run: started, followed and ended together."""

from __future__ import annotations

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

from contextjax.types import UserError

GRACE = 10  # seconds between asking a process to end and ending it
GRACE_TO_SAVE = 120  # the same, where this command has been asked to end: training saves first


def run_together(command: Sequence[str], *, processes: int, gpus: bool = False) -> int:
    """Runs a command in several processes of this machine, which are one run.

    When one fails, or this process is asked to end, all are ended.

    Args:
      command: what each process runs.
      processes: how many there are.
      gpus: whether each gets a GPU of its own.

    Returns:
      the exit code of the one that failed first, or 0.

    Raises:
      UserError: CUDA_VISIBLE_DEVICES names fewer GPUs than there are processes.
    """
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
        ignored = (signal.SIGTERM, signal.SIGINT)  # the processes are being ended already
        before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
        _end(running, grace)
        for thread in threads:
            thread.join()
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _environment(address: str, processes: int, index: int, gpus: bool) -> dict[str, str]:
    """Returns the environment by which a process knows which one it is (contextjax/sharding/processes.py)."""
    names = ("CONTEXTJAX_COORDINATOR", "CONTEXTJAX_PROCESSES", "CONTEXTJAX_PROCESS")
    environment = {**os.environ, **dict(zip(names, (address, str(processes), str(index)), strict=True))}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(processes)]
        if len(devices) < processes:
            raise UserError(
                f"--processes is {processes}, but CUDA_VISIBLE_DEVICES names {len(devices)} GPUs; start one for each."
            )
        environment["CUDA_VISIBLE_DEVICES"] = devices[index]
    return environment


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _follow(index: int, process: subprocess.Popen, ended: queue.Queue) -> list[threading.Thread]:
    """Starts threads that print what a process prints, and put its number into `ended` when it has ended."""
    threads = [
        threading.Thread(target=_print_lines, args=(index, process)),
        threading.Thread(target=_wait, args=(index, process, ended)),
    ]
    for thread in threads:
        thread.start()
    return threads


def _print_lines(index: int, process: subprocess.Popen) -> None:
    """Prints what a process prints, line by line."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            print(f"[{index}] {line.decode(errors='replace')}", end="", flush=True)


def _wait(index: int, process: subprocess.Popen, ended: queue.Queue) -> None:
    process.wait()
    ended.put(index)


def _end(running: Sequence[subprocess.Popen], grace: float) -> None:
    """Asks the processes that still run to end, and kills those that have not within `grace` seconds.

    A process that is stopped hears nothing; the loaders of a process are killed with it.
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
