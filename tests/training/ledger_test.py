"""Seconds of each kind add up to the wall time, and what was made twice is told."""

import time

import jax
import jax.numpy as jnp
import pytest

from contextjax.training.ledger import DeviceWatch, Ledger, LedgerFile, read_ledger, summary, table


def test_every_moment_is_of_one_kind():
    begin = time.monotonic()
    ledger = Ledger()
    time.sleep(0.02)
    with ledger.during("compile"):
        time.sleep(0.03)
    ledger.enter("step")
    time.sleep(0.05)
    with pytest.raises(ZeroDivisionError), ledger.during("checkpoint"):
        time.sleep(0.01)
        _ = 1 / 0
    time.sleep(0.04)
    ledger.waited(0.03)
    with ledger.during("evaluation"):
        time.sleep(0.02)
        seconds, wall = ledger.seconds, time.monotonic() - begin
    assert sum(seconds.values()) == pytest.approx(wall, rel=0.01)
    least = {"start": 0.02, "compile": 0.03, "step": 0.06, "data": 0.03, "checkpoint": 0.01, "evaluation": 0.02}
    assert all(seconds[kind] >= value - 1e-6 for kind, value in least.items())
    ledger.enter("start")
    seconds = ledger.seconds
    assert ledger.trained == pytest.approx(sum(seconds[kind] for kind in ("step", "data", "checkpoint")), abs=1e-6)


def line(first, last, **seconds):
    kinds = dict.fromkeys(("start", "compile", "step", "data", "checkpoint", "evaluation"), 0.0)
    return {"began": "2026-01-01T00:00:00Z", "steps": [first, last], "seconds": kinds | seconds}


def test_the_summary_is_of_all_starts_and_adds_up():
    lines = [
        line(0, 50, start=4.0, step=100.0, compile=10.0),
        line(20, 25, start=6.0, step=10.0),
        line(20, 60, step=80),
    ]
    rows = {what: seconds for what, seconds, _ in summary(lines)}
    assert rows["steps that were made again"] == pytest.approx(100 * 30 / 50 + 10)
    assert rows["steps"] == pytest.approx(190 - 70) and rows["starting"] == 4 and rows["starting again"] == 6
    assert rows.pop("all") == pytest.approx(sum(rows.values())) == 210
    assert "2 starts" in table(lines[:2]) and "60.0 s" in table(lines[:2])
    assert table([]) == "Where the time went (0 starts):"


def test_a_start_has_one_line_however_often_it_is_written(tmp_path):
    for first in (0, 7):
        file = LedgerFile(tmp_path, Ledger(), step=first)
        for step in (first + 1, first + 5):
            file.write(step)
    assert [found["steps"] for found in read_ledger(tmp_path)] == [[0, 5], [7, 12]]


def test_the_watch_tells_when_the_device_was_through():
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: jnp.tanh(y @ y), x))
    x = jnp.eye(300)
    slow(x).block_until_ready()
    watch = DeviceWatch()
    begin = time.monotonic()
    result = slow(x)
    done = watch.given(result)
    result.block_until_ready()
    through = time.monotonic()
    while not done:
        time.sleep(0.001)
    assert begin < done[0] < through + 0.5
    last = watch.given(slow(x))
    watch.close()
    assert last  # no thread waits in JAX any more: the interpreter may end
