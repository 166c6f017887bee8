"""The ONNX form in onnxruntime: a small graph is run, and what can not be read is one sentence."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contextjax.export.onnx_runtime import open_onnx
from contextjax.types import UserError

PROGRAMS = {"twice": {"files": {"onnx": "twice.onnx"}, "inputs": [{"name": "x"}]}}


def test_a_program_takes_its_inputs_in_their_order(tmp_path):
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [info("x")], [info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "twice.onnx")
    np.testing.assert_array_equal(open_onnx(tmp_path, PROGRAMS)["twice"](np.float32([1, 2])), [2, 4])


def test_a_program_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "twice.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"twice\.onnx can't be read by onnxruntime .*export again"):
        open_onnx(tmp_path, PROGRAMS)
