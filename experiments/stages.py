"""Trains a recipe of several stages, each from the checkpoint of the one before; the same command goes on.

python -m experiments.stages --config=configs/context_blip.py --workdir=DIR [--stages=1,2a,2b] [--start=RUN]

Each stage is `experiments.train --config=FILE:STAGE` in DIR/STAGE. What evaluates, searches and reports takes the last.
"""

import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import path_of
from contextjax.types import UserError
from experiments.shared import cli

CONFIG = flags.DEFINE_string("config", None, "The recipe's file, whose STAGES names its stages.")
ARGUMENT = flags.DEFINE_string("argument", "", "Further arguments of the recipe, for every stage.")
STAGES = flags.DEFINE_list("stages", None, "The stages to train, in order; default: the recipe's.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the stages' workdirs go.")
START = flags.DEFINE_string("start", "", "The run that the first stage starts from.")
SET = flags.DEFINE_multi_string(
    "set", [], "A setting of every stage, --set=seed=1, or of one, --set=2a:training.steps=9."
)


def main() -> None:
    """Stage after stage."""
    recipe, workdir = cli.recipe_path(cli.required(CONFIG)), path_of(cli.required(WORKDIR))
    known = _known(recipe)
    stages, start = STAGES.value or list(known), START.value
    named = [name for name, _ in _named_settings() if name]
    if unknown := [stage for stage in (*stages, *named) if stage not in known]:
        raise UserError(f"{recipe} has no stage '{unknown[0]}'; it has {', '.join(known)}.")
    commands = _Commands()
    for stage in stages:
        argument = ",".join(filter(None, (stage, ARGUMENT.value)))
        command = [sys.executable, "-m", "experiments.train", f"--config={recipe}:{argument}"]
        command += [f"--workdir={workdir / stage}", f"--config.model.start={start}"]
        command += [f"--config.{setting}" for setting in _settings(stage)]
        print(f"Stage {stage}: {workdir / stage}", flush=True)
        if code := commands.run(command):
            sys.exit(code)  # what was wrong has been said
        start = str(workdir / stage)


class _Commands:
    """One command after the other. SIGTERM is passed on and waited for (training saves first); then it is the last."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._is_told = False
        signal.signal(signal.SIGTERM, self._hear)

    def run(self, command: list[str]) -> int:
        """The exit code."""
        self._process = subprocess.Popen(command)
        if self._is_told:
            self._process.terminate()
        code = self._process.wait()
        return cli.STOPPED if self._is_told else code if code >= 0 else 128 - code

    def _hear(self, *_: Any) -> None:
        self._is_told = True
        if self._process is not None:
            self._process.terminate()


def _known(recipe: str) -> tuple[str, ...]:
    """The stages that a recipe names."""
    if not Path(recipe).is_file():
        raise UserError(f"--config={recipe} is no file; give a recipe's, as --config=configs/context_blip.py.")
    if not (known := runpy.run_path(recipe).get("STAGES")):
        raise UserError(f"{recipe} has no STAGES; train it with `python -m experiments.train`.")
    return known


def _named_settings() -> list[tuple[str, str]]:
    """(the stage's name before a setting, or "", and the setting as given)."""
    return [(setting.split("=", 1)[0].rpartition(":")[0], setting) for setting in SET.value]


def _settings(stage: str) -> list[str]:
    """The settings of a stage: those without a stage's name before them, and its own."""
    return [given.split(":", 1)[1] if own else given for own, given in _named_settings() if own in ("", stage)]


if __name__ == "__main__":
    cli.run(main)
