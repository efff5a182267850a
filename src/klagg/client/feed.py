"""The feed as an iterator, plain and asynchronous, over whatever brings events."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from klagg.client.events import CandleEvent, CutEvent, Event, GapEvent, SymbolEvent


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; what is empty wants all. Symbols may be globs."""

    symbols: frozenset[str] = frozenset()
    intervals: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()

    def wants(self, event: Event) -> bool:
        """Whether an event is among them; a cut always is."""
        if isinstance(event, CutEvent):
            return True
        if self.kinds and event.kind not in self.kinds:
            verified = isinstance(event, CandleEvent) and event.verified
            if not (verified and "candle_verified" in self.kinds):
                return False
        # A gap without a symbol is one of all symbols.
        symbol = event.symbol if isinstance(event, CandleEvent | SymbolEvent | GapEvent) else ""
        if self.symbols and symbol and not any(fnmatchcase(symbol, pattern) for pattern in self.symbols):
            return False
        return not (self.intervals and isinstance(event, CandleEvent) and event.interval not in self.intervals)


class FeedSource(Protocol):
    """Brings events after a sequence number, in order; used by one thread at a time."""

    def start(self, since: int | None, wanted: Filter) -> None:
        """Begin after a sequence number, or now."""

    def next(self, ends_s: float | None) -> list[Event] | None:
        """The next events, possibly none yet; None once `time.monotonic()` has passed `ends_s`. Waits a little, never for long."""

    def interrupt(self) -> None:
        """End a wait that another thread is in."""

    def close(self) -> None:
        """Give everything back."""


class Feed:
    """Iterate over it: `for event in feed`, or `async for event in feed`. Each iteration is a connection of its own.

    `seq` is the sequence number of the last event that was handed out (or after which it began): what to give as `since` to go
    on from there. An iteration begins where the last one ended.
    """

    def __init__(self, source: Callable[[], FeedSource], since: int | None, wanted: Filter) -> None:
        self._source = source
        self._wanted = wanted
        self.seq = since

    def __iter__(self) -> Iterator[Event]:
        return self.until(None)

    def until(self, ends_s: float | None) -> Iterator[Event]:
        """The events until `time.monotonic()` has passed `ends_s`."""
        source = self._source()
        try:
            source.start(self.seq, self._wanted)
            while (found := source.next(ends_s)) is not None:
                yield from self._handed_out(found)
        finally:
            source.close()

    async def __aiter__(self) -> AsyncGenerator[Event]:
        source, loop = self._source(), asyncio.get_running_loop()
        # A thread of its own: many feeds that wait would take all of the loop's.
        with ThreadPoolExecutor(1, "klagg feed") as thread:
            try:
                await loop.run_in_executor(thread, source.start, self.seq, self._wanted)
                while True:
                    found = await loop.run_in_executor(thread, source.next, None)
                    for event in self._handed_out(found or []):
                        yield event
            finally:
                # The thread may be in a read, which must have ended before the connection is closed.
                source.interrupt()
                thread.submit(source.close)

    def _handed_out(self, found: list[Event]) -> Iterator[Event]:
        for event in found:
            if self._wanted.wants(event):
                self.seq = event.seq
                yield event
