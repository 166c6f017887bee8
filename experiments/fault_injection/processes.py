"""Training processes, forked from one that has imported everything and computed nothing, so that they start fast."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from contextjax.types import UserError

PRELOAD = (
    "contextjax.training.loop", "data_pipelines.loader", "experiments.shared.training", "grain", "optax",
    "orbax.checkpoint", "tensorboardX",
)  # fmt: skip


class Processes:
    """Starts functions in processes that share a folder of compiled programs; what they print goes to logs."""

    def __init__(self, compiled: Path):
        """`compiled` is that folder; the environment of the processes is that of this one now."""
        compiled.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._compiled, self._environment = compiled, dict(os.environ)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOAD))

    def start(self, function: Callable[..., Any], *arguments: Any, log: Path, devices: int = 0, answer: Any = None):
        """Starts a function of a module.

        Args:
          function: runs in the process.
          *arguments: of the function; they are pickled.
          log: gets what the process prints, behind what is there.
          devices: simulated devices on the CPU; 0: the devices of this machine.
          answer: the end of a pipe that gets the function's result.
        """
        given = (function, arguments, self._environment, str(self._compiled), str(log), devices, answer)
        process = self._context.Process(target=_run, args=given)
        process.start()
        return process

    def call(self, function: Callable[..., Any], *arguments: Any, log: Path, devices: int = 0) -> Any:
        """Returns the result of a function that runs in a process.

        Raises:
          UserError: the process failed.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        process = self.start(function, *arguments, log=log, devices=devices, answer=sender)
        sender.close()
        try:
            result = receiver.recv()
        except EOFError:
            result = None
        process.join()
        check_end(process, log)
        return result


def check_end(process: BaseProcess, log: Path) -> None:
    """Raises a UserError where a process that has ended failed."""
    if process.exitcode:
        raise UserError(f"The training to inject faults into ends with exit code {process.exitcode}; see {log}.")


def is_running(process: BaseProcess, seconds: float = 0) -> bool:
    """Waits so long, or until the process has ended; returns whether it is still running."""
    process.join(seconds)
    return process.exitcode is None


def _run(
    function: Callable[..., Any], arguments: tuple, environment: Mapping[str, str], compiled: str, log: str,
    devices: int, answer: Any,
) -> None:  # fmt: skip
    """Runs, in the forked process, a function."""
    import jax

    with Path(log).open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    if devices:
        jax.config.update("jax_platforms", "cpu")
        flag = f"--xla_force_host_platform_device_count={devices}"
        os.environ["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
    result = function(*arguments)
    if answer is not None:
        answer.send(result)
