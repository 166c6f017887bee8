"""ASGI middleware that limits requests, which are read whole before anything else is done, and counts answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from contextjax.serving.charsets import BadCharset, check_body, check_head

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimit:
    """ASGI middleware that takes bodies of at most `size` bytes within `seconds`, at most `requests` at a time.

    A request counts until it is answered, since its pictures are held for so long. Texts that are not in UTF-8 are
    refused, see charsets.
    """

    def __init__(self, app: Any, *, size: int, seconds: float, requests: int):
        self._app, self._size, self._seconds, self._requests, self._open = app, size, seconds, requests, 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers 408, 413, 422 or 503 where a request exceeds the limits, else passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check_head(scope["headers"], scope["query_string"])
        except BadCharset as error:
            await _refuse(send, 422, str(error))
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._open >= self._requests:
            await _refuse(send, 503, f"{self._requests} requests are being answered; try again in a moment.")
            return
        self._open += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._open -= 1

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            body = await self._read(scope, receive)
            body = body and check_body(scope["headers"], body)
        except BadCharset as error:
            await _refuse(send, 422, str(error))
            return
        except TimeoutError:
            await _refuse(send, 408, f"The request has not come within {self._seconds:g} seconds; send it faster.")
            return
        except ValueError:
            await _refuse(send, 413, f"The request has more than {self._size:,} bytes; send smaller or fewer pictures.")
            return
        if body is None:  # the client has disconnected: nobody reads the answer
            await _refuse(send, 400, "The request has ended before it was whole.")
            return
        await self._app(scope, _replay([body], receive), send)

    async def _read(self, scope: Any, receive: Receive) -> bytes | None:
        """Returns the body, None where the client has left. Raises ValueError where it is too large."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._size:
            raise ValueError
        pieces, size = [], 0
        async with asyncio.timeout(self._seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > self._size:
                    raise ValueError
                if not message.get("more_body"):
                    return b"".join(pieces)


def _replay(bodies: list[bytes], receive: Receive) -> Receive:
    """Returns a receiver that gives the body that has been read, once, and then whatever comes after it."""

    async def replayed() -> Message:
        if not bodies:
            return await receive()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    return replayed


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Count:
    """ASGI middleware that calls `observe` with the route, the status and the seconds of each answer."""

    def __init__(self, app: Any, *, observe: Callable[[str, int, float], None]):
        self._app, self._observe = app, observe

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Passes the request on. An answer that was never begun counts as 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._observe(getattr(scope.get("route"), "path", "other"), status, time.perf_counter() - begin)
