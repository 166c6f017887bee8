"""How long is waited, by a clock that a test reads."""

import pytest

from contextjax.types import UserError
from data_pipelines.synthesis import retries
from data_pipelines.synthesis.retries import RateLimit, Retry, with_retries


@pytest.fixture
def clock(monkeypatch):
    """Seconds slept so far; sleeping takes no time."""
    slept = []
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    monkeypatch.setattr(retries.time, "monotonic", lambda: sum(slept))
    return slept


def failing(times, after=None):
    left = [times]

    def call():
        left[0] -= 1
        if left[0] >= 0:
            raise Retry("busy", after=after)
        return "found"

    return call


def test_waits_double_up_to_the_longest(clock):
    assert with_retries(failing(9), what="it", tries=10) == "found"
    longest = [min(retries.LONGEST_WAIT, 2.0**number) for number in range(9)]
    assert all(most / 2 <= waited <= most for waited, most in zip(clock, longest, strict=True))


def test_a_service_that_says_how_long_is_obeyed_by_all(clock):
    limit = RateLimit()
    assert with_retries(failing(1, after=7.0), what="it", limit=limit, first_wait=0.1) == "found"
    assert clock == [7.0]
    limit.pause(5.0)
    limit.wait()
    assert sum(clock) == 12.0


def test_too_many_failures_are_told(clock):
    with pytest.raises(UserError, match=r"it failed 3 times \(busy\)"):
        with_retries(failing(3), what="it", tries=3)
    assert len(clock) == 2


@pytest.mark.parametrize(
    ("options", "tokens", "apart"),
    [
        ({"requests": 30}, 100, 2.0),
        ({"tokens": 600}, 100, 10.0),
        ({"requests": 30, "tokens": 600}, 5, 2.0),
        ({}, 100, 0.0),
    ],
)
def test_calls_are_as_far_apart_as_the_limits_ask(options, tokens, apart, clock):
    limit, begins = RateLimit(**options), []
    for _ in range(4):
        limit.wait(tokens)
        begins.append(sum(clock))
    assert begins == pytest.approx([0, apart, 2 * apart, 3 * apart])
