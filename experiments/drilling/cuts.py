"""Trainings that are cut and go on, in this process or in others: python -m experiments.drilling.cuts FUNCTION JSON."""

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
from experiments.drilling.command import CACHE, keep_compiled

ROOT = Path(__file__).parent.parent.parent


def attempt(recipe: str, workdir: str, cut: int) -> list[list]:
    """Trains in this process, up to a batch (0: to the end); returns the records of all batches it has read."""
    from contextjax.drills import Cut, cut_after
    from experiments.train import train

    rows: list[np.ndarray] = []
    config = runpy.run_path(recipe)["get_config"]()
    with contextlib.suppress(Cut), contextlib.redirect_stdout(None):
        train(config, Path(workdir), through=functools.partial(cut_after, count=cut, rows=rows))
    return [x.tolist() for x in rows]


def resumed(runs: Sequence[Mapping[str, Any]], workdir: str) -> list[dict[str, Any]]:
    """The drill of cuts in this process, of several runs: each has its `drill`, `recipe`, `reference` and `cuts`.

    A reference is a recipe, too, whose uninterrupted run is made once.
    """
    from contextjax.drills import resume

    found, rows = [], {}
    for number, run in enumerate(runs):
        reference = Path(workdir) / f"whole-{Path(run['reference']).stem}"
        if reference not in rows:
            rows[reference] = _arrays(attempt(run["reference"], str(reference), 0))
        train = lambda place, cut, run=run: _arrays(attempt(run["recipe"], str(place), cut))
        place = Path(workdir) / f"cut-{number}"
        found.append(resume(run["drill"], train, place, reference, rows[reference], run["cuts"]))
    return [dataclasses.asdict(row) for row in found]


def call(function: str, environment: Mapping[str, str], log: Path, **arguments: Any) -> Any:
    """A function of this module in a process of its own, in `environment`.

    Raises:
      UserError: it failed; what it said is in `log`.
    """
    command = [sys.executable, "-m", "experiments.drilling.cuts", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        log.write_text(done.stderr, encoding="utf-8")
        raise UserError(f"The training that is to be drilled ends with exit code {done.returncode}; see {log}.")
    return json.loads(done.stdout.splitlines()[-1])


def _arrays(rows: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(row) for row in rows]


if __name__ == "__main__":
    keep_compiled(os.environ[CACHE])
    print(json.dumps({"attempt": attempt, "resumed": resumed}[sys.argv[1]](**json.loads(sys.argv[2]))))
