"""Calls from the nodes of a cluster to the command, and a model that its processes hold."""

import dataclasses
import functools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from contextjax.types import UserError
from data_pipelines.chat.questions import Prompt, Question, Reply
from data_pipelines.cluster.calls import SpreadModel, answered_here
from data_pipelines.cluster.engine import Work
from data_pipelines.cluster.nodes import connected
from tests.clusters import local_cluster, needs_ray

pytestmark = [needs_ray, pytest.mark.long, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def engine():
    with connected(local_cluster().address) as engine:
        yield engine


def calling(call, row):
    return row, call(row)


def test_calls_are_answered_by_this_process_and_errors_are_raised_where_they_were_made(engine):
    under_way, most, lock = 0, 0, threading.Lock()

    def answer(row):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        if row == 31:
            raise UserError("No more questions.")
        return os.getpid()

    with answered_here({"ask": answer}, threads=2) as calls:
        work = Work(
            functools.partial(functools.partial, calling, calls["ask"]), "row", threads=4, chunk=4, place="node"
        )
        assert list(engine.map_rows(work, range(30))) == [(row, os.getpid()) for row in range(30)]
        assert most == 2  # of three processes with four threads each
        with pytest.raises(UserError, match="No more questions"):
            list(engine.map_rows(work, range(20, 40)))


@dataclasses.dataclass
class PidModel:
    """Answers with its process, and dies at the first question that it is asked to die by."""

    mark: str
    name: str = "pid"
    settings: dict = dataclasses.field(default_factory=dict)

    def answer(self, question):
        text = question.prompt.text
        if text == "die" and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "refuse":
            raise UserError("The model refuses.")
        return Reply(text, self.name, "p", str(os.getpid()))


def test_a_model_is_held_by_a_process_of_each_node_and_a_lost_one_is_replaced(engine, tmp_path):
    model = SpreadModel(functools.partial(PidModel, str(tmp_path / "mark")))
    ask = lambda text: model.answer(Question(Prompt("p", "v1", text)))
    assert model.name == "pid" and model.processes == 3
    assert int(ask("die").text) != os.getpid() and (tmp_path / "mark").exists()
    with pytest.raises(UserError, match="The model refuses"):
        ask("refuse")
    assert ask("again").key == "again"
