"""What waits for repair: the database's unverified candles, and the spans that others ask for."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from klagg.exchange.klines import SETTLE_MS
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS
from klagg.model import Market
from klagg.repair.plan import Fetch
from klagg.store.thread import StoreThread

LONGER_AGE_MS: Final = 120_000
"""A longer candle is given this long for its minutes to verify it before its own kline is fetched."""
QUEUE_PAGE: Final = 5_000
"""Candles of the queue read at a time; older ones are read when these are done or wait for their next try."""
QUEUE_PAGES: Final = 20
ASKED_BOUND: Final = 100_000
"""Spans asked for by others that wait (some MB); when full, new ones are dropped and counted: the comparison at leisure or
the audit finds them."""
WAITING_BOUND: Final = 1_000_000
"""Candles that wait for their next try; when full all are forgotten, and tried again at once."""


@dataclass(eq=False)
class Waiting:
    """When candles and symbols may be tried again."""

    candles: dict[tuple[int, int, int], int] = field(default_factory=dict)
    instruments: dict[int, int] = field(default_factory=dict)

    def ready(self, key: tuple[int, int, int], now_ms: int) -> bool:
        """Whether a candle (instrument id, interval code, open) may be tried now."""
        return self.candles.get(key, 0) <= now_ms and self.instruments.get(key[0], 0) <= now_ms

    def put(self, key: tuple[int, int, int], until_ms: int) -> None:
        """Leave a candle alone until an instant."""
        if len(self.candles) >= WAITING_BOUND:
            self.candles.clear()
        self.candles[key] = until_ms


@dataclass(eq=False)
class Asked:
    """Spans that others ask for, until they have settled."""

    dropped: int = 0
    _fetches: deque[Fetch] = field(default_factory=deque)

    def keep(self, fetch: Fetch) -> None:
        """Have a span fetched once it has settled."""
        if len(self._fetches) >= ASKED_BOUND:
            self.dropped += 1
        elif fetch not in self._fetches:
            self._fetches.append(fetch)

    def take(self, now_ms: int) -> list[Fetch]:
        """The spans that have settled; they are no longer kept."""
        asked, self._fetches = self._fetches, deque()
        settled: list[Fetch] = []
        for fetch in asked:
            (settled if fetch.end_ms <= now_ms - SETTLE_MS else self._fetches).append(fetch)
        return settled


async def ready(
    store: StoreThread,
    market: Market,
    waiting: Waiting,
    instruments: Collection[int],
    *,
    closed_by_ms: int,
    now_ms: int,
    urgent: bool,
) -> dict[tuple[int, int], list[int]]:
    """The unverified candles that closed by an instant and may be tried now, by instrument and interval code."""
    before_ms = closed_by_ms - MINUTE_MS + 1

    def read(before_ms: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return store.store.unverified(market, before_ms=before_ms, urgent=urgent, limit=QUEUE_PAGE)

    for _ in range(QUEUE_PAGES):
        page = await store.call(read, before_ms)
        found: dict[tuple[int, int], list[int]] = {}
        for instrument_id, code, open_ms, _origin in page.tolist():
            end_ms = INTERVALS[code].next_open(open_ms)
            longer_waits = not urgent and code != MINUTE.code and end_ms > now_ms - LONGER_AGE_MS
            late_enough = end_ms <= closed_by_ms and not longer_waits
            if late_enough and instrument_id in instruments and waiting.ready((instrument_id, code, open_ms), now_ms):
                found.setdefault((instrument_id, code), []).append(open_ms)
        if found or len(page) < QUEUE_PAGE:
            return found
        before_ms = int(page["open_ms"][-1])
    return {}
