"""Benchmarks in processes of their own: the first step with an empty and a filled compile cache; a batch sweep."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from experiments.shared.compile_cache import SWITCH


def run_again(*changes: str, arguments: Sequence[str], cache: str = "", check: bool = True) -> dict[str, Any] | None:
    """Runs this command again with some flags changed and returns its record; None if it failed and not `check`.

    Args:
      *changes: flags that come after those of `arguments`, and so override them.
      arguments: the arguments of this process.
      cache: the folder of compiled programs; "": the user's.
      check: raises an error where the command fails.

    Raises:
      UserError: the command failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    if cache:
        environment[SWITCH] = cache
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "experiments.benchmark", *arguments, "--nocompile", "--sweep=0"]
        done = subprocess.run(
            [*command, *changes, f"--output={output}"], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and output.exists():
            return json.loads(output.read_text(encoding="utf-8"))
    if check:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"The benchmark in a process of its own ended with code {done.returncode}: {last}")
    return None


@contextlib.contextmanager
def first_steps(arguments: Sequence[str]) -> Iterator[dict[str, float]]:
    """Times the first step of two processes, from their start: with an empty compile cache, and with the filled one.

    In the block, this process uses the same cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (run_again("--steps=0", arguments=arguments, cache=folder) for _ in range(2))
        assert cold and warm
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(next(Path(folder).iterdir(), folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
        seconds = {name: run["first_step_seconds"] for name, run in (("cold", cold), ("warm", warm))}
        yield {f"first_step_{name}_seconds": value for name, value in seconds.items()}


def sweep(arguments: Sequence[str], *, batch: int, largest: int) -> Iterator[dict[str, Any]]:
    """Yields records at `batch`, twice `batch` and so on, up to `largest` or the first that does not fit."""
    before = 0.0
    while batch <= largest:
        free = _available_memory()
        if free and before and 2 * before > free:
            print(f"batch {batch} is left out: it may need {2 * before / 1e9:.1f} GB, {free / 1e9:.1f} are free.")
            return
        record = run_again(f"--batch={batch}", arguments=arguments, check=False)
        if record is None:
            print(f"batch {batch} does not fit (or failed otherwise: run it alone to see).")
            return
        yield record
        before = record["peak_memory_bytes"] if record["peak_memory_of"] == "process" else 0.0
        batch *= 2


def _available_memory() -> float:
    """Free bytes of the host; 0 where they are unknown."""
    try:
        line = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        return 0.0
    return 1024.0 * int(line[1]) if line else 0.0
