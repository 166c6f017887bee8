"""Waiting: for a service that is busy or fails for a while, and for one's own turn under a rate limit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from contextjax.types import UserError

Found = TypeVar("Found")
TRIES = 8  # of a call that fails
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; each is twice the one before


class Retry(Exception):
    """The call may succeed a little later."""

    def __init__(self, reason: str, *, after: float | None = None):
        """`after`: the seconds that the service asks to wait."""
        super().__init__(reason)
        self.after = after


class RateLimit:
    """So many requests and tokens a minute, over all threads. Calls are spread evenly, not let through in bursts."""

    def __init__(self, *, requests: float = 0.0, tokens: float = 0.0):
        """Of a minute; 0: no limit."""
        self._requests, self._tokens = requests, tokens
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the next call may begin

    def wait(self, tokens: float = 0.0) -> None:
        """Sleeps until a call of about so many tokens may begin."""
        need = max(60 / self._requests if self._requests else 0.0, 60 * tokens / self._tokens if self._tokens else 0.0)
        with self._lock:
            begin = max(time.monotonic(), self._free_at)
            self._free_at = begin + need
        time.sleep(max(0.0, begin - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """No call begins for so long: the service has said that it is busy."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)


def with_retries(
    call: Callable[[], Found],
    *,
    what: str,
    limit: RateLimit | None = None,
    tries: int = TRIES,
    first_wait: float = FIRST_WAIT,
) -> Found:
    """What the call gives, tried again where it raises Retry: after what the service asks for, or longer and longer.

    Args:
      call: the call.
      what: who is called, for the message.
      limit: is paused, for all threads, where the service says how long to wait.
      tries: of the call.
      first_wait: seconds before the second try.

    Raises:
      UserError: every try failed.
    """
    for number in range(tries):
        try:
            return call()
        except Retry as error:
            if number + 1 == tries:
                raise UserError(
                    f"{what} failed {tries} times ({error}); the same command goes on where it stopped, for what was "
                    "answered is kept."
                ) from error
            wait = min(LONGEST_WAIT, first_wait * 2**number) * random.uniform(0.5, 1.0)
            if error.after is not None:
                wait = max(wait, min(error.after, 10 * LONGEST_WAIT))
                if limit:
                    limit.pause(min(error.after, 10 * LONGEST_WAIT))
            time.sleep(wait)
    raise AssertionError("unreachable")
