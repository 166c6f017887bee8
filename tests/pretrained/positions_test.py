"""Position tables at another resolution."""

import numpy as np

from contextjax.pretrained.positions import resize_positions


def test_resizing_positions_keeps_what_is_constant_and_the_class_token():
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table, 9), table)
    table[1:] = table[1]
    resized = resize_positions(table, 49)
    assert resized.shape == (50, 4) and resized.dtype == np.float32
    np.testing.assert_allclose(resized[1:], np.tile(table[1], (49, 1)), rtol=1e-6)
    np.testing.assert_array_equal(resized[0], table[0])


def test_without_a_class_token_all_positions_are_those_of_patches():
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table[1:], 49, first=0), resize_positions(table, 49)[1:])
