"""The stages of a recipe: each is a training of its own, from the checkpoint of the one before."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from experiments.shared import cli
from experiments.shared.recipes import run_recipe


def train_stages(
    recipe: str, workdir: Path, *, stages: Sequence[str] | None = None, argument: str = "", start: str = "",
    settings: Sequence[str] = (),
) -> int:  # fmt: skip
    """Trains stages of a recipe, each by `experiments.train` in its own folder of the workdir.

    Args:
      recipe: the recipe's file.
      workdir: where the stages' workdirs go.
      stages: those to train, in order; None: those of the recipe with this argument.
      argument: further arguments of the recipe, for every stage.
      start: the run that the first stage starts from.
      settings: KEY=VALUE for every stage, or STAGE:KEY=VALUE for one.

    Returns:
      the exit code of the stage that failed, or 0.

    Raises:
      UserError: the recipe is no file, or has no such stage with this argument.
    """
    known = run_recipe(recipe).get("STAGES", ())
    if not known:
        raise UserError(f"{recipe} has no STAGES; train it with `python -m experiments.train`.")
    own = stages_of(recipe, argument)
    stages = stages or own
    # What stands before the key is the stage that a setting is for, or "".
    owners = [setting.split("=", 1)[0].rpartition(":")[0] for setting in settings]
    if unknown := [stage for stage in (*stages, *filter(None, owners)) if stage not in known]:
        raise UserError(f"{recipe} has no stage '{unknown[0]}'; it has {', '.join(known)}.")
    if unknown := [stage for stage in stages if stage not in own]:
        given = f"with '{argument}'" if argument else "without an argument"
        raise UserError(f"{recipe} has no stage '{unknown[0]}' {given}; it has {', '.join(own)}.")
    commands = _Commands()
    for stage in stages:
        changes = [
            setting.removeprefix(f"{stage}:") for owner, setting in zip(owners, settings, strict=True)
            if owner in ("", stage)
        ]  # fmt: skip
        command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir / stage}"]
        command += [f"--config={recipe}:{','.join(filter(None, (stage, argument)))}", f"--config.model.start={start}"]
        print(f"Stage {stage}: {workdir / stage}", flush=True)
        if code := commands.run([*command, *(f"--config.{change}" for change in changes)]):
            return code
        start = str(workdir / stage)
    return 0


def stages_of(recipe: str, argument: str = "") -> tuple[str, ...]:
    """Returns the stages that a recipe trains, in order; () for a recipe that is trained at once.

    They are its STAGES, or what its function `stages` returns for further arguments, where it has one.

    Raises:
      UserError: it is no recipe.
    """
    names = run_recipe(recipe)
    own: Callable[[str], Sequence[str]] | None = names.get("stages")
    return tuple(own(argument) if callable(own) else names.get("STAGES", ()))


class _Commands:
    """Runs one command after the other. SIGTERM is passed on to the running one, which saves first, and ends them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._is_stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def run(self, command: list[str]) -> int:
        """Runs a command; returns its exit code."""
        self._process = subprocess.Popen(command)
        if self._is_stopped:
            self._process.terminate()
        try:
            code = self._process.wait()
        except KeyboardInterrupt:
            self._process.terminate()  # it saves first
            self._process.wait()
            raise
        return cli.STOPPED if self._is_stopped else code if code >= 0 else 128 - code

    def _stop(self, *_: Any) -> None:
        self._is_stopped = True
        if self._process is not None:
            self._process.terminate()
