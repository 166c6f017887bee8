"""Checks the goodput log of an interrupted run: its times agree with a clock, and no second counts twice."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path

from contextjax.training.goodput import GOODPUT, read_goodput
from experiments.fault_injection.outcome import Outcome

SHARE, SECONDS = 0.01, 1.0  # that may be missing or too many; beginnings are known to the second


def check_goodput(workdir: Path) -> Outcome:
    """Compares each start with the beginning of the next one, and the last with when its line was written."""
    lines, problems = read_goodput(workdir), []
    begins = [datetime.datetime.fromisoformat(line["began"]).timestamp() for line in lines]
    spent = [sum(line["seconds"].values()) for line in lines]
    for seconds, (begin, after) in zip(spent, itertools.pairwise(begins), strict=False):
        if seconds > (after - begin) * (1 + SHARE) + SECONDS:
            problems.append(f"a start of {seconds:.1f} s began {after - begin:.0f} s before the next one")
    if lines:
        passed = (workdir / GOODPUT).stat().st_mtime - begins[-1]
        if abs(passed - spent[-1]) > SHARE * passed + SECONDS:
            problems.append(f"the last start has {spent[-1]:.1f} s in the goodput log, and took {passed:.1f} s")
    else:
        problems.append("there is none")
    return Outcome("goodput log", len(lines), problems=problems)
