"""The columns of an export: their names, their order, and their values out of candles."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np

from klagg.fixed import WORD
from klagg.interval import Interval
from klagg.model import Candles, Flag, Ints, Market, Origin

ExportFormat = Literal["csv", "jsonl", "parquet", "arrow"]

_BASE: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume"),
)
COLUMNS: Final = (*_BASE, "ignore")
"""The columns without `full`: the exchange's archive of klines."""
FULL_COLUMNS: Final = (
    *_BASE,
    *("market", "symbol", "interval", "first_trade_id", "last_trade_id", "closed", "origin", "verified", "revision"),
)
"""The columns with `full`."""

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = {
    "volume": "volume",
    "quote_volume": "quote",
    "taker_buy_volume": "taker_volume",
    "taker_buy_quote_volume": "taker_quote",
}
"""Column → the words in `CANDLE`."""
TIMES: Final = ("open_time", "close_time")
TEXTS: Final = ("ignore", "market", "symbol", "interval", "origin")
_LABELS: Final = {int(origin): origin.label for origin in Origin}


@dataclass(frozen=True, slots=True)
class Series:
    """What the rows of one export have in common."""

    market: Market
    symbol: str
    interval: Interval
    full: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in order."""
        return FULL_COLUMNS if self.full else COLUMNS


def _sums(candles: Candles, words: str) -> list[int]:
    hi, lo = candles[f"{words}_hi"].tolist(), candles[f"{words}_lo"].tolist()
    return [upper * WORD + lower if upper else lower for upper, lower in zip(hi, lo, strict=True)]


def _close_times(candles: Candles, interval: Interval) -> list[int]:
    return [interval.next_open(open_ms) - 1 for open_ms in candles["open_ms"].tolist()]


def integers(candles: Candles, revisions: Ints, interval: Interval, column: str) -> list[int]:
    """The values of a column of integers."""
    values: Any
    match column:
        case "close_time":
            return _close_times(candles, interval)
        case "revision":
            values = revisions
        case "closed" | "verified":
            bit = Flag.CLOSED if column == "closed" else Flag.VERIFIED
            values = ((candles["flags"] & bit) != 0).astype(np.int64)
        case _:
            names = {
                "open_time": "open_ms",
                "count": "trades",
                "first_trade_id": "first_id",
                "last_trade_id": "last_id",
            }
            values = candles[names[column]]
    return list(map(int, values.tolist()))


def texts(candles: Candles, series: Series, column: str) -> list[str]:
    """The values of a column of names."""
    if column == "origin":
        return [_LABELS[origin] for origin in candles["origin"].tolist()]
    value = {
        "ignore": "0",
        "market": series.market.value,
        "symbol": series.symbol,
        "interval": series.interval.name,
    }
    return [value[column]] * len(candles)


def mantissas(candles: Candles, column: str) -> tuple[list[int], list[int]]:
    """The values of a column of decimals: mantissas of any size, and their scales."""
    prices = candles["price_scale"].astype(np.int64)
    quantities = candles["qty_scale"].astype(np.int64)
    if column in _PRICES:
        return candles[column].tolist(), prices.tolist()
    scales = prices + quantities if "quote" in column else quantities
    return _sums(candles, _SUMS[column]), scales.tolist()


def is_decimal(column: str) -> bool:
    """Whether a column holds prices or volumes."""
    return column in _PRICES or column in _SUMS


def iso(t_ms: int) -> str:
    """An instant for people."""
    try:
        return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{t_ms} ms"
