"""The server's connections: closed when no request comes, and answered to the last one at the end. Needs uvicorn."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST_END = 25  # seconds; Kubernetes kills after 30


class HeadLimit(H11Protocol):
    """uvicorn's protocol, which closes a connection when the head of a request has not come within `seconds`.

    uvicorn alone waits without end. Between an answer and the next request, its timeout_keep_alive applies. When the
    server ends, a connection without a request is kept for `grace` seconds, in which one that has been sent is read.
    """

    seconds = 30.0
    grace = 0.5
    _end: asyncio.TimerHandle | None = None
    _is_last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stops waiting when a request is being answered, and waits when another head has begun."""
        super().data_received(data)
        self._watch()
        if self._is_last and not self._is_idle:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        super().connection_lost(exc)
        self._rest()

    def shutdown(self) -> None:
        """Lets the request that is being answered, or that comes within `grace` seconds, be the last one."""
        if not self._is_idle:
            super().shutdown()
            return
        self._is_last = True
        self.loop.call_later(self.grace, self._close_idle)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_idle(self) -> None:
        if self._is_idle and not self.transport.is_closing():
            super().shutdown()

    def _watch(self) -> None:
        if not self._is_idle:
            self._rest()
        elif self._end is None:
            self._end = self.loop.call_later(self.seconds, self.transport.close)

    def _rest(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None


class Server(uvicorn.Server):
    """uvicorn's server, which at its end takes the connections that wait in the system's queue, and answers them.

    uvicorn alone closes its socket on them. While a program compiles, the event loop gets little time and many wait.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening, takes what has come, and ends when all of it is answered."""
        loop = asyncio.get_running_loop()
        listeners = [listener for server in self.servers for listener in server.sockets]
        for listener in listeners:
            loop.remove_reader(listener.fileno())
        for _ in range(5):  # turns of the loop, in which connections that asyncio has accepted get their protocol
            await asyncio.sleep(0)
        waiting = [connection for listener in listeners for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()  # at once: a client that comes now is refused, and has sent nothing
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # clients that do not read
            connection.transport.abort()
        await asyncio.sleep(0)  # in which the transports close their sockets

    def _protocol(self) -> Any:
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _accept_all(listener: Any) -> list[socket.socket]:
    """Returns the connections in the queue of a socket that does not block."""
    taken = []
    with socket.socket(fileno=listener.dup().detach()) as own, contextlib.suppress(OSError):  # BlockingIOError: no more
        own.setblocking(False)
        while True:
            taken.append(own.accept()[0])
            taken[-1].setblocking(False)
    return taken


def make_server(app: Any, *, http: type[HeadLimit] = HeadLimit, end: int = LONGEST_END, **options: Any) -> Server:
    """Returns a server of an ASGI application, which ends at most `end` seconds after it is asked to.

    A client that does not read its answer would otherwise hold the end up for ever. `options` are those of
    uvicorn.Config.
    """
    return Server(
        uvicorn.Config(app, http=http, loop="asyncio", server_header=False, timeout_graceful_shutdown=end, **options)
    )
