"""Saves the checkpoints of a run in the background, resumes from the newest, and clears up what a kill left."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from contextjax.checkpoints import integrity
from contextjax.checkpoints.reader import CheckpointReader
from contextjax.files import is_remote
from contextjax.types import Health, TrainState, UserError

UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint's folder until it is whole
LOOP_IS_CLOSED, NOT_RETRIEVED = "Event loop is closed", "exception was never retrieved"  # asyncio's words
ORBAX_TASK = "orbax/checkpoint/_src/serialization"  # in what asyncio says of a task: where its function is defined
TRIES = 3  # to remove a folder into which a failed save may still be writing
BARRIER_SECONDS = 600  # that processes wait for one another when they have written their share


class CheckpointWriter(CheckpointReader):
    """Keeps the checkpoints of a run: the newest, and of those with a score the best.

    A save that fails, on a full disk for example, is reported and costs nothing else: older checkpoints stay, and the
    next save is tried.

    Attributes:
      folder: Where the checkpoints go, each in a folder that is named by its step; on a disk or at gs://.
      keep: How many of the newest are kept, beside the best.
    """

    may_change = False

    def __init__(self, folder: str | Path, *, keep: int = 2):
        """Opens a folder for the one run that writes to it, and removes what a killed run left half written."""
        _silence_late_writes()
        self.keep = keep
        self._saving, self._failure = 0, ""  # the step of the last save, and why it failed
        self._failed: int | None = None  # a step whose save failed, and whose remains are to be removed
        self._thread = threading.Thread()  # of the save in the background
        super().__init__(folder)

    def _open(self) -> ocp.CheckpointManager:
        if ocp.multihost.is_primary_host(0):
            clear_unfinished(self.folder)
        ocp.multihost.sync_global_processes("unfinished checkpoints are removed")
        return self._make_manager()

    def _make_manager(self) -> ocp.CheckpointManager:
        if ocp.multihost.is_primary_host(0):
            for path in self.folder.glob(f"*{UNFINISHED}*"):
                remove(path)
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # A folder that can't be made in the background leaves threads that wait for it and hold up the exit.
                async_options=ocp.AsyncOptions(timeout_secs=BARRIER_SECONDS, create_directories_asynchronously=False),
                preservation_policy=AnyPreservationPolicy([LatestN(self.keep), _KeepBest(self)]),
            ),
        )

    @property
    def best_score(self) -> float | None:
        """The highest score of the checkpoints, or None; waits for the save in the background."""
        self._settle()
        return super().best_score

    def save(self, state: TrainState, meta: Mapping[str, Any], *, score: float | None = None) -> None:
        """Saves in the background; the arrays are copied before this returns, so they may be donated.

        Args:
          state: the training state.
          meta: JSON that goes with it; its "step" names the checkpoint. One that is there is not saved again.
          score: higher is better; None or a score that is not finite never counts as the best.
        """
        self._settle()
        step = int(meta["step"])
        scored = {"score": score} if score is not None and math.isfinite(score) else {}
        self._saving, self._failure = step, ""
        try:
            self._reopen()
            if step in self._manager.all_steps():
                return
            args = {
                "state": ocp.args.StandardSave(state._asdict()),  # type: ignore[call-arg]
                "meta": ocp.args.JsonSave({**meta, **scored}),  # type: ignore[call-arg]
            }
            self._manager.save(step, args=ocp.args.Composite(**args))
        except Exception as error:
            self._report_failure(error)
        else:
            self._thread = threading.Thread(target=self._finish, args=(step,))
            self._thread.start()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the newest undamaged checkpoint, placed as `abstract` (shapes, types, shardings) says, and its meta.

        Damaged newer ones are reported and moved beside the folder, so that their steps are saved again.

        Raises:
          UserError: there is none, its arrays are not those of `abstract`, or files of its run have changed.
        """
        step, damaged = self._choose("newest")
        for each in damaged:
            if ocp.multihost.is_primary_host(0):
                set_aside(self.folder / str(each))
            ocp.multihost.sync_global_processes("set aside")
            self._manager.reload()
        self._check_files(self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"])
        with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
            metadata: Any = reader.metadata(self.folder / str(step) / "state")
        held, expected = _shapes(metadata.item_metadata.tree), _shapes(abstract._asdict())
        if differing := sorted(dict(held.items() ^ expected.items())):
            name = differing[0]
            raise UserError(
                f"The checkpoint of step {step} in {self.folder} is of another model, or of an earlier version: "
                f"{name} is {held.get(name, 'missing')} there, and {expected.get(name, 'nothing')} in this run; give "
                "another --workdir."
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract._asdict()), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        state = restored["state"]
        return TrainState(**state | {"health": Health(*state["health"])}), restored["meta"]

    def wait(self) -> None:
        """Waits for the save in the background.

        Raises:
          UserError: it failed.
        """
        self._settle()
        if self._failure:
            kept = "none" if self.latest is None else self.latest
            raise UserError(
                f"The checkpoint of step {self._saving} could not be written to {self.folder} ({self._failure}); the "
                f"newest one that could is {kept}: make room there, and give the same command again."
            )

    def close(self) -> None:
        """Waits and closes; raises as `wait` does, unless another error is being raised."""
        try:
            self._join() if sys.exc_info()[0] else self.wait()  # after an error, this process may be alone
        finally:
            super().close()

    def _finish(self, step: int) -> None:
        """Waits, in a thread, until a checkpoint is whole, and then writes its checksums."""
        try:
            self._manager.wait_until_finished()
            if ocp.multihost.is_primary_host(0):
                integrity.write(self.folder / str(step))
        except Exception as error:
            self._report_failure(error)

    def _settle(self) -> None:
        """Waits, in all processes, for the save in the background, and removes what a failed save left behind."""
        self._join()
        failed_here = self._failed is not None
        if multihost_utils.process_allgather(failed_here).any() and not failed_here:
            self._failure, self._failed = "another process could not write its share", self._saving
        with contextlib.suppress(Exception):  # the cause of the failure may still last
            self._reopen()

    def _join(self) -> None:
        if self._thread.ident:
            self._thread.join()

    def _report_failure(self, error: Exception) -> None:
        """Reports a failed save at once: another thread may be waiting for it."""
        if "Barrier timed out" in str(error) and isinstance(error.__context__, Exception):
            error = error.__context__  # the cause, which the processes that waited do not know
        self._failure = (str(error).splitlines() or [type(error).__name__])[0][:300]
        with contextlib.suppress(OSError):  # stderr may go to the same full disk
            print(
                f"The checkpoint of step {self._saving} could not be written ({self._failure}); training goes on, and "
                "the next one will be tried.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if self._failed is None:  # otherwise this save could not begin
            self._failed = self._saving

    def _reopen(self) -> None:
        """Makes a new manager after a failed save: the old one would raise its error again at the next save."""
        if self._failed is None:
            return
        failed = self.folder / str(self._failed)
        if ocp.multihost.is_primary_host(0) and not (failed / integrity.NAME).exists():
            remove(failed)
        with contextlib.suppress(Exception):  # it has been reported
            self._manager.close()
        self._manager = self._make_manager()
        self._failed = None


def _silence_late_writes() -> None:
    """Keeps this process from printing an error for each array that a failed save was still writing.

    These writes end after Orbax has closed the save's event loop, or nobody waits for their tasks any more; the failed
    save itself is reported in one sentence.
    """
    before = sys.unraisablehook
    if getattr(before, "silences_late_writes", False):
        return

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == LOOP_IS_CLOSED):
            before(unraisable)

    hook.silences_late_writes = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
    is_late = lambda said: NOT_RETRIEVED in said and ORBAX_TASK in said
    logging.getLogger("asyncio").addFilter(lambda record: not is_late(record.getMessage()))


class _KeepBest:
    """Orbax's policy that keeps the best. A new best counts when it has its checksums: a kill may come before."""

    def __init__(self, writer: CheckpointWriter):
        self._writer = writer

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = self._writer.best
        return [info.step == best for info in checkpoints]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of the leaves; attributes and indices are named as a checkpoint names them."""
    name: Callable[[Any], str] = lambda key: str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {"/".join(map(name, path)): tuple(leaf.shape) for path, leaf in leaves}


# --------------------------------------------------------------------- what a kill left, and what is damaged


def clear_unfinished(folder: Path) -> None:
    """Sets aside every checkpoint without checksums: a kill came before they were written, or they were lost."""
    paths = [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
    for path in sorted(paths, key=lambda path: int(path.name)):
        if path.is_dir() and not (path / integrity.NAME).exists():
            place = set_aside(path)
            print(f"The checkpoint of step {path.name} is not whole ({integrity.MISSING}): it is set aside as {place}.",
                  file=sys.stderr, flush=True)  # fmt: skip


def set_aside(checkpoint: Path) -> Path:
    """Moves a damaged checkpoint into FOLDER.damaged, beside the folder it is in; returns the place it has there."""
    step, place = checkpoint.name, checkpoint.parent.with_name(f"{checkpoint.parent.name}.damaged")
    taken = {path.relative_to(place).parts[0] for path in place.glob(f"{step}-*")} if place.exists() else set()
    target = next(place / name for number in itertools.count() if (name := f"{step}-{number}") not in taken)
    if not is_remote(checkpoint):
        place.mkdir(exist_ok=True)
        checkpoint.rename(target)
        return target
    for name in integrity.files_under(checkpoint):  # an object store renames single files
        (target / name).write_bytes((checkpoint / name).read_bytes())
    remove(checkpoint)
    return target


def remove(folder: Any) -> None:
    """Removes a folder where it is there; what can't be removed stays."""
    if not is_remote(folder):
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
    elif folder.exists():
        folder.rmtree()
