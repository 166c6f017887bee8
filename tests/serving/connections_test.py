"""Tests of HeadLimit over sockets."""

import contextlib
import socket
import threading
import time

import pytest

from contextjax.serving.app import make_app
from contextjax.serving.connections import HeadLimit
from contextjax.serving.service import Service
from tests.serving.conftest import LIMITS, Server


def read_answer(connection, request):
    """Sends a request; returns the whole answer, whose body is a JSON object."""
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(4096)
    return answer


def test_connections_that_ask_nothing_are_closed_and_those_that_do_are_kept(system, index, gallery):
    server = Server(
        make_app(Service(system, index, gallery=gallery, limits=LIMITS)), type("Quick", (HeadLimit,), {"seconds": 0.5})
    )
    whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        silent, slow, endless, again = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(4)
        )
        slow.sendall(whole[:20])
        assert read_answer(again, whole).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):  # a byte now and then does not help
                endless.sendall(whole[:1])
                time.sleep(0.05)
        assert silent.recv(1) == slow.recv(1) == b""
        with pytest.raises(ConnectionError):
            while True:
                endless.sendall(whole[:1])
                time.sleep(0.01)
        assert read_answer(again, whole).startswith(b"HTTP/1.1 200")  # uvicorn keeps it for 5 seconds
        again.sendall(whole[:20])
        assert again.recv(1) == b""
    server.close()


def test_what_clients_have_sent_is_answered_at_the_end(system, index, gallery):
    """The loop is held up, so that nothing is accepted or read before the server ends."""
    server = Server(make_app(Service(system, index, gallery=gallery, limits=LIMITS)))
    head, rest = b"GET /health HTTP/1.1\r\nHost: x\r\n", b"\r\n"
    with contextlib.ExitStack() as stack:
        connect = lambda: stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        kept, silent, late = connect(), connect(), connect()
        read_answer(kept, head + rest)
        late.sendall(head)
        held, go = threading.Event(), threading.Event()
        server.server.servers[0].get_loop().call_soon_threadsafe(lambda: (held.set(), go.wait(20)))
        assert held.wait(20)
        waiting = [kept, *(connect() for _ in range(20))]
        for connection in waiting:
            connection.sendall(head + rest)
        server.end()
        go.set()
        late.sendall(rest)
        for connection in (*waiting, late):
            answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}")
        assert silent.recv(1) == b""
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_client_that_does_not_read_does_not_hold_up_the_end():
    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})

    server = Server(endless, end=1, lifespan="off")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(8) == b"HTTP/1.1"
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 20  # without the limit, for ever
