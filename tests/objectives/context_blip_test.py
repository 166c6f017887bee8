"""The objectives of ContextBLIP: their terms, and which inputs and parameters influence them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.context_blip import get_config
from contextjax.objectives.context_blip import CaptionObjective, Draws, SelectionObjective
from contextjax.optim import make_optimizer, stop_gradients
from contextjax.types import CandidateBatch, FeatureBatch, Tokens
from tests.models.context_blip_test import (
    PATCHES,
    candidate_batch,
    caption_batch,
    close,
    jit,
    random_params,
    small_model,
)

COUNT = 4
NAMES = ("contrastive", "masking", "matching")
BOTH = (("masking", 1.0), ("matching", 1.0))
PAPER = small_model(selection="none", context_layers=0)
SUMMARY_FORM = small_model(adapter="convolutions", masking="attended", selection="itc", context_layers=0)
STAGE_1 = CaptionObjective(PAPER, tuple((name, 1.0) for name in NAMES))
KEY = jax.random.key(0)


def means_of(objective, params, batch, *rest):
    """(mean of every term, representations)."""
    outputs = objective.represent(params, batch, *rest)
    return {name: total / count for name, (total, count) in objective.terms(outputs, batch).items()}, outputs


def terms_of(objective, params, batch, rng=KEY):
    """The terms' names; nothing is computed."""
    return set(jax.eval_shape(lambda params: means_of(objective, params, batch, rng)[0], params))


def moves(tree):
    """Returns True where a gradient is not negligible."""
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)) > 1e-4


def is_zero(tree):
    return not any(np.asarray(x).any() for x in jax.tree.leaves(tree))


def fixed_draws():
    rng = np.random.default_rng(0)
    return Draws(
        jnp.asarray([1, 2, 0, 1]), jnp.asarray([3, 0, 1, 2]), jnp.asarray([1, 2, 1, 0]),
        jnp.asarray(rng.random((COUNT, PATCHES)), jnp.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return random_params(PAPER)


@pytest.fixture(scope="module")
def captions(tiny):
    return caption_batch(tiny, COUNT)


def compile_stage_1(params, captions, frozen=()):
    """(params, batch, draws, weights of NAMES) -> ((loss, (means, representations)), gradients)."""

    def loss(params, batch, draws, weights):
        means, outputs = means_of(STAGE_1, stop_gradients(params, frozen), batch, None, draws)
        return sum(weight * means[name] for weight, name in zip(weights, NAMES, strict=True)), (means, outputs)

    inputs = params, captions, fixed_draws(), jnp.ones(3)
    return jit(jax.value_and_grad(loss, has_aux=True)).lower(*inputs).compile()


@pytest.fixture(scope="module")
def step(params, captions):
    return compile_stage_1(params, captions)


@pytest.fixture(scope="module")
def learned(step, params, captions):
    return step(params, captions, fixed_draws(), jnp.ones(3))


# ------------------------------------------------------------------------------------------- stage 1


@pytest.mark.parametrize(
    ("weights", "more"),
    [
        ((("contrastive", 1.0),), {"temperature"}),
        ((("matching", 1.0),), {"matching_accuracy"}),
        ((("masking", 1.0),), {"matching", "matching_accuracy"}),
        ((*BOTH, ("contrastive", 0.5)), {"matching_accuracy", "temperature"}),
    ],
)
def test_there_is_a_term_for_every_weight(params, captions, weights, more):
    assert terms_of(CaptionObjective(PAPER, weights), params, captions) == {name for name, _ in weights} | more


def test_a_contrastive_loss_alone_draws_nothing_and_reads_nothing(params, captions):
    """BLIP's towers are enough: the adapter's and the decoder's parameters are not even looked at."""
    objective = CaptionObjective(PAPER, (("contrastive", 1.0),))
    assert "contrastive" in terms_of(objective, {"blip": params["blip"]}, captions, rng=None)


@pytest.mark.long
def test_permuting_the_batch_permutes_what_is_compared_and_no_gradient(step, params, captions, learned):
    (loss, (_, outputs)), gradients = learned
    order = jnp.asarray([2, 0, 3, 1])
    inverse = jnp.argsort(order)
    draws = Draws(*(x[order] for x in fixed_draws()))
    draws = draws._replace(negative_image=inverse[draws.negative_image], negative_text=inverse[draws.negative_text])
    (other, (_, moved)), other_gradients = step(params, jax.tree.map(lambda x: x[order], captions), draws, jnp.ones(3))
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    for name in ("text", "image", "matching", "pixels", "truth"):
        close(moved[name], outputs[name][order])
    close(other_gradients, gradients, to=1e-4)


@pytest.mark.long
def test_what_is_matched_is_what_the_draws_say(params, captions, learned):
    """A wrong picture or text gives the logits that a batch of that very pair gives."""
    (_, (means, outputs)), _ = learned
    draws, own = fixed_draws(), np.arange(COUNT)
    pictures = np.concatenate([own, draws.negative_image, own])
    texts = np.concatenate([own, own, draws.negative_text])
    pairs = captions._replace(images=captions.images[pictures], texts=Tokens(*(x[texts] for x in captions.texts)))

    def match(model):
        tokens = model.adapt(model.encode_image(pairs.images))
        return model.match_states(model.read(tokens, *pairs.texts)), model.patchify(captions.images)

    logits, patches = jit(lambda params: PAPER.apply({"params": params}, method=match))(params)
    close(jnp.swapaxes(outputs["matching"], 0, 1).reshape(-1, 2), logits)
    right = (np.asarray(logits).argmax(-1) == (np.arange(3 * COUNT) < COUNT)).mean()
    np.testing.assert_allclose(means["matching_accuracy"], right)
    same = np.isclose(outputs["truth"][:, :, None], patches[:, None], atol=1e-5).all(-1)
    assert outputs["truth"].shape[1] == PATCHES // 4 and (same.sum(-1) == 1).all()  # of a quarter, each once


def test_the_papers_terms_leave_blips_projections_alone(step, params, captions):
    """They serve the draws, which let no gradient through; the adapter and what the masking adds do learn."""
    _, gradients = step(params, captions, fixed_draws(), jnp.asarray([0.0, 1.0, 1.0]))
    assert is_zero([gradients["blip"][name] for name in ("visual_projection", "text_projection")])
    assert moves(gradients["adapter"]) and moves(gradients["decoder"]) and moves(gradients["blip"]["matching_head"])
    _, of_masking = step(params, captions, fixed_draws(), jnp.asarray([0.0, 1.0, 0.0]))
    assert is_zero(of_masking["blip"]["matching_head"]) and moves(of_masking["adapter"])
    _, of_matching = step(params, captions, fixed_draws(), jnp.asarray([0.0, 0.0, 1.0]))
    assert is_zero(of_matching["decoder"]) and moves(of_matching["adapter"])


def test_draws_are_the_keys_and_never_of_the_same_picture(params, tiny):
    twice = caption_batch(tiny, COUNT)._replace(image_ids=jnp.asarray([0, 1, 0, 2]))
    keys = jax.random.split(KEY, 300)
    similarity = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (COUNT, COUNT)), jnp.float32)

    def draw(**options):
        objective = CaptionObjective(PAPER, BOTH, **options)
        return jit(jax.vmap(lambda key: objective._draw(key, similarity, twice)))(keys)

    draws = draw()
    for drawn in (draws.negative_image, draws.negative_text):
        drawn = np.asarray(drawn)
        assert ((drawn >= 0) & (drawn < COUNT)).all()
        np.testing.assert_array_equal(np.unique(drawn[:, 0]), [1, 3])
        np.testing.assert_array_equal(np.unique(drawn[:, 2]), [1, 3])
    assert (draws.negative_image != draws.negative_text).any()
    mask, rows = np.asarray(twice.texts.mask), np.arange(COUNT)
    assert mask[rows, np.asarray(draws.position)].all() and np.ptp(draws.position, axis=1).max() > 0
    assert all(set(np.asarray(draws.position)[:, row]) == set(np.flatnonzero(mask[row])) for row in rows)
    assert draws.noise.shape == (300, COUNT, PATCHES) and draws.noise.min() >= 0 and draws.noise.max() < 1
    published = draw(mask_false_negatives=False, real_tokens=False)
    assert 2 in np.asarray(published.negative_image)[:, 0] and 0 not in np.asarray(published.negative_image)[:, 0]
    position = np.asarray(published.position)
    assert not np.ptp(position, axis=1).any() and not mask[rows, position].all()  # one for all texts, padding too
    assert set(position[:, 0]) == set(range(mask.shape[1]))


def test_a_text_draws_by_its_row_of_cosines_and_a_picture_by_its_column(tiny):
    """With steep cosines the hardest is drawn: the picture nearest to a text, the text nearest to a picture."""
    batch, keys = caption_batch(tiny, COUNT), jax.random.split(KEY, 40)
    similarity = 60 * np.random.default_rng(2).permutation(COUNT**2).reshape(COUNT, COUNT) / COUNT**2
    similarity[np.diag_indices(COUNT)] = -60
    nearest_picture, nearest_text = similarity.argmax(1), similarity.argmax(0)
    assert (nearest_picture != nearest_text).any()
    draw = jax.vmap(lambda key: STAGE_1._draw(key, jnp.asarray(similarity, jnp.float32), batch))
    draws = jit(draw)(keys)
    assert (np.asarray(draws.negative_image) == nearest_picture).mean() > 0.95
    assert (np.asarray(draws.negative_text) == nearest_text).mean() > 0.95


def test_a_batch_of_one_picture_stays_finite(step, params, captions):
    one = captions._replace(image_ids=jnp.zeros(COUNT, jnp.int32))
    draws = STAGE_1._draw(KEY, jnp.ones((COUNT, COUNT)), one)
    (loss, _), gradients = step(params, one, draws, jnp.ones(3))
    assert np.isfinite(loss) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


@pytest.mark.long
def test_the_summary_form_asks_which_patches_the_text_reads(captions):
    """The mask is of the four patches of the highest scores; adapter and the mask's Linear learn by it."""
    from contextjax.models.masking import mask_scores

    params, draws = random_params(SUMMARY_FORM), fixed_draws()
    objective = CaptionObjective(SUMMARY_FORM, (("masking", 1.0),))

    def loss(params):
        means, outputs = means_of(objective, params, captions, None, draws)
        tokens = SUMMARY_FORM.apply({"params": params}, captions.images, method=lambda m, x: m.adapt(m.encode_image(x)))
        attention = SUMMARY_FORM.apply({"params": params}, tokens, *captions.texts, method="read").attention
        return means["masking"], (outputs, tokens, attention)

    (value, (outputs, tokens, attention)), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
    order = np.argsort(-np.asarray(mask_scores(attention, draws.position, draws.noise)), axis=1)
    expected = np.zeros((COUNT, PATCHES), bool)
    np.put_along_axis(expected, order[:, : PATCHES // 4], True, axis=1)
    np.testing.assert_array_equal(outputs["attended"], expected)
    logits = np.asarray(tokens[:, 1:] @ params["attended"]["kernel"] + params["attended"]["bias"])[..., 0]
    close(outputs["attended_logits"], logits, to=1e-4)
    truth = ((expected - 1 / (1 + np.exp(-logits.astype(np.float64)))) ** 2).sum(-1).mean()
    np.testing.assert_allclose(value, truth, rtol=1e-4)
    assert moves(gradients["attended"]) and moves(gradients["adapter"])


def test_the_published_view_of_the_patches_is_another(params, captions, learned):
    """`scrambled` changes what is shown, not what is asked for."""
    (_, (_, outputs)), _ = learned
    objective = CaptionObjective(PAPER, BOTH, scrambled=True)
    other = jit(lambda params: objective.represent(params, captions, None, fixed_draws()))(params)
    close(other["truth"], outputs["truth"])
    assert np.abs(other["pixels"] - outputs["pixels"]).max() > 1e-3


# --------------------------------------------------------------------------------------------- freezing


def test_what_is_frozen_costs_neither_work_nor_memory(step, params, captions, learned):
    """The compiled step has fewer operations, less memory and exactly no such gradient; the rest learns as before."""
    frozen = compile_stage_1(params, captions, ("blip",))
    costs = [(s.cost_analysis()["flops"], s.memory_analysis().temp_size_in_bytes) for s in (step, frozen)]
    (work, memory), (less_work, less_memory) = costs
    assert less_work < 0.85 * work and less_memory < memory, costs
    (loss, _), gradients = frozen(params, captions, fixed_draws(), jnp.ones(3))
    np.testing.assert_allclose(loss, learned[0][0], rtol=1e-5)
    assert is_zero(gradients["blip"])
    close([gradients[name] for name in ("adapter", "decoder")], [learned[1][name] for name in ("adapter", "decoder")],
          to=1e-4)  # fmt: skip


def test_the_optimizer_holds_nothing_for_what_is_frozen(params):
    config = get_config("1").optimizer
    assert config.freeze == ("blip",)
    state = jax.eval_shape(make_optimizer(config, steps=10).init, params)
    moments = sum(math.prod(x.shape) for x in jax.tree.leaves(state) if x.shape)
    trained = sum(x.size for name in ("adapter", "decoder") for x in jax.tree.leaves(params[name]))
    assert moments == 2 * trained


# ----------------------------------------------------------------------------------------------- stage 2

SETS = small_model(masking="none", selection="both", context_dropout=0.5)
SELECTION = SelectionObjective(SETS, (("selection", 1.0),))
WEIGHTED = SelectionObjective(SETS, (("contrastive", 1.0), ("selection", 1.0)))


@pytest.fixture(scope="module")
def sets(tiny):
    return candidate_batch(tiny, 3, 3)


@pytest.fixture(scope="module")
def set_params():
    return random_params(SETS)


def test_there_is_a_contrastive_term_where_it_has_a_weight(set_params, sets):
    assert terms_of(SELECTION, set_params, sets) == {"selection", "accuracy"}
    assert terms_of(WEIGHTED, set_params, sets) == {"selection", "accuracy", "contrastive", "temperature"}


@pytest.mark.long
@pytest.mark.parametrize("pooling_heads", [0, 2])
def test_the_truth_of_each_candidate_has_a_gradient_where_it_has_a_weight(tiny, sets, pooling_heads):
    """With two propositions each, one of which is missing in the first text; the head has no part in it."""
    options = {"pooling_heads": pooling_heads, "propositions": True}
    model = small_model(masking="none", selection="both", context_layers=0, **options)
    params, (ids, mask) = random_params(model), tiny.texts(6)
    short = Tokens(ids.reshape(3, 2, -1), mask.reshape(3, 2, -1).at[0, 1].set(False))
    batch = sets._replace(propositions=short)
    objective = SelectionObjective(model, (("truth", 1.0),))

    def loss(params):
        means, _ = means_of(objective, params, batch, None)
        return means["truth"], means

    (_, means), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert set(means) == {"selection", "accuracy", "truth"}
    read_by = gradients["pooling"] if pooling_heads else gradients["blip"]["text_projection"]
    assert moves([gradients["truth_bias"], gradients["logit_scale"], read_by, gradients["blip"]["vision"]])
    assert is_zero(gradients["head"])


def test_the_base_score_of_a_set_is_that_among_all_pictures_of_the_batch(tiny, sets):
    """Whatever it is made of: the contrastive term compares what the selection does."""
    for pooling_heads in (0, 2):
        model = small_model(masking="none", selection="itc", context_layers=0, pooling_heads=pooling_heads)
        r = jit(lambda params, m=model: SelectionObjective(m, WEIGHTED.weights).represent(params, sets, KEY))(
            random_params(model)
        )
        outputs = np.asarray(r["similarity"]).reshape(3, 3, -1)[np.arange(3), np.arange(3)]
        np.testing.assert_allclose(outputs, r["scores"], rtol=1e-4, atol=1e-5)


def test_cached_features_train_the_inter_context_encoder_alike(set_params, sets):
    """From pictures with all else frozen, as from vectors: the same scores and gradients, dropout included."""
    frozen, key = ("blip", "adapter", "head", "logit_scale"), jax.random.key(1)

    def loss(params, batch):
        means, outputs = means_of(SELECTION, stop_gradients(params, frozen), batch, key)
        return means["selection"], (means, outputs)

    def both(params):
        outputs = SETS.apply({"params": params}, sets.images, *sets.texts, method="represent_sets")
        cached = FeatureBatch(
            outputs.features, outputs.base, outputs.summary, sets.target, sets.valid, sets.ordered, sets.records
        )
        return [jax.value_and_grad(loss, has_aux=True)(params, batch) for batch in (sets, cached)]

    (out, gradients), (cached_out, cached_gradients) = jit(both)(set_params)
    close(cached_out, out)
    close(cached_gradients["context"], gradients["context"], to=1e-4)
    assert moves(gradients["context"])
    assert is_zero([tree[name] for tree in (gradients, cached_gradients) for name in frozen])


def test_dropout_is_the_inter_context_encoders_alone(set_params, sets):
    """The towers draw nothing, whatever key is given (the published code leaves BERT's dropout on)."""
    without = small_model(masking="none", selection="both", context_layers=0, context_dropout=0.5)
    for objective, draws in ((SelectionObjective(without, SELECTION.weights), False), (SELECTION, True)):
        program = jax.make_jaxpr(lambda params, key, o=objective: o.represent(params, sets, key))(set_params, KEY)
        assert ("random_bits" in str(program)) == draws


def represented(sets, count, seed=0):
    """Random representations of as many sets, and their batch (without pictures)."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    target = jnp.asarray(rng.permutation(np.arange(sets) % count), jnp.int32)
    rows, valid = jnp.arange(sets), jnp.ones((sets, count), bool)
    batch = CandidateBatch(None, None, target, valid, rows % 2 == 0, rows)
    image, text = unit(draw(sets, count, 8)), unit(draw(sets, 8))
    similarity = text @ image.reshape(sets * count, 8).T / 0.07
    return {"scores": draw(sets, count), "similarity": similarity, "temperature": jnp.float32(0.07)}, batch


def filled_up(r, batch, count):
    """Copies of the first candidates behind those that there are, as CandidateSamples fills up, and their scores."""
    scores = jnp.pad(r["scores"], ((0, 0), (0, count)), constant_values=50.0)
    own = r["similarity"].reshape(len(scores), len(scores), -1)
    similarity = jnp.concatenate([own, jnp.repeat(own[..., :1], count, axis=-1)], axis=-1).reshape(len(scores), -1)
    return r | {"scores": scores, "similarity": similarity}, batch._replace(
        valid=jnp.pad(batch.valid, ((0, 0), (0, count)))
    )


def test_padding_of_a_small_set_is_no_candidate():
    """Neither for the selection nor for the contrastive term, whichever candidate is described."""
    r, batch = represented(5, 3)
    assert {0, 1, 2} == set(np.asarray(batch.target).tolist())
    filled, larger = filled_up(r, batch, 4)

    def loss(r, batch):
        means = {name: total / n for name, (total, n) in WEIGHTED.terms(r, batch).items()}
        return means["contrastive"] + means["selection"], means

    step = jit(jax.value_and_grad(loss, has_aux=True))
    ((_, means), gradients), ((_, expected), expected_gradients) = step(filled, larger), step(r, batch)
    close(means, expected)
    by_set = gradients["similarity"].reshape(5, 5, 7)
    assert is_zero((by_set[..., 3:], gradients["scores"][:, 3:]))
    gradients |= {"similarity": by_set[..., :3].reshape(5, 15), "scores": gradients["scores"][:, :3]}
    close(gradients, expected_gradients, to=1e-4)


def test_the_contrastive_term_of_one_set_is_over_its_candidates():
    r, batch = represented(1, 4, seed=1)
    logits = np.asarray(r["similarity"][0], np.float64)
    expected = np.log(np.exp(logits).sum()) - logits[int(batch.target[0])]
    total, count = jit(WEIGHTED.terms)(r, batch)["contrastive"]
    np.testing.assert_allclose(
        (total, count), (expected / 2, 1), rtol=1e-4, atol=1e-6
    )  # no other text competes for the picture


@pytest.mark.long
def test_descriptions_of_one_set_share_its_pictures(tiny, set_params):
    """Pictures that are held once give the scores that a batch with copies of them gives."""
    shared = candidate_batch(tiny, 2, 3)
    rows = jnp.asarray([0, 0, 1, 1])
    each = {"texts": tiny.texts(4), "target": jnp.asarray([0, 2, 1, 0]), "records": jnp.arange(4)}
    shared = shared._replace(**each, ordered=shared.ordered[rows], valid=shared.valid[rows])
    copied = shared._replace(images=shared.images[rows])
    run = jit(lambda params, batch: means_of(SELECTION, params, batch, None))
    close(run(set_params, shared), run(set_params, copied))


def test_the_papers_score_uses_neither_matching_head_nor_projections(sets):
    """In 2a they may train, but get no gradient, nor does a decoder come along."""
    model = small_model(masking="none", selection="head", context_layers=0)
    params, names = random_params(model), ("matching_head", "text_projection", "visual_projection")
    objective = SelectionObjective(model, (("selection", 36.0),))

    def loss(part):
        return means_of(objective, params | {"blip": params["blip"] | part}, sets, None)[0]["selection"]

    gradients = jit(jax.grad(loss))({name: params["blip"][name] for name in (*names, "text")})
    assert is_zero([gradients[name] for name in names]) and moves(gradients["text"])
