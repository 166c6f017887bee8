"""Real file-system errors: a full disk, a missing folder, a file in its place, no descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from experiments.fault_injection.processes import is_running

SMALL = 1 << 30  # bytes: a file system that is not larger may be filled
HOLDS = 1.5  # seconds that a fault lasts, at most
TRIES = 100  # to put back what a fault has moved, while the run goes on
FILE_BYTES = 1 << 12  # that a file may still have, where the disk itself is not filled

Fault = Callable[[int, Path], contextlib.AbstractContextManager[None]]  # of a process and its workdir


def full_disk(process: BaseProcess, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Fills the disk for a while."""
    status = os.statvfs(workdir)
    return _hold(_filled if status.f_frsize * status.f_blocks <= SMALL else _no_room, process, workdir, rng)


def io_errors(process: BaseProcess, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Injects one of FAULTS for a while."""
    return _hold(list(FAULTS.values())[int(rng.integers(len(FAULTS)))], process, workdir, rng)


def _hold(fault: Fault, process: BaseProcess, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Holds a fault for a random time, or until the run has ended."""
    assert process.pid
    with contextlib.suppress(ProcessLookupError), fault(process.pid, workdir):
        is_running(process, rng.uniform(0, HOLDS))
    return []


@contextlib.contextmanager
def _filled(pid: int, workdir: Path) -> Iterator[None]:
    """Fills a small file system to its last byte."""
    ballast = workdir.parent / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _limited(kind: int, limit: int) -> Fault:
    """Returns a fault that sets a resource limit of the process; calls beyond the limit fail."""

    @contextlib.contextmanager
    def fault(pid: int, workdir: Path) -> Iterator[None]:
        before = resource.prlimit(pid, kind)
        resource.prlimit(pid, kind, (limit, before[1]))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, kind, before)

    return fault


_no_room = _limited(resource.RLIMIT_FSIZE, FILE_BYTES)


@contextlib.contextmanager
def _moved_away(pid: int, workdir: Path, *, instead: str = "") -> Iterator[None]:
    """Moves the folder of checkpoints away; files that the run writes in its place are merged when it comes back.

    `instead`: the text of a file that stands in its place.
    """
    folder, away = workdir / "checkpoints", workdir / "away"
    if not folder.is_dir():
        yield
        return
    folder.rename(away)
    try:
        if instead:
            with contextlib.suppress(OSError):  # the run has made the folder again
                folder.write_text(instead)
        yield
    finally:
        for left in reversed(range(TRIES)):
            try:
                _put_back(folder, away)
                break
            except OSError:  # the run is making the folder again at this moment
                if not left:
                    raise
                time.sleep(0.02)


def _put_back(folder: Path, away: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            if not (away / path.name).exists():
                path.rename(away / path.name)
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    away.rename(folder)


@contextlib.contextmanager
def _read_only(pid: int, workdir: Path) -> Iterator[None]:
    """Lets nothing be made in the folder of checkpoints, except by root."""
    folder = workdir / "checkpoints"
    with contextlib.ExitStack() as at_end:
        if folder.is_dir():
            at_end.callback(folder.chmod, folder.stat().st_mode)
            folder.chmod(0o500)
        yield


FAULTS: dict[str, Fault] = {
    "no descriptors": _limited(resource.RLIMIT_NOFILE, 3),
    "the folder is gone": _moved_away,
    "a file instead of the folder": lambda pid, workdir: _moved_away(pid, workdir, instead="no folder"),
    **({"a read-only folder": _read_only} if os.geteuid() else {}),
}


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mounts a small file system in memory at a folder, if this user may mount one."""
    folder.mkdir(exist_ok=True)
    run = lambda *command: subprocess.run(command, capture_output=True, check=False).returncode == 0
    has_mount = shutil.which("mount") is not None
    is_mounted = has_mount and run("mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "none", str(folder))
    try:
        yield
    finally:
        if is_mounted:
            run("umount", "--lazy", str(folder))
