"""The columns of an export: their names, their order, and their values out of candles, whole columns at a time."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from klagg.export.decimals import Decimals
from klagg.interval import MONTH_STEP, Interval
from klagg.model import Candles, Flag, Ints, Market, Origin, Source

ExportFormat = Literal["csv", "jsonl", "parquet", "arrow"]
Numbers = Literal["decimal", "float64", "string"]
"""How prices and volumes are written where columns have types."""

_BASE: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume"),
)
_MORE: Final = (
    *("market", "symbol", "interval", "first_trade_id", "last_trade_id", "closed", "origin", "verified", "revision"),
    "source",
)
COLUMNS: Final = (*_BASE, "ignore")
"""The columns of csv and jsonl without `full`: the exchange's archive of klines."""
FULL_COLUMNS: Final = (*_BASE, *_MORE)
"""The columns with `full`."""


def _typed(columns: tuple[str, ...]) -> tuple[str, ...]:
    # In a frame `count` is a method.
    return tuple("trades" if name == "count" else name for name in columns)


TYPED_COLUMNS: Final = _typed(_BASE)
"""The columns of Parquet and Arrow without `full`."""
TYPED_FULL_COLUMNS: Final = _typed(FULL_COLUMNS)
"""The columns of Parquet and Arrow with `full`."""
FRAME_COLUMNS: Final = (
    *("market", "symbol", "interval", "open_time", "close_time", "open", "high", "low", "close", "volume"),
    *("quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id"),
    *("closed", "origin", "verified", "revision", "source", "known_time"),
)
"""The columns of frames and of data sets of many series: everything, the keys first."""

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = {
    "volume": "volume",
    "quote_volume": "quote",
    "taker_buy_volume": "taker_volume",
    "taker_buy_quote_volume": "taker_quote",
}
"""Column → the words in `CANDLE`."""
DECIMALS: Final = (*_PRICES, *_SUMS)
TIMES: Final = ("open_time", "close_time", "known_time")
FLAGS: Final = ("closed", "verified")
KEYS: Final = ("market", "symbol", "interval")
NAMES: Final = ("ignore", "market", "symbol", "interval", "origin", "source")
ORIGINS: Final = tuple(origin.label for origin in Origin)
"""The names of origins by their code."""
SOURCES: Final = tuple(source.label for source in Source)
"""The names of sources by their code; that of none is empty."""


@dataclass(frozen=True, slots=True)
class Series:
    """What the rows of one export have in common; candles are cut `shift_ms` east of UTC."""

    market: Market
    symbol: str
    interval: Interval
    shift_ms: int = 0

    def name(self, column: str) -> str:
        """The value of a column that every row has."""
        values = {"ignore": "0", "market": self.market.value, "symbol": self.symbol, "interval": self.interval.name}
        return values[column]

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval}"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some candles of a series, with their revisions and since when they are known."""

    candles: Candles
    revisions: Ints
    known_ms: Ints

    def __len__(self) -> int:
        return len(self.candles)

    def picked(self, rows: npt.NDArray[np.bool_]) -> "Piece":
        """Some of them."""
        return Piece(self.candles[rows], self.revisions[rows], self.known_ms[rows])


def integers(piece: Piece, series: Series, column: str) -> Ints:
    """The values of a column of integers: times in UTC ms, flags as 0 and 1."""
    candles = piece.candles
    match column:
        case "close_time":
            return _close_times(candles["open_ms"], series)
        case "revision":
            return piece.revisions
        case "known_time":
            return piece.known_ms
        case "closed" | "verified":
            bit = Flag.CLOSED if column == "closed" else Flag.VERIFIED
            return np.asarray((candles["flags"] & bit) != 0, np.int64)
    names = {"open_time": "open_ms", "count": "trades", "first_trade_id": "first_id", "last_trade_id": "last_id"}
    return np.ascontiguousarray(candles[names.get(column, column)], np.int64)


def _close_times(opens: Ints, series: Series) -> Ints:
    if series.interval.step_ms != MONTH_STEP:
        return np.asarray(opens + series.interval.step_ms - 1, np.int64)
    months = (opens + series.shift_ms).astype("datetime64[ms]").astype("datetime64[M]") + 1
    return np.asarray(months.astype("datetime64[ms]").astype(np.int64) - series.shift_ms - 1, np.int64)


def decimals(candles: Candles, column: str) -> Decimals:
    """The values of a column of decimals."""
    prices, quantities = (candles[name].astype(np.int64) for name in ("price_scale", "qty_scale"))
    if column in _PRICES:
        return Decimals(None, np.ascontiguousarray(candles[column]), prices)
    hi, lo = (np.ascontiguousarray(candles[f"{_SUMS[column]}_{word}"]) for word in ("hi", "lo"))
    return Decimals(hi if bool(hi.any()) else None, lo, prices + quantities if "quote" in column else quantities)


def iso(t_ms: int) -> str:
    """An instant for people."""
    try:
        return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{t_ms} ms"
