"""Simulated devices: their number in a mesh, and their limit."""

import pytest

from contextjax.types import UserError
from experiments.shared import simulation


def test_the_devices_of_a_mesh_are_counted():
    with pytest.raises(UserError, match="a plan needs numbers, as --mesh=data:8,fsdp:4"):
        simulation.count_devices("data:-1")
    assert simulation.count_devices("data:8,fsdp:4") == 32
    with pytest.raises(UserError, match="has 4096 devices, and 2048 can be simulated"):
        simulation.count_devices("data:512,fsdp:8")
    with pytest.raises(UserError, match="4096 devices are asked for, and 2048 can be simulated"):
        simulation.simulate_devices(4096)
