"""The state that a run begins with: a function of the seed, the one to start from, or the newest checkpoint's."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.sharding import make_mesh
from contextjax.training.first_state import first_state, init_state, kept, with_base
from contextjax.training.task import Task
from contextjax.types import UserError
from tests.training.loop_test import CONFIG

DRAWN = lambda key: {"w": jax.random.normal(key, (3,))}
TASK = Task(DRAWN, optax.adam(0.1), optax.constant_schedule(0.1), (), iter, seed=3)
META = {"config_hash": "abc", "data": "first"}


def begin(folder, task=TASK, **meta):
    with contextlib.closing(CheckpointWriter(folder)) as checkpoints:
        return first_state(checkpoints, task, dataclasses.replace(CONFIG, meta=META | meta), make_mesh("data:8"))[0]


def test_a_fresh_state_is_the_seed_s(tmp_path):
    state = begin(tmp_path)
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.params["w"], init_state(DRAWN, TASK.optimizer, 3).params["w"])
    assert not np.array_equal(state.params["w"], begin(tmp_path, dataclasses.replace(TASK, seed=4)).params["w"])
    started = begin(tmp_path, dataclasses.replace(TASK, start_from=lambda params: {"w": params["w"] + 1}))
    np.testing.assert_allclose(started.params["w"], state.params["w"] + 1)


def test_the_newest_checkpoint_goes_before_what_to_start_from(tmp_path):
    state = begin(tmp_path)._replace(params={"w": jnp.ones(3)}, step=jnp.int32(4))
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        checkpoints.save(state, {"step": 4, **META})
        checkpoints.wait()
    restored = begin(tmp_path, dataclasses.replace(TASK, start_from=lambda params: {"w": params["w"] * 0}))
    assert int(restored.step) == 4 and np.asarray(restored.params["w"]).tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="step 4 is of config abc, this run's is other; give another --workdir"):
        begin(tmp_path, config_hash="other")
    with pytest.raises(UserError, match=r"data are not those .* \(first then, second now\)"):
        begin(tmp_path, data="second")


def test_adapters_are_restored_on_the_base_that_they_were_trained_on(tmp_path):
    """The checkpoint holds no base: it is what the run starts from, and another one is refused."""
    init = lambda key: {"base": {"kernel": jnp.zeros((4, 3))}, "own": jax.random.normal(key, (3,))}
    start = lambda value: lambda params: {**params, "base": {"kernel": jnp.full((4, 3), value)}}
    task = dataclasses.replace(TASK, init_params=init, start_from=start(2.0))
    meta = {"lora": {"rank": 2, "start": "runs/base", "pretrained": ""}, **META}
    config = dataclasses.replace(CONFIG, meta=meta, frozen=("base",), has_base=True)
    mesh = make_mesh("data:8")

    def begin(task):
        with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
            return first_state(checkpoints, task, config, mesh)[0]

    state = begin(task)._replace(step=jnp.int32(4))
    state = state._replace(params={**state.params, "own": jnp.ones(3)})
    held = kept(state, config)
    assert set(held.params) == {"own"} and set(with_base(config, state).meta["lora"]) == {*meta["lora"], "base"}
    with contextlib.closing(CheckpointWriter(tmp_path)) as checkpoints:
        checkpoints.save(held, {"step": 4, **with_base(config, state).meta})
        checkpoints.wait()
    restored = begin(task)
    assert int(restored.step) == 4 and np.asarray(restored.params["own"]).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(restored.params["base"]["kernel"], 2)
    with pytest.raises(UserError, match=r"adapters of the checkpoint at step 4 were trained on .* runs/base with the"):
        begin(dataclasses.replace(task, start_from=start(3.0)))
