"""The graph: constants are stored once, and sizes that are known only when it runs are computed."""

import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from contextjax.export.onnx_graph import Graph, Value


def run(graph, output, **inputs):
    """Runs the graph by ONNX's own evaluator."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    out = helper.make_tensor_value_info(output, TensorProto.INT64, None)
    made = helper.make_graph(graph.nodes, "test", info, [out], [*graph.constants.values()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ReferenceEvaluator(model).run([output], inputs)[0]


def test_equal_constants_are_stored_once():
    graph = Graph()
    assert graph.constant([1, 2]) == graph.constant(np.asarray([1, 2]))
    assert graph.constant([1, 2]) != graph.constant([1, 2], np.float32) and len(graph.constants) == 2
    first, _ = graph.constants.values()
    assert onnx.numpy_helper.to_array(first).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("size", "value"), [("4*rows", 12), ("rows + 2", 5), ("floordiv(rows, 2)", 1), ("mod(rows, 2)", 1), ("rows^2", 9)]
)
def test_a_size_is_computed_of_the_input_s(size, value):
    (rows,) = jax.export.symbolic_shape("rows")
    graph = Graph()
    graph.note_sizes("x", [rows, 5])
    assert run(graph, graph.size(size), x=np.zeros((3, 5), np.float32)).tolist() == [value]


def test_a_value_is_expanded_to_the_shape_it_has():
    graph = Graph()
    (rows,) = jax.export.symbolic_shape("rows")
    graph.note_sizes("x", [rows, 5])
    assert graph.expand(Value("x"), [rows, 5]) == "x"
    name = graph.cast(graph.expand(Value("one", full=False), [rows, 2]), np.int64)
    assert run(graph, name, x=np.zeros((3, 5), np.float32), one=np.ones((1, 1), np.float32)).tolist() == [[1, 1]] * 3
