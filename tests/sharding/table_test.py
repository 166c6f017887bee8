"""The table of what lives where says what the devices hold, and allocates nothing."""

import functools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from contextjax.optim import make_optimizer
from contextjax.pretrained import abstract_params
from contextjax.sharding import grouped, make_mesh, placement_table, placements, state_shardings
from contextjax.types import TrainState

MESHES = ["data:8", "fsdp:4,tensor:2", "data:2,fsdp:2,tensor:2"]


def optimizer(*freeze, name="adamw"):
    settings = {
        "name": name, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 1, "beta1": 0.9, "beta2": 0.98,
        "epsilon": 1e-8, "weight_decay": 0.01, "decay_vectors": True, "clip_norm": 1.0, "freeze": freeze,
        "multipliers": {},
    }  # fmt: skip
    return make_optimizer(SimpleNamespace(**settings), steps=10)


@pytest.fixture(scope="module")
def abstract(tiny):
    """eval_shape of a state whose image tower is frozen: boxed parameters, moments of the others."""

    def state():
        params = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), abstract_params(tiny.model()))
        moments = optimizer("clip/vision").init(params)
        return TrainState.fresh(params, moments, jax.random.key(0))

    return jax.eval_shape(state)


@pytest.mark.parametrize("name", MESHES)
def test_bytes_are_those_that_the_devices_hold(abstract, name):
    shardings = state_shardings(abstract, make_mesh(name))
    rows = placements(abstract.params, shardings.params)
    arrays = jax.device_put(
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.tree.leaves(abstract.params)),
        jax.tree.leaves(shardings.params),
    )
    assert len(rows) == len(arrays)
    for row, x in zip(rows, arrays, strict=True):
        assert row.shape == x.shape and row.bytes == x.nbytes
        assert {shard.data.nbytes for shard in x.addressable_shards} == {row.device_bytes}
        assert bool(row.axes) == (not x.sharding.is_fully_replicated)
    assert [row[1:] for row in placements(arrays)] == [row[1:] for row in rows]  # arrays know their own shardings


def test_groups_add_up(abstract):
    rows = placements(abstract.params, state_shardings(abstract, make_mesh("fsdp:8")).params)
    parts = grouped(rows, lambda path: path[:1])
    assert [part.path for part in parts] == [("clip",), ("fusion_0",), ("pooling",), ("query_projection",)]
    for field in ("arrays", "bytes", "device_bytes"):
        assert sum(getattr(part, field) for part in parts) == sum(getattr(row, field) for row in rows)
    clip = [row for row in rows if row.path[0] == "clip"]
    assert parts[0].bytes == sum(4 * math.prod(row.shape) for row in clip) and parts[0].axes == ("fsdp",)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_frozen_part_has_no_optimizer_state(tiny, name):
    params = tiny.params(tiny.model())
    rule = functools.partial(optimizer, name=name)
    state = lambda *freeze: TrainState.fresh(params, rule(*freeze).init(params), 0)
    table = lambda *freeze: {line.split()[0]: line for line in placement_table(state(*freeze)).splitlines()[1:]}
    trained, frozen = table(), table("clip/vision", "fusion_0")
    assert "frozen" not in "".join(trained.values())
    assert [part for part, line in frozen.items() if "frozen" in line] == ["clip/vision", "fusion_0"]
    assert frozen["clip/text"] == trained["clip/text"] and frozen["pooling"] == trained["pooling"]
    held = lambda state: sum(row.bytes for row in placements(state.opt_state))
    saved = held(state()) - held(state("clip/vision", "fusion_0"))
    moments = 1 if name == "muon" else 2
    left_out = [row for row in placements(params) if row.path[:2] == ("clip", "vision") or row.path[0] == "fusion_0"]
    assert saved >= moments * sum(row.bytes for row in left_out)


def test_the_table_adds_up_on_a_mesh(abstract):
    lines = placement_table(abstract, state_shardings(abstract, make_mesh("fsdp:4,tensor:2"))).splitlines()
    assert lines[0].split() == ["arrays", "parameters", "a", "device", "optimizer", "a", "device", "cut", "over"]
    assert lines[-1].startswith("all") and lines[-1].endswith("fsdp, tensor")
    total = sum(int(line.split()[1]) for line in lines[1:-1])
    assert int(lines[-1].split()[1]) == total == len(jax.tree.leaves(abstract.params))
