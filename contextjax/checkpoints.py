"""Checkpoints: what is in one, how it is saved, and in which order things are restored.

A checkpoint holds the whole TrainState (step, parameters, optimizer state, RNG, bad steps) and a `meta`
JSON: the step (which is the data position), the config's hash, and the versions it was written with.
It is written in the background and becomes visible only when whole.

Restore order of a run:
  1. config.json must be the config of this run;  2. the newest whole checkpoint gives the state;
  3. its config hash must agree;  4. metrics lines past its step are cut;  5. the loader starts at its step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.types import TrainState, UserError


class Checkpoints:
    """The checkpoints of a workdir, newest kept."""

    def __init__(self, folder: str | Path, *, keep: int = 2):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Saves in the background; the arrays are copied before this returns, so they may be donated."""
        ocp = self._ocp
        step = int(meta["step"])
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), meta=ocp.args.JsonSave(meta))
        )

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest whole checkpoint, placed as `abstract` (shapes, types, shardings) says."""
        ocp = self._ocp
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract._asdict()), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(self._require(), args=args)
        return TrainState(**restored["state"]), restored["meta"]

    def restore_params(self) -> tuple[Any, dict[str, Any]]:
        """Parameters (numpy, unsharded) and meta of the newest whole checkpoint."""
        ocp = self._ocp
        step = self._require()
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            place = Path(str(self._manager.directory)) / str(step) / "state"
            metadata: Any = reader.metadata(place)
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree)
            state = reader.restore(place, restore_args=args)
        return state["params"], meta

    def _require(self) -> int:
        if self.latest is None:
            raise UserError(
                f"{self._manager.directory} holds no whole checkpoint; train first, or give another --workdir."
            )
        return self.latest

    def wait(self) -> None:
        """Waits for background saves; raises what went wrong in them."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and closes."""
        self.wait()
        self._manager.close()
