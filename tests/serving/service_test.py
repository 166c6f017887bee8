"""Tests of the service under load: what is compiled, batches, full queues, thumbnails, memory."""

import concurrent.futures
import dataclasses
import os
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from contextjax.serving.app import make_app
from contextjax.serving.index import Index
from contextjax.serving.service import Limits, Search, Service
from contextjax.training.compile_counter import CompileCounter
from contextjax.types import UserError
from tests.serving.conftest import LIMITS, TEXTS, Server, png
from tests.serving.limits_test import Slow


@pytest.mark.long
def test_a_search_compiles_nothing_after_the_warming(system, index):
    service = Service(system, index, limits=LIMITS)
    service.warm()
    counter, rng = CompileCounter(), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, system.image_size, system.image_size, 3), np.uint8)
    for size in range(1, LIMITS.batch + 1):
        for distinct in (1, 2, 3):  # clients may ask of one picture at the same time
            service._search([Search(pictures[i % distinct], TEXTS[i % 3], 1 + i) for i in range(size)])
        service._search([Search(pictures[i % 3], TEXTS[i % 3] if i % 2 else None, 1) for i in range(size)])
        service._search([Search(None, TEXTS[i % 3], 1) for i in range(size)])
    assert counter.unexpected == 0


def test_many_thumbnails_wait_for_none_but_themselves(system, index, gallery, monkeypatch):
    """A search by a named picture is answered while all threads for thumbnails are busy; too many are refused."""

    go = threading.Event()

    def slow(name):
        if threading.current_thread().name.startswith("thumbnails"):
            go.wait(60)
        return gallery.picture(name)

    monkeypatch.setattr("contextjax.serving.service.THUMBNAILS", 4)
    changed = dataclasses.replace(gallery, picture=slow)
    server = Server(make_app(Service(system, index, gallery=changed, limits=LIMITS)))
    show = lambda row: httpx.get(f"{server.url}/v1/picture", params={"name": f"{row:02d}.png"}, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        shown = [pool.submit(show, row) for row in range(6)]
        while sum(each.done() for each in shown) < 2:
            time.sleep(0.01)
        answer = httpx.post(f"{server.url}/v1/search", data={"text": "a", "name": "01.png"}, timeout=60)
        assert answer.status_code == 200 and sum(each.done() for each in shown) == 2
        go.set()
        answers = [each.result() for each in shown]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 2
    assert next(answer for answer in answers if answer.status_code == 429).headers["retry-after"] == "1"
    server.close()


def test_a_full_queue_refuses_and_ends_answer_all_that_was_taken(system, index, gallery):
    go, asked = threading.Event(), {"text": TEXTS[0], "name": "01.png", "k": 2}
    slow = Slow(index.folder, go)
    service = Service(system, slow, gallery=gallery, limits=Limits(batch=1, wait=0.0, waiting=3))
    server = Server(make_app(service))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        ask = lambda: pool.submit(httpx.post, f"{server.url}/v1/search", data=asked, timeout=60)
        first = ask()
        assert slow.asked.wait(60)  # all ten at once could be there before one is taken, and three would be answered
        waiting = [first, *(ask() for _ in range(9))]
        while sum(future.done() for future in waiting) < 6:  # one is computed, three wait
            time.sleep(0.01)
        refused = [future.result() for future in waiting if future.done()]
        assert {answer.status_code for answer in refused} == {429} and refused[0].headers["retry-after"] == "1"
        server.end()
        time.sleep(0.3)
        go.set()
        assert sorted(future.result().status_code for future in waiting) == [200] * 4 + [429] * 6
    server.close()


def test_a_set_too_large_for_the_model_and_an_index_that_fails_leave_other_requests_alone(system, index, gallery):

    class Broken(Index):
        def search(self, queries, k, **options):
            raise UserError("the cluster at secret.example.org is away")

    class Few:
        image_size, fit, tokenizer, identity = system.image_size, system.fit, system.tokenizer, "few"
        truncated, encode, projection = system.truncated, system.encode, system.projection

        def score_sets(self, sets, texts):
            if len(sets[0]) > 3:
                raise UserError("A set has 4 candidates, and this model takes 3; give fewer.")
            return system.score_sets(sets, texts)

    server = Server(make_app(Service(Few(), Broken(index.folder), gallery=gallery, limits=Limits(batch=8, wait=0.2))))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ask = lambda count: httpx.post(
            f"{server.url}/v1/candidates",
            data={"text": "a"},
            files=[("images", png(i)) for i in range(count)],
            timeout=60,
        )
        few, many, other = pool.map(ask, (2, 4, 3))
    assert few.status_code == other.status_code == 200 and many.status_code == 422 and "takes 3" in many.text
    answer = httpx.post(f"{server.url}/v1/search", data={"text": "a", "name": "01.png"}, timeout=60)
    assert answer.status_code == 503 and "secret" not in answer.text and answer.headers["retry-after"] == "1"
    server.close()


@pytest.mark.slow
def test_ten_thousand_requests_leave_no_memory_behind(server, client):

    def resident():

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    text, uploaded = {"text": TEXTS[0]}, {"image": png()}
    kinds = [  # status, method, path, what is asked
        (200, "POST", "/v1/search", {"data": text | {"k": 5}, "files": uploaded}),
        (200, "POST", "/v1/search", {"data": text | {"name": "03.png"}}),
        (200, "GET", "/v1/picture", {"params": {"name": "05.png"}}),
        (200, "POST", "/v1/candidates", {"data": text, "files": [("images", png(seed)) for seed in range(3)]}),
        (422, "POST", "/v1/search", {"data": text, "files": {"image": b"no picture"}}),
        (413, "POST", "/v1/search", {"data": text, "files": {"image": b"x" * 400_000}}),
        (422, "POST", "/v1/search", {"data": text | {"name": "none.png"}}),
    ]

    def ask(number):
        status, method, path, asked = kinds[number % len(kinds)]
        answer = client.request(method, path, **asked)
        return "" if answer.status_code == status else f"{path}, not {status}: {answer.text}"

    def send(count):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(count))) == {""}

    send(2000)  # pools and caches fill
    before = resident()
    for _ in range(5):
        send(2000)  # as many as before at a time: the client's own futures are memory, too
    print(f"{before:,} bytes, then {resident():,}")
    assert resident() < 1.02 * before
