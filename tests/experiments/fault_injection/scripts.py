"""Runs that do not train: they write the log of one. Imports no JAX."""

import json
import signal
import sys
import time
from pathlib import Path


def log_only(workdir: Path) -> None:
    """Is at its steps, and does not react to SIGTERM but ends."""
    workdir.mkdir(exist_ok=True)
    (workdir / "metrics.jsonl").unlink(missing_ok=True)
    with (workdir / "metrics.jsonl").open("w", buffering=1) as log:
        for step in range(1, 12):
            print(json.dumps({"step": step, "seconds": 0.3 * step}), file=log)
            time.sleep(0.3)


def fail(workdir: Path) -> None:
    """Ends at once with an error."""
    sys.exit(3)


def stop_without_saving(ready: Path) -> None:
    """Ends as a run does that has saved, but saves nothing."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ready.touch()
    signal.pause()


def idle(seconds: float) -> None:
    """Does nothing."""
    time.sleep(seconds)


def grow(workdir: Path, every: int, compiles: int) -> None:
    """Logs 40 steps, keeps some megabytes more after `every` of them (0: never), and may compile after the 20th."""
    workdir.mkdir()
    held, log = [], (workdir / "metrics.jsonl").open("a", buffering=1)
    for step in range(1, 41):
        held.append(bytes(range(256)) * 4096 * min(every, 4) if every and step % every == 0 else b"")
        print(json.dumps({"step": step, "recompiles": compiles * (step > 20), "seconds": 0.03 * step}), file=log)
        time.sleep(0.03)
