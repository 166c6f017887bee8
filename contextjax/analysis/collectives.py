"""Bytes that a compiled program sends between devices, read from its optimised HLO text.

`compiled.as_text()` is the program of one device, so every figure is *bytes sent by one device* (the busiest, where
they differ) in one run of the program. Every kind counts the bytes of its bandwidth-optimal (ring) algorithm, with n
devices in a group and R bytes of result on a device. Only an all-reduce on a switch that adds (a tree) sends less:

  all-gather          R (n - 1) / n       each device passes on all parts but one
  reduce-scatter      R (n - 1)           its operand has n R bytes
  all-reduce          2 R (n - 1) / n     a reduce-scatter, then an all-gather
  all-to-all          R (n - 1) / n       all parts but its own
  collective-permute  R                   0 where every device sends to itself

A loop's body counts as often as it runs; a conditional counts as the branch that sends most. The types are those of
the compiled program: XLA's CPU backend, for one, sends bfloat16 as float32. A TPU's program has collectives inside
fusions. An asynchronous one appears in each of its steps and counts once; an all-reduce whose fusion returns only a
device's share counts as a reduce-scatter.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

from contextjax.analysis.hlo import Instruction, Program, Run, members, parse, runs, shapes

KINDS: tuple[str, ...] = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
SLICED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
NAMED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{((?:'[^':]+',?)*)\}"
)
CHAIN = re.compile(r'\bchain_id="(\w+)"')  # of a TPU's collective that runs during several other instructions


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program."""

    kind: str  # one of KINDS
    sent: float  # bytes that a device sends each time
    group: int  # devices that take part together
    span: int  # device numbers from the first to the last of a group: how far it reaches
    times: int  # how often it runs in one run of the program
    is_exact: bool  # False: a loop around it does not state how often it runs, and counts once
    source: str  # the operation of the traced program that it comes from; "" where XLA does not name it
    dtype: str = ""  # of what is sent

    @property
    def total(self) -> float:
        """Bytes that a device sends in one run of the program."""
        return self.sent * self.times


def collectives(text: str) -> tuple[Collective, ...]:
    """Returns the collective operations of an optimised HLO module, the text of `compiled.as_text()`.

    Synchronous and asynchronous (`-start`) forms count alike; a `-done` is its start's.

    Raises:
      ValueError: the text has no entry computation, or groups of devices are written in an unknown way.
    """
    return collectives_of(parse(text))


def collectives_of(program: Program) -> tuple[Collective, ...]:
    """Returns the collective operations of a parsed module, see `collectives`."""
    weight = lambda run: sum(operation.total for operation in _of(program, run))
    seen: set[tuple[str, ...]] = set()
    return tuple(operation for run in runs(program, weight) for operation in _of(program, run, seen))


def bytes_sent(operations: Iterable[Collective]) -> dict[str, float]:
    """Returns the bytes that a device sends in one run of the program, for every kind of KINDS."""
    sums = dict.fromkeys(KINDS, 0.0)
    for operation in operations:
        sums[operation.kind] += operation.total
    return sums


def bytes_by_type(operations: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """Returns the bytes that a device sends, by kind of collective and element type, without entries of zero bytes."""
    sums: dict[str, dict[str, float]] = {}
    for operation in operations:
        if operation.total:
            of_kind = sums.setdefault(operation.kind, {})
            of_kind[operation.dtype] = of_kind.get(operation.dtype, 0.0) + operation.total
    return sums


def _of(program: Program, run: Run, seen: set[tuple[str, ...]] | None = None) -> Iterator[Collective]:
    """Returns the collectives of an instruction or a fusion; none for a chain that was counted before."""
    for kind, instruction, result in _inside(program, run.instruction):
        if chain := CHAIN.search(instruction.attributes):
            channel = re.search(r"channel_id=\d+", instruction.attributes)
            key = (run.computation, kind, channel[0] if channel else "", chain[1])
            if seen is not None and key in seen:
                continue
            (set() if seen is None else seen).add(key)
        source = re.search(r'op_name="([^"]*)"', instruction.attributes or run.instruction.attributes)
        permutes = kind == "collective-permute"
        group, span = _pairs(instruction.attributes) if permutes else _group(instruction.attributes, program.devices)
        arrays = shapes(result)
        dtype = max(arrays, key=lambda array: array.bytes).dtype if arrays else ""
        sent = _sent(kind, sum(array.bytes for array in arrays), group)
        yield Collective(kind, sent, group, span, run.times, run.is_exact, source[1] if source else "", dtype)


def _inside(program: Program, instruction: Instruction) -> Iterator[tuple[str, Instruction, str]]:
    """Yields (kind, instruction, type of the result) of each collective in an instruction or a fusion."""
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS:
        # A start's tuple also holds its operands and contexts.
        is_tuple = instruction.opcode.endswith("-start") and kind != "all-reduce"
        yield kind, instruction, members(instruction.type)[1] if is_tuple else instruction.type
    elif instruction.opcode == "fusion":
        for called in instruction.called:
            for inner in program.computations.get(called, {}).values():
                for kind, each, result in _inside(program, inner):
                    scatters = kind == "all-reduce" and "all-reduce-scatter" in called
                    yield ("reduce-scatter", each, instruction.type) if scatters else (kind, each, result)


def _sent(kind: str, size: float, group: int) -> float:
    """Bytes that a device sends for `size` bytes of result, by the formulas of the module's docstring."""
    if kind == "collective-permute":
        return size if group > 1 else 0.0
    share = (group - 1) / group
    return size * {"all-reduce": 2 * share, "reduce-scatter": group - 1.0}.get(kind, share)


def _pairs(rest: str) -> tuple[int, int]:
    """(2, the widest distance + 1) of a permutation's pairs; (1, 1) where every device sends to itself."""
    pairs = PAIRS.search(rest)
    distances = [abs(int(a) - int(b)) for a, b in re.findall(r"(\d+),(\d+)", pairs[1] if pairs else "")]
    widest = max(distances, default=0)
    return (2, widest + 1) if widest else (1, 1)


def _group(rest: str, devices: int) -> tuple[int, int]:
    """(devices, span) of the largest group, from any of XLA's notations; no groups are one group of all."""
    if sliced := SLICED.search(rest):
        rows = _numbers(sliced[2], sliced[3]).reshape(-1, int(sliced[1]))
    elif named := NAMED.search(rest):  # mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}: along these axes
        axes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        sizes, inside = (
            [int(size) for size in axes.values()],
            [name in re.findall(r"'([^']+)'", named[4]) for name in axes],
        )
        order = sorted(range(len(sizes)), key=inside.__getitem__)
        count = math.prod(size for size, within in zip(sizes, inside, strict=True) if within)
        rows = _numbers(named[2] or str(math.prod(sizes)), named[3]).reshape(sizes).transpose(order).reshape(-1, count)
    elif listed := LISTED.search(rest):
        groups = [[int(number) for number in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
        rows = np.asarray([max(groups, key=len, default=range(devices))])
    else:
        raise ValueError(f"the groups of a collective are written in an unknown way: {rest[:200]}")
    return rows.shape[1], int(np.ptp(rows, axis=1).max()) + 1


def _numbers(dimensions: str, order: str | None) -> np.ndarray:
    """Device numbers in the order that `[dimensions]T(order)` says."""
    sizes = [int(size) for size in dimensions.split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose([int(axis) for axis in order.split(",")]) if order else numbers
