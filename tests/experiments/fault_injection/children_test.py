"""Batches are cut, recorded and spoilt at the step that was asked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.fault_injection.children import Cut, cut_after, recorded, spoil


def test_batches_pass_until_the_cut_and_are_recorded():
    batches, records = [SimpleNamespace(records=[n]) for n in range(5)], []
    with pytest.raises(Cut):
        list(recorded(cut_after(iter(batches), 3), records))
    assert [int(each[0]) for each in records] == [0, 1, 2]
    for count in (0, 5, 9):  # never, or after the end
        assert list(cut_after(iter(batches), count)) == batches


def test_the_pictures_of_named_steps_alone_are_spoilt():
    batches = [{"pictures": np.full((2, 3), n, np.uint8), "ids": np.arange(n)} for n in range(1, 5)]
    for step, (batch, whole) in enumerate(zip(spoil(iter(batches), {2, 4}), batches, strict=True), 1):
        assert batch["pictures"].dtype == np.float32 and np.isnan(batch["pictures"]).all() == (step in {2, 4})
        np.testing.assert_array_equal(batch["ids"], whole["ids"])
        if step not in {2, 4}:
            np.testing.assert_array_equal(batch["pictures"], whole["pictures"])
