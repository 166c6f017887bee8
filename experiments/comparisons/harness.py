"""The harness of all comparisons: results of both sides are compared first, then all programs are timed in turn.

A case is a module with `Options` (its flags, see `option`), `compare(options)`, which returns tables by name, and
`NOTES`, which say what the figures are. A table maps a row's name to its cells: a number, a text, a tuple of
numbers (ours and theirs), or a list with a number for each round. The same tables are printed as Markdown and written
as one JSON file.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from contextjax.types import UserError
from experiments.shared import machine

KEEP_MEMORY = "Have glibc keep freed memory, for both sides; see experiments.shared.machine.keep_memory."
Table = dict[str, dict[str, Any]]  # row -> column -> cell
Program = Callable[[], Any]  # returns when its work is done


def option(default: Any, help: str, **limits: Any) -> Any:
    """Returns the field of a case's `Options` that stands for a flag.

    Args:
      default: a number, a boolean, a text, or a tuple of texts for a list; None for a recipe.
      help: the flag's help.
      **limits: `lower_bound`, `upper_bound`, or `enum_values` of a text.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Case:
    """Programs that do the same work in different ways.

    Attributes:
      programs: by name; timed in turn.
      checks: (name, ours, theirs), called in this order; their results have to agree before anything is timed.
      tolerance: the largest difference of results that counts as agreement.
      is_relative: the difference is divided by the size of their result.
      ratios: names of two programs each: the time of the first is divided by the time of the second.
      costs: name of a program -> a call that returns its FLOPs, bytes and so on; called after the timings.
    """

    programs: Mapping[str, Program]
    checks: Sequence[tuple[str, Program, Program]] = ()
    tolerance: float = 0.0
    is_relative: bool = False
    ratios: Sequence[tuple[str, str]] = ()
    costs: Mapping[str, Callable[[], Mapping[str, float]]] = dataclasses.field(default_factory=dict)


def measure(case: Case, *, pairs: int, seconds: float = 0.0) -> dict[str, Table]:
    """Returns the tables "checked", "programs" and "ratios" of a case.

    Args:
      case: the programs and what has to agree.
      pairs: rounds.
      seconds: the least time of one timing, in which a program is repeated.

    Raises:
      UserError: results differ.
    """
    checked = {
        name: agree(name, ours(), theirs(), tolerance=case.tolerance, is_relative=case.is_relative)
        for name, ours, theirs in case.checks
    }
    times = alternate(case.programs, pairs, seconds=seconds)
    programs = {
        name: {"seconds": rounds} | dict(case.costs[name]() if name in case.costs else {})
        for name, rounds in times.items()
    }
    ratios = {f"{above} / {below}": ratio(times[above], times[below]) for above, below in case.ratios}
    return {"checked": checked, "programs": programs, "ratios": ratios}


def agree(name: str, ours: Any, theirs: Any, *, tolerance: float, is_relative: bool = False) -> dict[str, Any]:
    """Compares two results: numbers, arrays, or numbers by name (of which those in `theirs` are compared).

    Returns:
      the largest difference, and numbers by name as (ours, theirs).

    Raises:
      UserError: a difference is larger than the tolerance, or no number.
    """
    named = theirs if isinstance(theirs, Mapping) else {"result": theirs}
    own = ours if isinstance(theirs, Mapping) else {"result": ours}
    largest, numbers = 0.0, {}
    for key, expected in named.items():
        difference = float(np.abs(np.asarray(own[key]) - np.asarray(expected)).max())
        difference /= abs(float(expected)) if is_relative else 1.0
        if not difference <= tolerance:
            values = f" ({own[key]:.7g} here, {expected:.7g} there)" if np.ndim(expected) == 0 else ""
            raise UserError(
                f"{name}: {key} differs by {difference:.2g}{values}; expected {tolerance:g} at most"
                f"{', relative to theirs' if is_relative else ''}: the two don't compute the same, so their times "
                "can't be compared."
            )
        largest = max(largest, difference)
        numbers |= {key: (float(own[key]), float(expected))} if np.ndim(expected) == 0 else {}
    return {"difference": largest, **numbers}


def alternate(programs: Mapping[str, Program], pairs: int, *, seconds: float = 0.0) -> dict[str, list[float]]:
    """Returns the seconds per call of each program, a number for each round.

    All programs run in turn in each round, and the order is reversed from round to round, so none is always first.

    Args:
      programs: by name.
      pairs: rounds.
      seconds: the least time of one timing, in which a program is repeated.
    """
    repeats = {}
    for name, program in programs.items():
        program()  # compiles and allocates
        repeats[name] = max(1, round(0.5 + seconds / _seconds(program, 1)))
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(pairs):
        for name in programs if number % 2 == 0 else reversed(list(programs)):
            times[name].append(_seconds(programs[name], repeats[name]))
    return times


def _seconds(program: Program, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        program()
    return (time.perf_counter() - begin) / repeats


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Returns the median, least and largest of the rounds' ratios."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def run(case: ModuleType, options: Any) -> dict[str, Any]:
    """Prepares this process, runs a case and prints its tables; returns what the JSON file holds.

    Raises:
      ModuleNotFoundError: the case needs a package that is missing.
      UserError: the machine has too few cores, or results differ.
    """
    if hasattr(options, "threads"):
        machine.limit_threads(options.threads)
    kept = getattr(options, "keep_memory", False) and machine.keep_memory()
    packages = ["jax", *getattr(case, "PACKAGES", ())]
    for package in packages:
        module = importlib.import_module(package)
        set_threads = getattr(module, "set_num_threads", getattr(module, "omp_set_num_threads", None))
        if set_threads and hasattr(options, "threads"):
            set_threads(options.threads)
    about = {
        "case": case.__name__.rpartition(".")[2],
        "cpu": machine.cpu_model(),
        "versions": ", ".join([f"python {platform.python_version()}", *map(_version, packages)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "freed memory": "kept" if kept else "given back",
        "options": {name: value for name, value in vars(options).items() if name != "config"},
        **case.NOTES,
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    tables = case.compare(options)
    print(markdown(tables))
    return {**about, **tables}


def _version(package: str) -> str:
    distribution = {"faiss": "faiss-cpu", "PIL": "pillow"}.get(package, package)
    return f"{distribution} {importlib.metadata.version(distribution)}"


def markdown(tables: Mapping[str, Table]) -> str:
    """Returns tables as Markdown; a list of rounds is shown as its median (least to largest)."""
    lines = []
    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        if not rows:
            continue
        lines += ["", f"| {title} | {' | '.join(columns)} |", f"|{'---|' * (1 + len(columns))}"]
        for name, cells in rows.items():
            shown = (_cell(cells[column]) if column in cells else "" for column in columns)
            lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_number, value))
    if isinstance(value, list):
        return f"{_number(statistics.median(value))} ({_number(min(value))} to {_number(max(value))})"
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    """Formats a number with four digits, and T, G or M for a large one."""
    for letter, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if math.isfinite(value) and abs(value) >= factor:
            return f"{value / factor:.4g} {letter}"
    return f"{value:.4g}"
