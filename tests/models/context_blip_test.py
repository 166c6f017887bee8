"""ContextBLIP's module: its size, its forms, and which inputs must not influence which outputs."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.multimodal import BertConfig, BertEncoder, Context
from contextjax.models.vision import VisionConfig, VisionTransformer
from contextjax.pretrained import abstract_params
from contextjax.types import CandidateBatch, CaptionBatch
from contextjax.variants import make_model, make_spec

# What the other tests of ContextBLIP share too. Sizes are those of conftest's pictures and texts.
PATCHES = 16
BLIP = BLIPConfig(
    VisionConfig(16, 4, width=16, layers=2, heads=4, mlp=32, activation="gelu", epsilon=1e-6, pre_norm=False,
                 patch_bias=True, fit="squash", taps=(1, 2)),
    BertConfig(32, 12, width=24, layers=1, heads=4, mlp=32),
    projection=8,
)  # fmt: skip
SMALL = {"decoder_layers": 1, "decoder_heads": 4, "context_layers": 1, "context_heads": 4, "fused_token": 2}


# XLA's older way to emit what it fuses compiles several times as fast; and these tests compile much and run little.
jit = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": False})


def small_model(*, dtype=None, **options) -> ContextBLIP:
    return ContextBLIP(ContextBLIPConfig(BLIP, **(SMALL | options)), dtype)


def random_params(module: nn.Module, *inputs, seed: int = 0):
    """Random parameters, the zero-initialised ones too; no init is compiled. `inputs`: of a part of the model."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"] if inputs else abstract_params(module)
    rng = np.random.default_rng(seed)

    def draw(path, x):
        noise = rng.normal(size=x.shape)
        if path[-1].key == "scale":
            noise = 1 + 0.2 * noise
        else:
            noise *= x.shape[0] ** -0.5 if len(x.shape) > 1 else 0.2
        return jnp.asarray(noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(boxed))


def caption_batch(tiny, count: int, *, seed: int = 0) -> CaptionBatch:
    """Pictures that are all different."""
    own = jnp.arange(count, dtype=jnp.int32)
    return CaptionBatch(tiny.pictures(count, seed=seed), tiny.texts(count, seed=seed), own, own)


def candidate_batch(tiny, sets: int, count: int, *, seed: int = 0) -> CandidateBatch:
    """Whole sets, every second one of frames in order."""
    target = jnp.asarray(np.random.default_rng(seed).integers(0, count, sets), jnp.int32)
    valid, rows = jnp.ones((sets, count), bool), jnp.arange(sets, dtype=jnp.int32)
    pictures, texts = tiny.pictures(sets, count, seed=seed), tiny.texts(sets, seed=seed)
    return CandidateBatch(pictures, texts, target, valid, rows % 2 == 0, rows)


def close(got, expected, *, to=1e-5):
    """Checks that trees of arrays are equal, up to `to` times the largest value of each array."""
    largest = lambda x: float(np.abs(x).max())
    of_all = max(largest(x) for x in jax.tree.leaves(expected))  # beside which the gradient of a key's bias is zero
    check = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=to * max(largest(b), 1e-3 * of_all))
    jax.tree.map(check, got, expected)


def run(model, params, method, *inputs):
    """Runs a method of the model, compiled."""
    return jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=method))(params, *inputs)


# -------------------------------------------------------------------------------------- sizes and forms


@pytest.mark.long
def test_it_has_the_papers_number_of_parameters():
    """All that is there at inference: 239,995,907 with Linear(768 -> 384) in the adapter."""
    config = base("context_blip").model
    config.update({"variant": "BLIP-B", "masking": "none", "selection": "head", "context_layers": 2})
    sizes = jax.tree.map(lambda x: math.prod(x.shape), nn.unbox(abstract_params(make_model(make_spec(config)))))
    total = {name: sum(jax.tree.leaves(part)) for name, part in sizes.items()}
    assert total == {"blip": 223_452_418, "adapter": 2_359_296, "context": 14_183_424, "head": 769}
    assert sum(total.values()) == 239_995_907


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ({"adapter": "none", "masking": "none", "selection": "none", "context_layers": 0}, set()),
        ({"masking": "pixels", "selection": "none", "context_layers": 0}, {"adapter", "decoder"}),
        ({"masking": "none", "selection": "head", "context_layers": 0}, {"adapter", "head"}),
        ({"masking": "none", "selection": "head"}, {"adapter", "head", "context"}),
        ({"masking": "none", "selection": "both"}, {"adapter", "head", "logit_scale", "context"}),
        (
            {"adapter": "convolutions", "masking": "attended", "selection": "itc", "context_layers": 0},
            {"adapter", "attended", "logit_scale"},
        ),
    ],
)
def test_there_are_parameters_for_what_is_switched_on_alone(tiny, form, parts):
    model = small_model(**form)
    params = jax.eval_shape(lambda: random_params(model))
    assert set(params) == {"blip"} | parts
    out = jax.eval_shape(lambda p: model.apply({"params": p}, tiny.pictures(3), *tiny.texts(3)), params)
    assert [x.shape for x in out] == [(3, 8), (3, 8), (3, 2), (3, 1)][: 3 if form["selection"] == "none" else 4]


# ------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def setting():
    model = small_model(masking="none", selection="both")
    return model, random_params(model)


@pytest.fixture(scope="module", params=["taps", "convolutions"])
def adapted(request):
    model = small_model(adapter=request.param, masking="none", selection="none", context_layers=0)
    return model, random_params(model)


def test_all_patches_in_any_order_are_the_whole_picture(tiny, adapted):
    model, params = adapted
    pictures = tiny.pictures(2)
    order = jnp.asarray(np.argsort(np.random.default_rng(0).random((2, PATCHES)), axis=1), jnp.int32)
    whole = run(model, params, lambda m, x: m.adapt(m.encode_image(x)), pictures)
    shown = run(model, params, lambda m, x, order: m.encode_visible(m.patchify(x), order), pictures, order)
    np.testing.assert_allclose(shown[:, 0], whole[:, 0], atol=1e-5)
    expected = np.take_along_axis(np.asarray(whole)[:, 1:], np.asarray(order)[..., None], axis=1)
    np.testing.assert_allclose(shown[:, 1:], expected, atol=1e-5)


def test_pixels_of_a_masked_patch_reach_no_visible_token(tiny, adapted):
    """By what a change does, and by the gradient with respect to every pixel."""
    model, params = adapted
    order = np.argsort(np.random.default_rng(1).random((2, PATCHES)), axis=1).astype(np.int32)
    masked, visible = jnp.asarray(order[:, :5]), jnp.asarray(order[:, 5:])
    patches = np.asarray(run(model, params, "patchify", tiny.pictures(2)))
    weights = np.random.default_rng(2).normal(size=(2, 12, 16))

    def read(patches):
        tokens = model.apply({"params": params}, patches, visible, method="encode_visible")
        return (tokens * weights).sum(), tokens

    step = jit(jax.value_and_grad(read, has_aux=True))
    (_, tokens), gradient = step(jnp.asarray(patches))
    of = lambda which: np.take_along_axis(np.asarray(gradient), np.asarray(which)[..., None], axis=1)
    assert not of(masked).any() and (np.abs(of(visible)).max(-1) > 0).all()
    hidden = patches.copy()
    np.put_along_axis(hidden, np.asarray(masked)[..., None], 1e3, axis=1)
    np.testing.assert_array_equal(step(jnp.asarray(hidden))[0][1], tokens)


def test_padding_of_the_text_changes_nothing(tiny, setting):
    model, params = setting
    (ids, mask), pictures = tiny.texts(4), tiny.pictures(4)
    assert mask.sum(-1).min() < ids.shape[1]

    def read(ids):
        def towers(model):
            fused = model.read(model.adapt(model.encode_image(pictures)), ids, mask)
            got = model.feature(fused), model.match_states(fused), model.embed_text(model.encode_text(ids, mask))
            return got, fused.states, fused.attention

        return model.apply({"params": params}, method=towers)

    read = jit(read)
    (got, *by_token), (other, *other_by_token) = read(ids), read(jnp.where(mask, ids, 7))
    close(other, got)
    close([x[mask] for x in other_by_token], [x[mask] for x in by_token])
    np.testing.assert_allclose(by_token[1].sum(-1), 1, rtol=1e-5)  # attention to the picture


def test_a_set_is_what_its_candidates_are_one_by_one(tiny, setting):
    model, params = setting
    batch = candidate_batch(tiny, 2, 3)
    together = run(model, params, "represent_sets", batch.images, *batch.texts)
    alone = jnp.repeat(batch.texts.ids, 3, axis=0), jnp.repeat(batch.texts.mask, 3, axis=0)
    one = run(model, params, "represent_sets", batch.images.reshape(6, 1, *batch.images.shape[2:]), *alone)
    np.testing.assert_allclose(together.features.reshape(6, 24), one.features[:, 0], atol=1e-5)
    np.testing.assert_allclose(together.base.reshape(-1), one.base[:, 0], atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(together.features, axis=-1), 1, rtol=1e-5)
    cosine = np.einsum("skd,sd->sk", together.image, together.text[:, 0])
    np.testing.assert_allclose(together.base, cosine / run(model, params, "temperature"), rtol=1e-4)


@pytest.mark.parametrize("selection", ["head", "both"])
def test_padding_of_a_set_changes_no_score(selection):
    model = small_model(masking="none", selection=selection)
    params, rng = random_params(model), np.random.default_rng(0)
    shapes = ((2, 5, 24), (2, 5), (2, 24))
    features, base, text = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    valid, ordered = jnp.asarray([[True] * 3 + [False] * 2] * 2), jnp.asarray([True, False])
    got = run(model, params, "select", features, base, valid, ordered, text)[:, :3]
    close(got, run(model, params, "select", features[:, :3], base[:, :3], valid[:, :3], ordered, text))
    everything = run(model, params, "select", features, base, jnp.ones_like(valid), ordered, text)[:, :3]
    assert np.abs(got - everything).max() > 1e-3


def test_the_fused_token_stands_at_the_beginning_of_what_reads_a_picture(tiny):
    model = small_model(fused_token=5)
    params, (ids, mask) = random_params(model), tiny.texts(2)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 16)), jnp.float32)

    def read(ids):
        as_given = ContextBLIP(dataclasses.replace(model.config, fused_token=None))
        apply = lambda model, method, *inputs: model.apply({"params": params}, *inputs, ids, mask, method=method).pooled
        return apply(model, "read", tokens), apply(model, "encode_text"), apply(as_given, "read", tokens)

    read = jit(read)
    (fused, alone, _), (same, other, as_given) = read(ids.at[:, 0].set(9)), read(ids.at[:, 0].set(5))
    np.testing.assert_array_equal(fused, same)
    np.testing.assert_allclose(as_given, fused, atol=1e-6)
    assert np.abs(alone - other).max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("selection", ["both", "itc"])
def test_added_to_the_cosine_the_head_begins_at_zero(tiny, selection):
    """After `init`, scores are the cosine over the temperature, 0.07, with an inter-context encoder too."""
    model = small_model(selection=selection, masking="none")
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), tiny.pictures(1), *tiny.texts(1)))["params"]
    assert ("head" in shapes) == (selection == "both")
    begin = nn.unbox(
        jit(lambda key: select_alone(model.init(key, tiny.pictures(1), *tiny.texts(1))))(jax.random.key(0))
    )
    params = random_params(model) | begin
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    image, text, features = draw(2, 3, 8), draw(2, 1, 8), draw(2, 3, 24)

    def score(model):
        base = model.base_score(image, text, jnp.ones((2, 1), bool))
        return model.select(features, base, jnp.ones((2, 3), bool), jnp.ones(2, bool), features[:, 0])

    got = run(model, params, score)
    np.testing.assert_allclose(got, np.einsum("skd,sjd->sk", image, text) / 0.07, rtol=1e-4)


def test_a_text_is_true_where_each_of_its_propositions_is():
    """The base score against its definition in float64; a missing proposition changes nothing, nor does their order."""
    model = small_model(selection="itc", masking="none", propositions=True)
    params = {"logit_scale": jnp.float32(1.3), "truth_bias": jnp.float32(-0.4)}
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(3, 4, 8)), rng.normal(size=(3, 5, 8))
    real = np.asarray([[True] * 5, [True, False, True, False, False], [False, True, False, False, False]])
    score = jit(lambda *inputs: model.apply({"params": params}, *inputs, method="base_score"))
    got = score(*map(jnp.asarray, (image, text, real)))
    logits = np.einsum("skd,sjd->sjk", image, text) * np.exp(1.3) - 0.4
    expected = np.where(real[..., None], -np.logaddexp(0, -logits), 0).sum(1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert (got < 0).all()
    order = rng.permutation(5)
    np.testing.assert_allclose(score(image, text[:, order], real[:, order]), got, rtol=1e-5)
    for_all = score(jnp.asarray(image[:1]), jnp.asarray(text), jnp.asarray(real))  # the same pictures for every text
    np.testing.assert_allclose(for_all[0], got[0], rtol=1e-5)


def select_alone(variables):
    """Returns the parameters of head and temperature; the others are not even computed."""
    return {name: x for name, x in variables["params"].items() if name in ("head", "logit_scale")}


def test_the_temperature_is_never_below_a_hundredth():
    model = small_model(selection="itc", masking="none")
    temperature = lambda scale: model.apply({"params": {"logit_scale": jnp.float32(scale)}}, method="temperature")
    for scale, expected, slope in ((math.log(1 / 0.07), 0.07, -0.07), (3.0, math.exp(-3), -math.exp(-3)), (9, 0.01, 0)):
        got, gradient = jax.value_and_grad(temperature)(float(scale))
        np.testing.assert_allclose((got, gradient), (expected, slope), rtol=1e-5)


def test_in_bfloat16_scores_are_float32_and_near(tiny, setting):
    model, params = setting
    batch = candidate_batch(tiny, 2, 3)

    def score(model, *inputs):
        got = model.represent_sets(*inputs)
        return model.select(got.features, got.base, batch.valid, batch.ordered, got.summary)

    inputs = batch.images, *batch.texts
    exact, got = (run(m, params, score, *inputs) for m in (model, ContextBLIP(model.config, jnp.bfloat16)))
    assert got.dtype == jnp.float32 and np.isfinite(got).all()
    close(got, exact, to=0.05)


# ------------------------------------------------------------------ contexts that several texts read, and taps


def stacked(params):
    """Parameters of layer_0, layer_1, ... along a first axis, as a tower with `scan` has them."""
    layers = [params[f"layer_{i}"] for i in range(len([name for name in params if name.startswith("layer_")]))]
    rest = {name: x for name, x in params.items() if not name.startswith("layer_")}
    return rest | {"layers": jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def vision_case(tiny, **options):
    """(module, its inputs, output -> what is compared)."""
    tower = VisionTransformer(dataclasses.replace(BLIP.vision, **options))
    return tower, (tiny.pictures(2),), lambda out: (out.tokens, out.pooled, *out.taps)


def text_case(tiny, **options):
    tower = BertEncoder(dataclasses.replace(BLIP.text, layers=2, **options))
    picture = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 16)), jnp.float32)
    context = Context(picture, rows=jnp.asarray([1, 0, 1]))
    return tower, (*tiny.texts(3), context), lambda out: (out.states, out.pooled, out.attention)


@pytest.mark.long
@pytest.mark.parametrize("case", [vision_case, text_case])
def test_scan_and_remat_change_no_output_tap_or_gradient(tiny, case):
    tower, inputs, read = case(tiny)
    params = random_params(tower, *inputs)

    def step(tower, params, *, slope=True):
        def loss(params):
            out = read(tower.apply({"params": params}, *inputs))
            return sum((jnp.sin(7.0 * x) * x).sum() for x in out), out

        if not slope:
            return jit(loss)(params)[1]
        (_, out), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
        return out, gradients

    out, gradients = step(tower, params)
    assert len(out) == (4 if case is vision_case else 3)
    close(step(case(tiny, scan=True)[0], stacked(params), slope=False), out)
    for scan in (False, True):
        stack = stacked if scan else lambda params: params
        got, got_gradients = step(case(tiny, scan=scan, remat="full")[0], stack(params))
        close(got, out)
        close(got_gradients, stack(gradients), to=1e-4)


def test_taps_are_what_the_blocks_give(tiny):
    """The tap after the last block is the output; one after an earlier block that of a tower that ends there."""
    tower, inputs, _ = vision_case(tiny)
    params = random_params(tower, *inputs)
    out = run(tower, params, None, *inputs)
    np.testing.assert_array_equal(out.taps[1], out.tokens)
    short, *_ = vision_case(tiny, layers=1, taps=())
    np.testing.assert_allclose(run(short, params, None, *inputs).tokens, out.taps[0], atol=1e-5)
    assert np.abs(out.taps[0] - out.taps[1]).max() > 0.1
