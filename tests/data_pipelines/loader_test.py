"""The order is a function of (seed, epoch); a run goes on at any step with any number of processes."""

from collections import Counter

import numpy as np
import pytest

from contextjax.types import UserError
from data_pipelines import loader
from data_pipelines.loader import Share, batches, epoch_order, sample_at

LENGTH, BATCH = 13, 4


class Numbers:
    """Sample i is the number i."""

    def __len__(self):
        return LENGTH

    def __getitem__(self, row):
        return row

    def collate(self, samples):
        return np.asarray(samples)


def stream(*, steps=13, batch_size=BATCH, seed=0, **options):
    return list(batches(Numbers(), batch_size=batch_size, steps=steps, seed=seed, **options))


def test_the_order_is_a_permutation_drawn_from_seed_and_epoch():
    for epoch in range(3):
        assert sorted(epoch_order((Share(50),), 1, epoch)) == list(range(50))
        np.testing.assert_array_equal(epoch_order((Share(50),), 1, epoch), epoch_order((Share(50),), 1, epoch))
    orders = {tuple(epoch_order((Share(50),), seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_every_sample_comes_once_an_epoch_and_a_partial_batch_is_filled_from_the_next():
    found = stream(steps=13)  # 13 * 4 = 4 epochs of 13
    assert [len(batch) for batch in found] == [BATCH] * 13
    flat = np.concatenate(found)
    for epoch in range(4):
        np.testing.assert_array_equal(
            flat[epoch * LENGTH : (epoch + 1) * LENGTH], epoch_order((Share(LENGTH),), 0, epoch)
        )
    assert set(Counter(flat.tolist()).values()) == {4}


def test_a_batch_may_be_larger_than_the_set():
    flat = np.concatenate(stream(steps=2, batch_size=40))
    assert flat.tolist() == [sample_at(i, shares=(Share(LENGTH),), seed=0) for i in range(80)]


@pytest.mark.parametrize("start", [0, 1, 4, 12])
def test_resuming_is_the_tail_of_an_uninterrupted_run(start):
    np.testing.assert_array_equal(stream(start=start), stream()[start:])


def test_nothing_is_left_after_the_last_step():
    assert stream(start=13) == []


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_every_global_batch(processes):
    parts = [stream(rows=rows, start=3) for rows in np.split(np.arange(BATCH), processes)]
    joined = [np.concatenate(step) for step in zip(*parts, strict=True)]
    np.testing.assert_array_equal(joined, stream(start=3))


def test_threads_do_not_change_the_order():
    np.testing.assert_array_equal(stream(threads=4), stream())


def test_the_seed_changes_the_order():
    assert not np.array_equal(stream(seed=1), stream())


def test_a_process_may_have_rows_that_are_not_side_by_side():
    parts = [stream(rows=np.asarray(rows)) for rows in ((0, 2), (1, 3))]
    for step, (a, b) in zip(stream(), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(step, np.stack([a, b], axis=1).ravel())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_loader_processes_give_the_batches_of_threads(pictograms):
    """Uses prepared tables, whose rows every process opens for itself."""
    import jax

    from contextjax.tokenizers import train_tokenizer
    from data_pipelines.datasets.cirr import CirrReader
    from data_pipelines.ops import ComposedSamples
    from data_pipelines.tables import all_texts, load_split

    data = load_split(CirrReader(pictograms), pictograms, "train", size=24, cache_bytes=1 << 20)
    samples = ComposedSamples(data, train_tokenizer(all_texts(data), vocabulary=300, length=24), modifications=2)
    stream = lambda workers: list(batches(samples, batch_size=4, steps=7, seed=1, start=2, workers=workers))
    expected, found = stream(0), stream(2)
    assert len(expected) == len(found) == 5
    for one, other in zip(expected, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


# ---------------------------------------------------------------------------------------- mixtures

SHARES = (Share(13), Share(8, 2.0), Share(10, 0.3), Share(7, 1.5), Share(5, 0.01))


class Mixed(Numbers):
    """43 numbers of five sources."""

    shares = SHARES

    def __len__(self):
        return 43


def mixed(*, steps, batch_size=BATCH, **options):
    return list(batches(Mixed(), batch_size=batch_size, steps=steps, seed=0, **options))


def test_without_weights_the_order_is_the_plain_one():
    """Which is that of runs from before there were mixtures."""
    for epoch in range(3):
        plain = np.random.default_rng([1, epoch]).permutation(43)
        np.testing.assert_array_equal(epoch_order((Share(43),), 1, epoch), plain)
        np.testing.assert_array_equal(epoch_order((Share(13), Share(30)), 1, epoch), plain)


def test_every_epoch_has_each_sources_share():
    lengths = [share.per_epoch for share in SHARES]
    assert lengths == [13, 16, 3, 10, 1]
    ends = np.cumsum([share.count for share in SHARES])
    for epoch in range(40):
        rows = epoch_order(SHARES, 0, epoch)
        assert np.bincount(np.searchsorted(ends, rows, side="right")).tolist() == lengths


def test_samples_of_a_source_are_seen_equally_often_at_an_epochs_end():
    seen = np.zeros(43, int)
    for epoch in range(60):
        seen += np.bincount(epoch_order(SHARES, 5, epoch), minlength=43)
        parts = np.split(seen, np.cumsum([share.count for share in SHARES])[:-1])
        assert all(np.ptp(part) <= 1 for part in parts)
        assert (parts[0] == epoch + 1).all() and (parts[1] == 2 * (epoch + 1)).all()
    assert [part.sum() for part in parts] == [60 * share.per_epoch for share in SHARES]


def test_which_samples_an_epoch_has_depends_on_the_seed_and_the_source():
    chosen = {(seed, epoch): frozenset(epoch_order((Share(40, 0.25), Share(40, 0.25)), seed, epoch).tolist())
              for seed in range(3) for epoch in range(4)}  # fmt: skip
    assert len(set(chosen.values())) == 12
    assert all({row for row in rows if row < 40} != {row - 40 for row in rows if row >= 40} for rows in chosen.values())


@pytest.mark.parametrize("start", [0, 1, 10, 11, 27])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_mixture_goes_on_anywhere_with_any_number_of_processes(start, processes):
    whole = mixed(steps=30)
    parts = [mixed(steps=30, start=start, rows=rows) for rows in np.split(np.arange(BATCH), processes)]
    joined = [np.concatenate(step) for step in zip(*parts, strict=True)]
    np.testing.assert_array_equal(joined, whole[start:])


@pytest.mark.parametrize(("code", "said"), [(-7, "shared memory .*--shm-size"), (-9, "was killed, .*memory is short")])
def test_a_loader_process_that_the_system_ends_is_explained(code, said):
    """The library says the exit code alone. A tmpfs of 1 MB at /dev/shm gives -7, as the first batch is written."""

    def stream():
        yield 1
        raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search the logs")

    batches = loader._reported(stream())
    assert next(batches) == 1
    with pytest.raises(UserError, match=said):
        next(batches)


def test_another_end_of_a_loader_process_stays_an_error():
    def stream():
        raise RuntimeError("Worker process was terminated unexpectedly with exit code 1.")
        yield

    with pytest.raises(RuntimeError):
        next(loader._reported(stream()))
