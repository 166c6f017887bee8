"""Where the time of a run goes, over all the times that its command was started."""

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

from contextjax.files import write_whole
from contextjax.json_files import parse_json

LEDGER = "ledger.jsonl"
KINDS: tuple[str, ...] = ("start", "compile", "step", "data", "checkpoint", "evaluation")


class Ledger:
    """Seconds of one start of a command, each of exactly one kind, so that they add up to its wall time."""

    def __init__(self, *, before: float = 0.0) -> None:
        """The time of a start counts from here on, and the seconds `before`."""
        self.began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=before)
        self._spent, self._kind, self._since = dict.fromkeys(KINDS, 0.0), "start", time.monotonic() - before

    def enter(self, kind: str) -> str:
        """What follows is of this kind; returns what was before."""
        now, before = time.monotonic(), self._kind
        self._spent[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """What is done in this block is of this kind."""
        before = self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def waited(self, seconds: float) -> None:
        """So much of what counted as steps was waiting for data."""
        self.enter(self._kind)
        self._spent["step"] -= seconds
        self._spent["data"] += seconds

    @property
    def seconds(self) -> dict[str, float]:
        """By kind, up to now."""
        self.enter(self._kind)
        return dict(self._spent)

    @property
    def trained(self) -> float:
        """Seconds of training: without starting, compiling and evaluation."""
        return sum(seconds for kind, seconds in self.seconds.items() if kind in ("step", "data", "checkpoint"))


class LedgerFile:
    """ledger.jsonl of a workdir: a line of each start, the last one's written anew as it goes on."""

    def __init__(self, workdir: Path, ledger: Ledger, *, step: int):
        """The run goes on after `step`."""
        self._path, self._ledger, self._first = workdir / LEDGER, ledger, step
        self._before = "".join(json.dumps(line) + "\n" for line in read_ledger(workdir))
        self.write(step)

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return time.monotonic() - self._written

    def write(self, step: int) -> None:
        """The steps up to `step` have been made."""
        line = {
            "began": f"{self._ledger.began:%Y-%m-%dT%H:%M:%SZ}",
            "steps": [self._first, step],
            "seconds": {kind: round(seconds, 3) for kind, seconds in self._ledger.seconds.items()},
        }
        self._written = time.monotonic()
        with contextlib.suppress(Exception):  # a full disk, say; it is an account of the run, no part of it
            write_whole(self._path, self._before + json.dumps(line) + "\n")


def read_ledger(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a workdir's ledger: "began", "steps" (after which it went on, and the last it is known to have made)
    and "seconds" by kind."""
    path, found = workdir / LEDGER, []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # one that was cut with the power
            found.append(parse_json(line))
    return found


def summary(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(what, seconds, share of all) of the starts together.

    Steps that were lost with a start that was ended, and made again, are told apart; so is starting anew.
    """
    spent = {kind: sum(line["seconds"][kind] for line in lines) for kind in KINDS}
    total = sum(spent.values())
    rows = {
        "steps": spent["step"] - (again := _made_again(lines)),
        "steps that were made again": again,
        "waiting for data": spent["data"],
        "checkpoints": spent["checkpoint"],
        "evaluation and diagnoses": spent["evaluation"],
        "compiling": spent["compile"],
        "starting": lines[0]["seconds"]["start"] if lines else 0.0,
        "starting again": sum(line["seconds"]["start"] for line in lines[1:]),
        "all": total,
    }
    return [(what, seconds, seconds / total if total else 0.0) for what, seconds in rows.items()]


def _made_again(lines: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of steps that the next start had to make again, by the mean of their start."""
    found = 0.0
    for line, following in itertools.pairwise(lines):
        (first, last), begin = line["steps"], following["steps"][0]
        found += line["seconds"]["step"] * max(last - max(begin, first), 0) / max(last - first, 1)
    return found


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The summary as lines of text."""
    head = f"Where the time went ({len(lines)} start{'s' * (len(lines) != 1)}):"
    rows = [
        f"  {what:28}{seconds:10.1f} s {share:7.1%}" for what, seconds, share in summary(lines) if round(seconds, 1) > 0
    ]
    return "\n".join([head, *rows])


def process_age() -> float:
    """Seconds since this process began; 0 where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, AttributeError, IndexError):
        return 0.0


class DeviceWatch:
    """When the device was through with what it was given last: a thread waits for it, for nothing else may."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="device watch", daemon=True)
        self._thread.start()

    def given(self, result: Any) -> list[float]:
        """The device is to make `result`; the list gets the time (of the monotonic clock) at which it has."""
        done: list[float] = []
        self._given.put((result, done))
        return done

    def close(self) -> None:
        """Waits for what was given: a process that ends while a thread of it waits in JAX is aborted."""
        self._given.put(None)
        self._thread.join()

    def _watch(self) -> None:
        while (given := self._given.get()) is not None:
            result, done = given
            with contextlib.suppress(Exception):  # whoever uses the result is told
                jax.block_until_ready(result)
            done.append(time.monotonic())
            del given, result
