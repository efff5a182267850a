"""A market at a glance: a row for each symbol, and how its newest minutes stand.

Made when it is asked for, at most once a second, in a thread that reads. What was made is kept: the event log tells which
symbols and which minutes have changed since, and only those are read again.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np

from klagg.fixed import to_text
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS
from klagg.model import Candles, Ints, Market, Origin
from klagg.serve.source import Listing, Live
from klagg.service.reading import Reader
from klagg.store import Kind, SqliteStore, What

EVERY_S: Final = 1.0
REST: Final = 10
"""The pause after making it is at least so many times as long as making it took."""
SPARK: Final = 60
"""Minutes of the small line."""
MOST_MINUTES: Final = 180
NAMED: Final = 50
"""Symbols that are named of a minute."""
EVENTS: Final = 20_000
MOST_EVENTS: Final = 100_000
"""With more events since the last time everything is read again."""
LOADED_AT_ONCE: Final = 100
"""Days of symbols that are summed between two other reads: some 50 ms."""
RELOAD_S: Final = 600.0
"""Everything is read again this often: history that a backfill brings makes no events."""


class _Made:
    """What one instrument's row is made of."""

    __slots__ = ("base", "closes", "last", "last_ms", "loaded", "origin", "quote")

    def __init__(self) -> None:
        self.closes: dict[int, float] = {}
        self.last: str | None = None
        self.last_ms: int | None = None
        self.origin: str | None = None
        self.base: float | None = None
        self.quote = 0.0
        self.loaded = False


class Overview:
    """One market at a glance."""

    def __init__(self, market: Market, live: Live, reader: Reader) -> None:
        self._market = market
        self._live = live
        self._reader = reader
        self._lock = asyncio.Lock()
        self._made: dict[str, tuple[float, bytes]] = {}
        self._rows: dict[int, _Made] = {}
        self._upto_ms = 0
        self._seq = -1
        self._reload_s = 0.0
        self._marks: dict[int, Ints] = {}
        self._left: dict[int, tuple[float, float]] = {}
        """Price and quote volume of the minute that leaves the day next, by instrument."""

    async def overview(self) -> bytes:
        """The body of `/v1/overview`."""
        return await self._kept("overview", self._make_overview)

    async def minutes(self, count: int) -> bytes:
        """The body of `/v1/minutes`."""
        return await self._kept(f"minutes {count}", partial(self._make_minutes, count=count))

    async def _kept(self, name: str, make: Any) -> bytes:  # noqa: ANN401 - either of the two makers
        async with self._lock:
            until_s, body = self._made.get(name, (0.0, b""))
            begun_s = time.monotonic()
            if begun_s >= until_s:
                listings = self._live.listings(self._market)
                running = self._live.running(self._market, list(listings))[:, 0].copy()
                durable_ms = self._live.durable_ms(self._market)
                await self._learn(listings, durable_ms)
                now_ms = self._live.now_ms(self._market)
                body = await self._reader.call(lambda store: make(store, listings, running, durable_ms, now_ms))
                now_s = time.monotonic()
                self._made[name] = now_s + max(EVERY_S, REST * (now_s - begun_s)), body
            return body

    # What has changed

    async def _learn(self, listings: Mapping[str, Listing], durable_ms: int) -> None:
        """Bring the rows up to the boundary."""
        changed = await self._reader.call(self._changes)
        ids = {one.id for one in listings.values()}
        behind = durable_ms - self._upto_ms
        if changed is None or time.monotonic() >= self._reload_s or not 0 <= behind <= SPARK * MINUTE_MS:
            self._rows = {}
            self._marks.clear()
            self._reload_s = time.monotonic() + RELOAD_S
            changed = set()
            self._left = await self._reader.call(lambda store: _minute(store, self._market, durable_ms - DAY_MS))
        elif behind:
            await self._reader.call(lambda store: self._go_on(store, durable_ms))
        self._upto_ms = durable_ms
        stale = sorted(ids & changed | (ids - set(self._rows)))
        for start in range(0, len(stale), LOADED_AT_ONCE):
            chosen = stale[start : start + LOADED_AT_ONCE]
            await self._reader.call(partial(self._load, ids=chosen, durable_ms=durable_ms))

    def _changes(self, store: SqliteStore) -> set[int] | None:
        """The instruments whose older minutes have changed; None where too much has, or nothing was read yet."""
        newest = store.newest_seq()
        if self._seq < 0 or newest - self._seq > MOST_EVENTS or newest < self._seq:
            self._seq = newest
            return None
        changed: set[int] = set()
        while self._seq < newest:
            events = store.events(self._seq, EVENTS, self._market)
            for event in events:
                if event.kind is Kind.CANDLES:
                    minutes = event.values[event.interval_codes == MINUTE.code]
                    for open_ms in np.unique(minutes[:, 1]).tolist():
                        self._marks.pop(open_ms, None)
                    old = (minutes[:, 1] < self._upto_ms) & (minutes[:, 2] & (What.CLOSED | What.REVISED) != 0)
                    changed.update((minutes[old, 0] // 16).tolist())
            self._seq = events[-1].last_seq if sum(len(event.values) for event in events) >= EVENTS else newest
        return changed

    def _go_on(self, store: SqliteStore, durable_ms: int) -> None:
        """Let the minutes in that have become durable, and those out that are a day old."""
        for open_ms in range(self._upto_ms, durable_ms, MINUTE_MS):
            looked = store.looks.market(self._market, MINUTE, open_ms)
            quotes = _quotes(looked.candles)
            closes = looked.candles["close"].tolist()
            rows = zip(looked.instrument_ids.tolist(), closes, looked.candles["price_scale"].tolist(), strict=True)
            origins = looked.candles["origin"].tolist()
            next_left = _minute(store, self._market, open_ms + MINUTE_MS - DAY_MS)
            for place, (number, close, scale) in enumerate(rows):
                row = self._rows.get(number)
                if row is None:
                    continue
                _enter(row, open_ms, close, scale, origins[place])
                row.quote += quotes[place]
            for number, row in self._rows.items():
                row.quote -= self._left.get(number, (0.0, 0.0))[1]
                row.base = next_left[number][0] if number in next_left else None
            self._left = next_left

    def _load(self, store: SqliteStore, ids: Iterable[int], durable_ms: int) -> None:
        """Read the rows of some instruments whole."""
        ids = list(ids)
        rows = {number: _Made() for number in ids}
        for number, open_ms, close, scale, origin in store.looks.closes(
            ids, durable_ms - SPARK * MINUTE_MS, durable_ms
        ).tolist():
            _enter(rows[number], open_ms, close, scale, origin)
        for number, quote in store.looks.quote_volumes(ids, durable_ms - DAY_MS, durable_ms).items():
            rows[number].quote = quote
            rows[number].base = self._left[number][0] if number in self._left else None
        for number, row in rows.items():
            if row.last_ms is None:
                last = store.read(number, MINUTE, 0, durable_ms, 1, descending=True)
                if len(last):
                    _enter(row, *(int(last[name][0]) for name in ("open_ms", "close", "price_scale", "origin")))
        self._rows |= rows

    # What is shown

    def _make_overview(
        self, store: SqliteStore, listings: Mapping[str, Listing], running: Candles, durable_ms: int, now_ms: int
    ) -> bytes:
        unsettled = store.looks.unsettled_minutes(durable_ms - DAY_MS, durable_ms)[:, 1]
        numbers, counts = np.unique(unsettled, return_counts=True)
        pending = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        symbols = []
        first_ms = durable_ms - SPARK * MINUTE_MS
        for place, (symbol, one) in enumerate(listings.items()):
            row = self._rows.get(one.id) or _Made()
            last, price = row.last, running[place]
            if price["close"] != 0 and price["open_ms"] == durable_ms:
                last = to_text(int(price["close"]), int(price["price_scale"]))
            change = None
            if last is not None and row.base:
                change = round((float(last) / row.base - 1) * 100, 3)
            symbols.append(
                {
                    "symbol": symbol,
                    "status": "retired" if one.retired_ms is not None else one.instrument.status.value,
                    "last": last,
                    "change_24h_pct": change,
                    "quote_volume_24h": None if row.last_ms is None else f"{max(row.quote, 0.0):.2f}",
                    "spark": [close for open_ms, close in sorted(row.closes.items()) if open_ms >= first_ms],
                    "pending": pending.get(one.id, 0),
                    "origin": row.origin,
                    "last_minute_ms": row.last_ms,
                }
            )
        return msgspec.json.encode({"market": self._market.value, "now_ms": now_ms, "symbols": symbols})

    def _make_minutes(
        self,
        store: SqliteStore,
        listings: Mapping[str, Listing],
        running: Candles,
        durable_ms: int,
        now_ms: int,
        count: int,
    ) -> bytes:
        names = {one.id: symbol for symbol, one in listings.items()}
        # A symbol is expected from its first stored minute on (what is older is history that is not kept), up to where its candles
        # are being made.
        begun_ms = store.first_minutes(self._market)
        made_ms = {one.id: int(running["open_ms"][place]) for place, one in enumerate(listings.values())}
        first_ms = durable_ms - MOST_MINUTES * MINUTE_MS
        self._marks = {open_ms: marks for open_ms, marks in self._marks.items() if open_ms >= first_ms}
        minutes = []
        for open_ms in range(durable_ms - count * MINUTE_MS, durable_ms, MINUTE_MS):
            marks = self._marks.get(open_ms)
            if marks is None:
                marks = self._marks[open_ms] = store.looks.minute_marks(self._market, open_ms)
            settled = (marks[:, 1] != 0) | (marks[:, 2] == Origin.UNMATCHED.value)
            there = set(marks[:, 0].tolist())
            pending = [names.get(number, "") for number in marks[~settled, 0].tolist()]
            gap = [
                symbol
                for number, symbol in names.items()
                if number not in there and begun_ms.get(number, made_ms[number]) <= open_ms < made_ms[number]
            ]
            minutes.append(
                {
                    "open_time_ms": open_ms,
                    "symbols": len(there),
                    "verified": int(np.count_nonzero(marks[:, 1])),
                    "pending": len(pending),
                    "gap": len(gap),
                    "pending_symbols": pending[:NAMED],
                    "gap_symbols": gap[:NAMED],
                }
            )
        return msgspec.json.encode({"market": self._market.value, "now_ms": now_ms, "minutes": minutes})


def _enter(row: _Made, open_ms: int, close: int, scale: int, origin: int) -> None:
    """Let a closed minute in."""
    row.closes[open_ms] = close / 10**scale
    for old in [key for key in row.closes if key <= open_ms - SPARK * MINUTE_MS]:
        del row.closes[old]
    if row.last_ms is None or open_ms >= row.last_ms:
        row.last, row.last_ms, row.origin = to_text(close, scale), open_ms, Origin(origin).label


def _minute(store: SqliteStore, market: Market, open_ms: int) -> dict[int, tuple[float, float]]:
    """Open and quote volume of a minute of a market, by instrument."""
    looked = store.looks.market(market, MINUTE, open_ms)
    opens = (looked.candles["open"] / 10.0 ** looked.candles["price_scale"]).tolist()
    return dict(zip(looked.instrument_ids.tolist(), zip(opens, _quotes(looked.candles), strict=True), strict=True))


def _quotes(candles: Candles) -> list[float]:
    scales = candles["price_scale"].astype(np.float64) + candles["qty_scale"]
    quotes: list[float] = ((candles["quote_hi"] * 1e18 + candles["quote_lo"]) / 10.0**scales).tolist()
    return quotes
