"""The memory of a compiled step: the new state in the old one's place, nothing for what is frozen."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from contextjax.sharding import abstract_state, activations, make_mesh, place_abstract, placements
from contextjax.training.compiled_step import trace_step
from contextjax.training.first_state import init_state
from tests.sharding.table_test import optimizer


@dataclasses.dataclass(frozen=True)
class Layers:
    """Squared error of two linear layers."""

    weights: tuple = (("error", 1.0),)

    def represent(self, params, batch, rng):
        return {"out": batch["x"] @ params["tower"]["w"] @ params["head"]["w"]}

    def terms(self, r, batch):
        return {"error": (((r["out"] - batch["y"]) ** 2).sum(), jnp.float32(len(batch["x"])))}


def init_params(key):
    draw = lambda i, shape: jax.random.normal(jax.random.fold_in(key, i), shape) / 8
    return {
        "tower": {"w": nn.Partitioned(draw(0, (64, 128)), ("embed", "mlp"))},
        "head": {"w": nn.Partitioned(draw(1, (128, 64)), ("mlp", "embed"))},
    }


def compiled(mesh, *freeze):
    """(the step as fit compiles it, bytes a device of its state)."""
    mesh, rule = make_mesh(mesh), optimizer(*freeze)
    state, shardings = abstract_state(functools.partial(init_state, init_params, rule, 0), mesh)
    batch = {name: jax.ShapeDtypeStruct((16, 64), jnp.float32) for name in "xy"}
    with activations(mesh):
        traced = trace_step(
            Layers(), state, place_abstract(batch, mesh), shardings=shardings, mesh=mesh, optimizer=rule, frozen=freeze
        )
    held = sum(row.device_bytes for row in placements((state.params, state.opt_state)))
    return traced.lower().compile(), held


@pytest.mark.parametrize("mesh", ["data:8", "data:2,fsdp:2,tensor:2"])
def test_the_new_state_is_written_over_the_old_one(mesh):
    program, held = compiled(mesh)
    memory = program.memory_analysis()
    assert held <= memory.alias_size_in_bytes <= held + 64  # and the step, its key, bad_steps
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 256  # the metrics alone are new
    assert "input_output_alias" in program.as_text()


def test_what_is_frozen_costs_neither_state_nor_gradient():
    (trained, held), (frozen, held_frozen) = compiled("fsdp:8"), compiled("fsdp:8", "tower")
    kernel = 4 * 64 * 128 // 8
    assert held - held_frozen == 2 * kernel
    sizes = [program.memory_analysis().argument_size_in_bytes for program in (trained, frozen)]
    assert sizes[0] - sizes[1] == 2 * kernel
    count = lambda program: program.as_text().count(" dot(")
    assert count(trained) - count(frozen) == 2  # its gradient's product, and the gradient of what it gives
