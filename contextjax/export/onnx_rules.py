"""One rule for each operation that the models use: a traced program becomes nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contextjax.export import onnx_int8
from contextjax.export.onnx_graph import Graph, Value
from contextjax.types import UserError

UNARY = {
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "tanh": "Tanh", "logistic": "Sigmoid",
    "erf": "Erf", "not": "Not", "floor": "Floor", "sign": "Sign",
}  # fmt: skip
BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual", "eq": "Equal", "and": "And", "or": "Or",
}  # fmt: skip
REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
SAME = ("stop_gradient", "copy", "copy_p", "sharding_constraint", "optimization_barrier")
CALLS = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "remat", "remat2", "checkpoint", "closed_call")


def run(graph: Graph, jaxpr: Any, consts: Sequence[Any]) -> list[Value]:
    """Adds the nodes of a traced program whose inputs have their values; returns those of its outputs."""
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        graph.values[var] = Value(graph.constant(const, np.asarray(const).dtype))
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in CALLS:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            inner, own = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            graph.bind(inner.invars, eqn.invars)
            outputs = run(graph, inner, own)
        elif name in SAME:
            outputs = [graph.read(atom) for atom in eqn.invars]
        else:
            outputs = [_apply(graph, eqn, name)]
        graph.values.update(zip(eqn.outvars, outputs, strict=True))
    return [graph.read(atom) for atom in jaxpr.outvars]


def _apply(graph: Graph, eqn: Any, name: str) -> Value:
    """Adds the nodes of one operation; returns its output."""
    if name in UNARY or name in BINARY or name in ELEMENTWISE:
        # Operands that are broadcast stay as they are: ONNX broadcasts by itself.
        values, shape = [graph.read(atom) for atom in eqn.invars], eqn.outvars[0].aval.shape
        rule = ELEMENTWISE.get(name) or (lambda g, e, *x: g.add((UNARY | BINARY)[name], *x))
        is_full = any(v.full and a.aval.shape == shape for v, a in zip(values, eqn.invars, strict=True))
        return Value(rule(graph, eqn, *(v.name for v in values)), is_full)
    if output := onnx_int8.apply(graph, eqn, name):
        return Value(output)
    if name not in RULES:
        raise UserError(
            f"This model has the operation '{name}', which has no ONNX form here; leave onnx out of --format."
        )
    output = RULES[name](graph, eqn, *(() if name == "broadcast_in_dim" else map(graph.full, eqn.invars)))
    return output if isinstance(output, Value) else Value(output)


def _one(graph: Graph, eqn: Any) -> str:
    return graph.constant(1, eqn.invars[0].aval.dtype)


def _select(graph: Graph, eqn: Any, which: str, *cases: str) -> str:
    if len(cases) != 2:
        raise UserError("This model selects among more than two arrays, which has no ONNX form here; leave onnx out.")
    which = which if eqn.invars[0].aval.dtype == bool else graph.cast(which, bool)
    no, yes = cases
    if eqn.outvars[0].aval.dtype != bool:
        return graph.add("Where", which, yes, no)
    # onnxruntime has no Where of truth values
    return graph.add("Or", graph.add("And", which, yes), graph.add("And", graph.add("Not", which), no))


ELEMENTWISE: dict[str, Callable[..., str]] = {
    "ne": lambda g, e, x, y: g.add("Not", g.add("Equal", x, y)),
    "square": lambda g, e, x: g.add("Mul", x, x),
    "integer_pow": lambda g, e, x: g.add("Pow", x, g.constant(e.params["y"], e.invars[0].aval.dtype)),
    "rsqrt": lambda g, e, x: g.add("Reciprocal", g.add("Sqrt", x)),
    "erfc": lambda g, e, x: g.add("Sub", _one(g, e), g.add("Erf", x)),
    "log1p": lambda g, e, x: g.add("Log", g.add("Add", _one(g, e), x)),
    "rem": lambda g, e, x, y: g.add("Mod", x, y, fmod=1),
    "expm1": lambda g, e, x: g.add("Sub", g.add("Exp", x), _one(g, e)),
    "convert_element_type": lambda g, e, x: g.cast(x, e.params["new_dtype"]),
    "clamp": lambda g, e, low, x, high: g.add("Min", g.add("Max", x, low), high),
    "select_n": _select,
}


def _broadcast(graph: Graph, eqn: Any) -> Value:
    """Inserts axes of size 1 only; `expand` does the rest where it has to be done."""
    (atom,), shape = eqn.invars, eqn.params["shape"]
    thin = [1] * len(shape)
    for axis, size in zip(eqn.params["broadcast_dimensions"], atom.aval.shape, strict=True):
        thin[axis] = size
    name = graph.full(atom)
    if len(thin) != atom.aval.ndim:
        name = graph.add("Reshape", name, graph.shape(thin))
    return Value(name, tuple(thin) == tuple(shape))


def _dot(graph: Graph, eqn: Any, left: str, right: str) -> str:
    """Multiplies matrices [*batch, free, sum] and [*batch, sum, free].

    There is no Einsum here: onnxruntime's divides by the size of the batch, and kills the process where that is 0.
    """
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    shapes = [atom.aval.shape for atom in eqn.invars]
    left_free, right_free = (
        [axis for axis in range(len(shape)) if axis not in used]
        for shape, used in zip(shapes, ((*left_batch, *left_sum), (*right_batch, *right_sum)), strict=True)
    )
    left = graph.arrange(left, shapes[0], (left_batch, left_free, left_sum))
    right = graph.arrange(right, shapes[1], (right_batch, right_sum, right_free))
    sizes = [shapes[0][axis] for axis in (*left_batch, *left_free)] + [shapes[1][axis] for axis in right_free]
    if (dtype := eqn.outvars[0].aval.dtype) != eqn.invars[0].aval.dtype:  # halves whose product is summed in float32
        left, right = graph.cast(left, dtype), graph.cast(right, dtype)
    output = graph.add("MatMul", left, right)
    is_matrix = len(left_free) == len(right_free) == 1
    return output if is_matrix else graph.add("Reshape", output, graph.shape(sizes))


def _gather(graph: Graph, eqn: Any, operand: str, index: str) -> str:
    """Takes a slice of an array; or whole slices at indices along one axis, behind batch axes (take_along_axis)."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, rank = eqn.invars[0].aval.shape, eqn.outvars[0].aval.ndim
    batching, index_rank = numbers.operand_batching_dims, eqn.invars[1].aval.ndim
    (axis, *others) = numbers.start_index_map
    whole = all(a == b for i, (a, b) in enumerate(zip(sizes, shape, strict=True)) if i not in (*batching, axis))
    places = [i for i in range(rank) if i not in numbers.offset_dims]  # where the indices' axes go
    if index_rank == 1 and not numbers.collapsed_slice_dims and not batching:  # x[:n], n being free
        axes = list(numbers.start_index_map)
        begin = graph.cast(index, np.int64)
        end = graph.add("Add", begin, graph.shape([sizes[axis] for axis in axes]))
        return graph.add("Slice", operand, begin, end, graph.constant(axes))
    if others or not whole or tuple(numbers.collapsed_slice_dims) != (axis,):
        raise UserError("This model reads arrays in a way that has no ONNX form here; leave onnx out of --format.")
    if batching:
        count = len(batching)
        in_front = tuple(range(count))
        if tuple(batching) != in_front or tuple(numbers.start_indices_batching_dims) != in_front or axis != count:
            raise UserError("This model reads arrays in a way that has no ONNX form here; leave onnx out of --format.")
        output = graph.add("GatherND", operand, graph.cast(index, np.int64), batch_dims=count)
        order = [*places, *numbers.offset_dims]
    else:
        flat = graph.add("Squeeze", index, graph.constant([index_rank - 1]))
        output = graph.add("Gather", operand, flat, axis=axis)
        before, after = numbers.offset_dims[:axis], numbers.offset_dims[axis:]
        order = [*before, *places, *after]
    return (
        output if order == sorted(order) else graph.add("Transpose", output, perm=[int(i) for i in np.argsort(order)])
    )


def _iota(graph: Graph, eqn: Any) -> Value:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    scalar = graph.add("Squeeze", graph.size(shape[axis]), graph.constant([0]))
    row = graph.cast(graph.add("Range", graph.constant(0), scalar, graph.constant(1)), eqn.params["dtype"])
    thin = [size if i == axis else 1 for i, size in enumerate(shape)]
    return Value(graph.add("Reshape", row, graph.shape(thin)) if len(thin) > 1 else row, thin == list(shape))


def _slice(graph: Graph, eqn: Any, x: str) -> str:
    p, rank = eqn.params, eqn.invars[0].aval.ndim
    steps = graph.constant(list(p["strides"] or [1] * rank))
    bounds = graph.shape(p["start_indices"]), graph.shape(p["limit_indices"])
    return graph.add("Slice", x, *bounds, graph.constant(list(range(rank))), steps)


def _dynamic_slice(graph: Graph, eqn: Any, x: str, *starts: str) -> str:
    """Starts are within bounds: nothing is clamped."""
    axes = graph.constant([0])
    begin = graph.add("Concat", *(graph.add("Unsqueeze", graph.cast(s, np.int64), axes) for s in starts), axis=0)
    end = graph.add("Add", begin, graph.shape(eqn.params["slice_sizes"]))
    return graph.add("Slice", x, begin, end, graph.constant(list(range(len(starts)))))


def _reduce(graph: Graph, eqn: Any, x: str) -> str:
    name = REDUCTIONS[eqn.primitive.name]
    return graph.add(name, x, graph.constant(list(eqn.params["axes"])), keepdims=0)


def _reduce_bool(graph: Graph, eqn: Any, x: str) -> str:
    name = {"reduce_or": "ReduceMax", "reduce_and": "ReduceMin"}[eqn.primitive.name]
    extreme = graph.add(name, graph.cast(x, np.int32), graph.constant(list(eqn.params["axes"])), keepdims=0)
    return graph.cast(extreme, bool)


def _argmax(graph: Graph, eqn: Any, x: str) -> str:
    x = graph.cast(x, np.int32) if eqn.invars[0].aval.dtype == bool else x
    (axis,) = eqn.params["axes"]
    return graph.cast(graph.add("ArgMax", x, axis=axis, keepdims=0), eqn.params["index_dtype"])


def _squeeze(graph: Graph, eqn: Any, x: str) -> str:
    axes = [axis % eqn.invars[0].aval.ndim for axis in eqn.params["dimensions"]]
    return graph.add("Squeeze", x, graph.constant(axes))


def _stack(graph: Graph, eqn: Any, *parts: str) -> str:
    axis = eqn.params["axis"]
    return graph.add("Concat", *(graph.add("Unsqueeze", x, graph.constant([axis])) for x in parts), axis=axis)


RULES: dict[str, Callable[..., Any]] = {
    "stack": _stack,
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot,
    "gather": _gather,
    "iota": _iota,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "argmax": _argmax,
    "squeeze": _squeeze,
    "reshape": lambda g, e, x: g.add("Reshape", x, g.shape(e.params["new_sizes"])),
    "transpose": lambda g, e, x: g.add("Transpose", x, perm=list(e.params["permutation"])),
    "concatenate": lambda g, e, *x: g.add("Concat", *x, axis=e.params["dimension"]),
    "dim_as_value": lambda g, e: g.cast(
        g.add("Squeeze", g.size(e.params["dim"]), g.constant([0])), e.outvars[0].aval.dtype
    ),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("reduce_or", "reduce_and"), _reduce_bool),
}
