"""Stream names of the exchange, and the routes by which they may be asked for."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from klagg.interval import BY_NAME, HOUR_MS
from klagg.model import Market
from klagg.serve.source import Frame

_MINUTES: Final = Frame(BY_NAME["1m"])
_ALL_MINI_TICKERS: Final = re.compile(r"!miniTicker@arr(?:@\d{4,5}ms)?", re.ASCII)
"""Some clients still ask for a cadence, which the exchange takes and passes over."""
_KLINE: Final = re.compile(r"kline_([0-9]+[a-zA-Z])(@\+08:00)?", re.ASCII)
_CONTINUOUS: Final = re.compile(r"([^@]+)_([a-z_]+)@continuousKline_([0-9]+[a-zA-Z])")
_CONTRACTS: Final = ("perpetual", "current_quarter", "next_quarter", "tradifi_perpetual")


class Kind(Enum):
    """What a stream carries."""

    KLINE = "kline"
    CONTINUOUS_KLINE = "continuousKline"
    MINI_TICKER = "miniTicker"
    ALL_MINI_TICKERS = "!miniTicker@arr"


@dataclass(frozen=True, slots=True)
class Stream:
    """What a name asks for; `symbol` is as the name writes it, lower case (of continuous klines: the pair)."""

    kind: Kind
    symbol: str = ""
    frame: Frame = _MINUTES
    contract: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A path by which a connection came: its market, and whether klagg's streams are on it."""

    market: Market
    delivers: bool


def route_of(prefix: str, unrouted: Market) -> Route | None:
    """The route of what stands before `/ws` and `/stream` in a path; `unrouted` is the market of nothing."""
    routes = {
        "": Route(unrouted, delivers=True),
        "market": Route(Market.USDM, delivers=True),
        "public": Route(Market.USDM, delivers=False),
        "private": Route(Market.USDM, delivers=False),
    }
    return routes.get(prefix)


def parse_stream(name: str, route: Route) -> Stream | None:
    """What a name delivers on a route; None for silence, as on the exchange (unknown, upper case, wrong route)."""
    if not route.delivers:
        return None
    if _ALL_MINI_TICKERS.fullmatch(name):
        return Stream(Kind.ALL_MINI_TICKERS)
    if route.market is Market.USDM and (found := _CONTINUOUS.fullmatch(name)):
        pair, contract, interval = found.groups()
        if contract in _CONTRACTS and interval in BY_NAME and pair == pair.lower():
            return Stream(Kind.CONTINUOUS_KLINE, pair, Frame(BY_NAME[interval]), contract.upper())
        return None
    symbol, _, what = name.partition("@")
    if not symbol or symbol != symbol.lower():
        return None
    if what == "miniTicker":
        return Stream(Kind.MINI_TICKER, symbol)
    kline = _KLINE.fullmatch(what)
    if kline is None or kline[1] not in BY_NAME or (kline[2] and route.market is Market.USDM):
        return None
    return Stream(Kind.KLINE, symbol, Frame(BY_NAME[kline[1]], 8 * HOUR_MS if kline[2] else 0).plain)
