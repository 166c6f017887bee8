"""Which drills there are, how often each is done, and on what."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.drilling.command import CACHE, Command
from experiments.drilling.cuts import call
from experiments.drilling.recipes import small_config, write_data, write_recipe

SYSTEMS = ("context_cir", "context_blip")


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
    meshes: tuple[int, ...]  # simulated devices, one after the other
    steps: int  # of the run that is interrupted
    soak: int  # steps; 0: none


SHORT = Sizes(60, 4, 4, 2, 3, cuts=2, workers=(0,), meshes=(2, 1), steps=24, soak=0)
LONG = Sizes(300, 50, 50, 10, 10, cuts=4, workers=(0, 2, 4), meshes=(8, 4, 2, 1), steps=100, soak=2000)


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

    def rows(self) -> Iterator[Any]:
        """Drill after drill."""
        yield from self._interruptions()
        yield from self._cuts()
        yield self._meshes()
        if self._sizes.soak:
            yield self._soak()

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

    def _interruptions(self) -> Iterator[Any]:
        from contextjax import drills

        sizes, folder = self._sizes, self._folder
        command = Command(self._recipe("fast", "fast", steps=sizes.steps, every=2), self._environment)
        whole = command.run(folder / "whole")
        yield drills.damage(whole, folder / "damaged", times=sizes.damages)
        interrupt = lambda name, place, times, disturb: drills.interrupt(
            name, command.start, place, whole, times=times, disturb=disturb
        )
        yield interrupt("kill -9", folder / "killed", sizes.kills, drills.killed)
        yield interrupt("SIGTERM", folder / "terminated", sizes.terminations, drills.terminated)
        with small_disk(folder / "disk") as disk:
            yield interrupt("full disk", disk / "run", sizes.full_disks, drills.full_disk)
        yield interrupt("I/O errors", folder / "errors", sizes.io_errors, drills.io_errors)

    def _cuts(self) -> Iterator[Any]:
        """In one process: each system with so many loader processes, and with micro-batches where it has them."""
        from contextjax.drills import Row

        rng, runs = np.random.default_rng(0), []
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
                    self._recipe(system, re.sub("[^a-z0-9]+", "-", f"{system} {name}"), steps=12, every=3, changes=more)
                )
                for name, more in ((what, changes), ("0 workers", {"data.workers": 0}))
            )
            reference = own if "micro" in what else plain
            cuts = [int(cut) for cut in rng.integers(1, 7, self._sizes.cuts)]
            runs.append({"drill": f"cut and resumed: {system}, {what}", "recipe": own, "reference": reference,
                         "cuts": cuts})  # fmt: skip
        for row in call("resumed", self._environment, self._folder / "cuts.log", runs=runs, workdir=str(self._folder)):
            yield Row(**row)

    def _meshes(self) -> Any:
        """On simulated devices, another number of them after each cut."""
        from contextjax.drills import resume

        recipe, log = (
            self._recipe("context_cir", "meshes", steps=18, every=3, changes={"mesh": "data:-1"}),
            self._folder / "meshes.log",
        )
        counts = iter(self._sizes.meshes)

        def train(workdir: Path, cut: int, devices: int = 0) -> list[np.ndarray]:
            environment = simulated(self._environment, devices or next(counts))
            found = call("attempt", environment, log, recipe=str(recipe), workdir=str(workdir), cut=cut)
            return [np.asarray(rows) for rows in found]

        whole = self._folder / "whole-meshes"
        rows = train(whole, 0, self._sizes.meshes[0])
        cuts = [5] * (len(self._sizes.meshes) - 1)
        name = f"another mesh: {' to '.join(map(str, self._sizes.meshes))} devices"
        return resume(name, train, self._folder / "meshes", whole, rows, cuts, exact=False)

    def _soak(self) -> Any:
        from contextjax.drills import soak

        steps = self._sizes.soak
        recipe = self._recipe("fast", "soak", steps=steps, every=steps // 10)
        return soak(
            f"soak of {steps} steps", Command(recipe, self._environment).start, self._folder / "soak", steps=steps
        )


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
