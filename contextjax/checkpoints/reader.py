"""Reads checkpoints: the newest, the best, or one of a given step; damaged ones are never taken."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from contextjax.checkpoints import integrity
from contextjax.files import is_remote, path_of
from contextjax.json_files import parse_json
from contextjax.types import UserError

REASON_BYTES = 512  # of what is wrong with a checkpoint, as the first process sends it to the others
TRIES = 5  # to read a checkpoint of a run that goes on, and removes older ones

Which = str | int  # "best", "newest", a step, or "": the best where there is one, else the newest
Damages = list[tuple[int, str]]  # steps, and what is wrong with them


class CheckpointReader:
    """Reads the checkpoints of a run and changes nothing, so the run may be going on.

    Attributes:
      folder: Where the checkpoints are, each in a folder that is named by its step; on a disk or at gs://.
      may_change: Whether another process may save and remove checkpoints while this one reads.
    """

    may_change = True

    def __init__(self, folder: str | Path):
        """Opens a folder; one that is not there has no checkpoint."""
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # these classes report errors themselves, once
        self.folder = path_of(folder) if is_remote(folder) else Path(folder).absolute()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(read_only=True))

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the highest score (of equals the newest), or None."""
        scores = self._scores()
        return max(scores, key=lambda step: (scores[step], step), default=None)

    @property
    def best_score(self) -> float | None:
        """The highest score of the checkpoints, or None."""
        return max(self._scores().values(), default=None)

    def _scores(self) -> dict[int, float]:
        """Returns step -> score of those that have one, in a file that agrees with its checksum."""
        scores = {}
        for step in self._manager.all_steps():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                meta = parse_json(integrity.read_file(self.folder / str(step), "meta/metadata"))
                scores[step] = float(meta["score"])
        return scores

    def step_of(self, which: Which = "") -> int:
        """Returns the step of a checkpoint.

        Raises:
          UserError: there is no such checkpoint.
        """
        newest = self.latest
        if newest is None:
            raise UserError(f"{self.folder} holds no whole checkpoint; train first, or give another --workdir.")
        best, kept = self.best, sorted(self._manager.all_steps())
        named = {"newest": newest, "best": best, "": newest if best is None else best}
        step = named[str(which)] if str(which) in named else next((s for s in kept if str(s) == str(which)), None)
        if step is None:
            expected = f"{'best, ' if best is not None else ''}newest, or one of the steps {', '.join(map(str, kept))}"
            raise UserError(f"{self.folder} has no checkpoint '{which}'; expected {expected}.")
        return step

    def restore_params(self, which: Which = "") -> tuple[Any, dict[str, Any]]:
        """Returns the parameters (numpy, unsharded) and the meta of a whole checkpoint.

        Raises:
          UserError: all checkpoints are damaged, or the one of the requested step is.
        """
        state, meta = self.restore_arrays(which)
        return state["params"], meta

    def restore_arrays(self, which: Which = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the whole state (name of a TrainState's field -> numpy arrays) and the meta of a checkpoint.

        A run in progress may remove a checkpoint while it is read; the remaining ones are tried then.

        Raises:
          UserError: as `restore_params`.
        """
        for _ in range(TRIES - 1):
            before = self._manager.all_steps()
            try:
                return self._arrays(which)
            except Exception:
                if not (self.may_change and self._has_changed(before)):
                    raise
        return self._arrays(which)

    def close(self) -> None:
        """Closes the folder."""
        self._manager.close()

    def _arrays(self, which: Which) -> tuple[dict[str, Any], dict[str, Any]]:
        step, _ = self._choose(which)
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            place = self.folder / str(step) / "state"
            metadata: Any = reader.metadata(place)
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree)
            state = reader.restore(place, restore_args=args)
        self._check_files(meta)
        return state, meta

    def _check_files(self, meta: Mapping[str, Any]) -> None:
        """Checks the files beside the folder (the tokenizer, system.json) that a checkpoint was trained with.

        Raises:
          UserError: one is missing or has changed. Runs of earlier versions recorded none.
        """
        step = meta.get("step")
        integrity.check_digests(self.folder.parent, meta.get("files", {}), made=f"the checkpoint of step {step}")

    def _choose(self, which: Which) -> tuple[int, list[int]]:
        """Returns the undamaged checkpoint to take, and the damaged ones that would have been taken before it."""
        first = self.step_of(which)
        steps = [first]
        if str(which) in ("", "best", "newest"):
            steps += [step for step in sorted(self._manager.all_steps(), reverse=True) if step != first]
        damages: Damages = []
        for step in steps:
            if reason := self._damage(step):
                damages.append((step, reason))
                continue
            if damages:
                self._report(damages, first, step)
            return step, [damaged for damaged, _ in damages]
        raise UserError(
            f"{self.folder} has no undamaged checkpoint to take ({_listed(damages)}); expected files as they were "
            "written: copy them again, or train in another --workdir. One without checksums is still being written."
        )

    def _report(self, damages: Damages, first: int, step: int) -> None:
        """Prints which checkpoints are damaged; one that is being written at this moment is not."""
        if self.may_change:
            if self._has_changed(self._manager.all_steps()):  # a removed one would look damaged
                raise UserError(f"The run of {self.folder} went on while its checkpoints were read; try again.")
            if damages == [(first, integrity.MISSING)]:
                return
        if ocp.multihost.is_primary_host(0):
            message = f"Damaged checkpoints in {self.folder} ({_listed(damages)}); taking {step}."
            print(message, file=sys.stderr, flush=True)

    def _has_changed(self, before: Sequence[int]) -> bool:
        self._manager.reload()
        return self._manager.all_steps() != before

    def _damage(self, step: int) -> str:
        """Returns what is wrong with a checkpoint, "" if nothing; the first process reads its files for all."""
        reason = integrity.damage(self.folder / str(step)) if ocp.multihost.is_primary_host(0) else ""
        line = np.frombuffer(reason.encode()[:REASON_BYTES].ljust(REASON_BYTES), np.uint8)  # one size in all processes
        return bytes(np.asarray(ocp.multihost.broadcast_one_to_all(line))).decode(errors="ignore").strip()


def _listed(damages: Damages) -> str:
    return "; ".join(f"{step}: {reason}" for step, reason in damages)
