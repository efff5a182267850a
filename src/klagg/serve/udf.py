"""TradingView's UDF: what its chart library asks of a data feed, answered from klagg's candles under `/udf`.

Source: the library's page "UDF" (config, symbols, search, history, time). Numbers are JSON numbers there.
"""

import re
from typing import Annotated, Any, Final

import msgspec
from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from klagg.interval import BY_NAME, SECOND_MS, Interval
from klagg.model import Market
from klagg.serve.native.answers import Room
from klagg.serve.native.asking import LAST_MS, LONGEST_MS, Named, interval_of
from klagg.serve.native.candles import MOST_LIMIT, Ask, CandleReader, Found
from klagg.serve.native.problem import Problem
from klagg.serve.native.routes import answers
from klagg.serve.native.source import How
from klagg.serve.native.table import SUMS
from klagg.serve.source import Frame, Listing, Live

RESOLUTIONS: Final = ("1", "3", "5", "15", "30", "45", "60", "120", "240", "360", "480", "720", "1D", "3D", "1W", "1M")
"""What the chart offers; any other length is answered too."""
MOST_FOUND: Final = 100
_RESOLUTION: Final = re.compile(r"([1-9]\d{0,5})?([DWM]?)", re.ASCII)
_MINUTES_A_DAY: Final = 1_440


class Config(Struct):
    """What the feed can do."""

    supports_search: bool
    supports_group_request: bool
    supports_marks: bool
    supports_timescale_marks: bool
    supports_time: bool
    exchanges: list[dict[str, str]]
    symbols_types: list[dict[str, str]]
    supported_resolutions: list[str]


class SymbolDescription(Struct):
    """One symbol as the chart wants it."""

    name: str
    ticker: str
    full_name: str
    description: str
    type: str
    session: str
    timezone: str
    exchange: str
    listed_exchange: str
    minmov: int
    pricescale: int
    has_intraday: bool
    has_daily: bool
    has_weekly_and_monthly: bool
    visible_plots_set: str
    supported_resolutions: list[str]
    volume_precision: int
    data_status: str
    currency_code: str


class SymbolFound(Struct):
    """A symbol whose name contains what was searched for."""

    symbol: str
    full_name: str
    description: str
    exchange: str
    ticker: str
    type: str


class Bars(Struct, omit_defaults=True):
    """`s` is ok with a number in each list a bar, or no_data with when there is some before."""

    s: str
    t: list[int] = []
    o: list[float] = []
    h: list[float] = []
    l: list[float] = []  # noqa: E741 - the protocol's name
    c: list[float] = []
    v: list[float] = []
    nextTime: int | None = None  # noqa: N815 - the protocol's name
    truncated: bool = False
    """There is room for older bars between `from` and the first of these."""


class UdfRoutes:
    """`/udf` over the candles of all markets."""

    def __init__(self, live: Live, reader: CandleReader, room: Room) -> None:
        self._live = live
        self._reader = reader
        self._room = room

    def handlers(self) -> list[HTTPRouteHandler]:
        """The routes."""
        return [self._config(), self._time(), self._symbols(), self._search(), self._symbol_info(), self._history()]

    def _config(self) -> HTTPRouteHandler:
        @get(
            "/udf/config", tags=["udf"], summary="What the feed can do", responses=answers(Config, "The configuration.")
        )
        async def config() -> Response[bytes]:
            exchanges = [{"value": m.value, "name": _exchange(m), "desc": _exchange(m)} for m in self._live.markets]
            return _json(
                {
                    "supports_search": True,
                    "supports_group_request": False,
                    "supports_marks": False,
                    "supports_timescale_marks": False,
                    "supports_time": True,
                    "exchanges": exchanges,
                    "symbols_types": [{"name": "crypto", "value": "crypto"}],
                    "supported_resolutions": RESOLUTIONS,
                }
            )

        return config

    def _time(self) -> HTTPRouteHandler:
        @get("/udf/time", tags=["udf"], summary="The exchange's time in seconds", media_type=MediaType.TEXT)
        async def time() -> str:
            markets = self._live.markets
            return str(self._live.now_ms(markets[0]) // SECOND_MS) if markets else "0"

        return time

    def _symbols(self) -> HTTPRouteHandler:
        @get(
            "/udf/symbols", tags=["udf"], summary="One symbol", responses=answers(SymbolDescription, "The symbol.", 404)
        )
        async def symbols(
            symbol: Annotated[str, QueryParameter(description="BTCUSDT, or with its market: usdm:BTCUSDT.")],
        ) -> Response[bytes]:
            return _json(_described(*self._named(symbol)))

        return symbols

    def _search(self) -> HTTPRouteHandler:
        @get(
            "/udf/search",
            tags=["udf"],
            summary="Symbols whose name contains a text",
            responses=answers(list[SymbolFound], "The symbols, the nearest first."),
        )
        async def search(
            text: Annotated[str, QueryParameter(name="query", description="A part of the name.")] = "",
            exchange: Annotated[str | None, QueryParameter(description="usdm or spot.")] = None,
            limit: Annotated[int, QueryParameter(ge=1, le=MOST_FOUND, description="At most so many.")] = 30,
        ) -> Response[bytes]:
            wanted = text.strip().upper()
            found = [
                (symbol.find(wanted), len(symbol), symbol, market)
                for market in self._live.markets
                if not exchange or exchange == market.value
                for symbol, one in self._live.listings(market).items()
                if wanted in symbol and one.retired_ms is None
            ]
            rows = [
                {
                    "symbol": symbol,
                    "full_name": f"{market.value}:{symbol}",
                    "description": _description(self._live.listings(market)[symbol]),
                    "exchange": market.value,
                    "ticker": f"{market.value}:{symbol}",
                    "type": "crypto",
                }
                for _, _, symbol, market in sorted(found)[:limit]
            ]
            return _json(rows)

        return search

    def _symbol_info(self) -> HTTPRouteHandler:
        @get(
            "/udf/symbol_info",
            tags=["udf"],
            summary="All symbols of a market, in columns",
            responses=answers(dict[str, Any], "The symbols.", 404),
        )
        async def symbol_info(
            group: Annotated[str | None, QueryParameter(description="usdm or spot; the first that is served.")] = None,
        ) -> Response[Any]:
            chosen = [market for market in self._live.markets if group is None or market.value == group]
            if not chosen:
                raise Problem("market_not_served", "This market is not served here.", 404, "group")
            market = chosen[0]
            listed = list(self._live.listings(market).values())
            body = {
                "symbol": [one.instrument.symbol for one in listed],
                "ticker": [f"{market.value}:{one.instrument.symbol}" for one in listed],
                "description": [_description(one) for one in listed],
                "exchange-listed": market.value,
                "exchange-traded": market.value,
                "minmovement": 1,
                "pricescale": [10**one.instrument.price_scale for one in listed],
                "has-intraday": True,
                "has-daily": True,
                "has-weekly-and-monthly": True,
                "has-no-volume": False,
                "type": "crypto",
                "timezone": "Etc/UTC",
                "session-regular": "24x7",
                "supported-resolutions": [RESOLUTIONS],
            }
            return self._room.send(msgspec.json.encode(body), MediaType.JSON)

        return symbol_info

    def _history(self) -> HTTPRouteHandler:
        @get(
            "/udf/history",
            tags=["udf"],
            summary="Bars",
            description="Bars that open in [from, to), the running one last; with countback so many before `to`, however far back. "
            f"Of more than {MOST_LIMIT:,} the newest, and `truncated` says so.",
            responses=answers(Bars, "The bars.", 404, 413),
        )
        async def history(
            symbol: Annotated[str, QueryParameter(description="BTCUSDT, or with its market: usdm:BTCUSDT.")],
            resolution: Annotated[
                str, QueryParameter(description="Minutes, or days, weeks, months: 1, 45, 240, 1D, 1W, 1M.")
            ],
            to: Annotated[
                int, QueryParameter(ge=0, le=LAST_MS // SECOND_MS, description="Until when, seconds, not included.")
            ],
            from_: Annotated[
                int | None,
                QueryParameter(name="from", ge=0, le=LAST_MS // SECOND_MS, description="From when, seconds."),
            ] = None,
            countback: Annotated[
                int | None, QueryParameter(ge=1, le=MOST_LIMIT, description="Instead of from.")
            ] = None,
        ) -> Response[Any]:
            market, one = self._named(symbol)
            interval = resolution_of(resolution)
            if from_ is None and countback is None:
                raise Problem("missing_parameter", "Say from when: from, or countback.", 400, "from")
            ask = Ask(
                market,
                [one],
                [Named(interval.name, Frame(interval))],
                How(unmatched=False),
                # The newest that fit, up to `to`: a chart asks for the older ones next, and for newer ones never again.
                None,
                to * SECOND_MS,
                countback or _most_bars(interval, from_ or 0, to),
                with_open=True,
            )
            async with self._room:
                found = await self._reader.find(ask)
                bars = _bars(found, 0 if countback is not None else from_ or 0)
                if bars.t:
                    older_ms = bars.t[0] * SECOND_MS - (from_ or 0) * SECOND_MS
                    bars.truncated = countback is None and len(bars.t) >= MOST_LIMIT and older_ms >= interval.step_ms
                    return self._room.send(msgspec.json.encode(bars), MediaType.JSON)
                before = await self._reader.find(
                    Ask(
                        market,
                        [one],
                        ask.intervals,
                        ask.how,
                        end_ms=(from_ if from_ is not None else to) * SECOND_MS,
                        limit=1,
                    )
                )
                times = before.table.candles["open_ms"].tolist()
                next_time = times[-1] // SECOND_MS if times else None
                return self._room.send(msgspec.json.encode(Bars("no_data", nextTime=next_time)), MediaType.JSON)

        return history

    def _named(self, text: str) -> tuple[Market, Listing]:
        """The symbol that `BTCUSDT` or `usdm:BTCUSDT` names; without a market the first that has it."""
        prefix, colon, name = text.rpartition(":")
        for market in self._live.markets:
            listings = self._live.listings(market)
            if (not colon or prefix.lower() == market.value) and name in listings:
                return market, listings[name]
        raise Problem("unknown_symbol", f"{text[:40]!r} is no symbol here.", 404, "symbol")


def resolution_of(text: str) -> Interval:
    """The interval of a resolution: minutes, or with D, W, M days, weeks, months.

    Raises:
        Problem: no resolution.

    """
    match = _RESOLUTION.fullmatch(text.strip().upper())
    if match is not None and (match[1] or match[2]):
        number, unit = int(match[1] or 1), match[2]
        if unit == "M" and number == 1:
            return BY_NAME["1M"]
        if unit != "M" and number * {"": 1, "D": _MINUTES_A_DAY, "W": 7 * _MINUTES_A_DAY}[unit] * 60_000 <= LONGEST_MS:
            return interval_of(f"{number}{unit.lower() or 'm'}")
    raise Problem("unknown_resolution", f"{text[:20]!r} is no resolution: 1, 45, 240, 1D, 1W, 1M.", 400, "resolution")


def _most_bars(interval: Interval, from_s: int, to_s: int) -> int:
    """The most bars that may open in `[from_s, to_s)`, as far as one answer goes."""
    step_ms = interval.step_ms or 28 * _MINUTES_A_DAY * 60_000
    return max(1, min(MOST_LIMIT, (to_s - from_s) * SECOND_MS // step_ms + 2))


def _bars(found: Found, from_s: int) -> Bars:
    """The bars that open at `from_s` or later."""
    candles = found.table.candles
    candles = candles[candles["open_ms"] >= from_s * SECOND_MS]
    price, qty = candles["price_scale"].astype(float), candles["qty_scale"].astype(float)
    words = SUMS["volume"]
    columns = {name: (candles[name] / 10.0**price).tolist() for name in ("open", "high", "low", "close")}
    volume = ((candles[f"{words}_hi"] * 1e18 + candles[f"{words}_lo"]) / 10.0**qty).tolist()
    times = (candles["open_ms"] // SECOND_MS).tolist()
    return Bars("ok", times, columns["open"], columns["high"], columns["low"], columns["close"], volume)


def _described(market: Market, one: Listing) -> dict[str, Any]:
    symbol = one.instrument.symbol
    return {
        "name": symbol,
        "ticker": f"{market.value}:{symbol}",
        "full_name": f"{market.value}:{symbol}",
        "description": _description(one),
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": market.value,
        "listed_exchange": market.value,
        "minmov": 1,
        "pricescale": 10**one.instrument.price_scale,
        "has_intraday": True,
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "visible_plots_set": "ohlcv",
        "supported_resolutions": RESOLUTIONS,
        "volume_precision": one.instrument.qty_scale,
        "data_status": "streaming",
        "currency_code": one.instrument.quote,
    }


def _description(one: Listing) -> str:
    base, quote = one.instrument.base, one.instrument.quote
    return f"{base} / {quote}" if base and quote else one.instrument.symbol


def _exchange(market: Market) -> str:
    return {Market.USDM: "Binance USDT-M futures", Market.SPOT: "Binance spot"}[market]


def _json(value: object) -> Response[bytes]:
    return Response(msgspec.json.encode(value), media_type=MediaType.JSON)
