"""The thread pool that works ahead: the order, how far ahead it is, errors, and an early end."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from contextjax.threads import available_cpus, map_ahead


def test_available_cpus_are_those_of_the_affinity():
    assert available_cpus() == len(os.sched_getaffinity(0))
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from contextjax.threads import available_cpus; print(available_cpus())"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize("ahead", [0, 1, 7, 100])
def test_results_come_in_order_and_items_are_read_no_further_ahead(ahead):
    read = []

    def items():
        for number in range(30):
            read.append(number)
            yield number

    for count, result in enumerate(map_ahead(lambda x: x * x, items(), ahead=ahead, threads=3)):
        assert result == count**2
        assert len(read) <= count + 1 + ahead
    assert len(read) == 30


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    assert sorted(map_ahead(lambda _: both.wait(), range(4), ahead=2, threads=2)) == [0, 0, 1, 1]


def test_an_error_is_raised_where_its_result_is_due():
    def invert(x):
        return 1 / x

    results = map_ahead(invert, [1, 2, 0, 4], ahead=3, threads=2)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_has_not_begun_is_cancelled_when_the_reader_stops():
    started, gate = [], threading.Event()

    def work(number):
        started.append(number)
        if number:
            gate.wait(30)
        return number

    results: Any = map_ahead(work, range(50), ahead=40, threads=1)
    assert next(results) == 0
    threading.Timer(0.05, gate.set).start()
    results.close()
    assert len(started) <= 2
