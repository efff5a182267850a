"""What is pushed when: closing candles after their commit, running ones at the exchange's cadence, the mini-tickers.

A closing push (`x: true`) is sent once for each candle. A running candle is pushed only where it changed, and only while every candle
before it is durable, so that no stream has a new candle before the end of the last.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Final

import msgspec
import numpy as np
import structlog

from klagg.clock import Clock
from klagg.errors import StoreError
from klagg.interval import DAY_MS, MINUTE
from klagg.model import Candles, Flag, Market, joined, no_candles
from klagg.serve.events import continuous_kline_event, kline_event
from klagg.serve.folding import joined as span_of
from klagg.serve.hub import Channel, Hub, Push
from klagg.serve.running import RunningCandles
from klagg.serve.source import FOLDED_CHILDREN, Committed, Frame, Listing, Live, Source, TooMuch
from klagg.serve.streams import Kind
from klagg.serve.tickers import mini_ticker

log = structlog.get_logger()

RUNNING_EVERY_MS: Final = {Market.SPOT: 2_000, Market.USDM: 250}
"""How often running candles are pushed, as on the exchange."""
ALL_MINI_EVERY_MS: Final = 1_000
MINI_EVERY_MS: Final = {Market.SPOT: 1_000, Market.USDM: 2_000}
KLINES: Final = (Kind.KLINE, Kind.CONTINUOUS_KLINE)
SLICE_S: Final = 0.004
"""How long pushes of running candles are made at a time: between two slices the event loop does what is due, ticks before all."""
WINDOWS_AT_ONCE: Final = 50
"""24-hour windows that are loaded for mini-tickers between two pushes: a whole market is loaded in some seconds."""


class Slices:
    """Work on the event loop in slices of `SLICE_S`."""

    def __init__(self) -> None:
        self._ends_s = time.perf_counter() + SLICE_S

    async def pause(self) -> bool:
        """Let the loop do what is due where a slice is over; whether it did."""
        if time.perf_counter() < self._ends_s:
            return False
        await asyncio.sleep(0)
        self._ends_s = time.perf_counter() + SLICE_S
        return True


class Pusher:
    """The pushes of one market."""

    def __init__(
        self, market: Market, hub: Hub, live: Live, source: Source, running: RunningCandles, clock: Clock
    ) -> None:
        self.market = market
        self._hub = hub
        self._live = live
        self._source = source
        self._running_candles = running
        self._clock = clock
        self._closed = np.zeros((0, 16), np.int64)
        """By instrument and interval: the open of the newest candle that was pushed as closed, or was before this began."""
        self._since_ms = 0
        self._named: tuple[Mapping[str, Listing] | None, int, dict[str, list[Channel]]] = (None, -1, {})
        self._days: dict[int, tuple[int, Candles]] = {}
        self._boundary_ms = 0
        """The boundary whose closing pushes have been sent: a running candle that opened there comes after them."""

    # Streams by symbol

    def _channels(self) -> dict[str, list[Channel]]:
        """The kline streams that are listened to, by symbol."""
        listings = self._live.listings(self.market)
        if self._named[0] is not listings or self._named[1] != self._hub.changes:
            found: dict[str, list[Channel]] = {}
            by_stream = {symbol.lower(): symbol for symbol in listings}
            by_pair: dict[tuple[str, str], str] = {}
            if any(channel.stream.contract for channel in self._hub.channels(self.market, *KLINES)):
                for symbol, one in listings.items():
                    pair = (one.instrument.base + one.instrument.quote).lower()
                    by_pair[pair, str(one.instrument.extra.get("contract_type", ""))] = symbol
            for channel in self._hub.channels(self.market, *KLINES):
                stream = channel.stream
                name = (
                    by_pair.get((stream.symbol, stream.contract)) if stream.contract else by_stream.get(stream.symbol)
                )
                if name is not None:
                    found.setdefault(name, []).append(channel)
            self._named = listings, self._hub.changes, found
        return self._named[2]

    def _event(self, channel: Channel, one: Listing, row: np.void, event_ms: int, *, closed: bool) -> bytes:
        frame = channel.stream.frame
        if channel.stream.kind is Kind.CONTINUOUS_KLINE:
            return continuous_kline_event(one.instrument, frame, row, event_ms, closed=closed)
        return kline_event(one.instrument, frame, row, event_ms, closed=closed, unit=channel.unit)

    # Closing pushes

    async def follow_commits(self) -> None:
        """Push what is committed, until cancelled."""
        self._since_ms = self._boundary_ms = self._live.durable_ms(self.market)
        async for committed in self._live.commits():
            if committed.market is self.market:
                await self._guarded(self._push_commit(committed))
                self._boundary_ms = max(self._boundary_ms, committed.boundary_ms)

    async def _push_commit(self, committed: Committed) -> None:
        self.push_closed(committed)
        await self._push_folded(committed.boundary_ms, advanced=committed.boundary_ms > self._boundary_ms)

    async def _guarded(self, push: Coroutine[None, None, None]) -> None:
        """A push that fails by a mistake of ours is said and left out: candles are made whether they are pushed or not."""
        try:
            await push
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the service
            log.error("serve.push_failed", market=self.market.value, reason=f"{type(error).__name__}: {error}")

    def push_closed(self, committed: Committed) -> None:
        """Push the candles of a commit that are closed for the first time."""
        ids, candles = self._first_time(committed)
        channels = self._channels()
        if len(ids) == 0 or not channels:
            return
        by_id = {one.id: symbol for symbol, one in self._live.listings(self.market).items() if symbol in channels}
        wanted = np.isin(ids, np.fromiter(by_id, np.int64, len(by_id)))
        now_ms = self._live.now_ms(self.market)
        listings = self._live.listings(self.market)
        push = Push()
        for number, row in zip(ids[wanted].tolist(), candles[wanted], strict=True):
            symbol = by_id[number]
            for channel in channels[symbol]:
                frame = channel.stream.frame
                if frame.interval.code == row["interval"] and not frame.shift_ms:
                    push.put(channel, self._event(channel, listings[symbol], row, now_ms, closed=True))
        push.send()

    def _first_time(self, committed: Committed) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Candles]:
        """The closed candles of a commit that ended since this began and were not pushed before."""
        closed = committed.candles["flags"] & Flag.CLOSED.value != 0
        ids, candles = committed.instrument_ids[closed], committed.candles[closed]
        if len(ids) == 0:
            return ids, candles
        if int(ids.max()) >= len(self._closed):
            more = np.zeros((int(ids.max()) + 256, self._closed.shape[1]), np.int64)
            more[: len(self._closed)] = self._closed
            self._closed = more
        codes = candles["interval"].astype(np.int64)
        opens = candles["open_ms"]
        # A candle that opens within the last minute before `since` or later ends after it; a longer one may have opened earlier.
        begun = np.zeros(len(self._closed[0]), np.int64)
        for interval in self._live.kept(self.market):
            begun[interval.code] = interval.open_at(self._since_ms)
        fresh = (opens > self._closed[ids, codes]) & (opens >= begun[codes])
        np.maximum.at(self._closed, (ids, codes), opens)
        return ids[fresh], candles[fresh]

    # Frames that are not kept

    def _folded(self) -> Iterator[tuple[Channel, Listing]]:
        kept = self._live.kept(self.market)
        listings = self._live.listings(self.market)
        for symbol, channels in self._channels().items():
            for channel in channels:
                frame = channel.stream.frame
                if frame.shift_ms or frame.interval not in kept:
                    yield channel, listings[symbol]

    async def _push_folded(self, boundary_ms: int, *, advanced: bool) -> None:
        """Push the candles of folded frames that the boundary has closed."""
        push = Push()
        for channel, one in list(self._folded()):
            frame = channel.stream.frame
            running_ms = frame.open_at(boundary_ms)
            since_ms = channel.upto_ms or (frame.open_at(boundary_ms - 1) if advanced else running_ms)
            channel.upto_ms = running_ms
            if since_ms < running_ms:
                for row in await self._read(one, frame, since_ms, running_ms):
                    push.put(channel, self._event(channel, one, row, self._live.now_ms(self.market), closed=True))
        push.send()

    async def _read(self, one: Listing, frame: Frame, start_ms: int, end_ms: int) -> Candles:
        try:
            return await self._source.closed(one, frame, start_ms, end_ms, FOLDED_CHILDREN, newest=False)
        except (StoreError, TooMuch) as error:
            log.warning("serve.read_failed", symbol=one.instrument.symbol, reason=str(error))
            return no_candles()

    # Running candles

    async def push_running(self) -> None:
        """Push running candles at their cadence, until cancelled."""
        while True:
            await self._clock.sleep(RUNNING_EVERY_MS[self.market] / 1e3)
            channels = self._channels()
            if channels and self._live.is_live(self.market):
                await self._guarded(self._push_running(channels))

    async def _push_running(self, channels: dict[str, list[Channel]]) -> None:
        symbols = list(channels)
        durable_ms, now_ms = self._live.durable_ms(self.market), self._live.now_ms(self.market)
        if durable_ms > self._boundary_ms:
            return
        slices = Slices()
        running = self._live.running(self.market, symbols)
        minutes = running[:, 0]
        # A minute is ahead of what is durable while its predecessor waits for the database.
        current = (minutes["close"] != 0) & (minutes["open_ms"] == durable_ms)
        states = list(zip(*(minutes[name].tolist() for name in ("open_ms", "trades", "close", "last_id")), strict=True))
        listings, push = self._live.listings(self.market), Push()
        for index in np.flatnonzero(current).tolist():
            symbol, state = symbols[index], states[index]
            one = listings[symbol]
            for channel in channels[symbol]:
                if channel.pushed == state:
                    continue
                channel.pushed = state
                row = running[index, 0]
                if channel.stream.frame.interval is not MINUTE:
                    found = await self._running(one, channel.stream.frame, running[index])
                    if len(found) == 0:
                        continue
                    row = found[0]
                channel.upto_ms = channel.upto_ms or int(row["open_ms"])
                push.put(channel, self._event(channel, one, row, now_ms, closed=False))
            await slices.pause()
            if self._live.durable_ms(self.market) != durable_ms:
                return  # these minutes have closed meanwhile, and their closing pushes come first
        for listener, data in push.writes():
            listener.push(data)
            if await slices.pause() and self._live.durable_ms(self.market) != durable_ms:
                return

    async def _running(self, one: Listing, frame: Frame, running: Candles) -> Candles:
        known = self._running_candles.in_memory(one, frame, running)
        if known is not None:
            return known
        try:
            return await self._running_candles.of(one, frame, running)
        except StoreError as error:
            log.warning("serve.read_failed", symbol=one.instrument.symbol, reason=str(error))
            return no_candles()

    # Mini-tickers

    async def push_minis(self, kind: Kind) -> None:
        """Push mini-tickers of a kind at their cadence, until cancelled."""
        every_ms = ALL_MINI_EVERY_MS if kind is Kind.ALL_MINI_TICKERS else MINI_EVERY_MS[self.market]
        while True:
            await self._clock.sleep(every_ms / 1e3)
            channels = self._hub.channels(self.market, kind)
            if channels and self._live.is_live(self.market):
                await self._guarded(self._push_minis(channels))

    async def _push_minis(self, channels: list[Channel]) -> None:
        listings = self._live.listings(self.market)
        by_stream = {symbol.lower(): symbol for symbol in listings}
        push = Push()
        for channel in channels:
            if channel.stream.kind is Kind.ALL_MINI_TICKERS:
                events = await self._changed(channel, listings)
                if events:
                    push.put(channel, b"[" + b",".join(events) + b"]")
                continue
            symbol = by_stream.get(channel.stream.symbol)
            for event in await self._changed(channel, {symbol: listings[symbol]}) if symbol is not None else ():
                push.put(channel, event)
        push.send()

    async def _changed(self, channel: Channel, listings: Mapping[str, Listing]) -> list[bytes]:
        """The mini-tickers that have changed since this stream's last push, as far as their day is known."""
        symbols = list(listings)
        minutes = self._live.running(self.market, symbols)[:, 0]
        durable_ms, now_ms = self._live.durable_ms(self.market), self._live.now_ms(self.market)
        current = (minutes["close"] != 0) & (minutes["open_ms"] == durable_ms)
        events = []
        await self._load_days([listings[symbols[i]] for i in np.flatnonzero(current).tolist()], durable_ms)
        for index in np.flatnonzero(current).tolist():
            one, minute = listings[symbols[index]], minutes[index : index + 1]
            day_ms, past = self._days.get(one.id, (0, no_candles()))
            state = (int(minute["last_id"][0]), int(minute["close"][0]))
            if day_ms != durable_ms or len(past) == 0 or channel.told.get(symbols[index]) == state:
                continue
            channel.told[symbols[index]] = state
            day = span_of(joined([past, minute]))
            events.append(msgspec.json.encode(mini_ticker(one.instrument, day, now_ms, channel.unit)))
        return events

    async def _load_days(self, wanted: Iterable[Listing], durable_ms: int) -> None:
        """Load some of the 24-hour windows that are not those of the newest boundary."""
        left = WINDOWS_AT_ONCE
        for one in wanted:
            if left and self._days.get(one.id, (0,))[0] != durable_ms:
                left -= 1
                try:
                    past = await self._source.part(one, durable_ms - DAY_MS, durable_ms)
                    self._days[one.id] = durable_ms, past
                except StoreError as error:
                    log.warning("serve.read_failed", symbol=one.instrument.symbol, reason=str(error))
                    return

    async def run(self) -> None:
        """Push until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follow_commits())
            tasks.create_task(self.push_running())
            for kind in (Kind.MINI_TICKER, Kind.ALL_MINI_TICKERS):
                tasks.create_task(self.push_minis(kind))
