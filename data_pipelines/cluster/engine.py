"""Maps rows by this process, or by the nodes of a cluster with Ray Data: the same results in the same order.

On a cluster a function is called again where a process or a node that worked on it is lost. The results come in the
order of the rows, once each, whatever was lost.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from contextjax.threads import map_ahead
from contextjax.types import UserError

Row = TypeVar("Row")
Result = TypeVar("Result")
PIECE = 8 << 20  # bytes of results that are sent to the command together
TRIES = 3  # of rows whose process is lost, without a result in between
LOG = "cluster.jsonl"


@dataclasses.dataclass(frozen=True)
class Work(Generic[Row, Result]):
    """A function of a row, and how it is called.

    Attributes:
      make: makes the function, in each process that works.
      unit: a row in words, in the singular.
      threads: the rows that a process works on at a time; None: one for each CPU of this process, and one at a time in
        a process of a cluster.
      ahead: the rows that one process works on, or whose results it holds, beyond the one that is due.
      chunk: the rows that a node of a cluster is given together.
      size: about how many bytes a result has.
      place: "cpu": each CPU of a cluster works, and `make` is called for every chunk, "node": a process on each node
        keeps the function, "device": a process on each accelerator does, or on each node where there are none.
    """

    make: Callable[[], Callable[[Row], Result]]
    unit: str
    threads: int | None = None
    ahead: int = 0
    chunk: int = 1
    size: Callable[[Result], int] = lambda result: 1024
    place: Literal["cpu", "node", "device"] = "cpu"


def ray_library(name: str = "ray") -> Any:
    """Imports a module of Ray, which nothing needs but a cluster."""
    return importlib.import_module(name)


class Engine(Protocol):
    """Maps rows, by whatever works on them."""

    def map_rows(self, work: Work[Row, Result], rows: Sequence[Row]) -> Iterator[Result]:
        """Yields the work's result of each row, in order. A UserError is raised where the result is due."""
        ...


class OneProcess:
    """Works by threads of this process."""

    def map_rows(self, work: Work[Row, Result], rows: Sequence[Row]) -> Iterator[Result]:
        """Yields the work's result of each row, in order."""
        return map_ahead(work.make(), rows, ahead=work.ahead, threads=work.threads)


@dataclasses.dataclass(frozen=True)
class Resources:
    """The nodes of a cluster that are alive and have CPUs, and what all of them have."""

    nodes: int
    cpus: int
    accelerators: int
    least_cpus: int  # of a node

    def actors(self, place: str) -> tuple[int, dict[str, Any]]:
        """Returns the number of processes that keep a function, and the resources of each, as Ray takes them."""
        if place == "device" and self.accelerators:
            return self.accelerators, {"num_gpus": 1, "num_cpus": 0}
        return self.nodes, {"num_cpus": self.least_cpus, "scheduling_strategy": "SPREAD"}


class RayEngine:
    """Works by Ray Data on the nodes of the cluster that this process is connected to (see nodes.connected).

    Attributes:
      log: the folder whose cluster.jsonl gets a line for each map: rows, seconds, nodes, and how often it went on after
        a loss; None: no line.
      facts: the line of the last map.
    """

    def __init__(self, log: Path | None = None):
        self.log, self.facts = log, dict[str, Any]()

    def map_rows(self, work: Work[Row, Result], rows: Sequence[Row]) -> Iterator[Result]:
        """Yields the work's result of each row, in order, once each, whatever is lost on the way.

        Raises:
          UserError: the work has raised one, or its process was lost again and again at the same rows.
        """
        done, losses, tries, begin = 0, 0, 0, time.monotonic()
        try:
            while done < len(rows):
                before = done
                try:
                    for result in _stream(work, rows[done:]):
                        if isinstance(result, _Problem):
                            raise UserError(result.sentence)
                        done += 1
                        yield result
                except Exception as error:
                    if not _is_loss(error):
                        raise
                    losses, tries = losses + 1, tries + 1 if done == before else 1
                    if tries == TRIES:
                        reason = str(error).strip().partition("\n")[0][:200]
                        raise UserError(
                            f"The process that worked on {work.unit} {done + 1:,} or soon after was lost {TRIES} times "
                            f"({reason}); look for the reason in the cluster, such as too little memory, and run the "
                            "same command again."
                        ) from error
        finally:
            self._note(work.unit, len(rows), done, losses, time.monotonic() - begin)

    def summary(self) -> str:
        """Returns the last map as a sentence, or "" where there was none."""
        if not self.facts:
            return ""
        own = self.facts
        speed = f"{own['done'] / max(own['seconds'], 1e-9):,.1f} {own['unit']}s/s"
        lost = f"; went on after {own['losses']} loss(es)" if own["losses"] else ""
        devices = f", {own['accelerators']} accelerators" * bool(own["accelerators"])
        return (
            f"Cluster: {own['done']:,} {own['unit']}s on {own['nodes']} node(s), {own['cpus']} CPUs{devices} in "
            f"{own['seconds']:.1f} s, {speed}{lost}."
        )

    def _note(self, unit: str, rows: int, done: int, losses: int, seconds: float) -> None:
        """Keeps the facts of a map, and adds them to the log."""
        self.facts = {
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "unit": unit, "rows": rows, "done": done, "losses": losses, "seconds": round(seconds, 3),
            **{name: value for name, value in dataclasses.asdict(resources()).items() if name != "least_cpus"},
        }  # fmt: skip
        if self.log is not None and self.log.is_dir():
            try:
                with (self.log / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self.facts) + "\n")
            except OSError as error:
                raise UserError(f"{self.log / LOG} can't be written ({error}); make room and run again.") from error


def resources() -> Resources:
    """Returns what the nodes of the cluster have that are alive now; zeros without a connection."""
    ray = ray_library()
    alive: list[Mapping[str, float]] = []
    if ray.is_initialized():
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    alive = [own for own in alive if own.get("CPU", 0) >= 1]
    cpus = [int(own["CPU"]) for own in alive]
    return Resources(len(alive), sum(cpus), int(sum(own.get("GPU", 0) for own in alive)), min(cpus, default=0))


@dataclasses.dataclass(frozen=True)
class _Opaque:
    """Holds a value that Ray Data sends as it is: it would make tables of others. Its logs don't show the value."""

    value: Any = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A UserError of a row, where its result should be."""

    sentence: str


def _stream(work: Work[Any, Any], rows: Sequence[Any]) -> Iterator[Any]:
    """Yields the results of all rows by one execution of Ray Data. Raises Ray's errors where a process is lost."""
    data = ray_library("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    chunks = [{"rows": _Opaque(rows[at : at + work.chunk])} for at in range(0, len(rows), work.chunk)]
    count, source = len(chunks), data.from_items(chunks, override_num_blocks=len(chunks))
    del chunks
    options: dict[str, Any] = {"batch_size": None, "batch_format": "numpy"}
    if work.place == "cpu":
        options |= {"fn_args": (work, str(Path.cwd())), "num_cpus": 1, "max_retries": TRIES}
    else:
        # What was lost is tried again by map_rows, on the nodes that are left: an actor that waits for a node like the
        # lost one would wait for ever where none comes.
        size, needs = resources().actors(work.place)
        options |= needs | {"max_restarts": 0, "max_task_retries": 0, "fn_constructor_args": (work, str(Path.cwd()))}
        options["compute"] = data.ActorPoolStrategy(size=max(1, min(size, count)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that go in Ray 2.64, which setup.py excludes
        mapped = source.map_batches(_Chunks.once if work.place == "cpu" else _Chunks, **options)
    for block in mapped.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        for result in block["result"]:
            yield result.value


def _is_loss(error: BaseException) -> bool:
    """Returns whether an error is of the cluster, such as the loss of a node, and not one that the work has raised."""
    exceptions = ray_library("ray.exceptions")
    cause: Any = error
    while isinstance(cause, exceptions.RayTaskError):
        cause = cause.cause
    return isinstance(cause, exceptions.RayError) and not isinstance(cause, exceptions.UserCodeException)


class _Chunks:
    """Works on chunks of rows in a process of the cluster, and keeps the function."""

    def __init__(self, work: Work[Any, Any], place: str):
        """Makes the function, in the folder `place` of the command: a user's paths may begin there."""
        os.chdir(place)
        self._work, self._function, self._problem = work, None, ""
        try:
            self._function = work.make()
        except UserError as error:
            self._problem = str(error)

    @staticmethod
    def once(batch: Any, work: Work[Any, Any], place: str) -> Iterator[Any]:
        """Works on one chunk."""
        yield from _Chunks(work, place)(batch)

    def __call__(self, batch: Any) -> Iterator[Any]:
        """Yields the results of each chunk, about PIECE bytes of them together."""
        for chunk in batch["rows"]:
            held, size = [], 0
            for result in self._results(chunk.value):
                held.append(_Opaque(result))
                size += 0 if isinstance(result, _Problem) else self._work.size(result)
                if size > PIECE:
                    yield {"result": _column(held)}
                    held, size = [], 0
            if held:
                yield {"result": _column(held)}

    def _results(self, rows: Sequence[Any]) -> Iterator[Any]:
        if self._function is None:
            yield _Problem(self._problem)
            return
        threads = self._work.threads or 1
        try:
            yield from map_ahead(self._function, rows, ahead=len(rows) if threads > 1 else 0, threads=threads)
        except UserError as error:
            yield _Problem(str(error))


def _column(values: list[_Opaque]) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = values
    return column
