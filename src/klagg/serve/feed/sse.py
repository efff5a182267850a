"""The feed as server-sent events: a reader whose bytes wait until the response takes them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from klagg.serve.feed.asked import Asked
from klagg.serve.feed.feed import LOW_WAITING, Feed, Reader, Running
from klagg.serve.feed.page import Form, as_sse
from klagg.serve.frames import CloseCode
from klagg.serve.gate import Gate
from klagg.serve.socket import CLOSE_PATIENCE_S

PIECE: Final = 64 * 1024
RETRY_AFTER_CUT: Final = b"retry: 1000\n\n"


class SseReader:
    """The sink of a reader, and a connection that the gate counts and ends."""

    def __init__(self, feed: Feed, gate: Gate, asked_for: Asked) -> None:
        self._feed = feed
        self._gate = gate
        self._asked = asked_for
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._ended = False

    async def stream(self) -> AsyncIterator[bytes]:
        """The events, until the reader leaves or is cut."""
        reader = Reader(self._asked.wanted, self, full=self._asked.full)
        reader.running = Running(self._asked.wanted) if self._asked.with_running else None
        self._gate.sockets.add(self)
        try:
            yield RETRY_AFTER_CUT
            self._feed.join(reader, self._asked.since)
            while True:
                await self._some.wait()
                self._some.clear()
                while self._parts:
                    data = self._parts.popleft()
                    for at in range(0, len(data), PIECE):
                        piece = data[at : at + PIECE]
                        yield piece
                        self._waiting -= len(piece)
                    if self._waiting <= LOW_WAITING:
                        self._room.set()
                if self._ended:
                    return
        finally:
            self._feed.leave(reader)
            self._gate.sockets.discard(self)
            self._room.set()

    # feed.Sink

    @property
    def form(self) -> Form:
        """Server-sent events."""
        return as_sse

    @property
    def waiting(self) -> int:
        """Bytes that the response has not taken."""
        return self._waiting

    def write(self, data: bytes) -> None:
        """Have it sent."""
        self._parts.append(data)
        self._waiting += len(data)
        self._some.set()

    async def drained(self) -> None:
        """Return when little waits."""
        while self._waiting > LOW_WAITING:
            self._room.clear()
            await self._room.wait()

    def end(self, *, slow: bool) -> None:
        """End after what is left, which is forgotten where it is not taken in time."""
        self._ended = True
        self._some.set()
        if slow:
            asyncio.get_running_loop().call_later(CLOSE_PATIENCE_S, self._parts.clear)

    # gate.Socket

    def close(self, code: CloseCode, reason: str = "") -> None:  # noqa: ARG002 - server-sent events have no code
        """End it."""
        self.end(slow=False)

    def keep_time(self, now_s: float) -> None:
        """Nothing to do: beats are events, and TCP tells who is gone."""
