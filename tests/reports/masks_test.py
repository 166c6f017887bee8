"""Which patches masking would hide: the top share of one token's attention, as the model's own masking takes them."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import contextjax
from contextjax.evaluation import evaluate_candidates
from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.masking import mask_scores, split_patches
from contextjax.models.multimodal import BertConfig
from contextjax.models.vision import VisionConfig
from contextjax.reports.masks import most_concentrated, picked_patches, spreads
from contextjax.reports.sets import SetCards
from contextjax.system import TokenMap
from contextjax.tokenizers import train_tokenizer
from contextjax.types import CandidateRecord

TEXT = "a dog, and the cat."
OFFSETS = np.asarray([(0, 0), (0, 1), (2, 5), (5, 6), (7, 10), (11, 14), (15, 17), (17, 18), (18, 19), (0, 0)])
attentions = arrays.arrays(np.float64, (16, len(OFFSETS)), elements=st.floats(0.001, 1).map(lambda x: round(x, 3)))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(attentions, st.floats(0.05, 0.9))
def test_the_patches_are_the_top_share_of_the_chosen_tokens_attention(attention, rate):
    count = round(16 * rate)
    picked = picked_patches(TokenMap(attention, OFFSETS, 4), TEXT, rate)
    if not count:
        assert picked is None
        return
    normal = attention / np.linalg.norm(attention, axis=0)
    words = [column for column, (start, end) in enumerate(OFFSETS) if TEXT[start:end].strip(" ,.")]
    (token,) = (column for column in words if TEXT[slice(*OFFSETS[column])] == picked.token)
    assert normal[:, token].sum() == pytest.approx(min(normal[:, column].sum() for column in words))
    assert picked.spread == pytest.approx(normal[:, token].sum() ** 2)
    top = sorted(range(16), key=lambda patch: (-attention[patch, token], patch))[:count]
    assert np.flatnonzero(picked.patches).tolist() == sorted(top)


def test_the_word_with_the_most_concentrated_attention_is_told_and_a_part_of_a_word_with_it():
    attention = np.full((16, len(OFFSETS)), 0.05)
    attention[:, 3] = np.eye(16)[0]  # the comma reads one patch only, and is no word
    attention[5, 7] = 0.9  # "at" of "cat"
    offsets = OFFSETS.copy()
    offsets[6:8] = (15, 16), (16, 18)
    picked = picked_patches(TokenMap(attention, offsets, 4), TEXT, 1 / 16)
    assert (picked.token, picked.word) == ("at", "cat")
    assert picked.patches[1, 1] and picked.patches.sum() == 1
    assert 1 < picked.spread < 16


def test_spread_counts_patches():
    alike, one, half, none = np.full(16, 0.01), np.eye(16)[3], np.repeat([0.0, 0.1], 8), np.zeros(16)
    np.testing.assert_allclose(spreads(np.stack([alike, one, half, none], axis=1)), [16, 1, 8, np.inf])


@pytest.mark.parametrize(("attention", "rate"), [(0.1, 0.0), (0.0, 0.5)])
def test_nothing_to_mask_is_none(attention, rate):
    assert picked_patches(TokenMap(np.full((16, len(OFFSETS)), attention), OFFSETS, 4), TEXT, rate) is None
    assert picked_patches(TokenMap(np.ones((16, 2)), OFFSETS[[0, 3]], 4), ",", 0.5) is None


@pytest.fixture(scope="module")
def system():
    """A tiny ContextBLIP of random parameters."""
    texts = [f"{thing} left of the small {other}" for thing in ("dog", "cat", "hammer") for other in ("bus", "tent")]
    tokenizer = train_tokenizer(texts * 9, vocabulary=300, length=16)
    vision = VisionConfig(16, 4, width=16, layers=1, heads=2, mlp=32, pre_norm=False, taps=(1,))
    text = BertConfig(tokenizer.vocabulary, 16, width=16, layers=1, heads=2, mlp=32)
    config = ContextBLIPConfig(BLIPConfig(vision, text, 8), masking="none", mask_rate=0.3, fused_token=None,
                               context_layers=0)  # fmt: skip
    model = ContextBLIP(config)
    return contextjax.System(model, random_params(model), tokenizer)


def random_params(model):
    import jax
    from flax import linen as nn

    inputs = jnp.zeros((1, 16, 16, 3), jnp.uint8), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(
        rng.normal(size=x.shape) * (x.shape[0] ** -0.5 if len(x.shape) > 1 else 1), jnp.float32
    )
    return jax.tree.map(draw, shapes)


def test_a_real_systems_patches_are_those_that_its_own_masking_takes_without_noise(system, pictures):
    text = "dog left of the small tent"
    (maps,) = system.attention_maps([pictures[0]], [text])
    picked = picked_patches(maps, text, system.model.config.mask_rate)
    attention = np.concatenate([np.zeros((1, len(maps.offsets))), maps.attention]).T[None]  # CLS first
    position = jnp.asarray([most_concentrated(maps, text)])
    scores = mask_scores(jnp.asarray(attention, jnp.float32), position, jnp.zeros((1, 16)))
    masked, _ = split_patches(scores, round(0.3 * 16))
    assert sorted(masked[0].tolist()) == np.flatnonzero(picked.patches).tolist()


def test_a_real_systems_cards_hold_its_scores_and_what_masking_would_hide(system, pictures):
    records = [
        CandidateRecord("0", tuple(pictures.ids[:3]), "dog left of the small tent", 1),
        CandidateRecord("1", (pictures.ids[2], pictures.ids[0]), "cat left of the small bus", 0),
    ]
    evaluation = evaluate_candidates(system, records, pictures)
    cards = SetCards(system, evaluation, pictures).make([0, 1])
    for card, record in zip(cards, records, strict=True):
        images = [pictures[pictures.row[name]] for name in record.images]
        scores = [candidate.score for candidate in card.candidates]
        np.testing.assert_allclose(scores, system.score_candidates(images, record.text), rtol=1e-5)
        assert card.masked.count == 5 and card.heats and card.phrases
