"""The training command, started again and again."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.types import UserError

CACHE = "JAX_COMPILATION_CACHE_DIR"


class Command:
    """The training command in processes that are forked from one which has imported all it needs, but computed nothing.

    So a start takes a part of the time; what runs is `experiments.train` from its first line to its exit code.
    """

    PRELOAD = ("contextjax.training.loop", "data_pipelines.loader", "experiments.shared.training", "grain", "optax",
               "orbax.checkpoint", "tensorboardX")  # fmt: skip

    def __init__(self, recipe: Path, environment: Mapping[str, str]):
        """`environment` is added to that of this process as it was before the first start."""
        self._arguments, self._environment = [f"--config={recipe}"], dict(environment)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(self.PRELOAD))

    def start(self, workdir: Path) -> Forked:
        """Starts it in a workdir; what it says is added to a log beside that."""
        arguments = [*self._arguments, f"--workdir={workdir}"]
        log = workdir.parent / f"{workdir.name}.log"
        process = self._context.Process(target=_command, args=(arguments, self._environment, log))
        process.start()
        return Forked(process)

    def run(self, workdir: Path) -> Path:
        """To its end.

        Raises:
          UserError: it failed.
        """
        if code := self.start(workdir).wait():
            raise UserError(f"The training that is to be drilled ends with exit code {code}; see {workdir}.log.")
        return workdir


class Forked:
    """A forked process, as subprocess.Popen has it."""

    def __init__(self, process: Any):
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        """Its exit code, or None."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended.

        Raises:
          subprocess.TimeoutExpired: it has not.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("experiments.train", timeout or 0)
        return self._process.exitcode


def _command(arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
    """In the forked process: the command."""
    from absl import flags

    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    keep_compiled(environment[CACHE])
    for flag in [*flags.FLAGS.flags_by_module_dict().get("__mp_main__", ())]:  # of the command that has started this
        delattr(flags.FLAGS, flag.name)
    sys.argv = ["experiments.train", *arguments]
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)


def keep_compiled(folder: str) -> None:
    """Has jax, which is loaded, keep all that it compiles in a folder."""
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
