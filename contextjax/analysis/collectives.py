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

KINDS: tuple[str, ...] = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)')
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]<=|\{((?:\{[\d,]*\},?)*)\})")
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program."""

    kind: str  # one of KINDS
    sent: float  # bytes that a device sends each time
    times: int  # how often it runs in one run of the program
    is_exact: bool  # False: a loop around it does not state how often it runs, and counts once
    source: str  # the operation of the traced program that it comes from; "" where XLA does not say

    @property
    def total(self) -> float:
        """Bytes that a device sends in one run of the program."""
        return self.sent * self.times


def collectives(text: str) -> tuple[Collective, ...]:
    """The collective operations of an optimised HLO module, as `compiled.as_text()` gives it.

    Synchronous and asynchronous (`-start`) forms count alike; a `-done` is its start's.

    Raises:
      ValueError: the text has no entry computation, or groups of devices are written in an unknown way.
    """
    computations, entry = _computations(text)
    devices = math.prod(map(int, re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])))
    return tuple(_walk(computations, entry, devices, 1, True))


def bytes_sent(found: Iterable[Collective]) -> dict[str, float]:
    """Bytes that a device sends in one run of the program, by kind; every one of KINDS is there."""
    sums = dict.fromkeys(KINDS, 0.0)
    for operation in found:
        sums[operation.kind] += operation.total
    return sums


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Instructions (without their names) of every computation, and which one is the program."""
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
            sent = _sent(kind, _payload(result, opcode), rest, devices)
            yield Collective(kind, sent, times, is_exact, source[1] if source else "")
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


def _sent(kind: str, size: float, rest: str, devices: int) -> float:
    """Bytes that a device sends for `size` bytes of result, by the formulas of the module's docstring."""
    if kind == "collective-permute":
        pairs = PAIRS.search(rest)
        moves = re.findall(r"(\d+),(\d+)", pairs[1] if pairs else "")
        return size if any(source != target for source, target in moves) else 0.0
    n = _group(rest, devices)
    share = (n - 1) / n
    return size * {"all-reduce": 2 * share, "reduce-scatter": n - 1.0}.get(kind, share)


def _group(rest: str, devices: int) -> int:
    """Devices of the largest group, from any of XLA's notations; no groups are one group of all."""
    written = GROUPS.search(rest)
    if not written:
        raise ValueError(f"the groups of a collective are written in an unknown way: {rest[:200]}")
    if written[1]:
        return int(written[1])
    return max((len(group.split(",")) for group in re.findall(r"\{([\d,]+)\}", written[2])), default=devices)
