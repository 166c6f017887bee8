"""The formula on round numbers; the roof is a rate."""

import dataclasses

import pytest

from contextjax.analysis.chips import CHIPS
from contextjax.analysis.collectives import Collective
from contextjax.analysis.cost import Cost
from contextjax.analysis.roofline import expected_step, matmul_rate, seconds_to_send

ROUND = dataclasses.replace(
    CHIPS["H100"], bfloat16=100.0, float32=10.0, memory=50.0, bandwidth=20.0, link=5.0, domain=8, network=1.0
)


def sends(total, *, group, span):
    return Collective("all-reduce", total, group, span, 1, True, "")


def cost(*operations, flops=800.0, device_flops=120.0, arguments=4.0, temporaries=3.0, outputs=1.0):
    return Cost(8, flops, device_flops, arguments, temporaries, outputs, operations)


def test_the_slower_of_products_and_memory_then_sending():
    expected = expected_step(cost(sends(10.0, group=8, span=8)), ROUND, dtype="bfloat16", attainable=0.5)
    assert (expected.compute, expected.memory, expected.collectives) == (120 / 50, 15 / 20, 2.0)
    assert expected.step == expected.compute + 2.0
    assert expected.mfu == pytest.approx(800 / (4.4 * 100 * 8))
    half_hidden = expected_step(cost(sends(10.0, group=8, span=8)), ROUND, dtype="bfloat16", attainable=0.5, hidden=0.5)
    assert half_hidden.step == pytest.approx(expected.step - 1.0)
    bound_by_memory = expected_step(cost(temporaries=60.0), ROUND, dtype="bfloat16", attainable=0.5)
    assert bound_by_memory.step == bound_by_memory.memory == 129 / 20
    assert expected_step(cost(), ROUND, dtype="float32", attainable=0.5).compute == 10 * expected.compute


@pytest.mark.parametrize(
    ("group", "span", "speed"),
    [
        (8, 8, 5.0),  # one server
        (2, 2, 5.0),
        (64, 64, 5.0),  # eight ports of 1.0 would carry more than the links bring
        (16, 64, 2.0),  # every fourth chip: two of a server
        (8, 57, 1.0),  # every eighth: one of a server
    ],
)
def test_beyond_a_server_its_members_share_the_load(group, span, speed):
    assert seconds_to_send(sends(10.0, group=group, span=span), ROUND) == 10.0 / speed


def test_the_roof_is_a_rate():
    assert 1e6 < matmul_rate("float32", sizes=(64, 128), seconds=0.02) < 1e15
