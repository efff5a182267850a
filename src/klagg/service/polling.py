"""The read side over a database alone: what somebody else writes is seen by looking often, and open candles are the stored snapshots."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import structlog

from klagg.errors import StoreError
from klagg.interval import MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, Candles, Ints, Market, joined, no_candles
from klagg.serve.source import Committed, Listing
from klagg.service.followers import Followers
from klagg.service.reading import Reader
from klagg.store import SqliteStore

log = structlog.get_logger()

LOOK_S: Final = 0.25
"""How often the database is asked whether a minute has become durable: two index look-ups."""
LOOKS: Final = 10
"""How often it is looked again where a minute became durable meanwhile."""
STALE_MS: Final = 90_000
"""A database whose newest durable minute ended longer ago than this has no writer."""


@dataclass(slots=True, eq=False)
class _Seen:
    """What was last seen of one market."""

    kept: tuple[Interval, ...] = ()
    durable_ms: int = 0
    listings: Mapping[str, Listing] = field(default_factory=dict)
    running: Candles = field(default_factory=no_candles)
    """[symbols, intervals], `close` 0 where there is none."""
    places: Mapping[str, int] = field(default_factory=dict)


class PolledLive:
    """`serve.Live` of the markets that a database holds."""

    def __init__(self, reader: Reader) -> None:
        self.followers = Followers()
        self._reader = reader
        self._seen: dict[Market, _Seen] = {}

    async def load(self) -> None:
        """See what there is.

        Raises:
            StoreError: the database cannot be read.

        """
        for market in Market:
            seen = await self._reader.call(partial(_look, market=market))
            if seen.listings:
                self._seen[market] = seen

    async def follow(self) -> None:
        """Look for what is new, until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            for market, before in tuple(self._seen.items()):
                try:
                    await self._look_again(market, before)
                except StoreError as error:
                    if not failing:
                        log.warning("serve.poll_failed", market=market.value, reason=str(error))
                    failing = True
                else:
                    failing = False

    async def _look_again(self, market: Market, before: _Seen) -> None:
        durable_ms = await self._reader.call(lambda store: _durable_ms(store, market))
        if durable_ms == before.durable_ms:
            return
        seen = await self._reader.call(lambda store: _look(store, market))
        ids, candles = await self._reader.call(lambda store: _closed_between(store, seen, before.durable_ms))
        self._seen[market] = seen
        self.followers.tell(Committed(market, seen.durable_ms, ids, candles))

    @property
    def markets(self) -> Sequence[Market]:
        """The markets that the database holds."""
        return tuple(self._seen)

    def is_live(self, market: Market) -> bool:
        """All that is stored can be asked at once."""
        return market in self._seen

    def now_ms(self, market: Market) -> int:
        """The host's time: nothing here measures the exchange's."""
        del market
        return time.time_ns() // 1_000_000

    def listings(self, market: Market) -> Mapping[str, Listing]:
        """The symbols by name."""
        return self._seen[market].listings

    def kept(self, market: Market) -> Sequence[Interval]:
        """The intervals that are kept."""
        return self._seen[market].kept

    def durable_ms(self, market: Market) -> int:
        """The boundary up to which the owner has closed, or the end of the newest minute where there never was one."""
        return self._seen[market].durable_ms

    def running(self, market: Market, symbols: Sequence[str]) -> Candles:
        """The stored snapshots, folded to exactly the durable boundary."""
        seen = self._seen[market]
        out = np.zeros((len(symbols), len(seen.kept)), CANDLE)
        at = [place for place, symbol in enumerate(symbols) if symbol in seen.places]
        if at:
            out[at] = seen.running[[seen.places[symbols[place]] for place in at]]
        return out

    def missing(self) -> Sequence[str]:
        """Markets whose minutes no longer come; a database without any."""
        if not self._seen:
            return ["the database holds no candles"]
        return [
            f"{market.value}: no minute has become durable for {STALE_MS // 1_000} s"
            for market in self._seen
            if self.now_ms(market) - self.durable_ms(market) > STALE_MS
        ]

    def commits(self) -> AsyncIterator[Committed]:
        """What is seen to be committed from now on."""
        return self.followers.follow()


def _durable_ms(store: SqliteStore, market: Market) -> int:
    closed_upto_ms = store.closed_upto(market)
    if closed_upto_ms is not None:
        return closed_upto_ms
    newest_ms = store.newest_minute_ms(market)
    return 0 if newest_ms is None else newest_ms + MINUTE_MS


def _look(store: SqliteStore, market: Market) -> _Seen:
    for _ in range(LOOKS):
        durable_ms = _durable_ms(store, market)
        kept = store.intervals(market) or (MINUTE,)
        stored = store.instruments(market)
        newest = store.newest(market, kept)
        if _durable_ms(store, market) == durable_ms:
            break
    listings = {one.instrument.symbol: Listing(one.id, one.instrument, one.retired_ms) for one in stored}
    places = {symbol: place for place, symbol in enumerate(listings)}
    by_id = {one.id: places[symbol] for symbol, one in listings.items()}
    columns = {interval.code: column for column, interval in enumerate(kept)}
    running = np.zeros((len(listings), len(kept)), CANDLE)
    for number, row in zip(newest.instrument_ids.tolist(), newest.candles, strict=True):
        running[by_id[number], columns[int(row["interval"])]] = row
    return _Seen(kept, durable_ms, listings, running, places)


def _closed_between(store: SqliteStore, seen: _Seen, since_ms: int) -> tuple[Ints, Candles]:
    """The closed candles that ended after `since_ms` and are durable."""
    ids: list[Ints] = []
    found: list[Candles] = []
    for interval in seen.kept:
        start_ms, end_ms = interval.open_at(since_ms), interval.open_at(seen.durable_ms)
        if start_ms == end_ms:
            continue
        for one in seen.listings.values():
            candles = store.read(one.id, interval, start_ms, end_ms)
            if len(candles):
                found.append(candles)
                ids.append(np.full(len(candles), one.id, np.int64))
    return (np.concatenate(ids), joined(found)) if found else (np.zeros(0, np.int64), no_candles())
