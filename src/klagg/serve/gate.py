"""What all connections of one address share: who may read, the hub, the sockets and their number."""

import time
from collections.abc import Callable, Mapping
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


class Wire(Protocol):
    """An open WebSocket as those who talk over it know it."""

    @property
    def waiting(self) -> int:
        """Bytes that were sent and are not taken yet."""
        ...

    def send(self, frames: bytes) -> None:
        """Send framed bytes, however many wait already."""
        ...

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say why, and end."""
        ...


class Talk(Protocol):
    """What takes the place of the exchange's streams on a WebSocket of another path."""

    def begin(self) -> None:
        """The handshake is done."""
        ...

    def take(self, text: bytes) -> None:
        """A message of the client."""
        ...

    def has_room(self) -> None:
        """What was sent has been taken."""
        ...

    def gone(self) -> None:
        """The connection has ended."""
        ...


Door = Callable[[Wire, Mapping[str, str]], Talk]
"""Lets a WebSocket in by its query; raises `Problem` where it does not."""


class Gate:
    """The shared part. `unrouted` is the market of paths without a route: the only one served, else spot."""

    def __init__(self, access: Access, hub: Hub, unrouted: Market, now_ms: Callable[[Market], int]) -> None:
        self.access = access
        self.hub = hub
        self.unrouted = unrouted
        self.now_ms = now_ms
        self.sockets: set[Socket] = set()
        self.max_sockets = MAX_SOCKETS
        self.doors: dict[str, Door] = {}
        """By path: who takes WebSockets beside the exchange's streams."""
        self.cut = 0
        """Clients that were cut because they read too slowly."""

    @property
    def has_room(self) -> bool:
        """Whether another WebSocket may come."""
        return len(self.sockets) < self.max_sockets

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
