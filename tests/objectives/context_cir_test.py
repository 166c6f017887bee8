"""The objective: equal to the published implementation's numbers, and what padding and phrases may not change."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from contextjax.losses.contrastive import contrastive_loss
from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.layers import normalize
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.types import ComposedBatch, Phrases, Tokens

# The golden pixels are already scaled; with this mean and std the model's own scaling is the identity.
PUBLISHED = ContextCIR(
    ContextCIRConfig(
        CLIPConfig(
            VisionConfig(32, 8, width=64, layers=3, heads=4, mlp=96, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3),
            TextConfig(97, 20, width=32, layers=2, heads=4, mlp=48),
            projection=24,
        )
    )
)
WEIGHTS = (("contrastive", 1.0), ("consistency", 0.08))

# ------------------------------------------------------------------------- published names -> ours

linear = {"kernel": "weight", "bias": "bias"}
norm = {"scale": "weight", "bias": "bias"}


def named(table, ours, theirs, kinds):
    return {f"{ours}/{a}": f"{theirs}.{b}" for a, b in kinds.items()} | table


def name_table():
    """Our parameter -> published name, or the three names that the fused q|k|v holds."""
    table = {
        "clip/vision/class_embedding": "vision_encoder.model.embeddings.class_embedding",
        "clip/vision/patch_embedding/kernel": "vision_encoder.model.embeddings.patch_embedding.weight",
        "clip/vision/position_embedding": "vision_encoder.model.embeddings.position_embedding.weight",
        "clip/text/token_embedding/embedding": "text_encoder.model.embeddings.token_embedding.weight",
        "clip/text/position_embedding": "text_encoder.model.embeddings.position_embedding.weight",
        "clip/visual_projection/kernel": "visual_projection.weight",
        "pooling/query": "attn_pooler.queries",
    }
    table = named(table, "clip/vision/pre_norm", "vision_encoder.model.pre_layrnorm", norm)
    table = named(table, "clip/vision/post_norm", "vision_encoder.model.post_layernorm", norm)
    table = named(table, "clip/text/final_norm", "text_encoder.model.final_layer_norm", norm)
    table = named(table, "pooling/norm", "attn_pooler.norm", norm)
    table = named(table, "query_projection", "query_projection", linear)
    for tower, layers in (("vision", 3), ("text", 2)):
        for i in range(layers):
            ours, theirs = f"clip/{tower}/layer_{i}", f"{tower}_encoder.model.encoder.layers.{i}"
            for kind in ("kernel", "bias"):
                table[f"{ours}/attention/qkv_{kind}"] = tuple(
                    f"{theirs}.self_attn.{x}_proj.{linear[kind]}" for x in "qkv"
                )
            table = named(table, f"{ours}/attention/out", f"{theirs}.self_attn.out_proj", linear)
            table = named(table, f"{ours}/attention_norm", f"{theirs}.layer_norm1", norm)
            table = named(table, f"{ours}/mlp_norm", f"{theirs}.layer_norm2", norm)
            table = named(table, f"{ours}/mlp/up", f"{theirs}.mlp.fc1", linear)
            table = named(table, f"{ours}/mlp/down", f"{theirs}.mlp.fc2", linear)
    attentions = {f"fusion_{i}/cross_attention": f"cross_attn_layers.{i}" for i in range(4)}
    for ours, theirs in (attentions | {"pooling/attention": "attn_pooler.attention"}).items():
        for a, b in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
            table = named(table, f"{ours}/{a}", f"{theirs}.{b}", linear)
    for i in range(4):
        table = named(table, f"fusion_{i}/cross_attention_norm", f"fusion_attn_norms.{i}", norm)
        table = named(table, f"fusion_{i}/mlp_norm", f"fusion_ffn_norms.{i}", norm)
        table = named(table, f"fusion_{i}/mlp/up", f"fusion_ffns.{i}.0", linear)
        table = named(table, f"fusion_{i}/mlp/down", f"fusion_ffns.{i}.3", linear)
    return table


def to_ours(name, value):
    """PyTorch's layout -> ours."""
    if name.endswith("patch_embedding.weight"):  # [out, channel, row, column]
        return value.transpose(2, 3, 1, 0).reshape(-1, len(value))
    if name == "attn_pooler.queries":
        return value[0]
    return value if "embedding" in name or value.ndim == 1 else value.T


@pytest.fixture(scope="module")
def params(golden):
    tree = {}
    for ours, theirs in name_table().items():
        node = tree
        *path, leaf = ours.split("/")
        for key in path:
            node = node.setdefault(key, {})
        if isinstance(theirs, tuple):
            parts = [to_ours(name, golden[f"weights.{name}"]) for name in theirs]
            node[leaf] = np.stack(parts, axis=-2)
        else:
            node[leaf] = to_ours(theirs, golden[f"weights.{theirs}"])
    # Not part of the published system: the learned temperature and the text embedding.
    tree["clip"] |= {"logit_scale": np.float32(0), "text_projection": {"kernel": np.zeros((32, 24), np.float32)}}
    return jax.tree.map(jnp.asarray, tree)


@pytest.fixture(scope="module")
def batch(golden):
    """The golden inputs; [B, 10] phrases are packed as they stand, invalid ones included."""
    x = {name.removeprefix("input."): value for name, value in golden.items() if name.startswith("input.")}
    pixels = {name: jnp.asarray(x[f"{name}_pixels"].transpose(0, 2, 3, 1)) for name in ("reference", "target")}
    count, budget = x["phrase_valid"].shape
    flat = lambda name, dtype: jnp.asarray(x[name].reshape(count * budget, *x[name].shape[2:]).astype(dtype))
    return ComposedBatch(
        references=pixels["reference"],
        targets=pixels["target"][:, None],
        texts=Tokens(jnp.asarray(x["caption_ids"][:, None], jnp.int32), jnp.asarray(x["caption_mask"][:, None] > 0)),
        valid=jnp.ones((count, 1), bool),
        reference_ids=jnp.arange(count),
        target_ids=jnp.arange(count, 2 * count)[:, None],
        records=jnp.arange(count)[:, None],
        phrases=Phrases(
            Tokens(flat("phrase_ids", np.int32), flat("phrase_mask", bool)),
            jnp.repeat(jnp.arange(count), budget),
            flat("phrase_span", np.int32),
            flat("phrase_valid", bool),
            jnp.zeros(count, jnp.int32),
        ),
    )


@pytest.fixture
def float_pixels():
    """The golden pixels are floats, which the uint8 annotations of the models refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def assert_close(got, expected, *, to=1e-5):
    np.testing.assert_allclose(got, expected, rtol=0, atol=to * np.abs(expected).max())


# ------------------------------------------------------------------------------------------ parity


def test_contrastive_loss_of_the_published_embeddings(golden):
    query, target, reference = (
        normalize(jnp.asarray(golden[f"output.{name}"]))
        for name in ("query", "target_embedding", "reference_embedding")
    )
    total, count = contrastive_loss(
        query, target, temperature=0.07, valid=jnp.ones(5, bool), target_ids=jnp.arange(5), negatives=reference
    )
    assert_close(total / count, golden["output.loss_contrastive"])


def test_every_published_weight_has_a_place(golden, params, tiny):
    used = {n for names in name_table().values() for n in ((names,) if isinstance(names, str) else names)}
    assert {f"weights.{name}" for name in used} == {name for name in golden if name.startswith("weights.")}
    assert jax.tree.map(jnp.shape, params) == tiny.shapes(PUBLISHED)


def test_states_attention_and_embeddings_are_the_published_ones(golden, params, batch, float_pixels):
    def forward(model):
        reference, target = model.encode_image(batch.references), model.encode_image(batch.targets[:, 0])
        ids, mask = (x[:, 0] for x in batch.texts)
        text = model.encode_text(ids, mask)
        composition = model.compose(reference, text, mask)
        return {
            "image_states": reference.tokens,
            "text_states": text.states,
            "attention_mean": composition.attention,
            "query": composition.query,
            "reference_embedding": model.embed_image(reference),
            "target_embedding": model.embed_image(target),
        }

    found = jax.jit(lambda params: PUBLISHED.apply({"params": params}, method=forward))(params)
    real = golden["input.caption_mask"] > 0
    for name, value in found.items():
        expected = golden[f"output.{name}"]
        if name.endswith("embedding"):
            expected = np.asarray(normalize(jnp.asarray(expected)))
        if name == "text_states":  # at padding nobody reads them
            value, expected = np.asarray(value)[real], expected[real]
        assert_close(value, expected)


def loss_and_terms(params, batch, *, model=PUBLISHED, weights=WEIGHTS, **options):
    objective = ContextCIRObjective(model, weights, **options)
    terms = objective.terms(objective.represent(params, batch), batch)
    means = {name: total / jnp.maximum(count, 1) for name, (total, count) in terms.items()}
    return sum(weight * means[name] for name, weight in weights), means


def test_losses_are_the_published_ones(golden, params, batch, float_pixels):
    objective = ContextCIRObjective(PUBLISHED, WEIGHTS)
    representations = jax.jit(lambda params: objective.represent(params, batch))(params)
    for epsilon in ("0", "0.05"):
        terms = dataclasses.replace(objective, epsilon=float(epsilon)).terms(representations, batch)
        means = {name: total / count for name, (total, count) in terms.items()}
        assert_close(means["contrastive"], golden["output.loss_contrastive"])
        assert_close(means["consistency"], golden[f"output.loss_consistency_eps{epsilon}"])
        if epsilon == "0":
            assert_close(sum(weight * means[name] for name, weight in WEIGHTS), golden["output.loss_total"])


def test_gradient_norms_are_the_published_ones(golden, params, batch, float_pixels):
    gradients = jax.jit(jax.grad(lambda params: loss_and_terms(params, batch)[0]))(params)
    found = {}
    for ours, theirs in name_table().items():
        value = gradients
        for key in ours.split("/"):
            value = value[key]
        if isinstance(theirs, tuple):
            found |= {name: np.linalg.norm(value[..., i, :]) for i, name in enumerate(theirs)}
        else:
            found[theirs] = np.linalg.norm(value)
    expected = {k.removeprefix("gradnorm."): v for k, v in golden.items() if k.startswith("gradnorm.")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


# -------------------------------------------------------------------------------------- properties

ALL = (("contrastive", 1.0), ("consistency", 0.1), ("captions", 0.5))


@pytest.fixture(scope="module")
def setting(tiny):
    model = tiny.model()
    return model, tiny.params(model)


def test_a_missing_modification_changes_nothing(tiny, setting):
    """Whatever stands in an invalid place: the loss and its gradients stay the same."""
    model, params = setting
    batch = tiny.batch(3, 2)
    assert not batch.valid[-1, -1]
    other = batch._replace(
        targets=batch.targets.at[-1, -1].set(7),
        texts=Tokens(batch.texts.ids.at[-1, -1].set(batch.texts.ids[0, 0]), batch.texts.mask),
        captions=batch.captions._replace(ids=batch.captions.ids.at[-1, -1].set(batch.captions.ids[0, 0])),
    )
    run = jax.jit(jax.value_and_grad(lambda p, b: loss_and_terms(p, b, model=model, weights=ALL)[0]))
    (loss, gradients), (other_loss, other_gradients) = run(params, batch), run(params, other)
    np.testing.assert_allclose(loss, other_loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, other_gradients)


def test_phrases_that_are_not_valid_leave_only_the_other_terms(tiny, setting):
    model, params = setting
    batch = tiny.batch(2, 2)
    none = batch._replace(phrases=batch.phrases._replace(valid=jnp.zeros_like(batch.phrases.valid)))

    def loss(params, batch, weight):
        means = loss_and_terms(params, batch, model=model)[1]
        return means["contrastive"] + weight * means["consistency"]

    run = jax.jit(jax.value_and_grad(loss))
    (value, gradients), (other, other_gradients) = run(params, none, 5.0), run(params, batch, 0.0)
    np.testing.assert_allclose(value, other, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, other_gradients)
    assert not np.isclose(run(params, batch, 5.0)[0], other)


def test_the_phrase_alone_is_a_fixed_goal(tiny, setting):
    """The gradient of the consistency loss does not flow into the phrase by itself."""
    model, params = setting
    batch = tiny.batch(2, 2)
    objective = ContextCIRObjective(model, (("contrastive", 1.0), ("consistency", 1.0)))

    def pulled(params, weights):
        r = objective.represent(params, batch)
        return weights[0] * r["alone"].sum() + weights[1] * r["in_context"].sum()

    run = jax.jit(jax.grad(pulled))
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(run(params, jnp.asarray([1.0, 0.0]))))
    assert any(np.asarray(g).any() for g in jax.tree.leaves(run(params, jnp.asarray([0.0, 1.0]))))


def test_each_option_and_weight_is_heard(tiny, setting):
    model, params = setting
    batch = tiny.batch(3, 2)
    batch = batch._replace(target_ids=batch.target_ids.at[0, 0].set(batch.target_ids[1, 1]))
    fixed, learned = ContextCIRObjective(model, ALL), ContextCIRObjective(model, ALL, temperature=None)
    represent = lambda params: (fixed.represent(params, batch), learned.represent(params, batch))
    represented, with_learned = jax.jit(represent)(params)

    def loss(representations=represented, **options):
        terms = dataclasses.replace(fixed, **options).terms(representations, batch)
        return float(sum(weight * terms[name][0] / terms[name][1] for name, weight in options.get("weights", ALL)))

    found = [
        loss(),
        loss(with_learned),
        loss(epsilon=0.02),
        loss(normalize_maps=True),
        loss(reference_negatives=False),
        loss(mask_false_negatives=True),
        loss(weights=(("captions", 1.0),)),
    ]
    assert len({round(value, 5) for value in found}) == len(found), found


def test_only_what_has_a_weight_is_computed(tiny, setting):
    model, params = setting
    batch = tiny.batch(2, 1)._replace(phrases=None)
    objective = ContextCIRObjective(model, (("captions", 1.0),))
    run = lambda params: objective.terms(objective.represent(params, batch), batch)
    assert set(jax.eval_shape(run, params)) == {"temperature", "captions"}
