"""Connections that ask nothing are closed. Only what serves imports this: it needs uvicorn."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class HeadLimit(H11Protocol):
    """Closes a connection on which the head of a request has not come whole in `seconds`; uvicorn waits without end.

    Between an answer and the next request, uvicorn's own timeout_keep_alive holds.
    """

    seconds = 30.0
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """From now on the first head is waited for."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Either a request is being answered now, or another head has begun."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
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
