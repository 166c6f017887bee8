"""Closes connections on which no request comes. Needs uvicorn, of the extra [serve]."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class HeadLimit(H11Protocol):
    """uvicorn's protocol, which closes a connection when the head of a request has not come within `seconds`.

    uvicorn alone waits without end. Between an answer and the next request, its timeout_keep_alive applies.
    """

    seconds = 30.0
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stops waiting when a request is being answered, and waits when another head has begun."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._end is None:
            self._end = self.loop.call_later(self.seconds, self.transport.close)

    def _rest(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None
