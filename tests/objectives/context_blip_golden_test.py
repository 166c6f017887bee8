"""ContextBLIP against the published implementation's numbers: every output and gradient of the golden file."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from contextjax.losses.matching import negative_weights
from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.masking import TextAdapter, mask_scores, split_patches
from contextjax.models.multimodal import BertConfig
from contextjax.models.vision import VisionConfig
from contextjax.objectives.context_blip import CaptionObjective, Draws, SelectionObjective
from contextjax.objectives.runner import runner
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.context_blip import published_table
from contextjax.pretrained.names import flatten, write
from contextjax.types import CandidateBatch, CaptionBatch, FeatureBatch, Tokens
from tests.models.context_blip_test import jit
from tests.shape_checks import no_shape_checks

GOLDEN = Path(__file__).parent.parent / "golden" / "context_blip_tiny.safetensors"
# The golden pixels are already scaled; with this mean and std the model's own scaling is the identity.
VISION = VisionConfig(
    64, 16, width=48, layers=12, heads=4, mlp=192, activation="gelu", epsilon=1e-6, pre_norm=False, patch_bias=True,
    mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3, fit="squash", taps=(3, 6, 9, 12),
)  # fmt: skip
CONFIG = ContextBLIPConfig(BLIPConfig(VISION, BertConfig(60, 16, 48, 3, 4, 192), projection=16), fused_token=59)
MODEL = ContextBLIP(CONFIG)
STAGE_2A = ContextBLIP(dataclasses.replace(CONFIG, context_layers=0))
WEIGHTS = (("matching", 1.0), ("masking", 1.0))


@pytest.fixture(scope="module")
def file():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def published(file, tmp_path_factory):
    """The golden weights as a checkpoint of the published implementation, read by name."""
    folder = tmp_path_factory.mktemp("published")
    weights = {name.removeprefix("weights."): x for name, x in file.items() if name.startswith("weights.")}
    save_file(weights, folder / "model.safetensors")
    return read_pretrained(folder)


@pytest.fixture(scope="module")
def params(published):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), published.params)


@pytest.fixture(scope="module", autouse=True)
def float_pixels():
    """The golden pixels are floats, which the uint8 annotations of the models refuse."""
    with no_shape_checks():
        yield


@pytest.fixture(scope="module")
def batch(file):
    images = jnp.asarray(file["input.pixels"].transpose(0, 2, 3, 1))
    texts = Tokens(jnp.asarray(file["input.text_ids"], jnp.int32), jnp.asarray(file["input.text_mask"] > 0))
    return CaptionBatch(images, texts, jnp.arange(len(images)), jnp.arange(len(images)))


@pytest.fixture(scope="module")
def draws(file):
    own = jnp.arange(len(file["input.pixels"]))
    return Draws(
        jnp.asarray(file["input.negative_image_index"], jnp.int32),
        jnp.asarray(file["input.negative_text_index"], jnp.int32),
        jnp.full_like(own, int(file["input.text_position"])),
        jnp.asarray(file["input.noise"]),
    )


def candidates(file, name) -> CandidateBatch:
    """A golden set as a batch of one."""
    x = {key.split(".")[-1]: value for key, value in file.items() if key.startswith(f"input.set_{name}.")}
    images = jnp.asarray(x["pixels"].transpose(0, 2, 3, 1))[None]
    texts = Tokens(jnp.asarray(x["text_ids"], jnp.int32), jnp.asarray(x["text_mask"] > 0))
    target, ordered = jnp.asarray(x["target"], jnp.int32).reshape(1), jnp.asarray([bool(x["position_mask"].any())])
    return CandidateBatch(images, texts, target, jnp.ones(images.shape[:2], bool), ordered, jnp.zeros(1, jnp.int32))


def close(got, expected, *, to=2e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=to * max(float(np.abs(expected).max()), 1e-3))


def mean(term):
    return term[0] / term[1]


# ------------------------------------------------------------------------------------------ reading


def test_a_published_checkpoint_is_read_whole(published, params):
    assert published.family.startswith("ContextBLIP") and published.left_out == []
    config = published.model.config
    # Heads are not to be seen in the tensors (the released sizes have 64 features each, and BERT 12); nor are pixels.
    vision = dataclasses.replace(config.blip.vision, heads=4, mean=VISION.mean, std=VISION.std)
    towers = BLIPConfig(vision, dataclasses.replace(config.blip.text, heads=4), 16)
    assert dataclasses.replace(config, blip=towers) == CONFIG


@pytest.mark.long
def test_checkpoints_of_the_other_stages_are_read_too(file, tmp_path):
    weights = {name.removeprefix("weights."): x for name, x in file.items() if name.startswith("weights.")}
    later = re.compile(r"transformer\.|positional_emb\.")
    masking = re.compile(r"mask_embed|decoder_pos_embed|visual_decoder|recon_head|text_adapter")
    for stage, prefix in (("2a", "blip."), ("2b", "blip.blip.")):
        renamed = {}
        for name, x in weights.items():
            if masking.match(name) or (stage == "2a" and later.match(name)):
                continue
            own = "" if later.match(name) else prefix.removeprefix("blip.") if name.startswith("prediction") else prefix
            renamed[own + name] = x
        (tmp_path / stage).mkdir()
        save_file(renamed, tmp_path / stage / "model.safetensors")
        checkpoint = read_pretrained(tmp_path / stage)
        config = checkpoint.model.config
        assert (config.masking, config.selection, config.context_layers) == ("none", "head", 0 if stage == "2a" else 2)
        np.testing.assert_array_equal(checkpoint.params["head"]["kernel"].read(), weights["prediction_layer.weight"].T)


# ------------------------------------------------------------------------------------------ stage 1


@pytest.mark.long
def test_states_of_stage_1(file, params, batch, draws):
    run = runner(MODEL, params)
    image, text = run("encode_image", batch.images), run("encode_text", *batch.texts)
    for number, tap in zip((3, 6, 9, 12), image.taps, strict=True):
        normed = run(lambda model, x: model.blip.normalize_tokens(x), tap)
        close(normed, file[f"output.tap.{number}"])
    tokens = run("adapt", image)
    close(tokens, file["output.image_tokens"])
    close(text.states, file["output.text_only_states"])
    image_feature, text_feature = run("embed_image", image), run("embed_text", text)
    close(image_feature, file["output.image_feat"])
    close(text_feature, file["output.text_feat"])
    similarity = text_feature @ image_feature.T
    others = ~np.eye(len(similarity), dtype=bool)
    close(jnp.exp(negative_weights(similarity, others)), file["output.sampling_weights_t2i"])
    close(jnp.exp(negative_weights(similarity.T, others)), file["output.sampling_weights_i2t"])
    positive = run("read", tokens, *batch.texts)
    close(positive.states, file["output.text_states"])
    with_image = run("read", tokens, *batch.texts, draws.negative_image)
    close(with_image.states, file["output.text_states_negative_image"])
    with_text = run("read", tokens, *(x[draws.negative_text] for x in batch.texts))
    close(with_text.states, file["output.text_states_negative_text"])
    close(positive.attention, file["output.cross_attention_mean_with_cls"])
    scores = mask_scores(positive.attention, draws.position, draws.noise)
    close(scores, file["output.mask_scores"])
    masked, visible = split_patches(scores, 4)
    np.testing.assert_array_equal(masked, file["input.masked_index"])
    np.testing.assert_array_equal(visible, file["input.visible_index"])
    adapted = TextAdapter().apply({"params": params["decoder"]["text_adapter"]}, positive.states)
    close(adapted, file["output.decoder_text_features"])


@pytest.fixture(scope="module", params=["corrected", pytest.param("published", marks=pytest.mark.long)])
def stage_1(request, params, batch, draws):
    """(form, representations, terms, gradients of the sum of both losses), compiled once."""
    from contextjax.optim import stop_gradients

    objective = CaptionObjective(MODEL, WEIGHTS, scrambled=request.param == "published")

    def loss(params):
        outputs = objective.represent(stop_gradients(params, ("blip",)), batch, None, draws)
        terms = objective.terms(outputs, batch)
        shown = {name: outputs[name] for name in ("matching", "truth", "pixels")}
        return mean(terms["matching"]) + mean(terms["masking"]), (shown, terms)

    gradients, (outputs, terms) = jit(jax.grad(loss, has_aux=True))(params)
    return request.param, outputs, terms, gradients


def test_losses_of_stage_1(file, stage_1):
    form, outputs, terms, _ = stage_1
    close(jnp.swapaxes(outputs["matching"], 0, 1).reshape(-1, 2), file["output.itm_logits"])
    close(outputs["truth"], file["output.tmim_target"])
    close(outputs["pixels"], file[f"output.tmim_{form}.reconstruction"])
    close(mean(terms["matching"]), file["output.loss_itm"])
    close(mean(terms["masking"]), file[f"output.tmim_{form}.loss"])
    close(mean(terms["matching"]) + mean(terms["masking"]), file[f"output.loss_total_{form}"])


@pytest.mark.long
@pytest.mark.parametrize("form", ["corrected", "published"])
def test_visible_tokens_and_decoder_states(file, params, batch, form):
    from contextjax.models.masking import scramble

    run = runner(MODEL, params)
    patches = run("patchify", batch.images)
    shown = patches if form == "corrected" else scramble(patches)
    visible = jnp.asarray(file["input.visible_index"], jnp.int32)
    tokens = run("encode_visible", shown, visible)
    close(tokens, file[f"output.tmim_{form}.visible_tokens"])
    states = run(lambda model: model.blip.vision.encode(shown, visible))
    normed = run(lambda model, x: model.blip.normalize_tokens(x), states.tokens)
    close(normed, file[f"output.tmim_{form}.visible_vit_states"])
    kernel, bias = (params["blip"]["vision"]["patch_embedding"][name] for name in ("kernel", "bias"))
    embedded = jnp.take_along_axis(shown, visible[..., None], axis=1) @ kernel + bias
    close(embedded, file[f"output.tmim_{form}.visible_patch_embed"])


def test_gradients_of_stage_1(file, stage_1):
    form, _, _, gradients = stage_1
    gradients = write(published_table(CONFIG), flatten(gradients))
    norms = {k.split(f"gradnorm_{form}.")[1]: x for k, x in file.items() if f"output.gradnorm_{form}." in k}
    assert norms
    largest = max(norms.values())
    for name, norm in norms.items():
        np.testing.assert_allclose(np.linalg.norm(gradients[name]), norm, rtol=2e-4, atol=1e-6 * largest, err_msg=name)
    whole = {k.split(f"grad_{form}.")[1]: x for k, x in file.items() if f"output.grad_{form}." in k}
    for name, gradient in whole.items():
        close(gradients[name], gradient, to=1e-4)
    frozen = [name for name in gradients if name.startswith("pretrained_blip.")]
    assert frozen and not any(np.abs(gradients[name]).max() for name in frozen)


# ---------------------------------------------------------------------------------- stages 2a and 2b


@jit  # both sets have the same shapes
def run_stage_2a(params, batch):
    """Loss, its gradients, and all that was recorded of a set."""
    objective, run = SelectionObjective(STAGE_2A, (("selection", 1.0),)), runner(STAGE_2A, params)

    def loss(params):
        outputs = objective.represent(params, batch, None)
        return mean(objective.terms(outputs, batch)["selection"]), outputs["scores"]

    (value, scores), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    features = run("represent_sets", batch.images, *batch.texts).features
    tokens = run("adapt", run("encode_image", batch.images[0]))
    fused = run("read", tokens, *(jnp.repeat(x, 5, axis=0) for x in batch.texts))
    return value, gradients, scores, features, fused.states, run("match_states", fused)


@pytest.mark.long
@pytest.mark.parametrize("name", ["video", "static"])
def test_stage_2a_and_zero_shot(file, params, name):
    value, gradients, scores, features, states, logits = run_stage_2a(params, candidates(file, name))
    close(features[0], file[f"output.stage2a.set_{name}.features"])
    close(scores[0], file[f"output.stage2a.set_{name}.scores"])
    close(value, file[f"output.stage2a.set_{name}.loss"])
    if name == "video":  # of whose loss the recorded gradients are
        check_norms(file, "output.stage2a.gradnorm.", gradients)
    close(states, file[f"output.stage2a.set_{name}.text_states"])
    close(logits, file[f"output.zero_shot.set_{name}.itm_logits"])
    close(jax.nn.softmax(logits)[:, 1], file[f"output.zero_shot.set_{name}.match_probability"])


@jit
def run_stage_2b(params, batch):
    """Loss, its gradients and the scores from cached features; the encoder's output; the scores from pictures."""
    run, objective = runner(MODEL, params), SelectionObjective(MODEL, (("selection", 1.0),))
    outputs = run("represent_sets", batch.images, *batch.texts)
    cached = FeatureBatch(
        outputs.features, outputs.base, outputs.summary, batch.target, batch.valid, batch.ordered, batch.records
    )
    read = run(lambda model: model.context(cached.features, cached.valid, cached.ordered, cached.text))

    def loss(params):
        outputs = objective.represent(params, cached, None)
        return mean(objective.terms(outputs, cached)["selection"]), outputs["scores"]

    (value, scores), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return value, gradients, scores, read, objective.represent(params, batch, None)["scores"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["video", "static"])
def test_stage_2b(file, params, name):
    value, gradients, scores, read, whole = run_stage_2b(params, candidates(file, name))
    close(read[0], file[f"output.stage2b_fp32.set_{name}.encoder_output"])
    close(read[0], file[f"output.stage2b_published.set_{name}.encoder_output"], to=2e-3)
    close(scores[0], file[f"output.stage2b_fp32.set_{name}.scores"])
    close(value, file[f"output.stage2b_fp32.set_{name}.loss"])
    check_norms(file, f"output.stage2b_fp32.gradnorm.set_{name}.", gradients)
    np.testing.assert_allclose(whole, scores, rtol=1e-5, atol=1e-6)  # from pictures as from cached vectors


def check_norms(file, prefix, gradients):
    """Gradient norms under the published names of the later stages."""
    table = published_table(CONFIG)
    norms = {re.sub(r"^(blip\.)+", "", k.removeprefix(prefix)): x for k, x in file.items() if k.startswith(prefix)}
    assert norms
    outputs = write(table, flatten(gradients))
    largest = max(norms.values())
    for name, norm in norms.items():
        np.testing.assert_allclose(np.linalg.norm(outputs[name]), norm, rtol=3e-4, atol=2e-6 * largest, err_msg=name)
