"""The cases of fault injection, how often each is done, and on which run."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import UserError
from experiments.fault_injection import children
from experiments.fault_injection.bad_steps import check_bad_steps, check_stalls
from experiments.fault_injection.damage import damage_files
from experiments.fault_injection.faults import full_disk, io_errors, small_disk
from experiments.fault_injection.goodput import check_goodput
from experiments.fault_injection.interruptions import Inject, interrupt, kill, terminate
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.processes import Processes, check_end
from experiments.fault_injection.recipe import SYSTEMS, flags_of, write_data
from experiments.fault_injection.resume import Records, check_resume
from experiments.fault_injection.soak import check_soak

LEAST, MOST = 3, 7  # batches between two cuts
TIMEOUT = 5  # seconds without a step, where a loader hangs
MESHES = ("data:4,fsdp:2", "data:4", "fsdp:2", "data:1")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How often each fault is injected."""

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


SHORT = Sizes(60, 4, 4, 2, 3, cuts=2, workers=(0,), meshes=("fsdp:2", "data:1"), steps=24, soak=0)
LONG = Sizes(300, 50, 50, 10, 10, cuts=4, workers=(0, 2, 4), meshes=MESHES, steps=100, soak=20_000)


class Cases:
    """The cases on a recipe, or on the shipped recipes made small."""

    def __init__(self, recipe: Sequence[str], sizes: Sizes, folder: Path, *, mesh: str = ""):
        """`recipe`: its --config flags; none: the shipped ones. `folder` keeps all that the cases leave."""
        self._given, self._sizes, self._folder, self._mesh = recipe, sizes, folder, mesh
        self._processes, self._data = Processes(folder / "compiled"), folder / "data"
        if not recipe:
            write_data(self._data)

    def outcomes(self, only: Sequence[str] = ()) -> Iterator[Outcome]:
        """Runs case after case: those named, or all.

        Raises:
          UserError: one is named that there is not.
        """
        times = self._sizes
        known: dict[str, Callable[[], Iterator[Outcome]]] = {
            "damage": self._damages,
            "kill": functools.partial(self._interrupt, "kill -9", "killed", times.kills, kill),
            "sigterm": functools.partial(self._interrupt, "SIGTERM", "terminated", times.terminations, terminate),
            "disk": self._full_disks,
            "io": functools.partial(self._interrupt, "I/O errors", "errors", times.io_errors, io_errors),
            "cuts": self._cuts,
            "meshes": self._meshes,
            "bad": self._bad_steps,
            "stall": self._stalls,
            "soak": self._soak,
        }
        if unknown := [name for name in only if name not in known]:
            raise UserError(f"There is no case '{unknown[0]}'; expected some of {', '.join(known)}.")
        for name in only or [name for name in known if name != "soak" or self._sizes.soak]:
            yield from known[name]()

    def _recipe(self, name: str, *, steps: int, every: int, **training: int) -> list[str]:
        """Returns the flags of a recipe that logs each of its steps and saves after `every` of them."""
        training = {"steps": steps, "checkpoint_every": every, "log_every": 1, "evaluate_every": steps, **training}
        flags = [f"--config.training.{key}={value}" for key, value in {"diagnose_every": 0, **training}.items()]
        mesh = [f"--config.mesh={self._mesh}"] if self._mesh else []
        return [*(self._given or flags_of(name, self._data)), *flags, *mesh]

    def _start(self, recipe: Sequence[str], workdir: Path) -> Any:
        log = workdir.parent / f"{workdir.name}.log"
        return self._processes.start(children.run_command, recipe, workdir, log=log)

    def _train(self, recipe: Sequence[str], workdir: Path, cut: int, devices: int = 0) -> Records:
        through = functools.partial(children.cut_after, count=cut)
        log = self._folder / f"{workdir.name}.log"
        return self._processes.call(children.train, recipe, workdir, through, log=log, devices=devices)

    @functools.cached_property
    def _interrupted(self) -> list[str]:
        """The recipe of the run that is interrupted."""
        return self._recipe("interrupted", steps=self._sizes.steps, every=2)

    @functools.cached_property
    def _whole(self) -> Path:
        """The workdir of that run, uninterrupted."""
        process = self._start(self._interrupted, workdir := self._folder / "whole")
        process.join()
        check_end(process, self._folder / "whole.log")
        return workdir

    def _interrupt(self, case: str, place: str, times: int, inject: Inject) -> Iterator[Outcome]:
        start, workdir = functools.partial(self._start, self._interrupted), self._folder / place
        yield interrupt(case, start, workdir, self._whole, times=times, inject=inject)
        if inject is kill:
            yield check_goodput(workdir)

    def _full_disks(self) -> Iterator[Outcome]:
        with small_disk(self._folder / "disk"):
            yield from self._interrupt("full disk", "disk/run", self._sizes.full_disks, full_disk)

    def _damages(self) -> Iterator[Outcome]:
        yield damage_files(self._whole, self._folder / "damaged", times=self._sizes.damages)

    def _cuts(self) -> Iterator[Outcome]:
        """Cuts each system with so many loader processes, and one with micro-batches."""
        rng, references = np.random.default_rng(0), {}
        systems = ("the config",) if self._given else SYSTEMS
        kinds = [
            (system, f"{workers} workers", [f"--config.data.workers={workers}"])
            for system in systems
            for workers in self._sizes.workers
        ]
        if not self._given:
            kinds.append((SYSTEMS[0], "2 micro-batches", ["--config.training.micro_batches=2"]))
        for number, (system, what, changes) in enumerate(kinds):
            plain = self._recipe(system, steps=MOST * self._sizes.cuts + 2, every=2)  # so that the last cut is one, too
            whole = [*plain, *(changes if "micro" in what else ["--config.data.workers=0"])]
            reference = self._folder / f"whole-{system}-{'micro' in what}".replace(" ", "-")
            if reference not in references:
                references[reference] = self._train(whole, reference, 0)
            cuts = [int(cut) for cut in rng.integers(LEAST, MOST + 1, self._sizes.cuts)]
            train = functools.partial(self._train, [*plain, *changes])
            case, workdir = f"cut and resumed: {system}, {what}", self._folder / f"cut-{number}"
            yield check_resume(case, train, workdir, reference, references[reference], cuts)

    def _meshes(self) -> Iterator[Outcome]:
        """Resumes a run on other simulated devices after each cut."""
        recipe = self._recipe(SYSTEMS[0], steps=18, every=3)
        meshes = iter((self._sizes.meshes[0], *self._sizes.meshes))  # of the whole run, then of each start

        def train(workdir: Path, cut: int) -> Records:
            mesh = next(meshes)
            devices = math.prod(int(size) for size in re.findall("[0-9]+", mesh))
            return self._train([*recipe, f"--config.mesh={mesh}"], workdir, cut, devices)

        whole = self._folder / "whole-meshes"
        records = train(whole, 0)
        cuts = [5] * (len(self._sizes.meshes) - 1)
        case = f"another mesh: {' to '.join(self._sizes.meshes)}"
        yield check_resume(case, train, self._folder / "meshes", whole, records, cuts, is_exact=False)

    def _bad_steps(self) -> Iterator[Outcome]:
        recipe, log = self._recipe("interrupted", steps=5, every=1, max_bad_steps=2), self._folder / "bad.log"
        train = lambda workdir, bad: self._processes.call(
            children.train, recipe, workdir, functools.partial(children.spoil, steps=tuple(bad)), log=log
        )
        yield check_bad_steps(train, self._folder / "bad", steps=5)

    def _stalls(self) -> Iterator[Outcome]:
        """Makes runs whose first batch does not come, and whose fourth does not."""
        recipe, ends = self._recipe("interrupted", steps=5, every=5), []
        for after in (0, 3):
            workdir, log = self._folder / f"stall-{after}", self._folder / f"stall-{after}.log"
            through = functools.partial(children.hang, after=after)
            process = self._processes.start(children.train, recipe, workdir, through, TIMEOUT, log=log)
            process.join()
            ends.append((process.exitcode, log.read_text(encoding="utf-8")))
        yield check_stalls(ends)

    def _soak(self) -> Iterator[Outcome]:
        steps = self._sizes.soak or LONG.soak
        start = functools.partial(self._start, self._recipe("interrupted", steps=steps, every=steps // 8))
        yield check_soak(f"soak of {steps} steps", start, self._folder / "soak", steps=steps, every=steps // 8)
