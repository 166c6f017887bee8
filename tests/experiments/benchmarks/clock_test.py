"""A stream of batches whose moments are recorded, and which may end early."""

import itertools

import pytest

from experiments.benchmarks.clock import Enough, clocked


def test_a_clocked_stream_ends_when_there_were_enough():
    moments, seen = [], []
    with pytest.raises(Enough):
        seen.extend(clocked(moments, limit=3, change=lambda s: itertools.islice(s, 1, None))(itertools.count()))
    assert len(moments) == 4 and moments == sorted(moments)
    assert list(clocked(moments)(iter("ab"))) == ["a", "b"] and len(moments) == 6
