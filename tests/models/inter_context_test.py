"""The inter-context encoder: a set is a set, unless its order is one in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.inter_context import InterContextEncoder
from contextjax.types import UserError
from tests.models.context_blip_test import jit, random_params

COUNT, WIDTH, POSITIONS = 4, 8, 5
FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(2, COUNT, WIDTH)), jnp.float32)
ALL, NO_ORDER = jnp.ones((2, COUNT), bool), jnp.zeros(2, bool)
TEXT = jnp.asarray(np.random.default_rng(1).normal(size=(2, WIDTH)), jnp.float32)


def make(**options):
    return InterContextEncoder(**{"layers": 2, "heads": 2, "positions": POSITIONS, **options})


def draw_params(encoder):
    return random_params(encoder, FEATURES, ALL, NO_ORDER, TEXT)


@pytest.fixture(scope="module", params=[{}, {"relative": True}, {"reads_text": True}], ids=str)
def encode(request):
    """(features, valid, ordered) -> states, with the first set's text for all."""
    encoder = make(**request.param)
    params = draw_params(encoder)

    def apply(features, valid, ordered):
        text = jnp.broadcast_to(TEXT[0], (len(features), WIDTH))
        return encoder.apply({"params": params}, features, valid, ordered, text)

    return jit(apply)


def test_permuting_the_candidates_permutes_the_states_where_there_is_no_order(encode):
    order = jnp.asarray([2, 0, 3, 1])
    together = encode(FEATURES, ALL, jnp.asarray([False, True]))
    permuted = encode(FEATURES[:, order], ALL, jnp.asarray([False, True]))
    np.testing.assert_allclose(permuted[0], together[0][order], atol=1e-5)
    assert np.abs(permuted[1] - together[1][order]).max() > 1e-2  # frames of a video


def test_each_set_of_a_batch_is_ordered_by_itself(encode):
    for ordered in ([False, True], [True, False]):
        together = encode(FEATURES, ALL, jnp.asarray(ordered))
        for row in range(2):
            flag = jnp.asarray([ordered[row]])
            alone = encode(FEATURES[row : row + 1], ALL[:1], flag)[0]
            np.testing.assert_allclose(together[row], alone, atol=1e-5)
            assert np.abs(encode(FEATURES[row : row + 1], ALL[:1], ~flag)[0] - alone).max() > 1e-2


@pytest.mark.parametrize("ordered", [False, True])
def test_no_candidate_attends_to_one_that_is_not_valid(encode, ordered):
    valid = ALL.at[0, 2:].set(False)
    flags = jnp.full(2, ordered)
    expected = encode(FEATURES, valid, flags)
    other = encode(FEATURES.at[0, 2:].set(30.0), valid, flags)
    np.testing.assert_allclose(other[valid], expected[valid], atol=1e-5)
    smaller = encode(FEATURES[:1, :2], valid[:1, :2], flags[:1])
    np.testing.assert_allclose(expected[0, :2], smaller[0], atol=1e-5)
    assert np.abs(encode(FEATURES, ALL, flags)[0, :2] - expected[0, :2]).max() > 1e-2  # the valid ones are


def test_every_candidate_reads_every_other(encode):
    for k in range(COUNT):
        change = np.abs(encode(FEATURES.at[:, k].add(1), ALL, NO_ORDER) - encode(FEATURES, ALL, NO_ORDER))
        assert (change.max(-1) > 1e-4).all()


@pytest.mark.parametrize("count", [1, POSITIONS])
def test_a_set_may_have_any_number_of_candidates_up_to_the_positions(encode, count):
    out = encode(jnp.zeros((3, count, WIDTH)), jnp.ones((3, count), bool), jnp.ones(3, bool))
    assert out.shape == (3, count, WIDTH)


def test_more_candidates_than_positions_are_refused(encode):
    with pytest.raises(UserError, match=r"has 6 candidates and .* 5 positions; train it with --config.*positions"):
        encode(jnp.zeros((1, 6, WIDTH)), jnp.ones((1, 6), bool), jnp.zeros(1, bool))


def test_dropout_acts_with_a_key_alone():
    encoder = make(dropout=0.5)
    params = {"params": draw_params(encoder)}
    run = jit(lambda key: encoder.apply(params, FEATURES, ALL, NO_ORDER, TEXT, rngs={"dropout": key}))
    plain = jit(lambda: encoder.apply(params, FEATURES, ALL, NO_ORDER, TEXT))()
    keys = jax.random.split(jax.random.key(0))
    first, second, again = run(keys[0]), run(keys[1]), run(keys[0])
    np.testing.assert_array_equal(first, again)
    assert min(np.abs(first - second).max(), np.abs(first - plain).max()) > 1e-2
    without = make(dropout=0.0)
    keyed = jit(lambda key: without.apply(params, FEATURES, ALL, NO_ORDER, TEXT, rngs={"dropout": key}))(keys[0])
    np.testing.assert_allclose(keyed, plain, atol=1e-6)


@pytest.mark.parametrize("reads_text", [False, True])
def test_the_text_is_read_where_that_is_asked(reads_text):
    encoder = make(reads_text=reads_text)
    params = {"params": draw_params(encoder)}
    run = jit(lambda text: encoder.apply(params, FEATURES, ALL, NO_ORDER, text))
    change = np.abs(run(TEXT.at[0].add(1)) - run(TEXT)).max((1, 2))
    assert (change[0] > 1e-4) == reads_text and change[1] < 1e-6
