"""A map over processes gives what a map in this process gives, in the same order, and raises where it fails."""

import math

import pytest

from data_pipelines.processes import map_in_processes


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_errors_are_raised(processes):
    assert list(map_in_processes(math.sqrt, [9, 4, 1], processes)) == [3, 2, 1]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(map_in_processes(math.sqrt, [9, -1], processes))
