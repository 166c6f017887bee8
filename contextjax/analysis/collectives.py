"""Bytes that a compiled program sends between devices, read from its optimised HLO text.

`compiled.as_text()` is the program of one device, so every figure is *bytes sent by one device* (the busiest, where
they differ) in one run of the program. By kind, with n devices in a group and R bytes of result on a device, they are
those of the bandwidth-optimal (ring) algorithms, which no algorithm undercuts but for the tree's all-reduce on a switch
that adds:

  all-gather          R (n - 1) / n       each device passes on all parts but one
  reduce-scatter      R (n - 1)           its operand has n R bytes
  all-reduce          2 R (n - 1) / n     a reduce-scatter, then an all-gather
  all-to-all          R (n - 1) / n       all parts but its own
  collective-permute  R                   0 where every device sends to itself

A loop's body counts as often as XLA states that it runs; a conditional counts as its most expensive branch. The types
are those of the compiled program: XLA's CPU backend, for one, sends bfloat16 as float32.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

KINDS: tuple[str, ...] = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)')
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
SLICED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
NAMED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{((?:'[^':]+',?)*)\}"
)
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")


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
    computations, entry = _computations(text)
    devices = math.prod(map(int, re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])))
    return tuple(_walk(computations, entry, devices, 1, True))


def bytes_sent(operations: Iterable[Collective]) -> dict[str, float]:
    """Returns the bytes that a device sends in one run of the program, for every kind of KINDS."""
    sums = dict.fromkeys(KINDS, 0.0)
    for operation in operations:
        sums[operation.kind] += operation.total
    return sums


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Instructions (without their names) of every computation, and the name of the entry computation."""
    computations: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if (head := COMPUTATION.match(line)) and not line.startswith("HloModule"):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (instruction := INSTRUCTION.match(line)):
            computations[current].append(instruction[1])
    if not entry:
        raise ValueError("the text has no ENTRY computation; expected compiled.as_text()")
    return computations, entry


def _walk(
    computations: dict[str, list[str]], name: str, devices: int, times: int, is_exact: bool
) -> Iterator[Collective]:
    """The collectives of a computation that runs `times` times, and of those it calls."""
    for instruction in computations.get(name, ()):
        result, opcode, rest = _split(instruction)
        kind = opcode.removesuffix("-start")
        if kind in KINDS:
            source = re.search(r'op_name="([^"]*)"', rest)
            group, span = _pairs(rest) if kind == "collective-permute" else _group(rest, devices)
            sent = _sent(kind, _payload(result, opcode), group)
            yield Collective(kind, sent, group, span, times, is_exact, source[1] if source else "")
        elif opcode == "conditional":
            names = [branch for group in BRANCHES.findall(rest) for branch in re.findall(r"[\w.\-]+", group)]
            branches = [tuple(_walk(computations, n, devices, times, is_exact)) for n in names or CALLED.findall(rest)]
            yield from max(branches, key=lambda branch: sum(operation.total for operation in branch), default=())
        elif opcode not in ("async-update", "async-done"):  # which name what their async-start has counted
            trips = TRIPS.search(rest) if opcode == "while" else None
            inner = times * int(trips[1]) if trips else times
            for called in CALLED.findall(rest):
                yield from _walk(computations, called, devices, inner, is_exact and (opcode != "while" or bool(trips)))


def _split(instruction: str) -> tuple[str, str, str]:
    """(type, opcode, what follows) of `type opcode(operands), attributes`."""
    end = instruction.index(" ")
    while instruction.count("(", 0, end) > instruction.count(")", 0, end):
        end = instruction.index(" ", end + 1)
    opcode, _, rest = instruction[end + 1 :].partition("(")
    return instruction[:end], opcode, rest


def _payload(result: str, opcode: str) -> float:
    """Bytes of a collective's result; a start's tuple also holds its operands and contexts."""
    if opcode.endswith("-start") and opcode != "all-reduce-start":
        result = _members(result)[1]
    return sum(_size(dtype, dimensions) for dtype, dimensions in ARRAY.findall(result))


def _members(tuple_type: str) -> list[str]:
    """The members of a tuple's type, themselves tuples or not."""
    members, depth, begin = [], 0, 1
    for i, letter in enumerate(tuple_type):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if (letter == "," and depth == 1) or depth == 0:
            members.append(tuple_type[begin:i])
            begin = i + 1
    return members


def _size(dtype: str, dimensions: str) -> float:
    """Bytes of an array; of a token, none."""
    bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or ["0"])[0])
    for size in filter(None, dimensions.replace("<=", "").split(",")):
        bits *= int(size)
    return bits / 8


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
