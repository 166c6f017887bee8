"""A function that every device runs on its own rows is, over the mesh, a function of whole arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.sharding import make_mesh, map_over_devices


def test_rows_are_cut_numbers_are_not_and_named_arguments_can_be_whole():
    rng = np.random.default_rng(0)
    x, table = rng.normal(size=(16, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    shapes = []

    def body(x, scale, *, table, doubled, axis_name):
        shapes.append((x.shape, table.shape))
        return jax.lax.psum((x @ table * scale * (2 if doubled else 1)).sum(0), axis_name)

    mapped = jax.jit(map_over_devices(body, make_mesh("data:4,fsdp:2"), whole=["table"]), static_argnames="doubled")
    result = mapped(jnp.asarray(x), 0.5, table=jnp.asarray(table), doubled=True)
    np.testing.assert_allclose(result, (x @ table).sum(0), rtol=1e-4, atol=1e-5)
    assert set(shapes) == {((2, 3), (3, 2))}
