"""Tests of the limits of requests: slow, broken and endless uploads over sockets, and too many at a time."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import httpx

from contextjax.serving.app import make_app
from contextjax.serving.index import Index
from contextjax.serving.service import Limits, Service
from tests.serving.conftest import TEXTS, Server


class Slow(Index):
    """An index that answers when `go` is set; `asked` is set as soon as it is asked."""

    def __init__(self, folder, go):
        super().__init__(folder)
        self.go, self.asked = go, threading.Event()

    def search(self, queries, k, **options):
        self.asked.set()
        self.go.wait(60)
        return super().search(queries, k, **options)


def test_slow_and_broken_uploads_end_and_others_are_answered(server, client):
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    head += b"Content-Length: 9000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow, broken = (stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(2))
        for connection in (slow, broken):
            connection.sendall(head + b"--b\r\n")
        broken.close()
        assert client.get("/health").json()["status"] == "ok"
        slow.settimeout(20)
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    chunked = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as endless:
        endless.sendall(chunked)
        endless.settimeout(20)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                endless.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert b" 413 " in endless.recv(4096).split(b"\r\n")[0]
    counted = client.get("/metrics").text
    assert 'status="408"' in counted and 'status="413"' in counted and 'status="500"' not in counted


def test_more_requests_than_may_be_open_are_refused(system, index, gallery):
    go, asked = threading.Event(), {"text": TEXTS[0], "name": "01.png"}
    server = Server(
        make_app(Service(system, Slow(index.folder, go), gallery=gallery, limits=Limits(requests=2, batch=1)))
    )
    ask = lambda: httpx.post(f"{server.url}/v1/search", data=asked, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask) for _ in range(2)]
        while "contextjax_waiting_search 1.0" not in httpx.get(f"{server.url}/metrics").text:  # behind the other
            time.sleep(0.01)
        refused = ask()
        assert refused.status_code == 503 and "2 requests are being answered" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "1" and httpx.get(f"{server.url}/health").status_code == 200
        go.set()
        assert [each.result().status_code for each in waiting] == [200, 200]
    assert ask().status_code == 200
    server.close()
