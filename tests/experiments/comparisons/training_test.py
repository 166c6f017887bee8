"""Training steps to be timed: they train, and their cost is counted."""

import jax.numpy as jnp
import numpy as np

from experiments.comparisons.training import Training, compile_update, cost_of_compiled, make_update
from tests.training.step_test import OPTIMIZER, Line


def test_steps_update_one_state_and_have_a_cost():
    params = {"w": jnp.float32(0.5), "b": jnp.float32(0.25)}
    batch = {name: jnp.arange(8, dtype=jnp.float32) for name in ("x", "y")}
    training = Training(params, OPTIMIZER)
    step = compile_update(make_update(Line(), OPTIMIZER), training.state, batch)
    losses = [training.update(step, batch)["loss"] for _ in range(3)]
    assert losses[0] > losses[-1] >= 0 and int(training.state.step) == 3
    cost = cost_of_compiled(step)
    assert cost["flops"] > 0 and np.isfinite(cost["bytes"])
