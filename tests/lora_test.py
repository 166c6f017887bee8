"""LoRA: the base at initialisation, products in float64, gradients of adapters alone, on one device and on eight."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.lora import NAME, Adapted, Lora, digest, join, split
from contextjax.models.clip import CLIP
from contextjax.models.linear import Dense
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.optim import STACK
from contextjax.pretrained import abstract_params
from contextjax.pretrained.names import flatten, restack, unflatten
from contextjax.sharding import activations, init_sharded, make_mesh, place_batch
from contextjax.training.compiled_step import trace_step
from contextjax.training.first_state import init_state
from contextjax.types import CaptionBatch, UserError
from tests.sharding.table_test import optimizer

PATHS = ("vision/layers", "text")
FROZEN = ("vision", "text", "visual_projection", "text_projection", "logit_scale")
LORA = Lora(2, 3.0, PATHS)
KEY = jax.random.key(0)


def clip_of(tiny, *, scan=False):
    towers = {name: dataclasses.replace(getattr(tiny.clip, name), layers=2, scan=scan) for name in ("vision", "text")}
    return CLIP(dataclasses.replace(tiny.clip, **towers))


def drawn(tree, seed=0):
    """Random numbers in the place of every leaf of shapes or arrays, boxed or not."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), nn.unbox(tree))


@pytest.fixture(scope="module", params=[False, True], ids=["one_by_one", "stacked"])
def setting(request, tiny):
    """A CLIP, its parameters, and its adapters with random products."""
    model = clip_of(tiny, scan=request.param)
    params = drawn(abstract_params(model))
    return model, params, drawn(LORA.add(params, KEY), seed=1) | params


def test_every_matrix_under_the_paths_has_an_adapter_and_nothing_else(setting):
    _, params, adapted = setting
    held = {path.rpartition("/")[0] for path in flatten(adapted[NAME])}
    kernels = {path for path in flatten(params) if path.endswith("kernel") and ("/layer" in path)}
    assert held == kernels and len(held) == (8 if f"vision/{STACK}/mlp/up/kernel" in held else 16)


def test_at_initialisation_the_model_is_its_base_bit_by_bit(setting):
    _, params, _ = setting
    merged = LORA.merge(LORA.add(params, KEY))
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    drawn_a = flatten(LORA.add(params, KEY)[NAME])
    assert all(np.std(x) > 0.01 if path.endswith("/a") else not np.any(x) for path, x in drawn_a.items())


def test_the_products_are_those_in_float64(setting):
    """Compares matrices one by one: those of each layer, and of query, key and value."""
    _, params, adapted = setting
    merged, adapters, count = flatten(LORA.merge(adapted)), flatten(adapted[NAME]), 0
    for path, kernel in flatten(params).items():
        if f"{path}/a" not in adapters:
            np.testing.assert_array_equal(merged[path], kernel)
            continue
        a, b = (np.asarray(adapters[f"{path}/{side}"], np.float64) for side in "ab")
        kernel, got = np.asarray(kernel, np.float64), np.asarray(merged[path])
        layers = range(len(kernel)) if f"/{STACK}/" in path else [...]
        for layer in layers:
            for part in range(3) if path.endswith("qkv_kernel") else [None]:
                of = lambda x, layer=layer, part=part: x[layer] if part is None else x[layer][:, part]
                right = b[layer] if part is None else b[layer][part]
                np.testing.assert_allclose(of(got), of(kernel) + 1.5 * of(a) @ right, atol=1e-6)
                count += 1
    assert count == 2 * (3 + 3 + 3 + 3)


def test_the_merged_model_computes_what_the_unmerged_does(tiny):
    """The unmerged one adds (x @ a) @ b to what a Linear gives; the merged one has no adapters."""
    model, lora = clip_of(tiny), Lora(2, 3.0, ("vision/layers/mlp", "text/layer_1/attention/out", "visual_projection"))
    params = drawn(abstract_params(model))
    adapted = drawn(lora.add(params, KEY), seed=1) | params
    adapters, used = flatten(adapted[NAME]), set()

    def unmerged(call, args, kwargs, context):
        out, path = call(*args, **kwargs), f"{'/'.join(context.module.path)}/kernel"
        if isinstance(context.module, Dense) and f"{path}/a" in adapters:
            used.add(path)
            out = out + 1.5 * (args[0] @ adapters[f"{path}/a"]) @ adapters[f"{path}/b"]
        return out

    inputs = tiny.pictures(5), *tiny.texts(5)
    with nn.intercept_methods(unmerged):
        expected = model.apply({"params": params}, *inputs)
    assert len(used) == len(adapters) / 2 == 6
    got = model.apply({"params": lora.merge(adapted)}, *inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
    jax.tree.map(lambda a, b: np.testing.assert_raises(AssertionError, np.testing.assert_allclose, a, b, atol=1e-3),
                 got, model.apply({"params": params}, *inputs))  # fmt: skip


def test_stacked_layers_are_the_same_ones_and_a_path_may_name_some_of_them(tiny):
    lora = Lora(2, 3.0, ("vision/layer_1", "text/layers/mlp/up"))
    apart, stacked = (drawn(abstract_params(clip_of(tiny, scan=scan))) for scan in (False, True))
    flat = restack(flatten(apart), {path: x.shape for path, x in flatten(stacked).items()})
    adapters = drawn(lora.add(unflatten(flat), KEY)[NAME], seed=1)
    merged = flatten(lora.merge(unflatten(flat) | {NAME: adapters}))
    for path in flatten(stacked):
        changed = [bool(np.any(merged[path][i] != flat[path][i])) for i in range(2)] if STACK in path else []
        kernel = path.endswith("kernel") and STACK in path
        expected = [False, True] if path.startswith("vision") else [path.endswith("mlp/up/kernel")] * 2
        assert changed == (expected if kernel else [False] * len(changed)), path
    alone = restack(flatten(adapters), {})
    own = lora.add(apart, KEY)
    own = own | {NAME: unflatten({path: alone[path] for path in flatten(own[NAME])})}
    for path, x in restack(flatten(lora.merge(own)), {path: x.shape for path, x in flatten(stacked).items()}).items():
        np.testing.assert_array_equal(x, merged[path], err_msg=path)


# ---------------------------------------------------------------------------------------- training


def captions(tiny, count=16):
    ids = np.arange(count, dtype=np.int32)
    return CaptionBatch(np.asarray(tiny.pictures(count)), jax.tree.map(np.asarray, tiny.texts(count)), ids, ids)


@functools.cache
def trained(tiny, mesh_name, *, lora=LORA, frozen=FROZEN, steps=2, micro_batches=1):
    """(the state before, the one after some steps of a CLIP on captions, the compiled step)."""
    devices = jax.devices()[: 1 if mesh_name == "data:1" else 8]
    model, mesh, rule = clip_of(tiny), make_mesh(mesh_name, devices=devices), optimizer(*frozen)
    start = drawn(abstract_params(model))

    def init(key):
        boxed = abstract_params(model)
        params = jax.tree.map(lambda box, x: box.replace(value=x), boxed, start,
                              is_leaf=lambda x: isinstance(x, nn.Partitioned))  # fmt: skip
        return params if lora is None else lora.add(params, key)

    objective = CaptionObjective(model, (("contrastive", 1.0),), None)
    state, shardings = init_sharded(functools.partial(init_state, init, rule, 0), mesh)
    before, batch = jax.device_get(state), place_batch(captions(tiny), mesh, micro_batches=micro_batches)
    objective = objective if lora is None else Adapted(objective, lora)
    with activations(mesh):
        program = trace_step(
            objective, state, batch, shardings=shardings, mesh=mesh, optimizer=rule, frozen=frozen,
            micro_batches=micro_batches,
        ).lower().compile()  # fmt: skip
    for _ in range(steps):
        state, metrics = program(state, batch)
    return before, jax.device_get(state), program, jax.device_get(metrics)


@pytest.mark.long
def test_adapters_alone_are_trained(tiny):
    before, after, _, metrics = trained(tiny, "data:1")
    assert metrics["grad_norm"] > 0 and np.isfinite(metrics["loss"])
    for path, x in flatten(after.params).items():
        assert bool(np.any(x != flatten(before.params)[path])) is path.startswith(NAME), path
    adapters = sum(x.size for x in jax.tree.leaves(after.params[NAME]))
    assert sum(np.size(x) for x in jax.tree.leaves(after.opt_state) if np.ndim(x)) == 2 * adapters


@pytest.mark.long
def test_eight_devices_compute_what_one_does(tiny):
    alone, eight = trained(tiny, "data:1"), trained(tiny, "data:2,fsdp:2,tensor:2")
    jax.tree.map(np.testing.assert_array_equal, alone[0].params, eight[0].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight[1].params, alone[1].params)


@pytest.mark.long
def test_micro_batches_give_the_gradients_of_the_whole(tiny):
    whole, parts = trained(tiny, "data:1"), trained(tiny, "data:1", micro_batches=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts[1].params, whole[1].params)


@pytest.mark.long
def test_the_optimizer_s_memory_is_that_of_the_adapters(tiny):
    """The new state is written over the old one, and moments are those of the adapters alone."""
    whole, thin = (trained(tiny, "data:1", lora=lora, frozen=frozen, steps=1)
                   for lora, frozen in ((None, ()), (LORA, FROZEN)))  # fmt: skip
    held = lambda run: sum(x.nbytes for x in jax.tree.leaves((run[1].params, run[1].opt_state)))
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    adapters, base = size(thin[1].params[NAME]), size(whole[1].params)
    assert held(whole) - held(thin) == 2 * base - 3 * adapters
    sizes = [run[2].memory_analysis().argument_size_in_bytes for run in (whole, thin)]
    assert abs(sizes[0] - sizes[1] - (held(whole) - held(thin))) <= 64


def test_adapters_are_placed_as_their_kernels(tiny):
    boxed = jax.eval_shape(LORA.add, abstract_params(clip_of(tiny)), KEY)
    adapter = boxed[NAME]["vision"]["layer_0"]
    names = lambda *path: functools.reduce(lambda tree, key: tree[key], path, adapter).names
    assert names("attention", "qkv_kernel", "a") == ("embed", None, None)
    assert names("attention", "qkv_kernel", "b") == (None, None, "heads")
    assert (names("mlp", "down", "kernel", "a"), names("mlp", "down", "kernel", "b")) == (
        ("mlp", None),
        (None, "embed"),
    )
    stacked = jax.eval_shape(LORA.add, abstract_params(clip_of(tiny, scan=True)), KEY)[NAME]["vision"][STACK]
    assert stacked["attention"]["qkv_kernel"]["b"].names == (None, None, None, "heads")
    assert stacked["mlp"]["up"]["kernel"]["a"].names == (None, "embed", None)


# ---------------------------------------------------------------------------------------- the base


def test_the_base_is_what_is_frozen_and_comes_back(setting):
    _, params, adapted = setting
    held, base = split(adapted, ("vision", "text"))
    assert set(held) == {NAME, "visual_projection", "text_projection", "logit_scale"} and set(base) == {
        "vision",
        "text",
    }
    jax.tree.map(np.testing.assert_array_equal, join(held, base), adapted)
    assert digest(base) != digest(held) and digest(base) == digest({name: params[name] for name in base})


def test_a_digest_is_of_paths_shapes_and_bits_wherever_shards_are(setting):
    _, params, _ = setting
    mesh = make_mesh("fsdp:8")
    whole = {"w": params["vision"]["position_embedding"], "x": jnp.arange(64.0).reshape(8, 8), "s": jnp.float32(2)}
    cut = place_batch(jax.tree.map(np.asarray, {"x": whole["x"]}), mesh)
    assert digest(whole) == digest({**whole, **cut}) == digest(jax.tree.map(np.asarray, whole))
    others = [
        {**whole, "x": whole["x"].at[3, 4].add(1e-6)}, {**whole, "x": whole["x"].T},
        {**whole, "x": whole["x"].reshape(4, 16)}, {"w": whole["w"], "y": whole["x"], "s": whole["s"]},
        {**whole, "s": jnp.float32(-2)},
    ]  # fmt: skip
    assert len({digest(each) for each in (whole, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("paths", "frozen", "said"),
    [
        ((), FROZEN, "model.lora.rank is 2, but model.lora.paths is empty"),
        (("vision", "vison"), FROZEN, "model.lora.paths names 'vison', where the model has nothing"),
        (("vision/(layer_0",), FROZEN, "names 'vision/.layer_0', where the model has nothing"),
        (("logit_scale",), FROZEN, "names 'logit_scale', where there is no matrix but logit_scale"),
        (("vision/layers/mlp_norm",), FROZEN, "names 'vision/layers/mlp_norm', where there is no matrix but"),
        (("text/token_embedding",), FROZEN, "no matrix but text/token_embedding/embedding"),
        (("vision", "text"), ("vision", "text/layer_0"), "text/layer_1/.* has an adapter and is trained itself; add"),
        (("vision",), (), "has an adapter and is trained itself"),
    ],
)
def test_paths_that_do_not_fit_are_reported(tiny, paths, frozen, said):
    shapes = nn.unbox(abstract_params(clip_of(tiny)))
    with pytest.raises(UserError, match=said):
        Lora(2, 4.0, paths).check(shapes, frozen)
    Lora(2, 4.0, PATHS).check(shapes, FROZEN)
