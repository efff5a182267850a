"""Stream names, and which route delivers which of them."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from klagg.model import Market
from klagg.sim.calendar import HOUR_MS, STEPS


class Route(Enum):
    """The path a connection came in by."""

    SPOT = "spot"
    MARKET = "market"
    PUBLIC = "public"
    PRIVATE = "private"
    LEGACY = "legacy"
    """USDT-M's retired unrouted paths: they acknowledge everything and deliver nothing we have."""

    @property
    def market(self) -> Market:
        """The market behind the path."""
        return Market.SPOT if self is Route.SPOT else Market.USDM


@dataclass(frozen=True, slots=True)
class Stream:
    """What a stream name asks for. `symbol` is as the name writes it (lower case); `interval` for klines only."""

    kind: str
    symbol: str = ""
    interval: str = ""
    shift_ms: int = 0


_KLINE: Final = re.compile(r"kline_(\w+?)(@\+08:00)?")
_CONTINUOUS: Final = re.compile(
    r"(.+)_(perpetual|current_quarter|next_quarter|tradifi_perpetual)@continuousKline_(\w+)"
)
_WHOLE_MARKET: Final = ("!miniTicker@arr", "!contractInfo")


def parse_stream(name: str, route: Route) -> Stream | None:
    """What the name delivers on this route; None for silence (unknown name, upper case, wrong route)."""
    spot = route is Route.SPOT
    if not spot and route is not Route.MARKET:
        return None
    if name in _WHOLE_MARKET:
        return None if spot and name == "!contractInfo" else Stream(name)
    continuous = _CONTINUOUS.fullmatch(name)
    if continuous is not None:
        pair, kind, interval = continuous.groups()
        known = not spot and interval in STEPS and interval != "1s"
        return Stream("continuousKline", f"{pair}_{kind}", interval) if known else None
    symbol, _, what = name.partition("@")
    if symbol != symbol.lower():
        return None
    if what in ("aggTrade", "miniTicker") or (spot and what == "trade"):
        return Stream(what, symbol)
    kline = _KLINE.fullmatch(what)
    if kline is None or kline[1] not in STEPS or (not spot and (kline[1] == "1s" or kline[2])):
        return None
    return Stream("kline", symbol, kline[1], 8 * HOUR_MS if kline[2] else 0)
