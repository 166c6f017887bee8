"""Checkpoints: what is in one, how it is saved, and in which order things are restored.

A checkpoint holds the whole TrainState (step, parameters, optimizer state, RNG, health) and a `meta`
JSON: the step (which is the data position), the hashes of config and data, and the versions it was written with.
It is written in the background and becomes visible only when whole: by a rename on a disk, by a marker
(commit_success.txt) that is written last in an object store, which has no renames. The checksums of its files follow,
and without them it is not taken: its checksums.json is the report that a step is safe, and there is no earlier one. One
that was evaluated by a rule of what is best has its score with it.

Restore order of a run:
  1. config.json must be the config of this run;  2. of the whole checkpoints the newest whose files have their
  checksums gives the state, and damaged newer ones are set aside;  3. its hashes of config and data must agree;
  4. metrics lines past its step are cut;  5. the loader starts at its step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax import checksums
from contextjax.files import is_remote, path_of
from contextjax.types import Health, TrainState, UserError

TOLD = 512  # bytes of what is wrong with a checkpoint that other processes are told
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint's folder until it is whole


class Checkpoints:
    """The checkpoints of a workdir: the newest are kept, and of those with a score the two best (of equals the newer).

    A save that fails (a full disk, say) is told and takes nothing with it: older checkpoints stay, and the next save is
    tried.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2, read_only: bool = False):
        """`read_only`: nothing is saved, set aside or cleaned up, so a run that is going on may be read."""
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is told once, by this class
        self._ocp, self._folder, self._keep, self._read_only = ocp, _absolute(folder), keep, read_only
        self._saving, self._failure, self._is_stale = 0, "", False
        self._thread, self._error = threading.Thread(), None  # of the save in the background
        if not read_only:
            self._clear_unfinished()
        self._manager = self._open()

    def _open(self) -> Any:
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        ocp = self._ocp
        # In the background, a folder that can't be made would leave threads that wait for it, and hold up the exit.
        kinds: dict[str, Any] = {"async_options": ocp.AsyncOptions(create_directories_asynchronously=False)}
        if not self._read_only:
            if ocp.multihost.is_primary_host(0):
                for path in self._folder.glob(f"*{UNFINISHED}*"):
                    _remove(path)
            # Two: older ones go before the new one has its checksums, and a kill may take it in between.
            best = BestN(get_metric_fn=_score_of, n=2, keep_checkpoints_without_metrics=False)
            kinds["preservation_policy"] = AnyPreservationPolicy([LatestN(self._keep), best])
        else:
            kinds["read_only"] = True
        return ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(best_fn=_score_of, **kinds))

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
        """Its score; of a save that failed, nothing."""
        self._settle()
        return None if self.best is None else _score_of(self._manager.metrics(self.best))

    def save(self, state: TrainState, meta: Mapping[str, Any], *, score: float | None = None) -> None:
        """Saves in the background; the arrays are copied before this returns, so they may be donated.

        Args:
          state: to be saved.
          meta: goes with it; its "step" names the checkpoint. One that is there is not saved again.
          score: the higher the better; None, or one that is no number, takes no part.
        """
        ocp = self._ocp
        self._settle()
        step = int(meta["step"])
        args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), meta=ocp.args.JsonSave(meta))
        is_number = score is not None and math.isfinite(score)
        try:
            self._renew()
            if step in self._manager.all_steps():
                return
            self._saving, self._failure = step, ""
            self._manager.save(step, args=args, metrics={"score": score} if is_number else None)
        except Exception as error:
            self._fail(error)
        else:
            self._thread = threading.Thread(target=self._finish, args=(step,))
            self._thread.start()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest undamaged checkpoint, placed as `abstract` (shapes, types, shardings) says.

        Damaged newer ones are told and moved beside the folder, so that their steps are saved again.

        Raises:
          UserError: there is none, or it holds other arrays than `abstract`.
        """
        ocp = self._ocp
        step, damaged = self._sound("newest")
        for name in damaged:
            self._set_aside(name)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract._asdict()), meta=ocp.args.JsonRestore())
        held, asked = self._shapes(step), _by_path(abstract._asdict(), lambda x: tuple(x.shape))
        if differing := sorted(dict(held.items() ^ asked.items())):
            name = differing[0]
            raise UserError(
                f"The checkpoint of step {step} in {self._folder} is of another model, or of an earlier version: "
                f"{name} is {held.get(name, 'missing')} there, and {asked.get(name, 'nothing')} in this run; give "
                "another --workdir."
            )
        restored = self._manager.restore(step, args=args)
        state = restored["state"]
        return TrainState(**state | {"health": Health(*state["health"])}), restored["meta"]

    def restore_params(self, which: str | int = "") -> tuple[Any, dict[str, Any]]:
        """Parameters (numpy, unsharded) and meta of a whole checkpoint: see `step_of`.

        Raises:
          UserError: there is none that is undamaged, or the one that is asked for by its step is damaged.
        """
        state, meta = self.restore_arrays(which)
        return state["params"], meta

    def restore_arrays(self, which: str | int = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """As `restore_params`, but the whole state: name of a TrainState's field -> numpy arrays."""
        ocp = self._ocp
        step, _ = self._sound(which)
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            place = self._folder / str(step) / "state"
            metadata: Any = reader.metadata(place)
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree)
            state = reader.restore(place, restore_args=args)
        return state, meta

    def _shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Path -> shape of the state's arrays in a checkpoint."""
        with contextlib.closing(self._ocp.PyTreeCheckpointer()) as reader:
            metadata: Any = reader.metadata(self._folder / str(step) / "state")
            return _by_path(metadata.item_metadata.tree, lambda x: tuple(x.shape))

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
        """Waits for the save in the background.

        Raises:
          UserError: it failed.
        """
        self._settle()
        if self._failure:
            kept = "none" if self.latest is None else self.latest
            raise UserError(
                f"The checkpoint of step {self._saving} could not be written to {self._folder} ({self._failure}); the "
                f"newest one that could is {kept}: make room there, and give the same command again."
            )

    def close(self) -> None:
        """Waits and closes; raises as `wait` does, unless another error is on its way."""
        try:
            self._settle() if sys.exc_info()[0] else self.wait()
        finally:
            self._manager.close()

    def _finish(self, step: int) -> None:
        """Waits, in a thread, for a checkpoint to be whole; then its checksums are written."""
        try:
            self._manager.wait_until_finished()
            if self._ocp.multihost.is_primary_host(0):
                checksums.write(self._folder / str(step))
        except Exception as error:
            self._error = error

    def _settle(self) -> None:
        """Waits for the save in the background; one that failed is told once."""
        if self._thread.ident:
            self._thread.join()
        error, self._error = self._error, None
        if error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Tells of a failed save, and clears away what there is of it, so that the next one can be made."""
        self._failure = (str(error).splitlines() or [type(error).__name__])[0][:300]
        with contextlib.suppress(OSError):  # it may be the same disk that is full
            print(
                f"The checkpoint of step {self._saving} could not be written ({self._failure}); training goes on, and "
                "the next one will be tried.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        self._is_stale = True
        with contextlib.suppress(Exception):  # what it is about may still last
            self._renew()

    def _renew(self) -> None:
        """After a save that failed: the old manager would give its error again at the next one."""
        if not self._is_stale:
            return
        if self._ocp.multihost.is_primary_host(0):
            _remove(self._folder / str(self._saving))  # whole, but without its checksums
        with contextlib.suppress(Exception):  # what has been told
            self._manager.close()
        self._manager = self._open()
        self._is_stale = False

    def _sound(self, which: str | int) -> tuple[int, list[int]]:
        """(The undamaged checkpoint to take, damaged ones that would have been taken before it)."""
        first = self.step_of(which)
        others = [step for step in sorted(self._manager.all_steps(), reverse=True) if step != first]
        is_free = str(which) in ("", "best", "newest")
        told = []
        for step in [first, *others] if is_free else [first]:
            if not (problem := self._damage(step)):
                is_written = self._read_only and told == [(first, checksums.MISSING)]  # at this moment
                if told and not is_written and self._ocp.multihost.is_primary_host(0):
                    names = "; ".join(f"{name}: {why}" for name, why in told)
                    print(
                        f"Damaged checkpoints in {self._folder} ({names}); taking {step}.", file=sys.stderr, flush=True
                    )
                return step, [name for name, _ in told]
            told.append((step, problem))
        names = "; ".join(f"{name}: {why}" for name, why in told)
        raise UserError(
            f"{self._folder} has no undamaged checkpoint to take ({names}); expected files as they were written: copy "
            "them again, or train in another --workdir. One without checksums is still being written, or of an earlier "
            "version."
        )

    def _clear_unfinished(self) -> None:
        """Clears away the checkpoint that a kill has left without its checksums: the newest, for they are made in turn.

        Where it is the only one it is moved, not removed: it may be of a version that wrote no checksums.
        """
        multihost = self._ocp.multihost
        if multihost.is_primary_host(0) and self._folder.exists():
            steps = {int(path.name): path for path in self._folder.iterdir() if path.name.isdigit()}
            whole = [step for step, path in steps.items() if (path / checksums.NAME).exists()]
            for step in steps.keys() - whole:
                if whole and step > max(whole):
                    print(f"The checkpoint of step {step} was not finished ({checksums.MISSING}): it is removed.",
                          file=sys.stderr, flush=True)  # fmt: skip
                    _remove(steps[step])
                elif len(steps) == 1:
                    print(
                        f"The checkpoint of step {step} is not whole: {checksums.MISSING}.", file=sys.stderr, flush=True
                    )
                    self._move_aside(step)
        multihost.sync_global_processes("unfinished checkpoints are gone")

    def _damage(self, step: int) -> str:
        """What is wrong with a checkpoint, "" if nothing; the first process reads its files, and tells the others."""
        multihost = self._ocp.multihost
        found = checksums.damage(self._folder / str(step)) if multihost.is_primary_host(0) else ""
        line = np.frombuffer(found.encode()[:TOLD].ljust(TOLD), np.uint8)  # of one size in all of them
        return bytes(np.asarray(multihost.broadcast_one_to_all(line))).decode(errors="ignore").strip()

    def _set_aside(self, step: int) -> None:
        multihost = self._ocp.multihost
        if multihost.is_primary_host(0):
            self._move_aside(step)
        multihost.sync_global_processes("set aside")
        self._manager.reload()

    def _move_aside(self, step: int) -> None:
        place, damaged = self._folder.with_name(f"{self._folder.name}.damaged"), self._folder / str(step)
        number = len({path.relative_to(place).parts[0] for path in place.glob(f"{step}-*")}) if place.exists() else 0
        target = place / f"{step}-{number}"
        if not is_remote(damaged):
            place.mkdir(exist_ok=True)
            damaged.rename(target)
            return
        for name in checksums.files_under(damaged):  # a store renames files alone
            (target / name).write_bytes((damaged / name).read_bytes())
        damaged.rmtree()  # pyright: ignore[reportAttributeAccessIssue]


def _by_path(tree: Any, value_of: Callable[[Any], Any]) -> dict[str, Any]:
    """Path -> value of the leaves; attributes and indices as the keys that they have in a checkpoint."""
    key = lambda part: str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))))
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {"/".join(map(key, path)): value_of(leaf) for path, leaf in leaves}


def _absolute(folder: str | Path) -> Path:
    return path_of(folder) if is_remote(folder) else Path(folder).absolute()


def _remove(folder: Any) -> None:
    """What is there of a folder; what can't be removed stays."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmtree()


def _score_of(metrics: Any) -> float:
    return metrics["score"]
