"""The watchdog: what it lets pass, and how it ends a process; by a clock that goes on when a test says so."""

import os
import subprocess
import sys
import threading
import time

import pytest

from contextjax.training import watchdog
from contextjax.training.watchdog import STUCK, Watchdog
from tests.commands import ROOT, environment, replace_clock

LIMIT = 0.2  # seconds; it looks four times in them


class Clock:
    """Takes the place of time.monotonic."""

    now = 0.0

    def goes_on(self, seconds: float) -> None:
        """By so many seconds; the watchdog is given the time to look."""
        self.now += seconds
        time.sleep(LIMIT)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    replace_clock(monkeypatch, watchdog, monotonic=lambda: clock.now)
    return clock


@pytest.fixture
def ended(monkeypatch, clock):
    """Set when the process would have ended; here it goes on."""
    event = threading.Event()

    def end(code):
        assert code == STUCK
        event.set()

    monkeypatch.setattr(os, "_exit", end)
    return event


@pytest.fixture
def watch(ended):
    """watch(): a watchdog, which has ended before os._exit is itself again."""
    dogs = []
    yield lambda: dogs.append(Watchdog(LIMIT)) or dogs[-1]
    for dog in dogs:
        dog.close()
    for thread in watching():
        thread.join()


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_no_step_within_the_time_ends_the_process_and_tells_where_it_was(ended, watch, clock, capfd):
    watchdog = watch()
    watchdog.step_done()
    clock.goes_on(1.1 * LIMIT)
    assert ended.wait(60)
    said = capfd.readouterr().err
    assert "No step has been done for 0.2 seconds (--step_timeout)" in said
    assert "most recent call first" in said and "watchdog_test.py" in said


def test_before_the_first_step_and_in_pauses_anything_may_take_its_time(ended, watch, clock):
    watchdog = watch()
    clock.goes_on(9)
    with watchdog.paused():
        watchdog.step_done()
        with watchdog.paused():
            clock.goes_on(9)
        clock.goes_on(9)
    clock.goes_on(0.9 * LIMIT)
    assert not ended.is_set()
    clock.goes_on(0.2 * LIMIT)  # the time runs again
    assert ended.wait(60)


def test_steps_keep_it_quiet_and_so_does_its_end(ended, watch, clock):
    watchdog = watch()
    for _ in range(5):
        clock.goes_on(0.9 * LIMIT)
        watchdog.step_done()
    watchdog.close()
    watchdog = watch()
    watchdog.close()
    watchdog.step_done()
    for thread in watching():
        thread.join()
    clock.goes_on(9)
    assert not ended.is_set()


def test_a_loader_that_hangs_on_its_first_batch_ends_the_process(tmp_path):
    command = [sys.executable, "-m", "tests.training.never_reads", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == STUCK, done.stderr
    assert "No step has been done for 2 seconds" in done.stderr and "in never" in done.stderr


def test_nothing_is_watched_without_a_time():
    Watchdog(0).step_done()
    assert not watching()
