"""A written graph has the nodes that its output needs, and its parameters where their file has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from contextjax.export.onnx_writer import to_onnx
from contextjax.types import UserError

TENSORS = {"bias": np.float32([1, 2, 3]), "unused": np.zeros(7, np.float32), "w": np.ones((4, 3), np.float32)}


@pytest.fixture
def weights(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def written(function, weights):
    rows = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("rows"), 4), np.float32)
    return to_onnx(function, TENSORS, [rows], ["x"], "out", weights)


def test_parameters_stay_in_their_file(weights):
    graph = written(lambda t, x: x @ t["w"] + t["bias"], weights).graph
    outside = [x for x in graph.initializer if x.external_data]
    assert [x.name for x in outside] == ["bias", "w"]  # and nothing that the output does not need
    for tensor in outside:
        place = {entry.key: entry.value for entry in tensor.external_data}
        begin = int(place["offset"])
        data = weights.read_bytes()[begin : begin + int(place["length"])]
        stored = np.frombuffer(data, np.float32).reshape(tuple(tensor.dims))
        np.testing.assert_array_equal(stored, TENSORS[tensor.name])
        assert place["location"] == "model.safetensors"


def test_inputs_and_output_have_their_axes(weights):
    graph = written(lambda t, x: x @ t["w"], weights).graph
    axes = lambda info: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
    assert [axes(x) for x in (*graph.input, *graph.output)] == [["rows", 4], ["rows", 3]]


def test_an_operation_without_a_rule_is_named(weights):
    with pytest.raises(UserError, match="'sort'"):
        written(lambda t, x: jnp.sort(x), weights)
