"""Running candles pushed to the readers of the feed that want them: where they changed, at a stated cadence, outside of the sequence."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from klagg.clock import Clock
from klagg.interval import MINUTE, Interval
from klagg.model import Candles, Ints, Market, joined
from klagg.serve.feed.feed import LOW_WAITING, Feed, Reader
from klagg.serve.feed.filter import Filter
from klagg.serve.native.table import SeriesName, Table, closes_ms, objects
from klagg.serve.running import RunningCandles
from klagg.serve.source import Frame, Listing, Live

if TYPE_CHECKING:
    from klagg.serve.feed.page import Form

log = structlog.get_logger()

EVERY_S: Final = 0.5
"""How often running candles are pushed."""
AT_ONCE: Final = 500
"""Candles written between two turns of the loop: some 2 ms."""
LOADED_AT_ONCE: Final = 50
"""Longer candles that are compared with what is stored in one round: those of a whole market are loaded in some minutes at most."""
_STATE: Final = ("open_ms", "trades", "close", "last_id")
"""A running candle is another one where one of these has changed."""


class RunningPushes:
    """The pushes of one market."""

    def __init__(self, market: Market, feed: Feed, live: Live, running: RunningCandles, clock: Clock) -> None:
        self._market = market
        self._feed = feed
        self._live = live
        self._running = running
        self._clock = clock
        self._listings: Mapping[str, Listing] | None = None
        self._symbols: list[str] = []
        self._names: list[SeriesName] = []
        self._pushed = np.zeros((0, 0, len(_STATE)), np.int64)
        self._latest: dict[tuple[str, str], tuple[int, bytes]] = {}
        """By symbol and interval: the open and the message of the candle that was pushed last."""
        self._durable_ms = 0
        self._told_from = 0

    async def run(self) -> None:
        """Push until cancelled."""
        while True:
            await self._clock.sleep(EVERY_S)
            readers = [
                one for one in self._feed.readers if one.running is not None and self._is_for(one.running.wanted)
            ]
            if readers and self._live.is_live(self._market) and self._is_told():
                try:
                    await self._push(readers)
                except Exception as error:  # noqa: BLE001 - the next push may do better
                    log.error("serve.push_failed", market=self._market.value, reason=f"{type(error).__name__}: {error}")

    def _is_for(self, wanted: Filter) -> bool:
        return wanted.market is None or wanted.market is self._market

    def _is_told(self) -> bool:
        """Whether the events of the newest boundary have gone out: no candle runs before its predecessor has closed."""
        durable_ms = self._live.durable_ms(self._market)
        if durable_ms != self._durable_ms:
            self._durable_ms = durable_ms
            self._told_from = self._feed.looks_begun + 1
        return self._feed.looks_done >= self._told_from

    def _learn(self, kept: Sequence[Interval]) -> None:
        """Begin anew where the symbols have changed."""
        listings = self._live.listings(self._market)
        if self._listings is not listings or self._pushed.shape[1] != len(kept):
            self._listings = listings
            self._symbols = list(listings)
            self._names = [SeriesName(s, interval.name, Frame(interval)) for s in self._symbols for interval in kept]
            self._pushed = np.zeros((len(self._symbols), len(kept), len(_STATE)), np.int64)
            self._latest.clear()

    async def _push(self, readers: Sequence[Reader]) -> None:
        kept = list(self._live.kept(self._market))
        self._learn(kept)
        filters = {reader.running.wanted for reader in readers if reader.running is not None}
        columns = [n for n, interval in enumerate(kept) if any(one.wants_interval(interval.name) for one in filters)]
        rows = [n for n, symbol in enumerate(self._symbols) if any(one.wants_symbol(symbol) for one in filters)]
        if not rows or not columns:
            return
        durable_ms = self._durable_ms
        running = self._live.running(self._market, [self._symbols[row] for row in rows])
        state = np.stack([running[name] for name in _STATE], axis=2)
        minutes = running[:, 0]
        current = (minutes["close"] != 0) & (minutes["open_ms"] == durable_ms)
        changed = (state != self._pushed[rows]).any(axis=2) & current[:, None]
        series, found = [], []
        loads = LOADED_AT_ONCE
        assert self._listings is not None
        for turn, (place, number) in enumerate(np.argwhere(changed[:, columns]).tolist(), 1):
            if turn % AT_ONCE == 0:
                await asyncio.sleep(0)
            row, column = rows[place], columns[number]
            candle = running[place, :1]
            if kept[column] is not MINUTE:
                one, frame = self._listings[self._symbols[row]], self._names[column].frame
                known = self._running.in_memory(one, frame, running[place])
                if known is None:
                    if loads == 0:
                        continue
                    loads -= 1
                    known = await self._running.of(one, frame, running[place])
                candle = known
            self._pushed[row, column] = state[place, column]
            if len(candle):
                series.append(row * len(kept) + column)
                found.append(candle)
        fresh: dict[tuple[str, str], bytes] = {}
        for start in range(0, len(series), AT_ONCE):
            chosen = np.array(series[start : start + AT_ONCE], np.int64)
            fresh |= self._messages(chosen, joined([np.ascontiguousarray(c) for c in found[start : start + AT_ONCE]]))
            await asyncio.sleep(0)
        if self._live.durable_ms(self._market) != durable_ms:
            # These minutes have closed meanwhile: all that runs now is news.
            self._pushed[:] = 0
            return
        self._send(readers, fresh, durable_ms)

    def _messages(self, series: Ints, candles: Candles) -> dict[tuple[str, str], bytes]:
        """The messages of candles, by symbol and interval."""
        candles["flags"] = 0
        names = [self._names[place] for place in series.tolist()]
        closes = np.array([int(closes_ms(candles[n : n + 1], name.frame)[0]) for n, name in enumerate(names)], np.int64)
        now = np.full(len(series), self._live.now_ms(self._market), np.int64)
        places = np.arange(len(series), dtype=np.int64)
        texts = objects(Table(self._market, names, places, candles, closes, np.zeros_like(now), now))
        made = {}
        for name, text, open_ms in zip(names, texts, candles["open_ms"].tolist(), strict=True):
            head = text[: text.index(',"open_time_ms"')]
            message = f'{{"kind":"candle_open",{head[1:]},"candle":{text}}}'.encode()
            made[name.symbol, name.interval] = message
            self._latest[name.symbol, name.interval] = open_ms, message
        return made

    def _send(self, readers: Sequence[Reader], fresh: Mapping[tuple[str, str], bytes], durable_ms: int) -> None:
        """Send what is fresh; to a new reader all that still runs. What a slow reader cannot take is left out: it is volatile."""
        made: dict[tuple[Filter, Form, bool], bytes] = {}
        frames = {name.interval: name.frame for name in self._names}
        for reader in readers:
            running = reader.running
            if running is None or reader.sink.waiting > LOW_WAITING:
                continue
            key = running.wanted, reader.sink.form, running.is_new
            data = made.get(key)
            if data is None:
                messages = dict(fresh)
                if running.is_new:
                    messages |= {
                        names: message
                        for names, (open_ms, message) in self._latest.items()
                        if frames[names[1]].open_at(durable_ms) == open_ms
                    }
                data = made[key] = b"".join(
                    key[1](0, message)
                    for (symbol, interval), message in messages.items()
                    if running.wanted.wants_symbol(symbol) and running.wanted.wants_interval(interval)
                )
            running.is_new = False
            if data:
                reader.sink.write(data)
