"""Tests of exact search: beside brute force, with ties, over chunks and devices, and its memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextjax.serving import exact
from contextjax.serving.exact import ExactSearch
from contextjax.serving.storage import DTYPES, pack, unpack
from tests.serving.conftest import brute_force, vectors


@pytest.fixture
def small_chunks(monkeypatch):
    """64 rows of float32 a chunk and device at 16 dimensions, answers merged three at a time, three threads for one."""
    monkeypatch.setattr(exact, "VALUES", 1024)
    monkeypatch.setattr(exact, "available_cpus", lambda: 3)
    monkeypatch.setattr(exact, "MERGED", 3)


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("storage", DTYPES)
def test_search_is_what_sorting_all_scores_gives(small_chunks, storage, devices):
    packed = pack(vectors(1801), storage)
    search = ExactSearch(16, storage, devices=devices)
    for begin in range(0, 1801, 300):  # in several goes, none of them a whole chunk
        search.add(packed[begin : begin + 300])
    for count, k in ((5, 1), (5, 7), (5, 40), (17, 7)):
        queries = vectors(count, seed=1)
        rows, scores = search.search(queries, k)
        expected, best = brute_force(queries, unpack(packed), k)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(scores, best, atol=1e-6)
    assert len(search) == 1801


@pytest.mark.parametrize(("devices", "storage"), [(1, "float32"), (8, "int8")])
def test_search_among_allowed_rows_is_what_sorting_their_scores_gives(small_chunks, storage, devices):
    packed, queries = pack(vectors(701), storage), vectors(5, seed=1)
    search = ExactSearch(16, storage, devices=devices)
    search.add(packed)
    for share in (0.5, 0.02, 0.0):
        allowed = np.random.default_rng(2).random(701) < share
        rows, scores = search.search(queries, 40, allowed=allowed)
        kept = np.flatnonzero(allowed)
        expected, best = brute_force(queries, unpack(packed)[kept], 40)
        count = min(40, len(kept))
        np.testing.assert_array_equal(rows[:, :count], kept[expected])
        np.testing.assert_allclose(scores[:, :count], best, atol=1e-6)
        assert (scores[:, count:] == -np.inf).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_row_over_groups_chunks_and_devices(data):
    """Draws few values, so that many rows share nearly all scores, negative and zero ones too."""
    count, k = data.draw(st.sampled_from([1, 31, 64, 65, 200, 513])), data.draw(st.sampled_from([1, 3, 10, 600]))
    seed, devices = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([1, 8]))
    rng = np.random.default_rng(seed)
    stored, queries = (rng.integers(-1, 2, (n, 16)).astype(np.float32) for n in (count, 3))
    stored[:, 2:] = 0
    before, exact.VALUES = exact.VALUES, 1024
    try:
        search = ExactSearch(16, devices=devices)
        search.add(pack(stored, "float32"))
        rows, scores = search.search(queries, k)
    finally:
        exact.VALUES = before
    expected, best = brute_force(queries, stored, k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, best)


def test_equal_pictures_have_equal_scores_wherever_they_are(small_chunks):
    stored = np.tile(vectors(7), (100, 1))
    search = ExactSearch(16, devices=2)
    search.add(pack(stored, "float32"))
    rows, scores = search.search(vectors(4, seed=2), 100)
    assert all((np.diff(row) == 7).all() and row[0] < 7 for row in rows) and np.ptp(scores, axis=1).max() == 0


@pytest.mark.parametrize(
    ("devices", "storage", "is_filtered"),
    [*((devices, storage, False) for devices in (1, 8) for storage in DTYPES), (1, "int8", True), (8, "float32", True)],
)
def test_memory_beside_the_embeddings_is_bounded(monkeypatch, devices, storage, is_filtered):
    """Reads the memory of the compiled program, which sees one chunk (a small one here), not how many there are."""
    monkeypatch.setattr(exact, "VALUES", 1 << 20)
    k, width = 10, exact.chunk_width(512, storage)
    search = ExactSearch(512, storage, devices=devices)
    search.add(pack(np.zeros((width * devices, 512), np.float32), storage))
    queries = np.zeros((exact.QUERIES, 512), np.float32)
    allowed = search._allowed(np.ones(width * devices, bool))[0] if is_filtered else None
    program = exact._search_chunk.lower(queries, *search._full[0], allowed, mesh=search._mesh, k=k).compile()
    assert exact.chunk_width(512) * 512 == exact.VALUES
    held = program.memory_analysis().temp_size_in_bytes
    assert 4 * exact.QUERIES * width <= held <= exact.scratch_bytes(512, k=k, devices=devices)
