"""Graph collects the nodes and constants of an ONNX graph, and the sizes that are known only when it runs."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.extend.core
import numpy as np


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph. Unless it is `full`, the axes that it is broadcast along still have size 1."""

    name: str
    full: bool = True


class Graph:
    """Nodes and constants of a graph, and which tensor each variable of the traced program is."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: dict[Any, Any] = {}
        self.values: dict[Any, Value] = {}
        self.sizes: dict[str, str] = {}  # free axis -> int64 [1]

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        from onnx import helper

        name = name or f"{op}_{len(self.nodes)}"
        if op == "Reshape":
            attributes["allowzero"] = 1  # a size of 0 is one, and not the input's
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

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

    def cast(self, name: str, dtype: Any) -> str:
        """Returns the name of a tensor that is cast to another type."""
        from onnx import helper

        return self.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def read(self, atom: Any) -> Value:
        """Returns the value of a variable or literal."""
        if isinstance(atom, jax.extend.core.Literal):
            return Value(self.constant(atom.val, atom.aval.dtype))
        return self.values[atom]

    def full(self, atom: Any) -> str:
        """Returns the name of a variable or literal at its full size."""
        return self.expand(self.read(atom), atom.aval.shape)
