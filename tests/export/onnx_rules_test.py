"""Each rule, run in onnxruntime with sizes that the graph did not know, gives what JAX gives."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from contextjax.export.onnx_writer import to_onnx
from contextjax.types import UserError

ROWS = np.random.default_rng(0).normal(size=(7, 6, 4)).astype(np.float32)
INDEX = np.random.default_rng(1).integers(0, 6, (7, 3)).astype(np.int32)
CASES = {
    "elementwise": lambda w, x, i: jnp.exp(-x) * jnp.tanh(x) + jnp.sqrt(jnp.abs(x)) - jnp.log1p(x**2) / 3 + x**3,
    "activations": lambda w, x, i: jax.nn.gelu(x, approximate=False) + jax.nn.gelu(x) + jax.nn.log_sigmoid(x),
    "broadcast": lambda w, x, i: (x[:, :, None] + x[:, None]) * jnp.arange(4) + w[0],
    "broadcast output": lambda w, x, i: jnp.broadcast_to(w[0], x.shape),
    "softmax and mask": lambda w, x, i: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf).at[..., 0].get() + x[..., 1], -1),
    "dense": lambda w, x, i: x @ w,
    "products": lambda w, x, i: jnp.einsum("bid,bjd->bij", x, x) @ jnp.einsum("bid,de->bie", x, w),
    "products of other axes": lambda w, x, i: jnp.einsum("bid,bje->eb", x, x) + jnp.einsum("bid,bjd->b", x, x[:, :2]),
    "heads": lambda w, x, i: jnp.einsum("bihd,bjhd->bhij", *2 * [x.reshape(-1, 3, 2, 4)]),
    "batch in the middle": lambda w, x, i: jnp.einsum("ibd,jbd->bij", *2 * [x.swapaxes(0, 1)]),
    "outer": lambda w, x, i: (
        jnp.einsum("bd,be->bde", x[:, 0], x[:, 1]) + jnp.einsum("b,c->bc", x.sum((1, 2)), w[0])[:, None]
    ),
    "three axes": lambda w, x, i: jnp.tensordot(x, jnp.stack([w, 2 * w], axis=1), 1),
    "rows of a table": lambda w, x, i: w[i % 4],
    "along an axis": lambda w, x, i: jnp.take_along_axis(x, i[:, :, None], axis=1),
    "rows of the batch": lambda w, x, i: x[i[:, 0] % 2][:, 1],
    "middle axis": lambda w, x, i: jnp.take(x, jnp.asarray([2, 0]), axis=1),
    "one column": lambda w, x, i: x[..., 2, :] + x[:, -1],
    "free part": lambda w, x, i: jnp.ones((9, 4))[: x.shape[0]] * x[:, 0] + jnp.arange(x.shape[0])[:, None],
    "size as a value": lambda w, x, i: x.sum(0) / x.shape[0],
    "triangle": lambda w, x, i: jnp.tril(jnp.ones((x.shape[0], x.shape[0]))) @ x[:, 0],
    "reshape": lambda w, x, i: jnp.moveaxis(x.reshape(-1, 2, 3, 4), 1, -1).reshape(x.shape[0], 24),
    "repeat": lambda w, x, i: jnp.repeat(x[:, 0], 3, axis=0),
    "reductions": lambda w, x, i: x.max(1) + x.min(1) + x.mean(1) + (x > 0).any(1) + (x > -1).all(1) + (x > 0).sum(1),
    "argmax": lambda w, x, i: jnp.argmax(x, 1) + jnp.argmax(x > 0, axis=1),
    "joined": lambda w, x, i: jnp.concatenate([x, jnp.zeros((x.shape[0], 1, 4)), x[:, 1:3]], axis=1),
    "logic": lambda w, x, i: jnp.where(i[:, :1] % 2 == 0, (x[:, :, 0] > 0) & (x[:, :, 1] != 0), x[:, :, 2] >= 0),
    "clip": lambda w, x, i: jnp.clip(x, -0.5, 0.5),
    "called": lambda w, x, i: jax.checkpoint(jax.jit(lambda x: jax.nn.relu(x) @ w))(x),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of parameters whose first is of odd length, so that the next does not begin at a round place."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    tensors = {"a": np.ones(3, np.float32), "w": np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)}
    save_file(tensors, path)
    return path, tensors


def convert(function, weights, tmp_path):
    path, tensors = weights
    (batch,) = jax.export.symbolic_shape("batch", constraints=["batch <= 9"])
    inputs = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in (ROWS, INDEX)]
    model = to_onnx(lambda t, x, i: function(t["w"], x, i), tensors, inputs, ["x", "i"], "out", path)
    file = path.with_name(f"{tmp_path.name}.onnx")
    file.write_bytes(model.SerializeToString())
    return onnxruntime.InferenceSession(str(file))


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_what_jax_gives(weights, tmp_path, name):
    session = convert(CASES[name], weights, tmp_path)
    used = {x.name for x in session.get_inputs()}
    for count in (0, 1, 2, 7):  # onnxruntime's Einsum killed the process at 0
        given = {"x": ROWS[:count], "i": INDEX[:count]}
        expected = np.asarray(CASES[name](weights[1]["w"], *map(jnp.asarray, given.values())))
        (found,) = session.run(None, {key: value for key, value in given.items() if key in used})
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=2e-6)


def test_an_operation_without_a_rule_is_named(weights, tmp_path):
    with pytest.raises(UserError, match="'sort'"):
        convert(lambda w, x, i: jnp.sort(x), weights, tmp_path)
    with pytest.raises(UserError, match="reads arrays"):
        convert(lambda w, x, i: x[i[:, 0], i[:, 1] % 4], weights, tmp_path)
