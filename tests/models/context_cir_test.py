"""The fusion begins as the identity, leaves the gallery alone and computes shared things once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.context_cir import BASELINES, QUERIES
from contextjax.types import SLOT


def run(model, params, function):
    return jax.jit(lambda params: model.apply({"params": params}, method=function))(params)


@pytest.fixture(scope="module")
def setting(tiny):
    model = tiny.model(fusion_self_attention=True, fusion_layers=2)
    return model, tiny.params(model)


@pytest.mark.long
def test_at_the_start_the_fusion_is_the_identity(tiny):
    """So the query does not depend on the text at step 0."""
    import flax.linen as nn

    model = tiny.model()
    pictures, texts, others = tiny.pictures(2), tiny.texts(2), tiny.texts(2, seed=5)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), pictures, *texts)["params"])

    def both(model):
        image = model.encode_image(pictures)
        read = [model.encode_text(*t) for t in (texts, others)]
        fused, *_ = model.fuse(image.tokens, read[0].states, texts.mask)
        queries = [model.compose(image, *t).query for t in (texts, others)]
        return image.tokens, fused, queries, [r.pooled for r in read]

    tokens, fused, queries, pooled = run(model, params, both)
    np.testing.assert_array_equal(fused, tokens)
    np.testing.assert_array_equal(queries[0], queries[1])
    assert not np.allclose(pooled[0], pooled[1])
    assert np.abs(queries[0][0] - queries[0][1]).max() > 1e-3


def test_the_query_reads_the_text_and_padding_changes_nothing(tiny, setting):
    model, params = setting
    pictures, (ids, mask) = tiny.pictures(3), tiny.texts(3)
    length = int(mask.sum(-1).max())

    def compose(ids, mask):
        return lambda model: model.compose(model.encode_image(pictures), ids, mask)

    plain = run(model, params, compose(ids, mask))
    junk = run(model, params, compose(jnp.where(mask, ids, 9), mask))
    shorter = run(model, params, compose(ids[:, :length], mask[:, :length]))
    other = run(model, params, compose(ids.at[:, 1].set((ids[:, 1] + 1) % tiny.vocabulary), mask))
    np.testing.assert_allclose(junk.query, plain.query, atol=1e-5)
    np.testing.assert_allclose(shorter.query, plain.query, atol=1e-5)
    np.testing.assert_allclose(junk.attention, plain.attention, atol=1e-6)
    assert (np.abs(other.query - plain.query).max(-1) > 1e-4).all()


def test_attention_is_a_distribution_over_real_tokens(tiny, setting):
    model, params = setting
    pictures, (ids, mask) = tiny.pictures(3), tiny.texts(3)
    _, attention, _, by_block = run(
        model, params, lambda m: m.fuse(m.encode_image(pictures).tokens, m.encode_text(ids, mask).states, mask)
    )
    assert attention.shape == (3, 5, 10)
    np.testing.assert_allclose(np.mean(by_block, axis=0), attention, rtol=1e-6)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    assert not np.asarray(attention)[np.broadcast_to(~np.asarray(mask)[:, None], attention.shape)].any()


def test_one_reference_meets_many_texts_as_if_it_were_repeated(tiny, setting):
    model, params = setting
    pictures, (ids, mask) = tiny.pictures(2), tiny.texts(2, 3)

    def both(model):
        image = model.encode_image(pictures)
        shared = model.compose(jax.tree.map(lambda x: x[:, None], image), ids, mask)
        repeated = jax.tree.map(lambda x: jnp.repeat(x[:, None], 3, axis=1), image)
        return shared, model.compose(repeated, ids, mask)

    shared, repeated = run(model, params, both)
    assert shared.query.shape == (2, 3, 8)
    np.testing.assert_allclose(shared.query, repeated.query, atol=1e-5)
    np.testing.assert_allclose(shared.attention, repeated.attention, atol=1e-6)


def test_the_gallery_needs_no_fusion_and_no_text(tiny, setting):
    model, params = setting
    pictures = tiny.pictures(2)
    loss = lambda params: model.apply(
        {"params": params}, method=lambda m: (m.embed_image(m.encode_image(pictures)) ** 3).sum()
    )
    gradients = jax.jit(jax.grad(loss))(params)
    clip = gradients.pop("clip")
    text = [clip["text"], clip["text_projection"], clip["logit_scale"]]
    assert not any(np.asarray(g).any() for g in jax.tree.leaves([gradients, text]))
    assert all(np.asarray(g).any() for g in jax.tree.leaves([clip["visual_projection"]]))


@pytest.mark.parametrize("kind", QUERIES)
def test_each_query_is_what_it_says(tiny, kind):
    model = tiny.model(query=kind)
    params = tiny.params(model)
    own = {"fusion": set(tiny.shapes(tiny.model())), "combiner": {"clip", "combiner"}}
    own["qformer"] = {"clip", "qformer", "query_projection"}
    assert set(params) == own.get(kind, {"clip", "pseudo_word"} if kind == "pseudo_word" else {"clip"})
    pictures, texts = tiny.pictures(2), tiny.texts(2, 3)
    texts = texts._replace(ids=texts.ids.at[:, :, 1].set(SLOT)) if kind == "pseudo_word" else texts

    def everything(model):
        image, text = model.encode_image(pictures), model.encode_text(jnp.maximum(texts.ids, 0), texts.mask)
        source = jax.tree.map(lambda x: x[:, None], image)
        return model.compose(source, *texts).query, model.image_features(source), model.text_features(text)

    query, image, text = run(model, params, everything)
    assert query.shape == (2, 3, 8)
    if kind in BASELINES:
        length = lambda x: np.linalg.norm(x, axis=-1, keepdims=True)
        expected = {"image": image + 0 * text, "text": text, "sum": image / length(image) + text / length(text),
                    "raw_sum": image + text}[kind]  # fmt: skip
        np.testing.assert_allclose(query, expected, atol=1e-6)
    else:
        assert np.abs(query - image).max() > 1e-3 and np.abs(query[:, 0] - query[:, 1]).max() > 1e-3


def test_a_pseudo_word_stands_where_the_slots_are(tiny):
    """A word that is a row of the table is that token; elsewhere texts are read as without a word."""
    model = tiny.model(query="pseudo_word")
    params = tiny.params(model)
    (ids, mask), place = tiny.texts(3), 1
    table = params["clip"]["text"]["token_embedding"]["embedding"]
    slotted = ids.at[:, place].set(SLOT)
    read = lambda ids, word: run(model, params, lambda m: m.clip.text(ids, mask, word).pooled)
    np.testing.assert_allclose(read(slotted, table[ids[:, place]]), read(ids, None), atol=1e-6)
    np.testing.assert_allclose(read(ids, table[ids[:, place]]), read(ids, None), atol=1e-6)
    assert np.abs(read(slotted, table[ids[:, place]][:, ::-1]) - read(ids, None)).max() > 1e-3


def test_bfloat16_stays_near_float32(tiny, setting):
    model, params = setting
    pictures, texts = tiny.pictures(4), tiny.texts(4)
    full = run(model, params, lambda m: m(pictures, *texts))
    half = run(model.clone(dtype=jnp.bfloat16), params, lambda m: m(pictures, *texts))
    for a, b in zip(full, half, strict=True):
        assert b.dtype == jnp.float32
        assert ((a * b).sum(-1) > 0.99).all(), (a * b).sum(-1)
    tokens = run(model.clone(dtype=jnp.bfloat16), params, lambda m: m.encode_image(pictures).tokens)
    assert tokens.dtype == jnp.bfloat16


def test_temperature_is_clips_and_never_below_a_hundredth(tiny, setting):
    model, params = setting
    at = lambda scale: float(
        model.apply({"params": {**params, "clip": {**params["clip"], "logit_scale": scale}}}, method="temperature")
    )
    assert at(jnp.log(1 / 0.07)) == pytest.approx(0.07)
    assert at(jnp.float32(20.0)) == pytest.approx(0.01)
