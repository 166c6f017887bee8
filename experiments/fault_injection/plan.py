"""Which drills there are, how often each is done, and on what."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import drills
from contextjax.types import UserError
from experiments.fault_injection.command import CACHE, Command
from experiments.fault_injection.cuts import apart, call
from experiments.fault_injection.recipes import small_config, write_data, write_recipe

SYSTEMS = ("context_cir", "context_blip")
LEAST, MOST = 3, 7  # batches between two cuts
TIMEOUT = 5  # seconds without a step, where a loader hangs


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How often."""

    damages: int  # of a checkpoint's files
    kills: int
    terminations: int
    full_disks: int
    io_errors: int
    cuts: int  # of each run
    workers: tuple[int, ...]  # loader processes of the runs that are cut
    meshes: tuple[str, ...]  # of simulated devices, one after the other
    steps: int  # of the run that is interrupted
    soak: int  # steps; 0: none


MESHES = ("data:4,fsdp:2", "data:4", "fsdp:2", "data:1")
SHORT = Sizes(60, 4, 4, 2, 3, cuts=2, workers=(0,), meshes=("fsdp:2", "data:1"), steps=24, soak=0)
LONG = Sizes(300, 50, 50, 10, 10, cuts=4, workers=(0, 2, 4), meshes=MESHES, steps=100, soak=20_000)


class Plan:
    """The drills on a config, or on the shipped recipes made small."""

    def __init__(self, config: Any, sizes: Sizes, folder: Path, *, mesh: str = ""):
        """`folder` keeps all that they leave; `environment` of the runs is that of this process now."""
        self._given, self._sizes, self._folder, self._mesh = config, sizes, folder, mesh
        self._environment = {**os.environ, CACHE: str(folder / "compiled")}
        self._data = folder / "data"
        (folder / "compiled").mkdir(mode=0o700, parents=True, exist_ok=True)
        if config is None:
            write_data(self._data)

    def rows(self, only: Sequence[str] = ()) -> Iterator[Any]:
        """Drill after drill: those named, or all.

        Raises:
          UserError: one is named that there is not.
        """
        known = {
            "damage": self._damage, "kill": self._kills, "sigterm": self._terminations, "disk": self._full_disks,
            "io": self._io_errors, "cuts": self._cuts, "meshes": self._meshes, "sick": self._sick,
            "stall": self._stalls, "soak": self._soak,
        }  # fmt: skip
        if unknown := [name for name in only if name not in known]:
            raise UserError(f"There is no drill '{unknown[0]}'; expected some of {', '.join(known)}.")
        for name in only or [name for name in known if name != "soak" or self._sizes.soak]:
            yield from known[name]()

    def _config(self, name: str) -> Any:
        config = self._given if self._given is not None else small_config(name, self._data)
        config = config.copy_and_resolve_references()
        if self._mesh:
            config.mesh = self._mesh
        return config

    def _recipe(
        self, name: str, file: str, *, steps: int, every: int, changes: Mapping[str, Any] | None = None
    ) -> Path:
        config, path = self._config(name), self._folder / f"{file}.py"
        return write_recipe(path, config, steps=steps, every=every, changes=changes or {})

    @functools.cached_property
    def _command(self) -> Command:
        """Of the run that is interrupted."""
        return Command(self._recipe("fast", "fast", steps=self._sizes.steps, every=2), self._environment)

    @functools.cached_property
    def _whole(self) -> Path:
        """It, uninterrupted."""
        return self._command.run(self._folder / "whole")

    def _damage(self) -> Iterator[Any]:
        yield drills.damage(self._whole, self._folder / "damaged", times=self._sizes.damages)

    def _kills(self) -> Iterator[Any]:
        yield self._interrupted("kill -9", self._folder / "killed", self._sizes.kills, drills.killed)
        yield drills.accounts(self._folder / "killed")

    def _terminations(self) -> Iterator[Any]:
        yield self._interrupted("SIGTERM", self._folder / "terminated", self._sizes.terminations, drills.terminated)

    def _full_disks(self) -> Iterator[Any]:
        with small_disk(self._folder / "disk") as disk:
            yield self._interrupted("full disk", disk / "run", self._sizes.full_disks, drills.full_disk)

    def _io_errors(self) -> Iterator[Any]:
        yield self._interrupted("I/O errors", self._folder / "errors", self._sizes.io_errors, drills.io_errors)

    def _interrupted(self, name: str, workdir: Path, times: int, disturb: Any) -> Any:
        return drills.interrupt(name, self._command.start, workdir, self._whole, times=times, disturb=disturb)

    def _cuts(self) -> Iterator[Any]:
        """In one process: each system with so many loader processes, and with micro-batches where it has them."""
        rng, runs = np.random.default_rng(0), []
        steps = MOST * self._sizes.cuts + 2  # so that the last cut is one, too
        kinds: list[tuple[str, str, Mapping[str, Any]]] = [
            (system, f"{workers} workers", {"data.workers": workers})
            for system in (SYSTEMS if self._given is None else ("the config",))
            for workers in self._sizes.workers
        ]
        if self._given is None:
            kinds.append(("context_cir", "2 micro-batches", {"training.micro_batches": 2}))
        for system, what, changes in kinds:
            own, plain = (
                str(
                    self._recipe(
                        system, re.sub("[^a-z0-9]+", "-", f"{system} {name}"), steps=steps, every=2, changes=more
                    )
                )
                for name, more in ((what, changes), ("0 workers", {"data.workers": 0}))
            )
            reference = own if "micro" in what else plain
            cuts = [int(cut) for cut in rng.integers(LEAST, MOST + 1, self._sizes.cuts)]
            runs.append({"drill": f"cut and resumed: {system}, {what}", "recipe": own, "reference": reference,
                         "cuts": cuts})  # fmt: skip
        for row in call("resumed", self._environment, self._folder / "cuts.log", runs=runs, workdir=str(self._folder)):
            yield drills.Row(**row)

    def _meshes(self) -> Iterator[Any]:
        """On simulated devices, others after each cut."""
        recipe, log = self._recipe("context_cir", "meshes", steps=18, every=3), self._folder / "meshes.log"
        meshes = iter((self._sizes.meshes[0], *self._sizes.meshes))  # of the whole run, then of each start

        def train(workdir: Path, cut: int) -> list[np.ndarray]:
            mesh = next(meshes)
            devices = math.prod(int(size) for size in re.findall("[0-9]+", mesh))
            environment = simulated(self._environment, devices)
            found = call("attempt", environment, log, recipe=str(recipe), workdir=str(workdir), cut=cut, mesh=mesh)
            return [np.asarray(rows) for rows in found]

        whole = self._folder / "whole-meshes"
        rows = train(whole, 0)
        cuts = [5] * (len(self._sizes.meshes) - 1)
        name = f"another mesh: {' to '.join(self._sizes.meshes)}"
        yield drills.resume(name, train, self._folder / "meshes", whole, rows, cuts, exact=False)

    def _sick(self) -> Iterator[Any]:
        """In one process."""
        steps, log = 5, self._folder / "sick.log"
        recipe = self._recipe("fast", "sick", steps=steps, every=1, changes={"training.max_bad_steps": 2})

        def train(workdir: Path, sick: Collection[int]) -> list[np.ndarray]:
            found = call("poisoned", self._environment, log, recipe=str(recipe), workdir=str(workdir), sick=list(sick))
            return [np.asarray(rows) for rows in found]

        yield drills.sick_steps(train, self._folder / "sick", steps=steps)

    def _stalls(self) -> Iterator[Any]:
        """A run whose first batch does not come, and one whose fourth does not."""
        recipe, ends = self._recipe("fast", "stall", steps=5, every=5), []
        for after in (0, 3):
            workdir = self._folder / f"stall-{after}"
            done = apart("stalled", self._environment, recipe=str(recipe), workdir=str(workdir), after=after,
                         timeout=TIMEOUT)  # fmt: skip
            ends.append((done.returncode, done.stderr))
        yield drills.stalls(ends)

    def _soak(self) -> Iterator[Any]:
        steps = self._sizes.soak or LONG.soak
        recipe = self._recipe("fast", "soak", steps=steps, every=steps // 8)
        start = Command(recipe, self._environment).start
        yield drills.soak(f"soak of {steps} steps", start, self._folder / "soak", steps=steps, every=steps // 8)


def simulated(environment: Mapping[str, str], devices: int) -> dict[str, str]:
    """An environment with so many CPU devices."""
    flags = f"{environment.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    return {**environment, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int = 64) -> Iterator[Path]:
    """A file system in memory that is soon full, where this user may mount one; else just a folder."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", str(folder)]
    is_mounted = _quietly("mount", *options)
    try:
        yield folder
    finally:
        if is_mounted:
            _quietly("umount", "--lazy", str(folder))


def _quietly(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
