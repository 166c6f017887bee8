"""The goodput log: where the time of a run goes, over all the times that its command was started."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from contextjax.files import is_remote, write_whole
from contextjax.json_files import read_lines, set_aside_lines
from contextjax.sharding import is_first_process

GOODPUT = "goodput.jsonl"
KINDS: tuple[str, ...] = ("start", "compile", "step", "data", "checkpoint", "evaluation")
SYNC_SECONDS = 30  # a log in an object store is at most so far behind


class Goodput:
    """Counts the seconds of one start of a command, each as exactly one kind, so that they add up to its wall time."""

    def __init__(self, began: float | None = None) -> None:
        """Counts from the moment `began` (time.monotonic) on; None: from now on."""
        since = time.monotonic() if began is None else began
        before = datetime.timedelta(seconds=time.monotonic() - since)
        self.began = datetime.datetime.now(datetime.UTC) - before
        self._spent, self._kind, self._since = dict.fromkeys(KINDS, 0.0), "start", since

    def enter(self, kind: str) -> str:
        """Counts what follows as this kind; returns the kind before."""
        now, before = time.monotonic(), self._kind
        self._spent[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Counts the block as this kind."""
        before = self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def waited(self, seconds: float) -> None:
        """Counts so many of the seconds of steps as waiting for data."""
        self.enter(self._kind)
        self._spent["step"] -= seconds
        self._spent["data"] += seconds

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each kind, up to now."""
        self.enter(self._kind)
        return dict(self._spent)

    @property
    def trained(self) -> float:
        """The seconds of training, which starting, compiling and evaluation are not."""
        return sum(seconds for kind, seconds in self.seconds.items() if kind in ("step", "data", "checkpoint"))


class GoodputLog:
    """Writes goodput.jsonl in a workdir, a line for each start; the last line is written again as the start goes on.

    Of several processes the first writes.
    """

    def __init__(self, workdir: Path, goodput: Goodput, *, step: int):
        """Begins the line of a start that goes on after `step`."""
        self._path, self._goodput, self._first, self.step = workdir / GOODPUT, goodput, step, step
        self._is_remote, self._writes, self._written = is_remote(workdir), is_first_process(), 0.0
        if self._writes:
            lines, damaged = read_lines(self._path, _is_sound)
            set_aside_lines(self._path, damaged)
            self._before = "".join(json.dumps(line) + "\n" for line in lines)
        self.write()

    def write(self) -> None:
        """Writes the seconds up to now, and that the steps up to `self.step` have been made."""
        if not self._writes:
            return
        line = {
            "began": f"{self._goodput.began:%Y-%m-%dT%H:%M:%SZ}",
            "steps": [self._first, self.step],
            "seconds": {kind: round(seconds, 3) for kind, seconds in self._goodput.seconds.items()},
        }
        self._written = time.monotonic()
        with contextlib.suppress(Exception):  # for example a full disk; the log only describes the run, which goes on
            write_whole(self._path, self._before + json.dumps(line) + "\n")

    def write_if_due(self) -> None:
        """Writes the line; to an object store only once in a while."""
        if not self._is_remote or time.monotonic() - self._written > SYNC_SECONDS:
            self.write()

    close = write


def read_goodput(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a workdir's goodput.jsonl.

    A line has "began", "steps" (the one after which the start went on, and the last it is known to have made) and
    "seconds" by kind. Damaged ones are left out.
    """
    return read_lines(workdir / GOODPUT, _is_sound)[0]


def _is_sound(line: Any) -> bool:
    if not isinstance(line, dict) or not {"began", "steps", "seconds"} <= line.keys():
        return False
    steps, seconds = line["steps"], line["seconds"]
    has_steps = isinstance(steps, list) and len(steps) == 2 and all(type(step) is int for step in steps)
    return has_steps and isinstance(seconds, dict) and all(type(seconds.get(k)) in (int, float) for k in KINDS)


def summary(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Returns (name, seconds, share of all) of the starts together.

    Steps that were lost with an interrupted start and made again have a row of their own; so has starting again.
    """
    spent = {kind: sum(line["seconds"][kind] for line in lines) for kind in KINDS}
    total, repeated = sum(spent.values()), _repeated(lines)
    rows = {
        "steps": spent["step"] - repeated,
        "steps that were made again": repeated,
        "waiting for data": spent["data"],
        "checkpoints": spent["checkpoint"],
        "evaluation and diagnoses": spent["evaluation"],
        "compiling": spent["compile"],
        "starting": lines[0]["seconds"]["start"] if lines else 0.0,
        "starting again": sum(line["seconds"]["start"] for line in lines[1:]),
        "all": total,
    }
    return [(name, seconds, seconds / total if total else 0.0) for name, seconds in rows.items()]


def _repeated(lines: Sequence[Mapping[str, Any]]) -> float:
    """Estimates the seconds of the steps that the next start had to repeat, from the mean step time of their start."""
    seconds = 0.0
    for line, following in itertools.pairwise(lines):
        (first, last), begin = line["steps"], following["steps"][0]
        seconds += line["seconds"]["step"] * max(last - max(begin, first), 0) / max(last - first, 1)
    return seconds


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the summary as lines of text."""
    head = f"Where the time went ({len(lines)} start{'s' * (len(lines) != 1)}):"
    rows = [
        f"  {name:28}{seconds:10.1f} s {share:7.1%}" for name, seconds, share in summary(lines) if round(seconds, 1) > 0
    ]
    return "\n".join([head, *rows])


def process_began() -> float:
    """Returns the moment (time.monotonic) at which this process began; now, where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, AttributeError, IndexError):
        age = 0.0
    return time.monotonic() - age


class DeviceWatch:
    """Records when the device has finished a result: a thread of its own waits for that, so that the loop need not."""

    def __init__(self, goodput: Goodput) -> None:
        self._goodput = goodput
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="device watch", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def reading(self, result: Any) -> Iterator[None]:
        """Counts the part of the block after the device has finished `result` as waiting for data."""
        done, began = self.given(result), time.monotonic()
        yield
        if done:
            self._goodput.waited(time.monotonic() - max(began, done[0]))

    def given(self, result: Any) -> list[float]:
        """Returns a list that gets the moment (time.monotonic) at which the device has made `result`."""
        done: list[float] = []
        self._given.put((result, done))
        return done

    def close(self) -> None:
        """Waits for all results: a process that ends while a thread of it waits in JAX is aborted."""
        self._given.put(None)
        self._thread.join()

    def _watch(self) -> None:
        while (given := self._given.get()) is not None:
            result, done = given
            with contextlib.suppress(Exception):  # the user of the result gets the error
                jax.block_until_ready(result)
            done.append(time.monotonic())
            del given, result
