"""Graph collects the nodes and constants of an ONNX graph, and the sizes that are known only when it runs."""

from __future__ import annotations

import ast
import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax.extend.core
import numpy as np


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph. Unless it is `full`, the axes that it is broadcast along still have size 1."""

    name: str
    full: bool = True


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A parameter as int8, and its scales float32, of size 1 along the axes that have one in common."""

    name: str
    scale: str
    scale_shape: tuple[int, ...]


class Graph:
    """Nodes and constants of a graph, and which tensor each variable of the traced program is."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: dict[Any, Any] = {}
        self.values: dict[Any, Value] = {}
        self.sizes: dict[str, str] = {}  # free axis -> int64 [1]
        self.quantized: dict[Any, Quantized] = {}  # variables that are int8 in the file; `read` makes floats of them

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        return self.add_outputs(op, 1, *inputs, name=name, **attributes)[0]

    def add_outputs(self, op: str, count: int, *inputs: str, name: str = "", **attributes: Any) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        from onnx import helper

        name = name or f"{op}_{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, count))]
        if op == "Reshape":
            attributes["allowzero"] = 1  # a size of 0 is one, and not the input's
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Returns the name of a constant; equal constants are stored once."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def note_sizes(self, name: str, shape: Sequence[Any]) -> None:
        """Adds the nodes that read the sizes of free axes off an input."""
        for i, size in enumerate(shape):
            if not isinstance(size, int) and str(size) not in self.sizes:
                self.sizes[str(size)] = self.add("Shape", name, start=i, end=i + 1)

    def size(self, size: Any) -> str:
        """Returns the name of a size, int64 [1]: a number or an expression ("4*batch", "floordiv(tokens, 2)")."""
        if isinstance(size, int | np.integer):
            return self.constant([size])
        if str(size) not in self.sizes:
            self.sizes[str(size)] = self._expression(ast.parse(str(size).replace("^", "**"), mode="eval").body)
        return self.sizes[str(size)]

    def _expression(self, node: ast.AST) -> str:
        match node:
            case ast.Constant(value=value):
                return self.constant([value])
            case ast.Name(id=name):
                return self.sizes[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.add("Neg", self._expression(operand))
            case ast.BinOp(left=left, op=op, right=right):
                names = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
                return self.add(names[type(op)], self._expression(left), self._expression(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                names = {"floordiv": "Div", "mod": "Mod", "max": "Max", "min": "Min"}  # sizes: never negative
                return self.add(names[name], *map(self._expression, args))
        raise ValueError(ast.dump(node))

    def shape(self, sizes: Sequence[Any]) -> str:
        """Returns the name of a shape, int64 [rank]."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(list(sizes))
        return self.add("Concat", *map(self.size, sizes), axis=0)

    def expand(self, value: Value, shape: Sequence[Any]) -> str:
        """Returns the name of a value with all its axes at their full size."""
        return value.name if value.full else self.add("Expand", value.name, self.shape(shape))

    def arrange(self, name: str, shape: Sequence[Any], groups: Sequence[Sequence[int]]) -> str:
        """Returns an array with its axes in groups: the first group's are kept, each other group becomes one axis."""
        order = [axis for group in groups for axis in group]
        if order != sorted(order):
            name = self.add("Transpose", name, perm=order)
        if all(len(group) == 1 for group in groups[1:]):
            return name
        sizes = [[shape[axis] for axis in group] for group in groups]
        joined = [functools.reduce(operator.mul, group, 1) for group in sizes[1:]]
        return self.add("Reshape", name, self.shape([*sizes[0], *joined]))

    def cast(self, name: str, dtype: Any) -> str:
        """Returns the name of a tensor that is cast to another type."""
        from onnx import helper

        return self.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def read(self, atom: Any) -> Value:
        """Returns the value of a variable or literal."""
        if isinstance(atom, jax.extend.core.Literal):
            return Value(self.constant(atom.val, atom.aval.dtype))
        if atom not in self.values:  # an int8 parameter of an operation that has no int8 form
            parameter = self.quantized[atom]
            self.values[atom] = Value(self.add("Mul", self.cast(parameter.name, np.float32), parameter.scale))
        return self.values[atom]

    def bind(self, variables: Sequence[Any], atoms: Sequence[Any]) -> None:
        """Gives the inputs of a called program their values; int8 parameters stay what they are."""
        for variable, atom in zip(variables, atoms, strict=True):
            if parameter := self.int8(atom):
                self.quantized[variable] = parameter
            else:
                self.values[variable] = self.read(atom)

    def int8(self, atom: Any) -> Quantized | None:
        """Returns the int8 parameter that a variable is; None where it is another value."""
        return None if isinstance(atom, jax.extend.core.Literal) else self.quantized.get(atom)

    def full(self, atom: Any) -> str:
        """Returns the name of a variable or literal at its full size."""
        return self.expand(self.read(atom), atom.aval.shape)
