"""The watchdog: what it lets pass, and how it ends a process."""

import os
import threading
import time

import pytest

from contextjax.training.hooks import STUCK, Watchdog


@pytest.fixture
def ended(monkeypatch):
    """Set when the process would have ended; here it goes on."""
    event = threading.Event()

    def end(code):
        assert code == STUCK
        event.set()

    monkeypatch.setattr(os, "_exit", end)
    return event


def test_no_step_within_the_time_ends_the_process_and_tells_where_it_was(ended, capfd):
    watchdog = Watchdog(0.2)
    watchdog.step_done()
    assert ended.wait(20)
    said = capfd.readouterr().err
    assert "No step has been done for 0.2 seconds (--step_timeout)" in said
    assert "most recent call first" in said and "watchdog_test.py" in said
    watchdog.close()


def test_before_the_first_step_and_in_pauses_anything_may_take_its_time(ended):
    watchdog = Watchdog(0.2)
    time.sleep(0.6)
    with watchdog.paused():
        watchdog.step_done()
        with watchdog.paused():
            time.sleep(0.6)
        time.sleep(0.6)
    assert not ended.is_set()
    assert ended.wait(20)  # the time runs again
    watchdog.close()


def test_steps_keep_it_quiet_and_so_does_its_end(ended):
    watchdog = Watchdog(2.0)
    for _ in range(10):
        time.sleep(0.3)
        watchdog.step_done()
    watchdog.close()
    watchdog = Watchdog(0.2)
    watchdog.close()
    watchdog.step_done()
    time.sleep(0.6)
    assert not ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_nothing_is_watched_without_a_time():
    Watchdog(0).step_done()
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
