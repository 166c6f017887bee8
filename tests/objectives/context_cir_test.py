"""The objective: equal to the published implementation's numbers, and what padding and phrases may not change."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from contextjax.losses.contrastive import contrastive_loss
from contextjax.losses.recall_surrogate import recall_surrogate_loss
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.models.clip import CLIPConfig
from contextjax.models.composed_blip import ComposedBLIP, ComposedBLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.layers import normalize
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.context_cir import published_table
from contextjax.pretrained.names import flatten, write
from contextjax.types import LOST, ComposedBatch, FeaturePairs, Phrases, Tokens
from tests.models.composed_blip_test import BLIP
from tests.models.context_blip_test import jit, random_params
from tests.pretrained.conftest import SIGLIP_CONFIG
from tests.shape_checks import no_shape_checks

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
GOLDEN = Path(__file__).parent.parent / "golden" / "context_cir_tiny.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The golden weights as a checkpoint of the published implementation, read."""
    folder = tmp_path_factory.mktemp("published")
    with safe_open(GOLDEN, "numpy") as file:
        (folder / "config.json").write_text(file.metadata()["config"])
        names = [key for key in file.keys() if key.startswith("weights.")]  # noqa: SIM118 (not a dict)
        weights = {name.removeprefix("weights."): file.get_tensor(name) for name in names}
    save_file(weights, folder / "model.safetensors")
    return read_pretrained(folder)


@pytest.fixture(scope="module")
def params(published):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), published.params)


@pytest.fixture(scope="module")
def batch(golden):
    """The golden inputs; [B, 10] phrases are packed as they stand, invalid ones included."""
    x = {name.removeprefix("input."): value for name, value in golden.items() if name.startswith("input.")}
    pixels = {name: jnp.asarray(x[f"{name}_pixels"].transpose(0, 2, 3, 1)) for name in ("reference", "target")}
    count, budget = x["phrase_valid"].shape
    whole = lambda name, dtype: jnp.asarray(x[name].astype(dtype))
    return ComposedBatch(
        references=pixels["reference"],
        targets=pixels["target"][:, None],
        texts=Tokens(jnp.asarray(x["caption_ids"][:, None], jnp.int32), jnp.asarray(x["caption_mask"][:, None] > 0)),
        valid=jnp.ones((count, 1), bool),
        reference_ids=jnp.arange(count),
        target_ids=jnp.arange(count, 2 * count)[:, None],
        records=jnp.arange(count)[:, None],
        phrases=Phrases(
            Tokens(whole("phrase_ids", np.int32), whole("phrase_mask", bool)),
            jnp.zeros((count, budget), jnp.int32),  # each reference is a group of its own
            whole("phrase_span", np.int32),
            whole("phrase_valid", bool),
            jnp.zeros((count, 3), jnp.int32),
        ),
    )


@pytest.fixture
def float_pixels():
    """The golden pixels are floats, which the uint8 annotations of the models refuse."""
    with no_shape_checks():
        yield


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


def test_a_published_checkpoint_is_read_whole(published, params, tiny):
    assert published.family.startswith("ConText-CIR") and published.left_out == []
    config = published.model.config
    assert config.fusion_layers == 4 and config.clip.text.eos_token == 2
    assert jax.tree.map(jnp.shape, params) == tiny.shapes(PUBLISHED)


def test_states_attention_and_embeddings_are_the_published_ones(golden, params, batch, float_pixels):
    def forward(model):
        reference, target = model.encode_image(batch.references), model.encode_image(batch.targets[:, 0])
        ids, mask = (x[:, 0] for x in batch.texts)
        text = model.encode_text(ids, mask)
        composition = model.compose(reference, ids, mask)
        return {
            "image_states": reference.tokens,
            "text_states": text.states,
            "attention_mean": composition.attention,
            "query": composition.query,
            "reference_embedding": model.embed_image(reference),
            "target_embedding": model.embed_image(target),
        }

    outputs = jit(lambda params: PUBLISHED.apply({"params": params}, method=forward))(params)
    real = golden["input.caption_mask"] > 0
    for name, value in outputs.items():
        expected = golden[f"output.{name}"]
        if name.endswith("embedding"):
            expected = np.asarray(normalize(jnp.asarray(expected)))
        if name == "text_states":  # at padding nobody reads them
            value, expected = np.asarray(value)[real], expected[real]
        assert_close(value, expected)


@pytest.fixture(scope="module")
def published_step(params, batch):
    """(objective, representations, gradients of the loss), compiled once."""
    objective = ContextCIRObjective(PUBLISHED, WEIGHTS)

    def loss(params):
        representations = objective.represent(params, batch)
        terms = objective.terms(representations, batch)
        return sum(weight * terms[name][0] / terms[name][1] for name, weight in WEIGHTS), representations

    with no_shape_checks():  # as float_pixels
        gradients, representations = jit(jax.grad(loss, has_aux=True))(params)
    return objective, representations, gradients


def test_losses_are_the_published_ones(golden, batch, published_step):
    objective, representations, _ = published_step
    for epsilon in ("0", "0.05"):
        terms = dataclasses.replace(objective, epsilon=float(epsilon)).terms(representations, batch)
        means = {name: total / count for name, (total, count) in terms.items()}
        assert_close(means["contrastive"], golden["output.loss_contrastive"])
        assert_close(means["consistency"], golden[f"output.loss_consistency_eps{epsilon}"])
        if epsilon == "0":
            assert_close(sum(weight * means[name] for name, weight in WEIGHTS), golden["output.loss_total"])


def test_gradient_norms_are_the_published_ones(golden, published_step):
    tensors = write(published_table(PUBLISHED.config), flatten(published_step[2]))
    outputs = {name: np.linalg.norm(value) for name, value in tensors.items()}
    expected = {k.removeprefix("gradnorm."): v for k, v in golden.items() if k.startswith("gradnorm.")}
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


# -------------------------------------------------------------------------------------- properties

ALL = (("contrastive", 1.0), ("consistency", 0.1), ("captions", 0.5))


@pytest.fixture(scope="module")
def setting(tiny):
    model = tiny.model()
    return model, tiny.params(model)


@pytest.fixture(scope="module")
def step(tiny, setting):
    """(parameters, batch, weights of ALL's terms) -> (loss, gradients), compiled once for a batch of 3 x 2 texts."""
    model, params = setting
    objective = ContextCIRObjective(model, ALL)

    def loss(params, batch, weights):
        terms = objective.terms(objective.represent(params, batch), batch)
        means = [terms[name][0] / jnp.maximum(terms[name][1], 1) for name, _ in ALL]
        return sum(weight * mean for weight, mean in zip(weights, means, strict=True))

    return jit(jax.value_and_grad(loss)).lower(params, tiny.batch(3, 2), jnp.zeros(len(ALL))).compile()


@pytest.mark.long
def test_a_missing_modification_changes_nothing(tiny, setting, step):
    """Whatever stands in an invalid place: the loss and its gradients stay the same."""
    _, params = setting
    batch = tiny.batch(3, 2)
    assert not batch.valid[-1, -1]
    other = batch._replace(
        targets=batch.targets.at[-1, -1].set(7),
        texts=Tokens(batch.texts.ids.at[-1, -1].set(batch.texts.ids[0, 0]), batch.texts.mask),
        captions=batch.captions._replace(ids=batch.captions.ids.at[-1, -1].set(batch.captions.ids[0, 0])),
    )
    weights = jnp.asarray([weight for _, weight in ALL])
    (loss, gradients), (other_loss, other_gradients) = step(params, batch, weights), step(params, other, weights)
    np.testing.assert_allclose(loss, other_loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, other_gradients)


@pytest.mark.long
def test_phrases_that_are_not_valid_leave_only_the_other_terms(tiny, setting, step):
    _, params = setting
    batch = tiny.batch(3, 2)
    none = batch._replace(phrases=batch.phrases._replace(valid=jnp.zeros_like(batch.phrases.valid)))
    run = lambda params, batch, consistency: step(params, batch, jnp.asarray([1.0, consistency, 0.0]))
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

    run = jit(jax.grad(pulled))
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(run(params, jnp.asarray([1.0, 0.0]))))
    assert any(np.asarray(g).any() for g in jax.tree.leaves(run(params, jnp.asarray([0.0, 1.0]))))


@pytest.mark.long
def test_each_option_and_weight_has_an_effect(tiny, setting):
    model, params = setting
    batch = tiny.batch(3, 2)
    batch = batch._replace(target_ids=batch.target_ids.at[0, 0].set(batch.target_ids[1, 1]))
    fixed, learned = ContextCIRObjective(model, ALL), ContextCIRObjective(model, ALL, temperature=None)
    represent = lambda params: (fixed.represent(params, batch), learned.represent(params, batch))
    represented, with_learned = jit(represent)(params)

    def loss(representations=represented, **options):
        terms = dataclasses.replace(fixed, **options).terms(representations, batch)
        return float(sum(weight * terms[name][0] / terms[name][1] for name, weight in options.get("weights", ALL)))

    values = [
        loss(),
        loss(with_learned),
        loss(epsilon=0.02),
        loss(normalize_maps=True),
        loss(reference_negatives=False),
        loss(mask_false_negatives=True),
        loss(weights=(("captions", 1.0),)),
    ]
    assert len({round(value, 5) for value in values}) == len(values), values


def test_only_what_has_a_weight_is_computed(tiny, setting):
    model, params = setting
    batch = tiny.batch(2, 1)._replace(phrases=None)
    objective = ContextCIRObjective(model, (("captions", 1.0),))
    run = lambda params: objective.terms(objective.represent(params, batch), batch)
    assert set(jax.eval_shape(run, params)) == {"temperature", "captions"}


@pytest.mark.long
def test_the_diagnosis_equals_separate_gradients(tiny, setting, step):
    model, params = setting
    batch = tiny.batch(3, 2)
    objective = ContextCIRObjective(model, ALL)
    norms = jit(lambda params: objective.diagnose(params, batch))(params)
    for row, (name, weight) in enumerate(ALL):
        _, gradients = step(params, batch, jnp.zeros(len(ALL)).at[row].set(weight))
        norm = np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(gradients)))
        np.testing.assert_allclose(norms[f"grad_norm/{name}"], norm, rtol=1e-4)
    ratio = norms["grad_norm/consistency"] / norms["grad_norm/contrastive"]
    np.testing.assert_allclose(norms["grad_norm/consistency_to_contrastive"], ratio, rtol=1e-5)
    assert norms["consistency/raw"] > 0 and norms["consistency/normalized"] > 0
    for name, _ in ALL:  # the layers have all parameters, each once
        parts = [float(value) for key, value in norms.items() if key.startswith(f"grad_norm/{name}/")]
        np.testing.assert_allclose(np.linalg.norm(parts), norms[f"grad_norm/{name}"], rtol=1e-4)
    assert {"grad_norm/contrastive/fusion_0", "grad_norm/contrastive/clip/text/layer_0"} <= set(norms)
    np.testing.assert_allclose(norms["consistency/raw/fusion_0"], norms["consistency/raw"], rtol=1e-5)  # there is one


def test_false_negatives_are_counted_by_picture(tiny, setting):
    model, params = setting
    batch = tiny.batch(3, 2)  # its last modification is missing

    @jit
    def count(target_ids):
        norms = ContextCIRObjective(model, ALL).diagnose(params, batch._replace(target_ids=target_ids))
        return {name: value for name, value in norms.items() if name.startswith("false_negatives")}

    none = count(batch.target_ids)
    assert none["false_negatives/another_target"] == none["false_negatives/a_reference"] == 0
    targets = jnp.asarray(
        [[7, 7], [0, 8], [9, 7]]
    )  # two share a target; one is reference 0; the missing one counts not
    some = count(targets)
    np.testing.assert_allclose(some["false_negatives/another_target"], 2 / 5, rtol=1e-6)
    np.testing.assert_allclose(some["false_negatives/a_reference"], 1 / 5, rtol=1e-6)


def test_matched_and_lost_phrases_are_shares_of_all(tiny, setting):
    """Shares are sums and counts, so that they add up over devices and batches."""
    model, params = setting
    batch = tiny.batch(2, 2)
    lost = jnp.asarray([[1, 2, 0], [3, 0, 4]])
    batch = batch._replace(phrases=batch.phrases._replace(lost=lost))
    objective = ContextCIRObjective(model, WEIGHTS)
    terms = jit(lambda params: objective.terms(objective.represent(params, batch), batch))(params)
    kept = int(batch.phrases.valid.sum())
    shares = {name: tuple(map(float, terms[f"phrases/{name}"])) for name in ("matched", *LOST)}
    counts = {"matched": kept, "no_room": 4, "truncated": 2, "unaligned": 4}
    assert shares == {name: (count, kept + 10) for name, count in counts.items()}
    assert sum(total / count for total, count in shares.values()) == pytest.approx(1)
    assert tuple(map(float, terms["phrases"])) == (kept + 10, 1)


# --------------------------------------------------------------------------------- other systems' terms


@pytest.mark.long
def test_cached_features_are_trained_on_as_pictures_are(tiny):
    """The Combiner's loss and gradients, of pictures and of their features; nothing is dropped without a key."""
    model, batch = tiny.model(query="combiner"), tiny.batch(4, 1)
    params = tiny.params(model)
    objective = ContextCIRObjective(model, (("contrastive", 1.0),), one_direction=True, temperature=0.1)
    run = lambda params, method, *inputs: model.apply({"params": params}, *inputs, method=method)
    image = lambda pictures: run(params, lambda m: m.image_features(m.encode_image(pictures)))
    text = run(params, lambda m: m.text_features(m.encode_text(*(x[:, 0] for x in batch.texts))))
    ids = batch.reference_ids, batch.target_ids[:, 0], batch.records[:, 0]
    pairs = FeaturePairs(image(batch.references), text, image(batch.targets[:, 0]), *ids)

    def loss(params, batch, key=None):
        return objective.terms(objective.represent(params, batch, key), batch)["contrastive"][0]

    whole, cached = (jit(jax.value_and_grad(loss))(params, each) for each in (batch, pairs))
    np.testing.assert_allclose(cached[0], whole[0], rtol=1e-5)
    check = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    jax.tree.map(check, cached[1]["combiner"], whole[1]["combiner"])
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(cached[1]["clip"]))
    assert abs(loss(params, pairs, jax.random.key(0)) - cached[0]) > 1e-4


@pytest.mark.long
def test_the_reverse_term_finds_the_reference_by_the_target(tiny):
    model = ComposedBLIP(ComposedBLIPConfig(BLIP, fused_token=3, reverse_token=4))
    params, batch = random_params(model), tiny.batch(3, 2)
    weights = (("recall", 1.0), ("reverse", 0.4))
    objective = ContextCIRObjective(model, weights)
    r = jit(lambda params: objective.represent(params, batch))(params)
    assert r["back"].shape == (6, 8) and np.abs(r["back"] - r["query"]).max() > 1e-3
    terms = objective.terms(r, batch)
    valid, ids = batch.valid.reshape(-1), jnp.repeat(batch.reference_ids, 2)
    expected = recall_surrogate_loss(
        r["back"], jnp.repeat(r["reference"], 2, axis=0), valid=valid, target_ids=ids, mask_false_negatives=True
    )
    assert_close(terms["reverse"][0], expected[0])
    contrastive = dataclasses.replace(objective, weights=(("contrastive", 1.0), ("reverse", 0.4)))
    assert abs(contrastive.terms(r, batch)["reverse"][0] - expected[0]) > 1e-3


@pytest.mark.long
def test_on_a_siglips_towers_all_image_tokens_are_patches_and_phrases_begin_at_once(tiny):
    """Maps have a value for each patch, and a phrase that is the whole text attends alone as in its sentence."""
    model = ContextCIR(ContextCIRConfig(SIGLIP_CONFIG, fusion_layers=1, fusion_heads=4))
    weights = (("contrastive", 1.0), ("consistency", 0.08), ("captions", 0.2))
    objective = ContextCIRObjective(model, weights, None, contrastive=sigmoid_loss, sigmoid=True)
    batch = tiny.batch(3, 2)
    texts = Tokens(batch.texts.ids.reshape(6, -1)[:4][None], batch.texts.mask.reshape(6, -1)[:4][None])
    length = texts.mask[0].sum(-1)
    whole = jnp.stack([jnp.zeros_like(length), length - 1], axis=-1)[None]  # all but EOS
    phrases = batch.phrases._replace(tokens=texts, text=jnp.arange(4)[None], span=whole, valid=jnp.ones((1, 4), bool))
    params = random_params(model)
    represent = jit(lambda params, batch: objective.represent(params, batch))
    out = represent(params, batch._replace(phrases=phrases))
    assert out["in_context"].shape == (4, 4)
    np.testing.assert_allclose(out["in_context"], out["alone"], atol=1e-6)
    assert out["bias"] == params["clip"]["logit_bias"]
    terms = objective.terms(out, batch._replace(phrases=phrases))
    assert terms["contrastive"][1] == 5 and all(np.isfinite(total) for total, _ in terms.values())
    assert {"bias", "temperature", "batch_recall", "captions"} <= terms.keys()
