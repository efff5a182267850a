"""The feed out of the event log of a database, looked at often."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from klagg.client.events import (
    BarrierEvent,
    CandleEvent,
    CutEvent,
    Event,
    GapEvent,
    SymbolEvent,
    kind_of,
)
from klagg.client.feed import Filter
from klagg.interval import INTERVALS
from klagg.model import Market
from klagg.store import Kind, SqliteStore, What, open_store
from klagg.store.events import Event as Stored
from klagg.store.schema import SERIES_INTERVALS

POLL_S: Final = 0.1
"""How often the event log is looked at while nothing comes: one index look-up."""
BATCH: Final = 10_000
"""Events read at a time."""


def barrier_event(kind: Kind, seq: int, at_ms: int, market: str, boundary_ms: int, count: int) -> BarrierEvent:
    """A barrier of the event log; `count` is of symbols where it is durable, of what is not verified where it is verified."""
    if kind is Kind.DURABLE:
        return BarrierEvent("barrier_durable", seq, at_ms, market, boundary_ms, symbols=count)
    return BarrierEvent("barrier_verified", seq, at_ms, market, boundary_ms, unverified=count)


class LoggedFeed:
    """`FeedSource` over the event log, looked at often."""

    def __init__(self, url: str, market: Market) -> None:
        self._url = url
        self._market = market
        self._store: SqliteStore | None = None
        self._names: dict[int, str] = {0: ""}
        self._after = 0
        self._first: list[Event] = []
        self._interrupted = threading.Event()

    def start(self, since: int | None, wanted: Filter) -> None:  # noqa: ARG002 - the feed chooses
        """As `FeedSource` says."""
        self._store = open_store(self._url, mode="read")
        newest = self._store.newest_seq()
        self._after = newest if since is None else since
        if self._after > newest:
            self._first = [CutEvent("cut", self._after, newest, "ahead")]
            self._after = newest

    def next(self, ends_s: float | None) -> list[Event] | None:
        """As `FeedSource` says."""
        assert self._store is not None
        if self._first:
            first, self._first = self._first, []
            return first
        # All markets are read: where the numbers leap, events are gone.
        found = self._store.events(self._after, BATCH)
        if not found:
            left_s = POLL_S if ends_s is None else min(POLL_S, ends_s - time.monotonic())
            if left_s <= 0:
                return None
            self._interrupted.wait(left_s)
            return []
        events: list[Event] = []
        for stored in found:
            if stored.seq > self._after + 1:
                events.append(CutEvent("cut", self._after, stored.seq - 1, "too old"))
            self._after = stored.last_seq
            if stored.market is self._market:
                events += self._expanded(stored)
        return events

    def interrupt(self) -> None:
        """As `FeedSource` says."""
        self._interrupted.set()

    def close(self) -> None:
        """As `FeedSource` says."""
        if self._store is not None:
            self._store.close()

    def _expanded(self, stored: Stored) -> Iterator[Event]:
        at_ms, market = stored.at_ms, stored.market.value
        for seq, row in enumerate(stored.values.tolist(), stored.seq):
            match stored.kind:
                case Kind.CANDLES:
                    series, open_ms, what, revision = row
                    kind, verified = kind_of(What(what)), bool(what & What.VERIFIED)
                    symbol, interval = self._name(series // SERIES_INTERVALS), INTERVALS[series % SERIES_INTERVALS].name
                    yield CandleEvent(kind, seq, at_ms, market, symbol, interval, open_ms, revision, verified)
                case Kind.DURABLE | Kind.VERIFIED:
                    yield barrier_event(stored.kind, seq, at_ms, market, row[0], row[1])
                case Kind.ADDED:
                    yield SymbolEvent("symbol_added", seq, at_ms, market, self._name(row[0]))
                case Kind.RETIRED:
                    yield SymbolEvent("symbol_retired", seq, at_ms, market, self._name(row[0]))
                case Kind.GAP:
                    name = self._name(row[0])
                    reason = self._store.looks.gap_reason(stored.market, name, row[1], row[2]) if self._store else ""
                    yield GapEvent("gap", seq, at_ms, market, name, row[1], row[2], reason)

    def _name(self, instrument_id: int) -> str:
        """The symbol of an instrument."""
        if instrument_id not in self._names:
            assert self._store is not None
            self._names |= {one.id: one.instrument.symbol for one in self._store.instruments()}
        return self._names[instrument_id]
