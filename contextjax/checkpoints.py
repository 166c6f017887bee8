"""Checkpoints: what is in one, how it is saved, and in which order things are restored.

A checkpoint holds the whole TrainState (step, parameters, optimizer state, RNG, health) and a `meta`
JSON: the step (which is the data position), the hashes of config and data, and the versions it was written with.
It is written in the background and becomes visible only when whole: by a rename on a disk, by a marker
(commit_success.txt) that is written last in an object store, which has no renames. The checksums of its files follow,
and without them it is not taken: its checksums.json is the report that a step is safe, and there is no earlier one. One
that was evaluated by a rule of what is best has its score in its `meta`; it counts while that file is what was written.

Restore order of a run:
  1. config.json must be the config of this run, wherever that is computed;  2. of the whole checkpoints the newest
  whose files have their checksums gives the state, and damaged newer ones are set aside;  3. its hashes of config and
  data must agree;  4. metrics lines past its step are cut;  5. the loader starts at its step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from contextjax import checksums
from contextjax.checkpoint_folders import UNFINISHED, clear_unfinished, move_aside, remove, score_of
from contextjax.files import is_remote, path_of
from contextjax.types import Health, TrainState, UserError

TOLD = 512  # bytes of what is wrong with a checkpoint that other processes are told
MEETING = 600  # seconds that processes wait for one another when they have written what is theirs
TRIES = 5  # to read a checkpoint of a run that goes on, and takes older ones away


class Checkpoints:
    """The checkpoints of a workdir: the newest are kept, and of those with a score the best (of equals the newest).

    A save that fails (a full disk, say) is told and takes nothing with it: older checkpoints stay, and the next save is
    tried.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2, read_only: bool = False):
        """`read_only`: nothing is saved, set aside or cleaned up, so a run that is going on may be read."""
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is told once, by this class
        self._ocp, self._keep, self._read_only = ocp, keep, read_only
        self._folder = path_of(folder) if is_remote(folder) else Path(folder).absolute()
        self._saving, self._failure = 0, ""  # the last save, and why it failed
        self._stale: int | None = None  # a step that failed, and is to be cleared away
        self._thread = threading.Thread()  # of the save in the background
        if not read_only:
            if ocp.multihost.is_primary_host(0):
                clear_unfinished(self._folder)
            ocp.multihost.sync_global_processes("unfinished checkpoints are gone")
        self._manager = self._open()

    def _open(self) -> Any:
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

        ocp = self._ocp
        # In the background, a folder that can't be made would leave threads that wait for it, and hold up the exit.
        options = ocp.AsyncOptions(timeout_secs=MEETING, create_directories_asynchronously=False)
        kinds: dict[str, Any] = {"async_options": options}
        if not self._read_only:
            if ocp.multihost.is_primary_host(0):
                for path in self._folder.glob(f"*{UNFINISHED}*"):
                    remove(path)
            kinds["preservation_policy"] = AnyPreservationPolicy([LatestN(self._keep), _Best(self)])
        else:
            kinds["read_only"] = True
        return ocp.CheckpointManager(self._folder, options=ocp.CheckpointManagerOptions(**kinds))

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest score of those that have their checksums, or None."""
        scores = self._scores
        return max(scores, key=lambda step: (scores[step], step), default=None)

    @property
    def best_score(self) -> float | None:
        """Its score; of a save that failed, nothing."""
        self._settle()
        return max(self._scores.values(), default=None)

    @property
    def _scores(self) -> dict[int, float]:
        """Step -> score, of those that have one."""
        found = {step: score_of(self._folder / str(step)) for step in self._manager.all_steps()}
        return {step: score for step, score in found.items() if score is not None}

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
        scored = {"score": score} if score is not None and math.isfinite(score) else {}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()), meta=ocp.args.JsonSave({**meta, **scored})
        )
        self._saving, self._failure = step, ""
        try:
            self._renew()
            if step in self._manager.all_steps():
                return
            self._manager.save(step, args=args)
        except Exception as error:
            self._tell(error)
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
        """As `restore_params`, but the whole state: name of a TrainState's field -> numpy arrays.

        A run that is going on may take a checkpoint away while it is read; then those that it has now are tried.
        """
        for _ in range(TRIES - 1):
            before = self._manager.all_steps()
            try:
                return self._arrays(which)
            except Exception:
                if not self._read_only:
                    raise
                self._manager.reload()
                if self._manager.all_steps() == before:
                    raise
        return self._arrays(which)

    def _arrays(self, which: str | int) -> tuple[dict[str, Any], dict[str, Any]]:
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
            self._join() if sys.exc_info()[0] else self.wait()  # with an error, this process may be alone
        finally:
            self._manager.close()

    def _finish(self, step: int) -> None:
        """Waits, in a thread, for a checkpoint to be whole; then its checksums are written."""
        try:
            self._manager.wait_until_finished()
            if self._ocp.multihost.is_primary_host(0):
                checksums.write(self._folder / str(step))
        except Exception as error:
            self._tell(error)

    def _settle(self) -> None:
        """Waits for the save in the background, and clears away what there is of one that failed: in all processes."""
        self._join()
        own = self._stale is not None
        if multihost_utils.process_allgather(own).any() and not own:
            self._failure, self._stale = "another process could not write what is its", self._saving
        with contextlib.suppress(Exception):  # what it is about may still last
            self._renew()

    def _join(self) -> None:
        if self._thread.ident:
            self._thread.join()

    def _tell(self, error: Exception) -> None:
        """Tells of a failed save, at once: a thread may be waiting for it."""
        if "Barrier timed out" in str(error) and isinstance(error.__context__, Exception):
            error = error.__context__  # of what the others, who waited, know nothing
        self._failure = (str(error).splitlines() or [type(error).__name__])[0][:300]
        with contextlib.suppress(OSError):  # it may be the same disk that is full
            print(
                f"The checkpoint of step {self._saving} could not be written ({self._failure}); training goes on, and "
                "the next one will be tried.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if self._stale is None:  # else this one could not even begin
            self._stale = self._saving

    def _renew(self) -> None:
        """After a save that failed: the old manager would give its error again at the next one."""
        if self._stale is None:
            return
        failed = self._folder / str(self._stale)
        if self._ocp.multihost.is_primary_host(0) and not (failed / checksums.NAME).exists():
            remove(failed)
        with contextlib.suppress(Exception):  # what has been told
            self._manager.close()
        self._manager = self._open()
        self._stale = None

    def _sound(self, which: str | int) -> tuple[int, list[int]]:
        """(The undamaged checkpoint to take, damaged ones that would have been taken before it)."""
        first = self.step_of(which)
        others = [step for step in sorted(self._manager.all_steps(), reverse=True) if step != first]
        is_free = str(which) in ("", "best", "newest")
        told = []
        for step in [first, *others] if is_free else [first]:
            if not (problem := self._damage(step)):
                if told and self._read_only:
                    self._check_still()
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

    def _check_still(self) -> None:
        """That the run has taken nothing away since the folder was listed: what is gone would look damaged."""
        before = self._manager.all_steps()
        self._manager.reload()
        if self._manager.all_steps() != before:
            raise UserError(f"The run of {self._folder} went on while its checkpoints were read; try again.")

    def _damage(self, step: int) -> str:
        """What is wrong with a checkpoint, "" if nothing; the first process reads its files, and tells the others."""
        multihost = self._ocp.multihost
        found = checksums.damage(self._folder / str(step)) if multihost.is_primary_host(0) else ""
        line = np.frombuffer(found.encode()[:TOLD].ljust(TOLD), np.uint8)  # of one size in all of them
        return bytes(np.asarray(multihost.broadcast_one_to_all(line))).decode(errors="ignore").strip()

    def _set_aside(self, step: int) -> None:
        multihost = self._ocp.multihost
        if multihost.is_primary_host(0):
            move_aside(self._folder / str(step))
        multihost.sync_global_processes("set aside")
        self._manager.reload()


def _by_path(tree: Any, value_of: Callable[[Any], Any]) -> dict[str, Any]:
    """Path -> value of the leaves; attributes and indices as the keys that they have in a checkpoint."""
    key = lambda part: str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))))
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {"/".join(map(key, path)): value_of(leaf) for path, leaf in leaves}


class _Best:
    """Orbax's policy: the best stays. A new one takes its place when it has its checksums: a kill may come before."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = self._checkpoints.best
        return [info.step == best for info in checkpoints]
