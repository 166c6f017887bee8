"""Functions of the command that the processes of a cluster call: what must be one for the whole cluster.

A model's answers, its rate limits and its key stay in the command's process, so no process or node that is lost takes
an answer with it, and no question is asked twice. A mailbox, an actor beside the command, passes calls on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import queue
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from data_pipelines.chat.questions import Model, Question, Reply
from data_pipelines.cluster.engine import ray_library, resources

ENDING = 2.0  # seconds in which the threads notice that no more calls come
LOST = 600.0  # seconds in which a process that holds a model has to come, where none is left


@dataclasses.dataclass(frozen=True)
class RemoteCall:
    """A function of the command, as a process of the cluster calls it."""

    box: Any  # the handle of the mailbox
    name: str

    def __call__(self, argument: Any) -> Any:
        """Returns what the function returns in the command's process, or raises what it raises there."""
        ray = ray_library()
        value, error = ray.get(self.box.ask.remote(self.name, argument))
        if error is not None:
            raise error
        return value


@contextlib.contextmanager
def answered_here(functions: Mapping[str, Callable[[Any], Any]], *, threads: int) -> Iterator[dict[str, RemoteCall]]:
    """Gives functions of this process to the cluster, while the block runs.

    Args:
      functions: name -> a function of one argument.
      threads: the calls that are under way at a time, of all processes and functions together.
    """
    ray = ray_library()
    here = ray_library("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    box = ray.remote(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=100_000, scheduling_strategy=here
    )(_Mailbox).remote()
    answering = [threading.Thread(target=_answer, args=(box, functions), daemon=True) for _ in range(threads)]
    for thread in answering:
        thread.start()
    try:
        yield {name: RemoteCall(box, name) for name in functions}
    finally:
        ray.kill(box)
        for thread in answering:  # one that asks an endpoint is not waited for
            thread.join(timeout=ENDING / threads)


def _answer(box: Any, functions: Mapping[str, Callable[[Any], Any]]) -> None:
    """Answers calls until the mailbox is gone."""
    ray = ray_library()
    # The mailbox is gone, or the cluster, where Ray ends the thread. An error of a call is its outcome.
    with contextlib.suppress(Exception, SystemExit):
        while True:
            number, name, argument = ray.get(box.take.remote())
            box.give.remote(number, _outcome(functions[name], argument))


Outcome = tuple[Any, Exception | None]


def _outcome(function: Callable[[Any], Any], argument: Any) -> Outcome:
    """Returns (value, None) or (None, error) of a call."""
    try:
        return function(argument), None
    except UserError as error:
        return None, UserError(str(error))
    except Exception:  # raised again where the call was made, with the traceback from here
        return None, RuntimeError(traceback.format_exc())


class _Mailbox:
    """Keeps calls until they are taken and answered. A call that it has lost is made again by Ray."""

    def __init__(self):
        self._calls: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[Outcome]] = {}

    async def ask(self, name: str, argument: Any) -> Outcome:
        """Returns the outcome of a call."""
        number = uuid.uuid4().hex
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._calls.put((number, name, argument))
        return await self._answers[number]

    async def take(self) -> tuple[str, str, Any]:
        """Returns a call that waits."""
        return await self._calls.get()

    async def give(self, number: str, outcome: Outcome) -> None:
        """Takes the outcome of a call."""
        if answer := self._answers.pop(number, None):
            answer.set_result(outcome)


class SpreadModel:
    """A model that processes of the cluster hold, one for each accelerator or node; questions go to a free one."""

    def __init__(self, make: Callable[[], Model]):
        """Starts the processes; each makes the model."""
        model = make()  # it is not loaded here
        self.name, self.settings = model.name, model.settings
        self._make, self._free = make, queue.SimpleQueue[Any]()
        self.processes, _ = resources().actors("device")
        for _ in range(self.processes):
            self._start()

    def _start(self) -> None:
        ray = ray_library()
        needs = {"num_gpus": 1} if resources().accelerators else {"scheduling_strategy": "SPREAD"}
        holder = ray.remote(num_cpus=0, **needs)(_Holder).remote(self._make, str(Path.cwd()))
        is_ready = lambda future: None if future.exception() else self._free.put(holder)
        holder.ready.remote().future().add_done_callback(is_ready)

    def answer(self, question: Question) -> Reply:
        """Returns the model's answer. A question whose process is lost goes to another one.

        Raises:
          UserError: the model raises one, or no process is left.
        """
        ray = ray_library()
        while True:
            try:
                holder = self._free.get(timeout=LOST)
            except queue.Empty:
                raise UserError(
                    f"No node has had a free place for the model {self.name} for {LOST:g} s; see `ray status`, and run "
                    "the same command again, which goes on."
                ) from None
            try:
                value, error = ray.get(holder.answer.remote(question))
            except ray.exceptions.RayActorError:
                self._start()  # where there is a place for it
                continue
            self._free.put(holder)
            if error is not None:
                raise error
            return value


class _Holder:
    """Holds a model in a process of its own."""

    def __init__(self, make: Callable[[], Model], place: str):
        os.chdir(place)  # the command's folder, where a user's paths may begin
        self._model = make()

    def ready(self) -> None:
        """Returns when the process is there."""

    def answer(self, question: Question) -> Outcome:
        """Returns the outcome of a question."""
        return _outcome(self._model.answer, question)
