"""What a client may send: a request is read whole before anything is done with it, and no more than is allowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: bodies of at most `size` bytes, which come within `seconds`; at most `bodies` at a time."""

    def __init__(self, app: Any, *, size: int, seconds: float, bodies: int):
        self._app, self._size, self._seconds, self._bodies, self._reading = app, size, seconds, bodies, 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers 408, 413 or 503 where a body does not keep to the limits."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._reading >= self._bodies:
            await _refuse(send, 503, f"{self._bodies} requests are being read; try again in a moment.")
            return
        self._reading += 1
        try:
            body = await self._read(scope, receive)
        except TimeoutError:
            await _refuse(send, 408, f"The request has not come within {self._seconds:g} seconds; send it faster.")
            return
        except ValueError:
            await _refuse(send, 413, f"The request has more than {self._size:,} bytes; send smaller or fewer pictures.")
            return
        finally:
            self._reading -= 1
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Any, receive: Receive) -> bytes | None:
        """The body; None where the client has left."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._size:
            raise ValueError
        parts, size = [], 0
        async with asyncio.timeout(self._seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self._size:
                    raise ValueError
                if not message.get("more_body"):
                    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives the body that has been read, then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
