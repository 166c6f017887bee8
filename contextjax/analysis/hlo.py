"""The text of an optimised HLO module, `compiled.as_text()`, as instructions, and how often each of them runs.

The text is that of any of XLA's backends: CPU, TPU and GPU write attributes, layouts and loops differently.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)')
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
TILE = re.compile(r"T\(([\d,]+)\)")
SPACE = re.compile(r"S\((\d+)\)")
MOST_STEPS = 1 << 20  # of a loop whose condition is computed step by step
COUNTED = {
    "LT": lambda a, b: a < b, "LE": lambda a, b: a <= b, "GT": lambda a, b: a > b, "GE": lambda a, b: a >= b,
    "NE": lambda a, b: a != b, "EQ": lambda a, b: a == b,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array in a device's memory."""

    dtype: str
    sizes: tuple[int, ...]
    layout: str  # what XLA writes in braces: order, tiles, memory space

    @property
    def bits(self) -> int:
        """The bits of an element; 0 for a token."""
        return 8 if self.dtype == "pred" else int((re.search(r"\d+", self.dtype) or ["0"])[0])

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> float:
        """The bytes of the elements."""
        return self.elements * self.bits / 8

    @property
    def padded(self) -> float:
        """The bytes that the array takes in memory, filled up to whole tiles."""
        sizes = list(self.sizes)
        if (tile := TILE.search(self.layout)) and sizes:
            minor = [int(axis) for axis in self.layout.partition(":")[0].split(",") if axis]
            for axis, size in zip(minor, reversed(_numbers(tile[1])), strict=False):
                sizes[axis] = -(-sizes[axis] // size) * size
        return math.prod(sizes) * self.bits / 8

    @property
    def is_in_main_memory(self) -> bool:
        """True if the array lies in the device's main memory (HBM), not beside the cores or on the host."""
        space = SPACE.search(self.layout)
        return not space or space[1] == "0"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: `name = type opcode(arguments), attributes`."""

    name: str
    type: str
    opcode: str
    arguments: str
    attributes: str

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """The names of the operands."""
        if "%" in self.arguments:
            return tuple(re.findall(r"%([\w.\-]+)", self.arguments))
        return tuple(part.split()[-1] for part in self.arguments.split(",") if part.strip())

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays of the result; several where it is a tuple."""
        return tuple(shapes(self.type))

    @property
    def called(self) -> list[str]:
        """The names of the computations that the instruction calls, other than branches."""
        return CALLED.findall(self.attributes)


@dataclasses.dataclass(frozen=True)
class Program:
    """A module: the instructions of each computation by name, in the order in which they run."""

    computations: dict[str, dict[str, Instruction]]
    roots: dict[str, str]  # computation -> the name of its result
    entry: str
    devices: int

    @functools.cached_property
    def _users(self) -> dict[str, dict[str, list[Instruction]]]:
        return {}

    def users(self, computation: str) -> dict[str, list[Instruction]]:
        """Returns the instructions of a computation that use a value, by the name of the value."""
        if computation not in self._users:
            users: dict[str, list[Instruction]] = {}
            for instruction in self.computations[computation].values():
                for name in dict.fromkeys(instruction.operands):
                    users.setdefault(name, []).append(instruction)
            self._users[computation] = users
        return self._users[computation]

    def root(self, computation: str) -> Instruction:
        """Returns the instruction whose result is the computation's."""
        return self.computations[computation][self.roots[computation]]


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction that a device runs, outside fusions."""

    instruction: Instruction
    computation: str
    times: int  # how often in one run of the program
    is_exact: bool  # False: a loop around it does not say how often it runs, and counts once


def parse(text: str) -> Program:
    """Returns the module of a text.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    roots: dict[str, str] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if line[:1] not in ("", " ", "}") and not line.startswith("HloModule") and (head := COMPUTATION.match(line)):
            current = head[2]
            computations[current] = {}
            entry = current if head[1] else entry
        elif current and (match := INSTRUCTION.match(line)):
            instruction = _instruction(match[2], match[3])
            computations[current][match[2]] = instruction
            if match[1] or current not in roots:
                roots[current] = match[2]
    if not entry:
        raise ValueError("the text has no ENTRY computation; expected compiled.as_text()")
    devices = math.prod(map(int, re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])))
    return Program(computations, roots, entry, devices)


def runs(program: Program, weigh: Callable[[Run], float]) -> list[Run]:
    """Returns the instructions that a device runs; a conditional counts as the branch whose instructions weigh most.

    Calls of other computations, loops and conditionals are replaced by the instructions inside them.
    """
    return list(_runs(program, program.entry, 1, True, weigh))


def _runs(program: Program, name: str, times: int, is_exact: bool, weigh: Callable[[Run], float]) -> Iterator[Run]:
    inside = lambda called, times, is_exact: _runs(program, called, times, is_exact, weigh)
    for instruction in program.computations.get(name, {}).values():
        if instruction.opcode == "conditional":
            names = [
                each for group in BRANCHES.findall(instruction.attributes) for each in re.findall(r"[\w.\-]+", group)
            ]
            branches = [list(inside(each, times, is_exact)) for each in names or instruction.called]
            yield from max(branches, key=lambda branch: sum(weigh(run) for run in branch), default=())
        elif instruction.opcode == "while":
            trips = trip_count(program, name, instruction)
            for called in instruction.called:
                yield from inside(called, times * (trips or 1), is_exact and trips is not None)
        elif instruction.opcode in ("call", "async-start"):
            for called in instruction.called:
                yield from inside(called, times, is_exact)
        elif instruction.opcode not in ("async-update", "async-done"):  # whose work their async-start has
            yield Run(instruction, name, times, is_exact)


def trip_count(program: Program, computation: str, loop: Instruction) -> int | None:
    """Returns how often a loop runs: as XLA states it, or from a counter that its condition compares; None: unknown."""
    if stated := TRIPS.search(loop.attributes):
        return int(stated[1])
    body, condition = (re.search(rf"\b{name}=%?([\w.\-]+)", loop.attributes) for name in ("body", "condition"))
    if not body or not condition:
        return None
    test = _comparison(program, condition[1])
    direction = re.search(r"direction=(\w\w)", test.attributes) if test else None
    if test is None or direction is None or len(test.operands) != 2:
        return None
    holds = COUNTED[direction[1]]
    for index, swapped in ((0, False), (1, True)):
        counter, bound = test.operands[index], test.operands[1 - index]
        position = _carried(program, condition[1], counter)
        limit = _value(program, condition[1], bound, computation, loop)
        if position is None or limit is None or _carried(program, condition[1], bound) == position:
            continue
        first = _initial(program, computation, loop, position)
        step = _step(program, body[1], position, computation, loop)
        if first is None or not step:
            continue
        count = 0
        while holds(limit, first) if swapped else holds(first, limit):
            count, first = count + 1, first + step
            if count > MOST_STEPS:
                return None
        return count
    return None


def _comparison(program: Program, condition: str) -> Instruction | None:
    """Returns the comparison that a condition computes, looking through fusions of the same operands."""
    root = program.root(condition)
    if root.opcode == "fusion" and root.called:
        inner = program.root(root.called[0])
        numbers = [_parameter(program, root.called[0], name) for name in inner.operands]
        if inner.opcode != "compare" or None in numbers:
            return None
        outer = ", ".join(f"%{root.operands[number]}" for number in numbers if number is not None)
        return dataclasses.replace(inner, arguments=outer)
    return root if root.opcode == "compare" else None


def _parameter(program: Program, computation: str, name: str) -> int | None:
    instruction = program.computations[computation].get(name)
    return int(instruction.arguments) if instruction and instruction.opcode == "parameter" else None


def _through(program: Program, computation: str, name: str) -> Instruction | None:
    """Returns the instruction that computes a value, looking through copies of it."""
    instruction = program.computations[computation].get(name)
    while instruction and instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start") and instruction.operands:
        instruction = program.computations[computation].get(instruction.operands[0])
    return instruction


def _carried(program: Program, computation: str, name: str) -> int | None:
    """Returns the position in a loop's carry from which a value of its body or condition comes; None if it does not."""
    instruction = _through(program, computation, name)
    if instruction and instruction.opcode == "get-tuple-element":
        source = program.computations[computation].get(instruction.operands[0])
        index = re.search(r"index=(\d+)", instruction.attributes)
        if source and source.opcode == "parameter" and index:
            return int(index[1])
    return None


def _initial(program: Program, computation: str, loop: Instruction, position: int) -> int | None:
    """The constant that a loop's carry begins with at a position."""
    carry = _through(program, computation, loop.operands[0])
    if carry is None or carry.opcode != "tuple" or position >= len(carry.operands):
        return None
    return _value(program, computation, carry.operands[position])


def _value(
    program: Program, computation: str, name: str, outer: str = "", loop: Instruction | None = None
) -> int | None:
    """The whole number that a value is: a constant, or one that a loop carries from outside."""
    instruction = _through(program, computation, name)
    if instruction and instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.arguments):
        return int(instruction.arguments)
    position = _carried(program, computation, name) if loop else None
    return None if loop is None or position is None else _initial(program, outer, loop, position)


def _step(program: Program, body: str, position: int, computation: str, loop: Instruction) -> int | None:
    """The constant that a loop's body adds to its carry at a position."""
    carry = program.root(body)
    if carry.opcode != "tuple" or position >= len(carry.operands):
        return None
    added, scope = _through(program, body, carry.operands[position]), body
    names: Sequence[str] = added.operands if added else ()
    if added and added.opcode == "fusion" and added.called:
        scope, outer = added.called[0], added.operands
        inner = program.root(scope)
        if inner.opcode != "add":
            return None
        numbers = [_parameter(program, scope, name) for name in inner.operands]
        names = [name if n is None else outer[n] for n, name in zip(numbers, inner.operands, strict=True)]
        values = [
            _value(program, scope, name) if n is None else _value(program, body, outer[n], computation, loop)
            for n, name in zip(numbers, inner.operands, strict=True)
        ]
    elif added and added.opcode == "add":
        values = [_value(program, body, name, computation, loop) for name in names]
    else:
        return None
    carried = [_carried(program, body, name) == position for name in names]
    if carried == [True, False]:
        return values[1]
    return values[0] if carried == [False, True] else None


def shapes(type_text: str) -> list[Shape]:
    """Returns the arrays of a type in order; a tuple gives those of all its members."""
    return [Shape(dtype, tuple(_numbers(sizes)), layout) for dtype, sizes, layout in ARRAY.findall(type_text)]


def members(tuple_type: str) -> list[str]:
    """Returns the types of a tuple's members, themselves tuples or not."""
    parts, depth, begin = [], 0, 1
    for i, letter in enumerate(tuple_type):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(tuple_type[begin:i])
            begin = i + 1
    return parts


def _instruction(name: str, line: str) -> Instruction:
    """The instruction of `type opcode(arguments), attributes`."""
    end = line.index(" ")
    while line.count("(", 0, end) > line.count(")", 0, end):
        end = line.index(" ", end + 1)
    opcode, _, rest = line[end + 1 :].partition("(")
    depth = 1
    for place in re.finditer(r"[()]", rest):
        depth += 1 if place[0] == "(" else -1
        if not depth:
            return Instruction(name, line[:end], opcode, rest[: place.start()], rest[place.end() :])
    return Instruction(name, line[:end], opcode, rest, "")


def _numbers(text: str) -> list[int]:
    return [int(size) for size in text.replace("<=", "").split(",") if size]
