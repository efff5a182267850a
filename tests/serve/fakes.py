"""A market whose time, candles and commits a test decides."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, Candles, Flag, Instrument, Ints, Market, Origin, Status, no_candles
from klagg.serve.source import Committed, Frame, Listing

START_MS = 1_753_876_800_000
KEPT = (MINUTE, BY_NAME["5m"])


def candle(open_ms: int, price: int, trades: int = 1, *, interval: Interval = MINUTE, flags: int = 0) -> Candles:
    row = np.zeros(1, CANDLE)
    for name in ("open", "high", "low", "close"):
        row[name] = price
    row["open_ms"], row["trades"], row["interval"], row["flags"] = open_ms, trades, interval.code, flags
    row["price_scale"], row["qty_scale"], row["volume_lo"], row["quote_lo"] = (
        2,
        3,
        trades * 1_000,
        trades * price * 1_000,
    )
    row["first_id"], row["last_id"], row["origin"] = 1, trades, Origin.TRADES
    return row


class FakeLive:
    """`Live` of one market."""

    def __init__(self, market: Market = Market.USDM, symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT")) -> None:
        self.market = market
        self.markets = (market,)
        self.durable = START_MS
        self.rows = {symbol: np.zeros(len(KEPT), CANDLE) for symbol in symbols}
        self.not_ready: list[str] = []
        self.started = True
        self._queues: list[asyncio.Queue[Committed]] = []
        self._listings = {
            symbol: Listing(number, Instrument(market, symbol, Status.TRADING, 2, 3, symbol[:-4], "USDT"))
            for number, symbol in enumerate(symbols, 1)
        }

    def is_live(self, market: Market) -> bool:
        return self.started

    def now_ms(self, market: Market) -> int:
        return self.durable + 5_000

    def listings(self, market: Market) -> Mapping[str, Listing]:
        return self._listings

    def kept(self, market: Market) -> Sequence[Interval]:
        return KEPT

    def durable_ms(self, market: Market) -> int:
        return self.durable

    def running(self, market: Market, symbols: Sequence[str]) -> Candles:
        return np.stack([self.rows[symbol] for symbol in symbols])

    def missing(self) -> Sequence[str]:
        return self.not_ready

    async def commits(self) -> AsyncIterator[Committed]:
        queue: asyncio.Queue[Committed] = asyncio.Queue()
        self._queues.append(queue)
        while True:
            yield await queue.get()

    # What a test does

    def trade(self, symbol: str, price: int, trades: int) -> None:
        """Let the running candles of a symbol be this."""
        for column, interval in enumerate(KEPT):
            self.rows[symbol][column] = candle(interval.open_at(self.durable), price, trades, interval=interval)[0]

    def close(self, *closed: tuple[str, Candles]) -> None:
        """Let a minute become durable, with these closed candles."""
        self.durable += MINUTE_MS
        self.commit(*closed)

    def commit(self, *closed: tuple[str, Candles]) -> None:
        ids: Ints = np.array([self._listings[symbol].id for symbol, _ in closed], np.int64)
        candles = np.concatenate([row for _, row in closed]) if closed else no_candles()
        candles["flags"] |= Flag.CLOSED.value
        for queue in self._queues:
            queue.put_nowait(Committed(self.market, self.durable, ids, candles))


class FakeSource:
    """`Source` over a few candles, one-minute ones."""

    def __init__(self) -> None:
        self.minutes: dict[str, Candles] = {}
        self.error: Exception | None = None
        self.past: Candles = no_candles()
        self.sure = False

    async def closed(
        self, one: Listing, frame: Frame, start_ms: int, end_ms: int, limit: int, *, newest: bool
    ) -> Candles:
        if self.error is not None:
            raise self.error
        rows = self.minutes.get(one.instrument.symbol, no_candles())
        rows = rows[(rows["open_ms"] >= start_ms) & (rows["open_ms"] < end_ms)]
        return rows[-limit:] if newest else rows[:limit]

    async def part(self, one: Listing, start_ms: int, end_ms: int) -> Candles:
        return self.past

    async def is_sure(self, one: Listing, interval: Interval) -> bool:
        return self.sure
