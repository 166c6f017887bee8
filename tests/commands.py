"""How tests run commands: in this process, or in processes of their own."""

import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

ROOT = Path(__file__).parent.parent
# A third of the time to compile a training step; the tests compile much and run little.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)


def environment(*, devices: int = 1, **more: str) -> dict[str, str]:
    """Returns this process's environment, with so many CPU devices and programs that compile as fast as can be."""
    flags = f"--xla_force_host_platform_device_count={devices} {FAST_COMPILATION}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **more}


def in_process(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m experiments.COMMAND ARGUMENTS` in this process, whose modules are loaded and devices are there.

    Returns:
      the exit code, and what the command wrote to standard output and standard error, as subprocess.run does.
    """
    code, out, err = 0, io.StringIO(), io.StringIO()
    given, sys.argv = sys.argv, [f"experiments.{command}", *arguments]
    try:
        with (
            _flags_of_its_own(), _handlers_kept(), warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        ):  # fmt: skip
            runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = given
    return subprocess.CompletedProcess([command, *arguments], code, out.getvalue(), err.getvalue())


def in_own_process(
    command: str, *arguments: str, devices: int = 1, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m experiments.COMMAND ARGUMENTS` in a process of its own, on simulated devices.

    A `command` with a dot is the name of another module, which is run instead. The process is forked from a server that
    has imported the modules and has no JAX backend, which saves the seconds of the imports. What is about start-up,
    signals or exit codes starts a real interpreter instead (see `interpreter`).
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        module = command if "." in command else f"experiments.{command}"
        line, env = [module, *arguments], environment(devices=devices, **env)
        process = _SERVER.Process(target=_run_forked, args=(line, env, str(cwd), str(out), str(err)))
        process.start()
        process.join()
        return subprocess.CompletedProcess(line, process.exitcode or 0, out.read_text(), err.read_text())


def _run_forked(line: list[str], env: dict[str, str], cwd: str, out: str, err: str) -> None:
    """Becomes the command: its arguments, environment, folder and output."""
    for number, path in enumerate((out, err), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = line
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    try:
        runpy.run_module(line[0], run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def interpreter(
    command: str, *arguments: str, devices: int = 1, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m experiments.COMMAND ARGUMENTS` in a new interpreter, on simulated devices."""
    line = [sys.executable, "-m", f"experiments.{command}", *arguments]
    options = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(line, cwd=cwd, env=environment(devices=devices, **env), **options)


def _fork_server() -> multiprocessing.context.ForkServerContext:
    """Returns the context of a server, started at its first process, that imports what the commands import late."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


_SERVER = _fork_server()


@contextlib.contextmanager
def _flags_of_its_own() -> Iterator[None]:
    """Sets aside the flags of commands that were imported before: two commands may have flags of the same name."""
    aside = _take_flags()
    try:
        yield
    finally:
        _take_flags()
        for module, flag in aside:
            flags.FLAGS[flag.name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


def _take_flags() -> list[tuple[str, flags.Flag]]:
    """Removes the flags that the commands have defined, and returns them with the names of their modules."""
    own = lambda module: module.startswith("experiments.") or module.endswith(".py")
    is_of_config = lambda flag: flag.name.startswith("config.")  # an override, whose module is absl's own
    modules = flags.FLAGS.flags_by_module_dict().items()
    taken = [(m, flag) for m, group in modules for flag in group if own(m) or is_of_config(flag)]
    for name in {flag.name for _, flag in taken} & set(flags.FLAGS):
        delattr(flags.FLAGS, name)
    return taken


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Puts the signal handlers of this process back, which some commands replace."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items() if is_main else ():
            signal.signal(number, handler)


def replace_clock(monkeypatch: Any, module: Any, **functions: Any) -> None:
    """Replaces functions of `time` for one module alone.

    A thread that runs beside the test, such as a server's, needs the clock as it is: a loop that computes a timeout by
    another one sleeps for hours.
    """
    monkeypatch.setattr(module, "time", types.SimpleNamespace(**{**vars(time), **functions}))
