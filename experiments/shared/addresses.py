"""The address that a server listens at."""

from __future__ import annotations

import contextlib
import socket

from contextjax.types import UserError


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket at an address, which is taken before anything is loaded; port 0: any that is free.

    Raises:
      UserError: another program has the address, or this machine or this user can't have it.
    """
    opened = contextlib.ExitStack()
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind)
        opened.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host={host} --port={port} can't be listened at ({reason}); give another --port, or a --host of this "
            "machine."
        ) from error
    return listener
