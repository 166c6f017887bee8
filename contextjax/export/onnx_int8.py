"""The int8 form of operations whose parameter is int8: products, and rows of a table.

A product is that of onnxruntime's dynamic quantisation: the input becomes uint8 by its own range, over all its rows,
when the program runs, and int8 matrices are multiplied. onnxruntime makes one kernel of these nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contextjax.export.onnx_graph import Graph, Quantized


def apply(graph: Graph, eqn: Any, name: str) -> str:
    """Adds the nodes of an operation; returns its output, or "" where no input is an int8 parameter or it has no form.

    The form of an operation without one is that of floats: `Graph.read` makes them of the parameter.
    """
    parameters = [graph.int8(atom) for atom in eqn.invars]
    if name == "dot_general" and parameters.count(None) == 1:
        place = 0 if parameters[0] else 1
        return _dot(graph, eqn, place, parameters[place])
    if name == "gather" and parameters[0]:
        return _rows(graph, eqn, parameters[0])
    return ""


def _dot(graph: Graph, eqn: Any, place: int, matrix: Any) -> str:
    """Multiplies by a matrix, the input number `place`, whose scales are those of its outputs."""
    sums, batches = eqn.params["dimension_numbers"]
    dtypes = {atom.aval.dtype.name for atom in (*eqn.invars, *eqn.outvars)}
    if batches[0] or dtypes != {"float32"} or any(matrix.scale_shape[axis] != 1 for axis in sums[place]):
        return ""
    other, shapes = 1 - place, [atom.aval.shape for atom in eqn.invars]
    free = [[axis for axis in range(len(shape)) if axis not in used] for shape, used in zip(shapes, sums, strict=True)]
    rows = graph.arrange(graph.full(eqn.invars[other]), shapes[other], ((), free[other], sums[other]))
    low, scale, zero = graph.add_outputs("DynamicQuantizeLinear", 3, rows)
    weights = graph.arrange(matrix.name, shapes[place], ((), sums[place], free[place]))
    scales = graph.add("Reshape", matrix.scale, graph.constant([-1]))
    product = graph.cast(graph.add("MatMulInteger", low, weights, zero), np.float32)
    product = graph.add("Mul", product, graph.add("Mul", scale, scales))
    sizes = [shapes[other][axis] for axis in free[other]], [shapes[place][axis] for axis in free[place]]
    product = graph.add("Reshape", product, graph.shape([*sizes[0], *sizes[1]]))
    if place:
        return product
    first, count = len(sizes[0]), len(sizes[0]) + len(sizes[1])
    return graph.add("Transpose", product, perm=[*range(first, count), *range(first)])


def _rows(graph: Graph, eqn: Any, table: Quantized) -> str:
    """Takes whole rows of a table that has a scale for each."""
    numbers, shape, indices = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape, eqn.invars[1].aval.ndim
    is_plain = (
        table.scale_shape == (shape[0], 1)
        and tuple(eqn.params["slice_sizes"]) == (1, shape[1])
        and tuple(numbers.start_index_map) == tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.offset_dims) == (indices - 1,)
    )
    if not is_plain:
        return ""
    flat = graph.add("Squeeze", graph.full(eqn.invars[1]), graph.constant([indices - 1]))
    rows, scales = (graph.add("Gather", name, flat, axis=0) for name in (table.name, table.scale))
    return graph.add("Mul", graph.cast(rows, np.float32), scales)
