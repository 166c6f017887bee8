"""Writes a traced program as an ONNX graph: its inputs, its output, and where its parameters lie.

The few operations of these models have a rule each in onnx_rules (docs/guides/export.md says why no converter is
used). The parameters stay in model.safetensors: a graph names their place in it as external data, so that all programs
and both formats share one file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.export.onnx_graph import Graph, Quantized, Value
from contextjax.export.onnx_rules import run
from contextjax.export.quantized import SCALE

OPSET, IR_VERSION = 18, 9


def to_onnx(call: Callable[..., Any], tensors: Mapping[str, Any], inputs: Sequence[Any], names: Sequence[str],
            output: str, weights: Path) -> Any:  # fmt: skip
    """Returns the ONNX model of a function of (named tensors, *inputs) that returns one array.

    Args:
      call: traced with symbolic sizes where `inputs` have them.
      tensors: the tensors of `weights`, a safetensors file beside the model. Those that are int8 have their scales
        beside them, see quantized.py, and are traced as float32.
      inputs: abstract arrays.
      names: of the inputs.
      output: its name.
      weights: only its place in the file is written for each tensor.

    Raises:
      UserError: an operation has no rule here.
    """
    from onnx import helper

    parameters = {name: x for name, x in tensors.items() if not name.endswith(SCALE)}
    is_int8 = {name: x.dtype == np.int8 for name, x in parameters.items()}
    dtype_of = lambda name: np.dtype(np.float32) if is_int8[name] else parameters[name].dtype
    shapes = {name: jax.ShapeDtypeStruct(x.shape, dtype_of(name)) for name, x in parameters.items()}
    closed = jax.make_jaxpr(call)(shapes, *inputs)
    graph = Graph()
    for name, var in zip([*sorted(parameters), *names], closed.jaxpr.invars, strict=True):  # as jax flattens a dict
        if is_int8.get(name):
            graph.quantized[var] = Quantized(name, name + SCALE, tensors[name + SCALE].shape)
        else:
            graph.values[var] = Value(name)
    for name, x in zip(names, inputs, strict=True):
        graph.note_sizes(name, x.shape)
    (value,) = run(graph, closed.jaxpr, closed.consts)
    result = closed.jaxpr.outvars[0]
    graph.add("Identity", graph.expand(value, result.aval.shape), name=output)
    nodes, used = _needed(graph.nodes, output)
    outside = _external(weights, [name for name in sorted(tensors) if name in used])
    type_of = lambda x: helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype))
    info = lambda name, x: helper.make_tensor_value_info(
        name, type_of(x), [d if isinstance(d, int) else str(d) for d in x.shape]
    )
    return helper.make_model(
        helper.make_graph(
            nodes, output, [info(n, x) for n, x in zip(names, inputs, strict=True)], [info(output, result.aval)],
            [*(x for x in graph.constants.values() if x.name in used), *outside],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="contextjax",
    )  # fmt: skip


def _needed(nodes: Sequence[Any], output: str) -> tuple[list[Any], set[str]]:
    """Returns the nodes that the output comes from, and the names that they read."""
    kept, used = [], {output}
    for node in reversed(nodes):
        if used & set(node.output):
            kept.append(node)
            used |= set(node.input)
    return kept[::-1], used


def _external(weights: Path, names: Sequence[str]) -> list[Any]:
    """Returns initialisers whose data are where a safetensors file has them."""
    from onnx import TensorProto

    types = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensors = []
    for name in names:
        begin, end = header[name]["data_offsets"]
        tensor = TensorProto(
            name=name, dims=header[name]["shape"], data_type=types[header[name]["dtype"]],
            data_location=TensorProto.EXTERNAL,
        )  # fmt: skip
        for key, value in (("location", weights.name), ("offset", 8 + length + begin), ("length", end - begin)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    return tensors
