"""Text-guided masking: which patches are hidden, and a decoder to which only places matter, not their order."""

import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.masking import ReconstructionDecoder, TextAdapter, mask_scores, scramble, split_patches
from tests.models.context_blip_test import jit, random_params

ROWS, WIDTH, TEXT, TOKENS, PATCHES, MASKED = 2, 8, 12, 5, 9, 3
DECODER = ReconstructionDecoder(layers=2, heads=2, mlp=16, pixels=6)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# ------------------------------------------------------------------------------- which patches are hidden


def attention(seed=0):
    """[ROWS, TOKENS, 1 + PATCHES], rows of which sum to one."""
    raw = np.random.default_rng(seed).random((ROWS, TOKENS, 1 + PATCHES)).astype(np.float32)
    return raw / raw.sum(-1, keepdims=True)


def test_scores_are_what_one_token_reads_at_norm_one_with_some_noise():
    read, noise = attention(), np.random.default_rng(1).random((ROWS, PATCHES)).astype(np.float32)
    position = np.asarray([4, 1], np.int32)
    got = mask_scores(*map(jnp.asarray, (read, position, noise)))
    for row in range(ROWS):
        one = read[row, position[row], 1:].astype(np.float64)
        expected = one / np.sqrt((one**2).sum()) + 0.02 * noise[row]
        np.testing.assert_allclose(got[row], expected, rtol=1e-5)
    other = read.copy()
    other[..., 0] = 7  # CLS is no patch
    np.testing.assert_array_equal(mask_scores(*map(jnp.asarray, (other, position, noise))), got)


def test_a_token_that_reads_cls_alone_leaves_the_choice_to_the_noise():
    read = np.zeros((ROWS, TOKENS, 1 + PATCHES), np.float32)
    read[..., 0] = 1
    noise = np.random.default_rng(2).random((ROWS, PATCHES)).astype(np.float32)
    scores = mask_scores(jnp.asarray(read), jnp.zeros(ROWS, jnp.int32), jnp.asarray(noise))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(noise))


@pytest.mark.parametrize("count", [0, 1, MASKED, PATCHES])
def test_the_highest_are_masked_and_no_patch_is_lost(count):
    scores = np.random.default_rng(3).random((4, PATCHES)).astype(np.float32)
    masked, visible = split_patches(jnp.asarray(scores), count)
    assert masked.shape == (4, count)
    for row, order in enumerate(np.concatenate([masked, visible], axis=1)):
        np.testing.assert_array_equal(order, np.argsort(-scores[row]))


def test_scramble_is_a_permutation_and_takes_channels_for_rows():
    side = 4
    numbers = np.arange(2 * 3 * side * side, dtype=np.float32).reshape(2, -1)
    got = np.asarray(scramble(jnp.asarray(numbers)))
    np.testing.assert_array_equal(np.sort(got, axis=1), numbers)
    assert (got != numbers).mean() > 0.9
    for row, column, channel in np.ndindex(side, side, 3):
        place, taken = (row * side + column) * 3 + channel, (channel * side + row) * side + column
        np.testing.assert_array_equal(got[:, place], numbers[:, taken])


# ---------------------------------------------------------------------------------------------- the decoder


def inputs():
    """(tokens, masked, visible, text, mask), every row with an order of its own."""
    order = np.argsort(np.random.default_rng(4).random((ROWS, PATCHES)), axis=1)
    masked, visible = jnp.asarray(order[:, :MASKED]), jnp.asarray(order[:, MASKED:])
    mask = jnp.asarray(np.arange(TOKENS) < np.asarray([[TOKENS], [3]]))
    return draw(ROWS, 1 + PATCHES - MASKED, WIDTH), masked, visible, draw(ROWS, TOKENS, TEXT, seed=1), mask


@pytest.fixture(scope="module")
def decode():
    params = random_params(DECODER, *inputs())
    run = jit(lambda params, *inputs: DECODER.apply({"params": params}, *inputs))
    return params, lambda *inputs: run(params, *inputs), run


def test_the_order_of_the_visible_patches_changes_nothing(decode):
    tokens, masked, visible, text, mask = inputs()
    order = np.argsort(np.random.default_rng(5).random(visible.shape), axis=1)
    shuffled = jnp.take_along_axis(tokens[:, 1:], order[..., None], axis=1)
    shuffled = jnp.concatenate([tokens[:, :1], shuffled], axis=1)
    got = decode[1](shuffled, masked, jnp.take_along_axis(visible, order, axis=1), text, mask)
    np.testing.assert_allclose(got, decode[1](tokens, masked, visible, text, mask), atol=1e-5)


def test_pixels_come_in_the_order_of_the_masked_patches(decode):
    tokens, masked, *rest = inputs()
    expected = decode[1](tokens, masked, *rest)
    assert expected.shape == (ROWS, MASKED, 6) and np.abs(np.diff(expected, axis=1)).max(-1).min() > 1e-2
    np.testing.assert_allclose(decode[1](tokens, masked[:, ::-1], *rest), expected[:, ::-1], atol=1e-5)


def test_padding_of_the_text_changes_nothing(decode):
    tokens, masked, visible, text, mask = inputs()
    expected = decode[1](tokens, masked, visible, text, mask)
    other = jnp.where(mask[..., None], text, 50.0)
    np.testing.assert_allclose(decode[1](tokens, masked, visible, other, mask), expected, atol=1e-5)
    longer = jnp.pad(text, ((0, 0), (0, 3), (0, 0))), jnp.pad(mask, ((0, 0), (0, 3)))
    np.testing.assert_allclose(decode[1](tokens, masked, visible, *longer), expected, atol=1e-5)


def test_tokens_text_and_places_are_read(decode):
    tokens, masked, visible, text, mask = inputs()
    expected = decode[1](tokens, masked, visible, text, mask)
    for changed in (
        (tokens.at[:, 0].add(1), masked, visible, text, mask),
        (tokens.at[:, -1].add(1), masked, visible, text, mask),
        (tokens, masked, visible, text.at[:, 1].add(1), mask),
        (tokens, (masked + 1) % PATCHES, (visible + 1) % PATCHES, text, mask),
    ):
        assert (np.abs(decode[1](*changed) - expected).max(-1) > 1e-3).all()


def test_a_masked_patch_enters_as_one_vector_and_its_place(decode):
    """Without blocks: Linear(mask embedding + position); the last position is spare, as published."""
    params, _, run = decode
    tokens, masked, *rest = inputs()
    without = DECODER.clone(layers=0)
    got = jit(lambda *inputs: without.apply({"params": params}, *inputs))(tokens, masked, *rest)
    slots = params["mask_embedding"] + params["position_embedding"][masked]
    expected = slots @ params["pixels"]["kernel"] + params["pixels"]["bias"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    moved = params | {"position_embedding": params["position_embedding"].at[-1].add(9)}
    np.testing.assert_array_equal(run(moved, tokens, masked, *rest), run(params, tokens, masked, *rest))


def test_the_text_adapter_is_the_formula():
    x = draw(2, 3, 6)
    params = random_params(TextAdapter(), x)
    hidden = np.maximum(x @ params["down"]["kernel"], 0)
    assert hidden.shape[-1] == 3 and not {"bias"} & {*params["down"], *params["up"]}
    expected = x + np.maximum(hidden @ params["up"]["kernel"], 0)
    np.testing.assert_allclose(TextAdapter().apply({"params": params}, x), expected, atol=1e-5)
