"""A socket that is bound before anything else begins, so that an address in use is one clear line, and early."""

import socket
from typing import Final

from klagg.errors import KlaggError

BACKLOG: Final = 512
"""Connections that may wait to be accepted: a fleet of clients that comes back at once."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        KlaggError: it cannot; says what to do.

    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
            bound.setblocking(False)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise KlaggError(
            f"cannot serve on {host}:{port} ({error.strerror or error}): stop what is using it, choose another address "
            "with --serve HOST:PORT, or run with --no-serve"
        ) from None
    return bound
