"""Tests of the storages: how many neighbours each keeps."""

import numpy as np

from contextjax.serving.storage import DTYPES, pack, unpack
from tests.serving.conftest import brute_force, vectors


def test_storages_keep_most_neighbours():
    stored, queries = vectors(3000, 64), vectors(50, 64, seed=1)
    exact_rows, _ = brute_force(queries, stored, 10)
    kept = {}
    for storage in DTYPES:
        rows, _ = brute_force(queries, unpack(pack(stored, storage)), 10)
        kept[storage] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact_rows, strict=True)])
    assert kept["float32"] == 1 and kept["bfloat16"] > 0.97 and kept["int8"] > 0.95
