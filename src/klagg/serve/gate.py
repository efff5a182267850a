"""What all connections of one address share: who may read, the hub, the sockets and their number."""

import time
from collections.abc import Callable
from typing import Final, Protocol

from klagg.model import Market
from klagg.serve.access import Access
from klagg.serve.frames import CloseCode
from klagg.serve.hub import Hub

MAX_SOCKETS: Final = 2_000
"""WebSockets at a time; another is refused with 503. Together with a socket's buffer this bounds the memory that readers can hold."""


class Socket(Protocol):
    """A connection as the gate knows it."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """End it."""
        ...

    def keep_time(self, now_s: float) -> None:
        """Ping where it is due."""
        ...


class Gate:
    """The shared part. `unrouted` is the market of paths without a route: the only one served, else spot."""

    def __init__(self, access: Access, hub: Hub, unrouted: Market, now_ms: Callable[[Market], int]) -> None:
        self.access = access
        self.hub = hub
        self.unrouted = unrouted
        self.now_ms = now_ms
        self.sockets: set[Socket] = set()
        self.cut = 0
        """Clients that were cut because they read too slowly."""

    @property
    def has_room(self) -> bool:
        """Whether another WebSocket may come."""
        return len(self.sockets) < MAX_SOCKETS

    @staticmethod
    def now_s() -> float:
        """Real time for deadlines and rates."""
        return time.monotonic()

    def keep_time(self) -> None:
        """Ping the sockets where it is due."""
        now_s = self.now_s()
        for socket in tuple(self.sockets):
            socket.keep_time(now_s)

    def close(self) -> None:
        """End all sockets in order."""
        for socket in tuple(self.sockets):
            socket.close(CloseCode.GOING_AWAY, "Going away")
