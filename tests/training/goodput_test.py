"""The goodput log: seconds of each kind add up to the wall time, and repeated steps have a row of their own."""

import time

import jax
import jax.numpy as jnp
import pytest

from contextjax.training.goodput import (
    GOODPUT,
    DeviceWatch,
    Goodput,
    GoodputLog,
    process_began,
    read_goodput,
    summary,
    table,
)


def test_every_moment_is_of_one_kind():
    begin = time.monotonic()
    goodput = Goodput()
    time.sleep(0.02)
    with goodput.during("compile"):
        time.sleep(0.03)
    goodput.enter("step")
    time.sleep(0.05)
    with pytest.raises(ZeroDivisionError), goodput.during("checkpoint"):
        time.sleep(0.01)
        _ = 1 / 0
    time.sleep(0.04)
    goodput.waited(0.03)
    with goodput.during("evaluation"):
        time.sleep(0.02)
        seconds, wall = goodput.seconds, time.monotonic() - begin
    assert sum(seconds.values()) == pytest.approx(wall, rel=0.01)
    least = {"start": 0.02, "compile": 0.03, "step": 0.06, "data": 0.03, "checkpoint": 0.01, "evaluation": 0.02}
    assert all(seconds[kind] >= value - 1e-6 for kind, value in least.items())
    goodput.enter("start")
    seconds = goodput.seconds
    assert goodput.trained == pytest.approx(sum(seconds[kind] for kind in ("step", "data", "checkpoint")), abs=1e-6)


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
        log = GoodputLog(tmp_path, Goodput(), step=first)
        for log.step in (first + 1, first + 5):
            log.write()
    assert [line["steps"] for line in read_goodput(tmp_path)] == [[0, 5], [7, 12]]


def test_damaged_lines_are_set_aside(tmp_path):
    GoodputLog(tmp_path, Goodput(), step=0).close()
    path = tmp_path / GOODPUT
    damaged = b'\xff\n{"began": "", "steps": [0], "seconds": {}}\n7\n'
    path.write_bytes(damaged + path.read_bytes())
    assert len(read_goodput(tmp_path)) == 1
    GoodputLog(tmp_path, Goodput(), step=5).close()
    assert [line["steps"] for line in read_goodput(tmp_path)] == [[0, 0], [5, 5]]
    assert (tmp_path / f"{GOODPUT}.damaged").read_bytes() == damaged


def test_the_watch_notes_when_the_device_was_through():
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: jnp.tanh(y @ y), x))
    x = jnp.eye(300)
    slow(x).block_until_ready()
    goodput = Goodput()
    watch = DeviceWatch(goodput)
    begin = time.monotonic()
    result = slow(x)
    done = watch.given(result)
    result.block_until_ready()
    through = time.monotonic()
    while not done:
        time.sleep(0.001)
    assert begin < done[0] < through + 0.5
    goodput.enter("step")
    with watch.reading(result):  # which is there: all of the block is waiting for data
        time.sleep(0.05)
    assert 0.02 < goodput.seconds["data"] < 1
    last = watch.given(slow(x))
    watch.close()
    assert last  # no thread waits in JAX any more: the interpreter may end


def test_a_start_may_count_from_where_its_process_began():
    began = process_began()
    goodput = Goodput(began)
    assert began < time.monotonic() and goodput.seconds["start"] == pytest.approx(time.monotonic() - began, abs=0.5)
    assert Goodput().seconds["start"] < 0.5
