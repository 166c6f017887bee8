"""Errors that a file system really gives: a full disk, a folder that is gone, a file in its place, no descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.fault_injection.interruptions import Disturb, Run, pause

SMALL = 1 << 30  # bytes: a file system that is not larger may be filled
HOLDS = 1.5  # seconds that a fault lasts, at most
TRIES = 100  # to put back what a fault has moved, while the run goes on
ROOM = 1 << 12  # bytes that a file may still have, where the disk itself is not filled

Fault = Callable[[int, Path], contextlib.AbstractContextManager[None]]  # of a process and its workdir


def during(fault: Fault) -> Disturb:
    """A fault that lasts for a random time, or until the run has ended."""

    def disturb(run: Run, workdir: Path, rng: np.random.Generator) -> list[str]:
        with contextlib.suppress(ProcessLookupError), fault(run.pid, workdir):
            pause(run, rng.uniform(0, HOLDS))
        return []

    return disturb


def full_disk(run: Run, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Nothing can be written any more, for a while."""
    size = os.statvfs(workdir)
    is_small = size.f_frsize * size.f_blocks <= SMALL
    return during(_filled if is_small else _no_room)(run, workdir, rng)


def io_errors(run: Run, workdir: Path, rng: np.random.Generator) -> list[str]:
    """One of FAULTS."""
    return during(list(FAULTS.values())[int(rng.integers(len(FAULTS)))])(run, workdir, rng)


@contextlib.contextmanager
def _filled(pid: int, workdir: Path) -> Iterator[None]:
    """A small file system without a free byte."""
    ballast = workdir.parent / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _limited(kind: int, limit: int) -> Fault:
    """A limit of the process: what would pass it fails."""

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


_no_room = _limited(resource.RLIMIT_FSIZE, ROOM)


@contextlib.contextmanager
def _moved_away(pid: int, workdir: Path) -> Iterator[None]:
    """The folder of checkpoints is gone, and comes back: what the run has made in its place goes into it."""
    folder, away = workdir / "checkpoints", workdir / "away"
    with _renamed(folder, away):
        yield


@contextlib.contextmanager
def _a_file_instead(pid: int, workdir: Path) -> Iterator[None]:
    """A file stands where the folder of checkpoints was."""
    folder, away = workdir / "checkpoints", workdir / "away"
    with _renamed(folder, away):
        with contextlib.suppress(OSError):
            folder.write_text("no folder")
        yield


@contextlib.contextmanager
def _renamed(folder: Path, away: Path) -> Iterator[None]:
    if not folder.is_dir():
        yield
        return
    folder.rename(away)
    try:
        yield
    finally:
        for _ in range(TRIES):
            with contextlib.suppress(OSError):  # the run is making it anew at this moment
                _put_back(folder, away)
                break
            time.sleep(0.02)
        else:
            _put_back(folder, away)


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
    """Nothing can be made in the folder of checkpoints (by who is not root)."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        yield
        return
    mode = folder.stat().st_mode
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(mode)


FAULTS: dict[str, Fault] = {
    "no descriptors": _limited(resource.RLIMIT_NOFILE, 3),
    "the folder is gone": _moved_away,
    "a file instead of the folder": _a_file_instead,
    **({"a read-only folder": _read_only} if os.geteuid() else {}),
}
