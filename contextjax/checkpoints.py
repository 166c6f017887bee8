"""Checkpoints: what is in one, how it is saved, and in which order things are restored.

A checkpoint holds the whole TrainState (step, parameters, optimizer state, RNG, bad steps) and a `meta`
JSON: the step (which is the data position), the config's hash, and the versions it was written with.
It is written in the background and becomes visible only when whole: by a rename on a disk, by a marker
(commit_success.txt) that is written last in an object store, which has no renames. One that was evaluated by a rule of
what is best has its score with it.

Restore order of a run:
  1. config.json must be the config of this run;  2. the newest whole checkpoint gives the state;
  3. its config hash must agree;  4. metrics lines past its step are cut;  5. the loader starts at its step.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.files import is_remote, path_of
from contextjax.types import TrainState, UserError


class Checkpoints:
    """The checkpoints of a workdir: the newest are kept, and of those with a score the best (the newest of equals)."""

    def __init__(self, folder: str | Path, *, keep: int = 2):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        best = BestN(get_metric_fn=_score_of, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]), best_fn=_score_of
        )
        self._manager = ocp.CheckpointManager(_absolute(folder), options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the whole checkpoint with the highest score, or None."""
        return self._manager.best_step()

    @property
    def best_score(self) -> float | None:
        """Its score."""
        return None if self.best is None else _score_of(self._manager.metrics(self.best))

    def save(self, state: TrainState, meta: Mapping[str, Any], *, score: float | None = None) -> None:
        """Saves in the background; the arrays are copied before this returns, so they may be donated.

        Args:
          state: to be saved.
          meta: goes with it; its "step" names the checkpoint. One that is there is not saved again.
          score: the higher the better; None, or one that is no number, takes no part.
        """
        ocp = self._ocp
        step = int(meta["step"])
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), meta=ocp.args.JsonSave(meta))
        is_number = score is not None and math.isfinite(score)
        self._manager.save(step, args=args, metrics={"score": score} if is_number else None)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest whole checkpoint, placed as `abstract` (shapes, types, shardings) says."""
        ocp = self._ocp
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract._asdict()), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(self.step_of("newest"), args=args)
        return TrainState(**restored["state"]), restored["meta"]

    def restore_params(self, which: str | int = "") -> tuple[Any, dict[str, Any]]:
        """Parameters (numpy, unsharded) and meta of a whole checkpoint: see `step_of`."""
        ocp = self._ocp
        step = self.step_of(which)
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            place = self._manager.directory / str(step) / "state"
            metadata: Any = reader.metadata(place)
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree)
            state = reader.restore(place, restore_args=args)
        return state["params"], meta

    def step_of(self, which: str | int = "") -> int:
        """The step of a checkpoint.

        Args:
          which: "best", "newest", or a step; "": the best where there is one, else the newest.

        Raises:
          UserError: there is no such checkpoint.
        """
        newest, place = self.latest, self._manager.directory
        if newest is None:
            raise UserError(f"{place} holds no whole checkpoint; train first, or give another --workdir.")
        named = {"newest": newest, "best": self.best, "": newest if self.best is None else self.best}
        kept = sorted(self._manager.all_steps())
        found = named[str(which)] if str(which) in named else next((s for s in kept if str(s) == str(which)), None)
        if found is None:
            known = ", ".join(map(str, kept))
            best = "best, " if self.best is not None else ""
            raise UserError(f"{place} has no checkpoint '{which}'; expected {best}newest, or one of the steps {known}.")
        return found

    def wait(self) -> None:
        """Waits for background saves; raises what went wrong in them."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and closes."""
        self.wait()
        self._manager.close()


def _absolute(folder: str | Path) -> Path:
    return path_of(folder) if is_remote(folder) else Path(folder).absolute()


def _score_of(metrics: Any) -> float:
    return metrics["score"]
