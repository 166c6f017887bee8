"""Attention maps of phrases, in context and alone; the masked patches are the top share of one token's attention."""

import dataclasses

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import contextjax
from contextjax.models.masking import mask_scores, split_patches
from contextjax.reports import phrase_maps
from contextjax.reports.maps import most_concentrated, picked_patches, spreads
from contextjax.system import TokenMap
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from tests.reports.conftest import FakeSystem

TEXT = "swap the dog and the small cat"
PICTURE = np.zeros((16, 16, 3), np.uint8)
MASK_TEXT = "a dog, and the cat."
OFFSETS = np.asarray([(0, 0), (0, 1), (2, 5), (5, 6), (7, 10), (11, 14), (15, 17), (17, 18), (18, 19), (0, 0)])
attentions = arrays.arrays(np.float64, (16, len(OFFSETS)), elements=st.floats(0.001, 1).map(lambda x: round(x, 3)))


def spans(text, *phrases):
    return [(text.index(phrase), text.index(phrase) + len(phrase)) for phrase in phrases]


@pytest.fixture(scope="module")
def system(tiny):
    """Random parameters; texts of at most 8 tokens between the first and the last."""
    tokenizer = train_tokenizer([TEXT] * 9, vocabulary=300, length=10)
    clip = dataclasses.replace(tiny.clip, text=dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary))
    model = type(tiny)(clip=clip).model()
    return contextjax.System(model, type(tiny)(clip=clip).params(model), tokenizer)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(2)]


def test_maps_are_means_over_the_phrases_own_tokens(system, pictures):
    (found,) = phrase_maps(
        system, pictures[:1], [TEXT], phrases_of=lambda text: spans(text, "the dog", "the small cat")
    )
    assert [maps.phrase for maps in found] == ["the dog", "the small cat"]
    for maps in found:
        assert TEXT[maps.start : maps.end] == maps.phrase
        (context,) = system.attention_maps(pictures[:1], [TEXT])
        (alone,) = system.attention_maps(pictures[:1], [maps.phrase])
        inside = [TEXT[a:b] in maps.phrase and maps.start <= a < b <= maps.end for a, b in context.offsets]
        expected = context.attention[:, inside].mean(-1), alone.attention[:, 1:-1].mean(-1)
        for heat, flat in zip((maps.in_context, maps.alone), expected, strict=True):
            assert heat.shape == (2, 2)
            np.testing.assert_allclose(heat.ravel(), flat, atol=1e-5)


def test_alone_differs_from_in_context_unless_the_phrase_is_the_text(system, pictures):
    texts = [TEXT, "the dog"]
    mixed, same = phrase_maps(system, pictures, texts, phrases_of=lambda text: spans(text, "the dog"))
    assert np.abs(mixed[0].in_context - mixed[0].alone).max() > 1e-3
    np.testing.assert_allclose(same[0].in_context, same[0].alone, atol=1e-6)


def test_a_query_has_the_same_maps_whatever_is_asked_with_it(system, pictures):
    find = lambda text: spans(text, "the dog")
    together = phrase_maps(system, pictures, [TEXT, "remove the dog"], phrases_of=find)
    (single,) = phrase_maps(system, pictures[1:], ["remove the dog"], phrases_of=find)
    np.testing.assert_allclose(together[1][0].alone, single[0].alone, atol=1e-5)
    np.testing.assert_allclose(together[1][0].in_context, single[0].in_context, atol=1e-5)


def test_what_has_no_tokens_or_was_not_read_to_its_end_is_left_out(system, pictures):
    text = TEXT + " and a zebra crossing"
    (read,) = system.truncated([text])
    find = lambda text: [
        *spans(text, "the dog"),
        (4, 5),
        (3, 3),
        (len(read) - 2, len(text)),
        (len(text), len(text) + 9),
    ]
    (found,) = phrase_maps(system, pictures[:1], [text], phrases_of=find)
    assert [maps.phrase for maps in found] == ["the dog"]


def test_the_largest_weight_is_where_the_phrase_is_read_most():
    """Patch p of the fake reads word p most."""
    text = "swap one two three"
    (found,) = phrase_maps(FakeSystem(), [PICTURE], [text], phrases_of=lambda text: spans(text, "two", "swap"))
    assert [int(maps.in_context.argmax()) for maps in found] == [2, 0]
    assert found[0].in_context.shape == (2, 2)


def test_texts_without_phrases_have_no_maps_and_a_limit_keeps_the_first(system, pictures):
    assert phrase_maps(system, pictures, [TEXT, TEXT], phrases_of=lambda text: []) == [[], []]
    (tokens,) = phrase_maps(system, pictures[:1], [TEXT], limit=3)
    offsets = system.tokenizer([TEXT]).offsets[0, 1:4].tolist()
    assert [[maps.start, maps.end] for maps in tokens] == offsets


def test_a_system_without_fusion_is_reported(system, pictures):
    with pytest.raises(UserError, match="no fusion"):
        phrase_maps(system.with_query("sum"), pictures[:1], [TEXT])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(attentions, st.floats(0.05, 0.9))
def test_the_patches_are_the_top_share_of_the_chosen_tokens_attention(attention, rate):
    count = round(16 * rate)
    picked = picked_patches(TokenMap(attention, OFFSETS, 4), MASK_TEXT, rate)
    if not count:
        assert picked is None
        return
    normal = attention / np.linalg.norm(attention, axis=0)
    words = [column for column, (start, end) in enumerate(OFFSETS) if MASK_TEXT[start:end].strip(" ,.")]
    (token,) = (column for column in words if MASK_TEXT[slice(*OFFSETS[column])] == picked.token)
    assert normal[:, token].sum() == pytest.approx(min(normal[:, column].sum() for column in words))
    assert picked.spread == pytest.approx(normal[:, token].sum() ** 2)
    top = sorted(range(16), key=lambda patch: (-attention[patch, token], patch))[:count]
    assert np.flatnonzero(picked.patches).tolist() == sorted(top)


def test_the_word_with_the_most_concentrated_attention_is_picked_and_a_part_of_a_word_with_it():
    attention = np.full((16, len(OFFSETS)), 0.05)
    attention[:, 3] = np.eye(16)[0]  # the comma reads one patch only, and is no word
    attention[5, 7] = 0.9  # "at" of "cat"
    offsets = OFFSETS.copy()
    offsets[6:8] = (15, 16), (16, 18)
    picked = picked_patches(TokenMap(attention, offsets, 4), MASK_TEXT, 1 / 16)
    assert (picked.token, picked.word) == ("at", "cat")
    assert picked.patches[1, 1] and picked.patches.sum() == 1
    assert 1 < picked.spread < 16


def test_spread_counts_patches():
    alike, one, half, none = np.full(16, 0.01), np.eye(16)[3], np.repeat([0.0, 0.1], 8), np.zeros(16)
    np.testing.assert_allclose(spreads(np.stack([alike, one, half, none], axis=1)), [16, 1, 8, np.inf])


@pytest.mark.parametrize(("attention", "rate"), [(0.1, 0.0), (0.0, 0.5)])
def test_nothing_to_mask_is_none(attention, rate):
    assert picked_patches(TokenMap(np.full((16, len(OFFSETS)), attention), OFFSETS, 4), MASK_TEXT, rate) is None
    assert picked_patches(TokenMap(np.ones((16, 2)), OFFSETS[[0, 3]], 4), ",", 0.5) is None


def test_a_real_systems_patches_are_those_that_its_own_masking_takes_without_noise(blip, pictures):
    text = "dog left of the small tent"
    (maps,) = blip.attention_maps([pictures[0]], [text])
    picked = picked_patches(maps, text, blip.model.config.mask_rate)
    attention = np.concatenate([np.zeros((1, len(maps.offsets))), maps.attention]).T[None]  # CLS first
    position = jnp.asarray([most_concentrated(maps, text)])
    scores = mask_scores(jnp.asarray(attention, jnp.float32), position, jnp.zeros((1, 16)))
    masked, _ = split_patches(scores, round(0.3 * 16))
    assert sorted(masked[0].tolist()) == np.flatnonzero(picked.patches).tolist()
