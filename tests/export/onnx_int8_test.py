"""Products with int8 parameters are int8 products within what rounding allows; other operations read floats."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from contextjax.export.onnx_writer import to_onnx
from contextjax.export.quantized import SCALE, quantize
from contextjax.models.linear import product

RNG = np.random.default_rng(0)
TENSORS = {
    "a.kernel": RNG.normal(size=(16, 24)).astype(np.float32), "b.qkv_kernel": RNG.normal(size=(16, 3, 8)),
    "c.embedding": RNG.normal(size=(9, 16)), "d.bias": RNG.normal(size=24).astype(np.float32),
}  # fmt: skip
ROWS = RNG.normal(size=(7, 5, 16)).astype(np.float32)
INDEX = RNG.integers(0, 9, (7, 5)).astype(np.int32)
# (function, whether its products or rows have an int8 form)
CASES = {
    "dense": (lambda t, x, i: product("...i,io->...o", x, t["a.kernel"]) + t["d.bias"], True),
    "query, key, value": (lambda t, x, i: product("...w,wtd->t...d", x, t["b.qkv_kernel"]), True),
    "parameter first": (lambda t, x, i: jnp.einsum("io,bni->obn", t["a.kernel"], x), True),
    "rows of a table": (lambda t, x, i: jnp.take(t["c.embedding"], i, axis=0) + x, True),
    "rows from an end": (lambda t, x, i: t["c.embedding"][i], True),
    "called": (lambda t, x, i: jax.checkpoint(jax.jit(lambda k, x: x @ k))(t["a.kernel"], x), True),
    "other axis": (
        lambda t, x, i: jnp.einsum("io,bno->bni", t["a.kernel"], jnp.concatenate([x, x[..., :8]], -1)),
        False,
    ),
    "no product": (lambda t, x, i: x * t["a.kernel"][:, 0] + t["a.kernel"].sum(1), False),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_that_of_the_rounded_parameters(tmp_path, name):
    function, is_int8 = CASES[name]
    stored = quantize({key: np.float32(x) for key, x in TENSORS.items()})
    save_file(stored, tmp_path / "model.safetensors")
    (batch,) = jax.export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in (ROWS, INDEX)]
    model = to_onnx(function, stored, inputs, ["x", "i"], "out", tmp_path / "model.safetensors")
    (tmp_path / "out.onnx").write_bytes(model.SerializeToString())
    nodes = [node.op_type for node in model.graph.node]
    types = {x.name: x.data_type for x in model.graph.initializer if x.external_data}
    assert set(types) <= set(stored) and 3 in types.values()  # int8
    assert ("MatMulInteger" in nodes) == (is_int8 and "rows" not in name) and "MatMul" not in nodes[: 99 * is_int8]
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"))
    rounded = {k: x * stored[k + SCALE] if k + SCALE in stored else x for k, x in stored.items() if SCALE not in k}
    used = {x.name for x in session.get_inputs()}
    for count in (1, 7):
        given = {"x": ROWS[:count], "i": INDEX[:count]}
        expected = np.asarray(function(rounded, *given.values()))
        (found,) = session.run(None, {key: value for key, value in given.items() if key in used})
        assert found.shape == expected.shape and found.dtype == np.float32
        # The input is rounded to 1/255 of its range: sixteen errors of at most half of that.
        step = (ROWS.max() - min(ROWS.min(), 0)) / 255
        limit = 0.5 * step * 16 * np.abs(TENSORS["a.kernel"]).max() if "MatMulInteger" in nodes else 1e-5
        assert np.abs(found - expected).max() <= limit and np.abs(found - expected).mean() <= limit / 8
