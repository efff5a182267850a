"""The exchange's REST market data of one market, from klagg's candles: parameters in, bodies out.

Answers stop before minutes that are not durable yet, without a hole; the last row may be the running candle, as on the exchange.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from klagg.interval import BY_NAME, DAY_MS
from klagg.model import Candles, Flag, Instrument, Market, no_candles
from klagg.serve.digits import Digits, decimal, kline_rows
from klagg.serve.listing import exchange_info, is_trading, native_status
from klagg.serve.query import Query, Refused, illegal, invalid
from klagg.serve.running import RunningCandles
from klagg.serve.source import Frame, Listing, Live, Source, TooMuch
from klagg.serve.tickers import day_of, ticker

KLINES: Final = {Market.SPOT: ("klines", "uiKlines"), Market.USDM: ("klines", "continuousKlines")}
MOST_ROWS: Final = {Market.SPOT: 1_000, Market.USDM: 1_500}
USUAL_ROWS: Final = 500
ALWAYS: Final = frozenset({"ping", "time"})
"""What is answered while a market is still starting."""
_SPOT_SYMBOL: Final = re.compile(r"(?:[^\W\sa-z]|[-.]){1,50}")
_SPOT_RANGE: Final = r"^[\w\-._&&[^a-z]]{1,50}$"
_FAR_MS: Final = 1 << 52


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and how many of its closed candles are not verified (None where it holds no candles)."""

    body: bytes
    unverified: int | None = None


_NOTHING: Final[Mapping[str, Listing]] = {}
_Endpoint = Callable[[Query], Awaitable[Answer]]
_Symbols = tuple[Mapping[str, Listing], bytes, bytes]
"""The symbols that bodies were made of, and the encoded assets and symbols."""


class MarketRest:
    """Answers the requests of one market; `weight` says what a request costs."""

    def __init__(self, market: Market, live: Live, source: Source, running: RunningCandles) -> None:
        self.market = market
        self._running_candles = running
        self._live = live
        self._source = source
        self._spot = market is Market.SPOT
        self._served = market in live.markets
        """Clients ask for all markets, and take one without symbols for what it is."""
        self._symbols: _Symbols | None = None
        self._endpoints: dict[str, _Endpoint] = {
            "ping": self._ping,
            "time": self._time,
            "exchangeInfo": self._exchange_info,
            "ticker/price": self._prices,
            "ticker/24hr": self._tickers,
        }
        self._endpoints |= dict.fromkeys(KLINES[market], self._klines)
        if not self._spot:
            self._endpoints["continuousKlines"] = self._continuous_klines

    @property
    def _listings(self) -> Mapping[str, Listing]:
        return self._live.listings(self.market) if self._served else _NOTHING

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths below the version's prefix."""
        return tuple(self._endpoints)

    def weight(self, path: str, query: Query) -> int:
        """The exchange's request weight, refused or not."""
        params = query.params
        if path in KLINES[self.market]:
            if self._spot:
                return 2
            text = params.get("limit", "")
            rows = int(text[:9]) if text.isascii() and text.isdigit() else USUAL_ROWS
            return 1 if rows <= 100 else 2 if rows <= 500 and text else 5 if rows <= 1_000 else 10
        one = "symbol" in params
        if path == "ticker/price":
            return (2 if one else 4) if self._spot else (1 if one else 2)
        if path == "ticker/24hr":
            if one or not self._spot:
                return (2 if self._spot else 1) if one else 40
            named = params["symbols"].count(",") + 1 if "symbols" in params else 101
            return 2 if named <= 20 else 40 if named <= 100 else 80
        return 20 if path == "exchangeInfo" and self._spot else 1

    async def answer(self, path: str, query: Query) -> Answer:
        """The body of the answer.

        Raises:
            Refused: the request is not answered.

        """
        if self._served and path not in ALWAYS and not self._live.is_live(self.market):
            raise Refused(-1001, "Internal error; unable to process your request: this market is still starting.", 503)
        return await self._endpoints[path](query)

    async def _ping(self, _: Query) -> Answer:
        return Answer(b"{}")

    async def _time(self, query: Query) -> Answer:
        return Answer(b'{"serverTime":%d}' % (self._live.now_ms(self.market) * query.unit))

    # Symbols

    async def _exchange_info(self, query: Query) -> Answer:
        listings = self._listings
        now_ms = self._live.now_ms(self.market)
        names = query.symbols() if self._spot else None
        status = query.params.get("symbolStatus") if self._spot else None
        if names is not None or status is not None:
            chosen = listings.values() if names is None else [self._find(name) for name in names]
            wanted = [one for one in chosen if status is None or native_status(one) == status]
            return Answer(msgspec.json.encode(exchange_info(self.market, wanted, now_ms, query.unit)))
        if self._symbols is None or self._symbols[0] is not listings:
            whole = exchange_info(self.market, listings.values(), now_ms)
            self._symbols = (
                listings,
                msgspec.json.encode(whole.get("assets", [])),
                msgspec.json.encode(whole["symbols"]),
            )
        info = exchange_info(self.market, (), now_ms, query.unit)
        if "assets" in info:
            info["assets"] = msgspec.Raw(self._symbols[1])
        info["symbols"] = msgspec.Raw(self._symbols[2])
        return Answer(msgspec.json.encode(info))

    def _find(self, symbol: str) -> Listing:
        """The symbol that a request names: futures take any case, spot upper case only."""
        if not self._spot:
            symbol = symbol.upper()
        elif not _SPOT_SYMBOL.fullmatch(symbol):
            raise illegal("symbol", _SPOT_RANGE)
        one = self._listings.get(symbol)
        if one is None:
            raise Refused(-1121, "Invalid symbol.")
        return one

    def _wanted(self, query: Query) -> list[Listing]:
        names = query.symbols()
        if names is None:
            return [one for one in self._listings.values() if is_trading(one)]
        return [self._find(name) for name in names]

    # Candles

    async def _continuous_klines(self, query: Query) -> Answer:
        pair, kind = query.required("pair").upper(), query.required("contractType").upper()
        for one in self._listings.values():
            instrument = one.instrument
            if instrument.base + instrument.quote == pair and instrument.extra.get("contract_type") == kind:
                return await self._klines_of(one, query)
        raise Refused(-1121, "Invalid symbol.")

    async def _klines(self, query: Query) -> Answer:
        return await self._klines_of(self._find(query.required("symbol")), query)

    async def _klines_of(self, one: Listing, query: Query) -> Answer:
        interval = BY_NAME.get(query.required("interval"))
        if interval is None:
            raise Refused(-1120, "Invalid interval.")
        limit = self._limit(query)
        start_ms, end_ms = query.time_ms("startTime"), query.time_ms("endTime")
        if start_ms is not None and end_ms is not None and start_ms > end_ms and not self._spot:
            raise Refused(-1023, "Start time is greater than end time.")
        frame = Frame(interval, query.zone_ms() if self._spot else 0).plain
        try:
            candles = await self._read(one, frame, start_ms, end_ms, limit)
        except TooMuch:
            raise invalid("limit") from None
        closed = candles["flags"] & Flag.CLOSED.value != 0
        unverified = int((closed & (candles["flags"] & Flag.VERIFIED.value == 0)).sum())
        return Answer(kline_rows(candles, frame, Digits.of(one.instrument), query.unit), unverified)

    def _limit(self, query: Query) -> int:
        most = MOST_ROWS[self.market]
        limit = query.number("limit")
        if limit is None:
            return USUAL_ROWS
        if limit < 1 or (limit > most and not self._spot):
            raise invalid("limit")
        return min(limit, most)

    async def _read(self, one: Listing, frame: Frame, start_ms: int | None, end_ms: int | None, limit: int) -> Candles:
        """The rows of a request: the oldest from a start, else the newest; the running candle is the last if it is asked for."""
        running_ms = frame.open_at(self._live.durable_ms(self.market))
        low_ms, high_ms = start_ms or 0, _FAR_MS if end_ms is None else end_ms + 1
        running = no_candles()
        if low_ms <= running_ms < high_ms:
            running = await self._running(one, frame)
        newest = start_ms is None
        room = limit - len(running) if newest else limit
        closed = no_candles()
        if room > 0:
            closed = await self._source.closed(one, frame, low_ms, min(high_ms, running_ms), room, newest=newest)
        return np.concatenate([closed, running]) if len(running) and len(closed) < limit else closed

    async def _running(self, one: Listing, frame: Frame) -> Candles:
        """The running candle as it stands now; none where the minute before is not durable yet."""
        running = self._live.running(self.market, [one.instrument.symbol])
        return await self._running_candles.of(one, frame, running[0])

    # Tickers

    async def _prices(self, query: Query) -> Answer:
        now_ms = self._live.now_ms(self.market)
        rows = []
        for one in self._wanted(query):
            row: dict[str, object] = {"symbol": one.instrument.symbol}
            price = self._price(one.instrument)
            if price is not None:
                rows.append(row | ({"price": price} if self._spot else {"price": price, "time": now_ms}))
        return Answer(_one_or_all(rows, query))

    def _price(self, instrument: Instrument) -> str | None:
        """The last price; None where no minute runs."""
        minute = self._live.running(self.market, [instrument.symbol])[0, 0]
        if minute["close"] == 0:
            return None
        return decimal(int(minute["close"]), int(minute["price_scale"]), Digits.of(instrument).price)

    async def _tickers(self, query: Query) -> Answer:
        rows = []
        for one in self._wanted(query):
            day = await day_of(self._live, self._source, one)
            if len(day):
                now_ms = self._live.now_ms(self.market)
                rows.append(ticker(one.instrument, day, now_ms - DAY_MS, now_ms, query.unit))
        if not rows and "symbol" in query.params:
            symbol = query.params["symbol"]
            raise Refused(-1001, f"Internal error; the last 24 hours of {symbol} are not complete here yet.", 503)
        return Answer(_one_or_all(rows, query))


def _one_or_all(rows: list[dict[str, object]], query: Query) -> bytes:
    if "symbol" in query.params:
        return msgspec.json.encode(rows[0] if rows else {})
    return msgspec.json.encode(rows)
