"""Training states for tests of checkpoints, and damage to what was saved."""

import contextlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contextjax.types import Health, TrainState


def make_state(seed=0, step=3):
    rng = np.random.default_rng(seed)
    params = {
        "dense": {
            "kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
            "bias": jnp.asarray([-0.0, 1e-40, np.inf]),
        },
        "half": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
        "scalar": jnp.float32(0.1),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3)))
    return TrainState(jnp.int32(step), params, optimizer.init(params), jax.random.PRNGKey(seed + 7),
                      Health(jnp.int32(2), jnp.int32(3), jnp.asarray([1.5, 2.5])))  # fmt: skip


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def save_steps(checkpoints, *steps):
    for step in steps:
        checkpoints.save(make_state(step, step), {"step": step})
    checkpoints.wait()


def spoil(folder, step, *, place=0.5):
    """Flips a bit of the largest file of a checkpoint."""
    path = max((folder / str(step)).rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 4
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def no_room(size):
    """No file of this process may grow past so many bytes: what is written beyond fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
