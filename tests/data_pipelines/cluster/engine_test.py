"""Rows mapped by a cluster of three nodes: equal to one process, though workers and a node are killed."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contextjax.types import UserError
from data_pipelines.cluster.engine import LOG, OneProcess, RayEngine, Work
from data_pipelines.cluster.nodes import connected
from tests.clusters import add_node, local_cluster, needs_ray
from tests.commands import ROOT, environment

# Ray deprecates settings that it makes itself.
pytestmark = pytest.mark.filterwarnings("default")
ROWS = [(number, "x" * (number % 7)) for number in range(60)]


def noting(folder: Path, seconds: float, row):
    """Notes which process has worked on a row, as the rows of real work take a while."""
    time.sleep(seconds)
    (folder / f"{row[0]}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return row[0], row[1] * 2


def make_noting(folder: Path, seconds: float = 0.0):
    return functools.partial(noting, folder, seconds)


def failing(row):
    if row[0] == 40:
        raise UserError("Row 40 is bad.")
    return row


def deadly(row):
    if row[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return row


def expected(rows=ROWS):
    return [(number, text * 2) for number, text in rows]


@pytest.fixture(scope="module")
def engine():
    with connected(local_cluster().address) as engine:
        yield engine


def test_one_process_maps_in_order_and_makes_the_function_once(tmp_path):
    work = Work(functools.partial(make_noting, tmp_path), "row", threads=3, ahead=5)
    assert list(OneProcess().map_rows(work, ROWS)) == expected() and len(list(tmp_path.iterdir())) == len(ROWS)


@needs_ray
@pytest.mark.long
@pytest.mark.parametrize("place", ["cpu", "node", "device"])
def test_a_cluster_gives_what_one_process_gives(engine, place, tmp_path):
    work = Work(functools.partial(make_noting, tmp_path), "row", threads=2, chunk=7, place=place)
    assert list(engine.map_rows(work, ROWS)) == expected()
    assert len(list(tmp_path.iterdir())) == len(ROWS)  # nothing was worked on twice
    assert engine.facts["done"] == 60 and engine.facts["nodes"] == 3 and engine.facts["losses"] == 0


@needs_ray
@pytest.mark.long
@pytest.mark.parametrize("place", ["cpu", "node"])
@pytest.mark.parametrize("lost", ["worker", "node"])
def test_what_is_lost_is_done_again_and_nothing_twice(engine, place, lost, tmp_path):
    cluster, rows = local_cluster(), ROWS * 2
    node = add_node(cluster) if lost == "node" else None
    work = Work(functools.partial(make_noting, tmp_path, 0.1), "row", chunk=3, place=place)

    def kill():
        while len(done := sorted(tmp_path.iterdir(), key=os.path.getmtime)) < 12:
            time.sleep(0.05)
        if node is None:
            os.kill(int(done[-1].name.split("-")[1]), signal.SIGKILL)
        else:
            cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    assert list(engine.map_rows(work, rows)) == expected(rows)
    killer.join()
    assert len(list(tmp_path.iterdir())) >= len(rows)


@needs_ray
@pytest.mark.long
def test_a_user_error_comes_after_the_results_before_it_and_a_row_that_kills_is_named(engine):
    results = engine.map_rows(Work(lambda: failing, "row", chunk=8), ROWS)
    assert [next(results) for _ in range(40)] == ROWS[:40]
    with pytest.raises(UserError, match="Row 40 is bad"):
        next(results)
    for place in ("cpu", "node"):
        with pytest.raises(UserError, match=r"worked on row \d or soon after was lost 3 times"):
            list(engine.map_rows(Work(lambda: deadly, "row", chunk=2, place=place), ROWS))


@needs_ray
@pytest.mark.long
def test_a_bug_keeps_its_traceback(engine):
    with pytest.raises(Exception, match="ZeroDivisionError"):
        list(engine.map_rows(Work(lambda: lambda row: 1 / 0, "row"), ROWS))


@needs_ray
@pytest.mark.long
def test_each_map_is_a_line_of_the_log(engine, tmp_path):
    own = RayEngine(tmp_path)
    assert list(own.map_rows(Work(lambda: lambda row: row, "row"), ROWS[:3])) == ROWS[:3]
    (line,) = map(json.loads, (tmp_path / LOG).read_text().splitlines())
    assert (line["unit"], line["rows"], line["done"], line["nodes"]) == ("row", 3, 3, 3)
    assert own.summary().startswith("Cluster: 3 rows on 3 node(s), 3 CPUs in ")


def large(folder: Path, row):
    (folder / str(row)).touch()
    return bytes(4 << 20)


@needs_ray
@pytest.mark.long
def test_a_slow_reader_of_the_results_slows_the_nodes_down(engine, tmp_path):
    work = Work(lambda: functools.partial(large, tmp_path), "row", size=len, chunk=2)
    results = engine.map_rows(work, range(200))  # 800 MB, and 300 MB of object stores
    next(results)
    time.sleep(15)
    assert len(list(tmp_path.iterdir())) < 120
    assert sum(1 for _ in results) == 199


@needs_ray
@pytest.mark.parametrize(
    "counts", [pytest.param((1_000, 10_000), marks=pytest.mark.long), pytest.param((100_000,), marks=pytest.mark.slow)]
)
def test_the_memory_of_the_command_does_not_grow_with_the_rows(counts):
    peaks = []
    for count in (1_000, *counts):
        line = [sys.executable, "-m", "tests.data_pipelines.cluster.maps_rows", str(count), local_cluster().address]
        done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
        print(done.stdout)
    assert max(peaks) < 1.1 * min(peaks)
