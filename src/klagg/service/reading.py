"""Closed candles read for serving: connections and threads of their own, so that neither the event loop nor the writer waits."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import numpy as np

from klagg.interval import DAY_MS, MINUTE, MONTH_STEP, Interval
from klagg.model import Candles, Market, Origin, no_candles
from klagg.serve.folding import fold, fold_source, joined
from klagg.serve.source import FOLDED_CHILDREN, Frame, Listing, TooMuch
from klagg.store import SqliteStore, StoredInstrument, open_store

P = ParamSpec("P")
T = TypeVar("T")

READERS: Final = 2
"""Threads that read. More would only wait for one another: a row costs more in Python than in SQLite."""
MAX_WAITING: Final = 512
"""Reads that wait or run at a time; the next caller waits. A read is bounded, so this bounds the latency of the last."""
KEPT_PARTS: Final = 8_192
"""Parts remembered until the next boundary; when full all are forgotten."""
_LONGEST_MONTH_MS: Final = 31 * DAY_MS


class Reader:
    """`serve.Source` over a database that somebody else may be writing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads = ThreadPoolExecutor(READERS, "klagg read")
        self._local = threading.local()
        self._stores: list[SqliteStore] = []
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._parts: dict[tuple[int, int, int], Candles] = {}
        self._newest_ms = 0

    def close(self) -> None:
        """End the threads and close their connections; reads that run are waited for."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for store in self._stores:
            store.close()

    def _store(self) -> SqliteStore:
        """The connection of the thread that asks."""
        store: SqliteStore | None = getattr(self._local, "store", None)
        if store is None:
            store = self._local.store = open_store(self._url, mode="read")
            self._stores.append(store)
        return store

    async def call(self, fn: Callable[[SqliteStore], T]) -> T:
        """Run `fn` with a connection, in a thread that reads.

        Raises:
            StoreError: the database cannot be read.

        """
        async with self._places:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: fn(self._store()))

    async def instruments(self, market: Market) -> list[StoredInstrument]:
        """The instruments that are stored of a market."""
        return await self.call(lambda store: store.instruments(market))

    async def closed(
        self, one: Listing, frame: Frame, start_ms: int, end_ms: int, limit: int, *, newest: bool
    ) -> Candles:
        """As `serve.Source` says."""
        return await self.call(lambda store: closed(store, one, frame, start_ms, end_ms, limit, newest=newest))

    async def part(self, one: Listing, start_ms: int, end_ms: int) -> Candles:
        """As `serve.Source` says."""
        if end_ms > self._newest_ms or len(self._parts) >= KEPT_PARTS:
            # A repair may still change what is older: what was asked at the last boundary is asked anew.
            self._newest_ms = max(end_ms, self._newest_ms)
            self._parts.clear()
        key = one.id, start_ms, end_ms
        if key not in self._parts:
            self._parts[key] = await self.call(lambda store: part(store, one, start_ms, end_ms))
        return self._parts[key]

    async def is_sure(self, one: Listing, interval: Interval) -> bool:
        """As `serve.Source` says."""
        snapshot = await self.call(lambda store: store.open_candle(one.id, interval))
        return len(snapshot) > 0 and int(snapshot["origin"][0]) > Origin.PARTIAL.value


def closed(
    store: SqliteStore, one: Listing, frame: Frame, start_ms: int, end_ms: int, limit: int, *, newest: bool
) -> Candles:
    """The closed candles of a frame, as `serve.Source.closed` gives them."""
    child = fold_source(frame, store.intervals(one.instrument.market) or (MINUTE,))
    if child is frame.interval:
        return _matched(store, one, child, start_ms, end_ms, limit, newest=newest)
    return _folded(store, one, frame, child, start_ms, end_ms, limit, newest=newest)


def _matched(
    store: SqliteStore, one: Listing, interval: Interval, start_ms: int, end_ms: int, limit: int, *, newest: bool
) -> Candles:
    """Stored candles without those that the exchange does not have."""
    pieces: list[Candles] = []
    while limit > 0:
        piece = store.read(one.id, interval, start_ms, end_ms, limit, descending=newest)
        pieces.append(piece[piece["origin"] != Origin.UNMATCHED.value])
        if len(piece) < limit:
            break
        limit -= len(pieces[-1])
        last_ms = int(piece["open_ms"][-1])
        start_ms, end_ms = (start_ms, last_ms) if newest else (last_ms + 1, end_ms)
    found = np.concatenate(pieces) if pieces else no_candles()
    return found[::-1] if newest else found


def _folded(
    store: SqliteStore,
    one: Listing,
    frame: Frame,
    child: Interval,
    start_ms: int,
    end_ms: int,
    limit: int,
    *,
    newest: bool,
) -> Candles:
    """The candles of a frame folded from shorter ones."""

    def edge(low_ms: int, high_ms: int) -> Candles:
        return store.read(one.id, child, low_ms, high_ms, 1, descending=newest)

    def read(first_ms: int, last_ms: int, most: int) -> tuple[int, Candles]:
        children = store.read(one.id, child, first_ms, last_ms, most)
        folded = fold(children, frame, one.instrument.listed_ms)
        return len(children), folded.candles[folded.whole]

    found = in_stretches(frame, child, start_ms, end_ms, limit, edge, read, len, newest=newest)
    every = np.concatenate([no_candles(), *found])
    return every[-limit:] if newest else every[:limit]


def in_stretches(
    frame: Frame,
    child: Interval,
    start_ms: int,
    end_ms: int,
    limit: int,
    edge: Callable[[int, int], Candles],
    read: Callable[[int, int, int], tuple[int, T]],
    count_of: Callable[[T], int],
    *,
    newest: bool,
) -> list[T]:
    """What is folded for the candles of a frame in `[start_ms, end_ms)`, a stretch at a time until there are `limit`; ascending.

    `edge` reads the first (`newest`: the last) child of a span; `read` at most so many children of a span: how many it read,
    and what it made of them.

    Raises:
        TooMuch: more than `FOLDED_CHILDREN` would have to be read.

    """
    low_ms = frame.open_at(start_ms)
    low_ms = low_ms if low_ms == start_ms else frame.next_open(low_ms)
    high_ms = frame.next_open(frame.open_at(end_ms - 1))
    step_ms = frame.interval.step_ms if frame.interval.step_ms != MONTH_STEP else _LONGEST_MONTH_MS
    found: list[T] = []
    count = done = 0
    while low_ms < high_ms and count < limit:
        # Where the next children are: what lies between may be years without any.
        at = edge(low_ms, high_ms)
        if len(at) == 0:
            break
        at_ms = frame.open_at(int(at["open_ms"][0]))
        # No stretch is longer than what may be read.
        stretch_ms = min((limit - count) * step_ms, max(step_ms, FOLDED_CHILDREN * child.step_ms))
        if newest:
            first_ms, last_ms = max(low_ms, frame.open_at(at_ms - stretch_ms)), frame.next_open(at_ms)
            high_ms = first_ms
        else:
            first_ms, last_ms = at_ms, min(high_ms, frame.next_open(frame.open_at(at_ms + stretch_ms)))
            low_ms = last_ms
        children, piece = read(first_ms, last_ms, FOLDED_CHILDREN + 1 - done)
        done += children
        if done > FOLDED_CHILDREN:
            raise TooMuch
        found.append(piece)
        count += count_of(piece)
    return found[::-1] if newest else found


def part(store: SqliteStore, one: Listing, start_ms: int, end_ms: int) -> Candles:
    """One candle of the closed minutes of a span, by the longest kept candles that fit; none where a minute is not there."""
    start_ms = max(start_ms, MINUTE.open_at(one.instrument.listed_ms))
    kept = [i for i in store.intervals(one.instrument.market) or (MINUTE,) if i.step_ms and DAY_MS % i.step_ms == 0]
    pieces = _tiled(store, one.id, kept[::-1], start_ms, end_ms)
    return joined(np.concatenate(pieces)) if pieces else no_candles()


def _tiled(
    store: SqliteStore, instrument_id: int, intervals: Sequence[Interval], start_ms: int, end_ms: int
) -> list[Candles] | None:
    """Candles that tile a span, ascending, from the longest interval to the shortest; None where they do not."""
    if start_ms >= end_ms:
        return []
    if not intervals:
        return None
    interval, *shorter = intervals
    first_ms, last_ms = -(-start_ms // interval.step_ms) * interval.step_ms, interval.open_at(end_ms)
    if first_ms < last_ms:
        rows = store.read(instrument_id, interval, first_ms, last_ms)
        if len(rows) * interval.step_ms == last_ms - first_ms:
            before = _tiled(store, instrument_id, shorter, start_ms, first_ms)
            after = _tiled(store, instrument_id, shorter, last_ms, end_ms)
            return None if before is None or after is None else [*before, joined(rows), *after]
    return _tiled(store, instrument_id, shorter, start_ms, end_ms)
