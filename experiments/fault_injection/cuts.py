"""Trainings whose batches are cut, poisoned, or do not come: python -m experiments.fault_injection.cuts FUNCTION JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import UserError
from experiments.fault_injection.command import CACHE, keep_compiled

ROOT = Path(__file__).parent.parent.parent


def attempt(recipe: str, workdir: str, cut: int, mesh: str = "") -> list[list]:
    """Trains in this process, up to a batch (0: to the end); returns the records of all batches it has read.

    `mesh`: to go on on, instead of the recipe's.
    """
    from experiments.fault_injection import Cut, cut_after
    from experiments.shared.training import train

    rows: list[np.ndarray] = []
    config = runpy.run_path(recipe)["get_config"]()
    config.mesh = mesh or config.mesh
    with contextlib.suppress(Cut), contextlib.redirect_stdout(None):
        train(config, Path(workdir), through=functools.partial(cut_after, count=cut, rows=rows))
    return [x.tolist() for x in rows]


def resumed(runs: Sequence[Mapping[str, Any]], workdir: str) -> list[dict[str, Any]]:
    """The drill of cuts in this process, of several runs: each has its `drill`, `recipe`, `reference` and `cuts`.

    A reference is a recipe, too, whose uninterrupted run is made once.
    """
    from experiments.fault_injection import resume

    found, rows = [], {}
    for number, run in enumerate(runs):
        reference = Path(workdir) / f"whole-{Path(run['reference']).stem}"
        if reference not in rows:
            rows[reference] = _arrays(attempt(run["reference"], str(reference), 0))
        train = lambda place, cut, run=run: _arrays(attempt(run["recipe"], str(place), cut))
        place = Path(workdir) / f"cut-{number}"
        found.append(resume(run["drill"], train, place, reference, rows[reference], run["cuts"]))
    return [dataclasses.asdict(row) for row in found]


def poisoned(recipe: str, workdir: str, sick: Sequence[int]) -> list[list]:
    """Trains in this process with NaN in some batches; returns the records of all."""
    from contextjax import drills
    from experiments.shared.training import train

    rows: list[np.ndarray] = []
    with contextlib.redirect_stdout(None):
        through = functools.partial(drills.poisoned, sick=sick, rows=rows)
        train(runpy.run_path(recipe)["get_config"](), Path(workdir), through=through)
    return [x.tolist() for x in rows]


def stalled(recipe: str, workdir: str, after: int, timeout: float) -> None:
    """Trains in this process until its stream hangs after so many batches."""
    from contextjax import drills
    from experiments.shared.training import train

    through = functools.partial(drills.hanging, after=after)
    train(runpy.run_path(recipe)["get_config"](), Path(workdir), through=through, step_timeout=timeout)


def apart(function: str, environment: Mapping[str, str], **arguments: Any) -> subprocess.CompletedProcess[str]:
    """A function of this module in a process of its own, in `environment`."""
    command = [sys.executable, "-m", "experiments.fault_injection.cuts", function, json.dumps(arguments)]
    return subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False)


def call(function: str, environment: Mapping[str, str], log: Path, **arguments: Any) -> Any:
    """What a function of this module returns, in a process of its own.

    Raises:
      UserError: it failed; what it said is in `log`.
    """
    done = apart(function, environment, **arguments)
    if done.returncode:
        log.write_text(done.stderr, encoding="utf-8")
        raise UserError(f"The training that is to be drilled ends with exit code {done.returncode}; see {log}.")
    return json.loads(done.stdout.splitlines()[-1])


def _arrays(rows: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(row) for row in rows]


if __name__ == "__main__":
    keep_compiled(os.environ[CACHE])
    functions = {function.__name__: function for function in (attempt, resumed, poisoned, stalled)}
    print(json.dumps(functions[sys.argv[1]](**json.loads(sys.argv[2]))))
