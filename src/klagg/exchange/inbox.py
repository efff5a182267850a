"""The bounded buffer between sockets and the one who decodes: messages and what happened to their streams, in order."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

MAX_MESSAGES: Final = 262_144
"""Messages that may wait, some 60 MB: five seconds of the busiest market there has been (50,000 a second). When it is full the
newest are dropped and counted, and the symbols of their connection are blind until messages fit again."""


@dataclass(frozen=True, slots=True)
class Sighted:
    """From `at_ms` (exchange time) on the trades of these slots are seen."""

    slots: frozenset[int]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Blind:
    """After `since_ms` (exchange time) trades of these slots may have been missed, until they are sighted again."""

    slots: frozenset[int]
    since_ms: int
    reason: str


Item = bytes | Sighted | Blind
"""A WebSocket payload, or what happened to the streams at that point of the sequence."""


class Source(Protocol):
    """Who puts messages: a group of streams that lose sight together."""

    def slots(self) -> frozenset[int]:
        """The slots whose trades come by this source and are in sight."""
        ...


class Inbox:
    """One per worker; put by the sockets' callbacks, drained by the worker, on one event loop."""

    def __init__(self, max_messages: int = MAX_MESSAGES) -> None:
        self._max_messages = max_messages
        self._items: list[Item] = []
        self._waiting = 0
        self._filled = asyncio.Event()
        self._overflowed: set[Source] = set()
        self.dropped = 0
        """Messages dropped because the inbox was full."""
        self.received = 0
        """Messages taken in."""

    def __len__(self) -> int:
        return self._waiting

    def put(self, payload: bytes, recv_ms: int, source: Source) -> None:
        """Take a message in, or drop it when full."""
        if self._waiting >= self._max_messages:
            self._drop(recv_ms, source)
            return
        if self._overflowed and source in self._overflowed:
            self._overflowed.discard(source)
            self.tell(Sighted(source.slots(), recv_ms))
        if not self._items:
            self._filled.set()
        self._items.append(payload)
        self._waiting += 1
        self.received += 1

    def tell(self, event: Sighted | Blind) -> None:
        """Add an event after the messages that came before it; events are few and always fit."""
        if event.slots:
            self._items.append(event)
            self._filled.set()

    def drain(self) -> list[Item]:
        """Everything that waits, in order; empties the inbox."""
        items, self._items = self._items, []
        self._waiting = 0
        self._filled.clear()
        return items

    async def wait(self) -> None:
        """Return as soon as there is something to drain."""
        await self._filled.wait()

    def forget(self, sources: Iterable[Source]) -> None:
        """These sources will put nothing more."""
        self._overflowed.difference_update(sources)

    def _drop(self, recv_ms: int, source: Source) -> None:
        self.dropped += 1
        if source not in self._overflowed:
            self._overflowed.add(source)
            log.error("stream.inbox_full", messages=self._waiting, symbols=len(source.slots()))
            self.tell(Blind(source.slots(), recv_ms, "inbox full"))
