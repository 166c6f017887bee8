"""The memory that a compiled program moves and the matrix FLOPs that it computes, instruction by instruction.

Traffic is what a device's main memory (HBM) reads and writes: the operands and results of every instruction of the
optimised HLO module, filled up to whole tiles, as often as it runs. Memory beside the cores (a TPU's VMEM) is left out,
and so are instructions that move nothing: views, tuples, the carries of loops. A fusion that slices an operand reads
only the slices; a fusion that updates an array in place writes only the update. Caches (a GPU's L2) are not known here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

from contextjax.analysis.collectives import CHAIN
from contextjax.analysis.hlo import Instruction, Program, Run, Shape, members, parse, runs, shapes

NOTHING = {  # opcodes that move no memory
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "add-dependency", "get-dimension-size",
}  # fmt: skip
VIEWS = ("AllocateBuffer", "ConcatBitcast", "AsyncCollectiveStart", "Sharding", "annotate_device_placement")
SLICES = ("dynamic-slice", "slice", "gather")
PASSED = re.compile(r"\{([\d,]*)\}: \((\d+), \{[\d,]*\}\)")


@dataclasses.dataclass(frozen=True)
class Work:
    """An instruction's work in one run of the program, over all its repetitions."""

    run: Run
    read: float  # bytes
    written: float  # bytes
    flops: float  # of matrix products and convolutions

    @property
    def moved(self) -> float:
        """Bytes read and written."""
        return self.read + self.written

    @property
    def source(self) -> str:
        """The operation of the traced program that the instruction comes from; "" where XLA does not name it."""
        match = re.search(r'op_name="([^"]*)"', self.run.instruction.attributes)
        return match[1] if match else ""


def traffic(text: str) -> list[Work]:
    """Returns the work of every instruction that a device runs, from the text of `compiled.as_text()`."""
    program = parse(text)
    weigh = lambda run: _work(program, run).moved
    return [_work(program, run) for run in runs(program, weigh)]


def seconds(works: list[Work], *, peak: float, bandwidth: float) -> float:
    """Returns the least time of the instructions, one after the other: each by its FLOPs or by its bytes."""
    return sum(max(work.flops / peak, work.moved / bandwidth) for work in works)


def _work(program: Program, run: Run) -> Work:
    reading = _Reading(program, run.computation)
    read, written = reading.moved(run.instruction)
    return Work(run, run.times * read, run.times * written, run.times * reading.flops(run.instruction))


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One computation of a program, and the bytes and FLOPs of its instructions."""

    program: Program
    computation: str

    @property
    def instructions(self) -> dict[str, Instruction]:
        """The instructions of the computation by name."""
        return self.program.computations[self.computation]

    def shapes(self, name: str) -> tuple[Shape, ...]:
        """Returns the arrays of an operand; none if the text does not have it."""
        return self.instructions[name].shapes if name in self.instructions else ()

    def moved(self, instruction: Instruction) -> tuple[float, float]:
        """(bytes read, bytes written) of main memory, each time."""
        opcode, operands = instruction.opcode, instruction.operands
        if (
            opcode in NOTHING
            or opcode.endswith(("-done", "-update"))
            or any(v in instruction.attributes for v in VIEWS)
        ):
            return 0.0, 0.0
        if opcode == "fusion" and instruction.called:
            return self._fusion(instruction)
        result = _held(shapes(members(instruction.type)[_result(opcode)])) if _is_started(opcode) else None
        if opcode == "custom-call" and instruction.type.startswith("("):  # libraries have bytes to work in
            result = _held([shape for shape in instruction.shapes if shape.dtype not in ("s8", "u8")])
        result = _held(instruction.shapes) if result is None else result
        if opcode in SLICES or opcode == "slice-start":
            indices = sum(_held(self.shapes(name)) for name in operands[1:])
            sliced = result if _is_held(self.shapes(operands[0])) and result else _sliced(self, instruction)
            return sliced + indices, result
        if opcode == "dynamic-update-slice":
            update = self.shapes(operands[1])
            return _held(update), _size(update) if _is_held(instruction.shapes) else 0.0
        if opcode == "scatter":
            updates = self.shapes(operands[-1])
            touched = _size(updates) if _is_held(instruction.shapes) else 0.0
            return _held(updates) + touched + _held(self.shapes(operands[-2])), touched
        return sum(_held(self.shapes(name)) for name in operands), result

    def _fusion(self, fusion: Instruction) -> tuple[float, float]:
        called = fusion.called[0]
        inner = _Reading(self.program, called)
        passed = PASSED.findall(fusion.attributes.partition("output_to_operand_aliasing=")[2].partition("calls=")[0])
        chained = passed and any(CHAIN.search(each.attributes) for each in inner.instructions.values())
        # A collective that runs during several instructions is handed from one to the next.
        skipped = {int(number) for _, number in passed} if chained else set()
        outputs = {int(place or 0) for place, _ in passed} if chained else set()
        read = sum(
            min(_held(self.shapes(name)), inner.read_of_parameter(i))
            for i, name in enumerate(fusion.operands)
            if i not in skipped and _is_held(self.shapes(name))
        )
        results = inner.results()
        written = 0.0
        for i, shape in enumerate(fusion.shapes):
            if shape.is_in_main_memory and i not in outputs:
                written += min(shape.padded, results[i]) if len(results) == len(fusion.shapes) else shape.padded
        return read, written

    def read_of_parameter(self, number: int) -> float:
        """Returns the bytes that a fusion reads of one of its parameters: only the slices if it is only sliced."""
        name = next(
            (n for n, i in self.instructions.items() if i.opcode == "parameter" and i.arguments.strip() == str(number)),
            "",
        )
        return self._read(name) if name else 0.0

    def _read(self, name: str) -> float:
        total, full = 0.0, math.inf
        for user in self.program.users(self.computation).get(name, ()):
            if user.opcode in SLICES and user.operands[0] == name:
                total += _size(user.shapes)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                continue  # in place
            elif user.opcode == "bitcast":
                total += self._read(user.name)
            elif user.opcode == "fusion" and user.called:
                inner = _Reading(self.program, user.called[0])
                total += sum(inner.read_of_parameter(i) for i, each in enumerate(user.operands) if each == name)
            else:
                return full
        return total

    def results(self) -> list[float]:
        """Returns the bytes that a fusion writes for each of its results: for an update in place, only the update."""
        root = self.program.root(self.computation)
        return [self._written(name) for name in (root.operands if root.opcode == "tuple" else (root.name,))]

    def _written(self, name: str) -> float:
        instruction = self.instructions.get(name)
        while instruction and instruction.opcode in ("bitcast", "copy") and instruction.operands:
            instruction = self.instructions.get(instruction.operands[0])
        if instruction is None:
            return math.inf
        if instruction.opcode == "dynamic-update-slice":
            return _size(self.shapes(instruction.operands[1]))
        if instruction.opcode == "fusion" and instruction.called:
            results = _Reading(self.program, instruction.called[0]).results()
            return results[0] if len(results) == 1 else math.inf
        return math.inf

    def flops(self, instruction: Instruction) -> float:
        """FLOPs of the matrix products of an instruction, two for each multiply-add, those inside a fusion too."""
        if instruction.opcode == "fusion":
            return sum(
                inner.flops(each)
                for called in instruction.called
                for inner in [_Reading(self.program, called)]
                for each in inner.instructions.values()
            )
        if instruction.opcode == "convolution":
            return self._convolution(instruction)
        contracted = re.search(r'lhs_contracting_(?:dims|dimensions)"?[=:][\[{]([^\]}]*)[\]}]', instruction.attributes)
        if (
            instruction.opcode == "dot" or "gemm" in instruction.attributes or "matmul" in instruction.attributes
        ) and contracted:
            left = self.shapes(instruction.operands[0])
            axes = [int(axis) for axis in re.findall(r"\d+", contracted[1])]
            if left and instruction.shapes:
                return 2.0 * instruction.shapes[0].elements * math.prod(left[0].sizes[axis] for axis in axes)
        return 0.0

    def _convolution(self, instruction: Instruction) -> float:
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
        left, right = (self.shapes(name) for name in instruction.operands[:2])
        if not labels or not left or not right or not instruction.shapes:
            return 0.0
        of_input, of_kernel, of_output = labels.groups()
        size = lambda shape, axes, letter: shape.sizes[axes.index(letter)]
        features = size(right[0], of_kernel, "i") * size(right[0], of_kernel, "o")
        total = 2.0 * features * size(instruction.shapes[0], of_output, "b")
        window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
        options = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
        for place, letter in enumerate(sorted(set(of_input) - {"b", "f"})):
            option = lambda name, default, place=place: options.get(name, "x".join([default] * 9)).split("x")[place]
            total *= _taps(
                size(left[0], of_input, letter), size(right[0], of_kernel, letter),
                size(instruction.shapes[0], of_output, letter), int(option("stride", "1")),
                int(option("pad", "0_0").split("_")[0]), int(option("lhs_dilate", "1")), int(option("rhs_dilate", "1")),
            )  # fmt: skip
        groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
        return total / (int(groups[1]) if groups else 1)


@functools.lru_cache(maxsize=4096)
def _taps(size: int, kernel: int, output: int, stride: int, pad: int, spread: int, dilation: int) -> int:
    """The pairs of output and kernel positions of a convolution's axis whose input is neither padding nor a gap."""
    count, end = 0, (size - 1) * spread
    for tap in range(kernel):
        first = tap * dilation - pad
        if spread == 1:
            low, high = -(first // stride), (end - first) // stride
            count += max(0, min(high, output - 1) - max(low, 0) + 1)
        else:
            count += sum(0 <= (at := first + out * stride) <= end and at % spread == 0 for out in range(output))
    return count


def _result(opcode: str) -> int:
    return 0 if opcode == "copy-start" else 1


def _is_started(opcode: str) -> bool:
    """True if an opcode's tuple also holds its operands and contexts."""
    return opcode.endswith("-start") and opcode != "all-reduce-start"


def _sliced(reading: _Reading, instruction: Instruction) -> float:
    """Bytes that a slice reads of main memory, where its result lies elsewhere."""
    if not _is_held(reading.shapes(instruction.operands[0])):
        return 0.0
    result = members(instruction.type)[1] if _is_started(instruction.opcode) else instruction.type
    return _size(tuple(shapes(result)))


def _size(arrays: tuple[Shape, ...] | list[Shape]) -> float:
    return sum(array.padded for array in arrays)


def _held(arrays: tuple[Shape, ...] | list[Shape]) -> float:
    """Bytes of the arrays that lie in main memory."""
    return sum(array.padded for array in arrays if array.is_in_main_memory)


def _is_held(arrays: tuple[Shape, ...] | list[Shape]) -> bool:
    return any(array.is_in_main_memory for array in arrays)
