"""The machine: its name, cores and memory."""

import os

import pytest

from contextjax.types import UserError
from experiments.shared import machine


def test_the_machine_has_a_name():
    assert machine.cpu_model()


def test_threads_are_limited_to_the_first_cores():
    cores = os.sched_getaffinity(0)
    try:
        machine.limit_threads(1)
        assert os.sched_getaffinity(0) == {min(cores)}
        with pytest.raises(UserError, match="--threads is 2; this machine offers 1 cores"):
            machine.limit_threads(2)
    finally:
        os.sched_setaffinity(0, cores)
