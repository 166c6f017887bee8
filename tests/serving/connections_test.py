"""Tests of HeadLimit over sockets."""

import contextlib
import socket
import time

import pytest

from contextjax.serving.app import make_app
from contextjax.serving.connections import HeadLimit
from contextjax.serving.service import Service
from tests.serving.conftest import LIMITS, Server


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
        again.sendall(whole)
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):  # a byte now and then does not help
                endless.sendall(whole[:1])
                time.sleep(0.05)
        assert silent.recv(1) == slow.recv(1) == b""
        with pytest.raises(ConnectionError):
            while True:
                endless.sendall(whole[:1])
                time.sleep(0.01)
        again.sendall(whole)  # uvicorn keeps it for 5 seconds
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        again.sendall(whole[:20])
        assert again.recv(1) == b""
    server.close()
