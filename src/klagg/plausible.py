"""Which rows can be no candle of trades, whoever tells them. Pure; shared by every door at which candles come in.

Nothing that comes from outside is believed for its place or its politeness: a row that contradicts itself is put aside, on record,
and its time is asked for again. The checks hold on every kline of the exchange that klagg was tested with; where the exchange
itself is known to break one, it says so.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg.fixed import WORD, join
from klagg.interval import INTERVALS, MONTH_STEP
from klagg.model import Candles

Mask = npt.NDArray[np.bool_]

QUOTE_DIGITS: Final = 8
"""The exchange cuts the quote amount of a trade to this many decimal places, so a sum of them may be off by one unit a trade."""
_DOUBLE: Final = 1 << 52
"""Amounts that went through a double (files written back by data frames) are off by at most this part of them."""
_NEAR: Final = 1e-14
"""Beyond this part of a quote volume, products in floating point tell which of two is larger."""
_EXACT: Final = 1e32
"""Up to here a difference of less than `_NEAR` fits 63 bits, so that it is exact though its terms wrap around."""


def impossible(candles: Candles) -> list[tuple[int, str]]:
    """The candles that cannot be, ascending by position, each with its reason.

    What must hold: opens on the grid of the interval; `0 < low <= open, close <= high`; no volume without trades, no trades
    without volume, one price where nobody traded; the taker's parts within the whole; the quote volume within low and high times
    the volume, to the last digit's rounding; ids, where told, in order and as many as the trades at least.
    """
    found: dict[int, str] = {}
    for mask, reason in _contradictions(candles):
        for at in np.flatnonzero(mask).tolist():
            found.setdefault(at, reason)
    return sorted(found.items())


def _contradictions(candles: Candles) -> Iterator[tuple[Mask, str]]:
    low, high = candles["low"], candles["high"]
    traded = candles["trades"] > 0
    yield ~_is_on_grid(candles), "it opens at no open of its interval"
    yield (low <= 0) | (candles["open"] <= 0) | (candles["close"] <= 0), "a price is not above zero"
    yield (low > candles["open"]) | (low > candles["close"]), "its low is above its open or close"
    yield (high < candles["open"]) | (high < candles["close"]), "its high is below its open or close"
    yield candles["trades"] < 0, "its number of trades is negative"
    for name in ("volume", "quote", "taker_volume", "taker_quote"):
        yield (candles[f"{name}_hi"] < 0) | (candles[f"{name}_lo"] < 0), f"its {name} is negative"
    has_volume = (candles["volume_hi"] | candles["volume_lo"]) != 0
    has_quote = (candles["quote_hi"] | candles["quote_lo"]) != 0
    yield ~traded & (has_volume | has_quote), "it has volume and no trades"
    yield traded & ~has_volume, "it has trades and no volume"
    yield ~traded & (low != high), "its price moves without a trade"
    for part, whole in (("taker_volume", "volume"), ("taker_quote", "quote")):
        above = candles[f"{part}_hi"] > candles[f"{whole}_hi"]
        level = candles[f"{part}_hi"] == candles[f"{whole}_hi"]
        yield above | (level & (candles[f"{part}_lo"] > candles[f"{whole}_lo"])), f"its {part} is more than its {whole}"
    yield traded & (_quote_below(candles, "high") < 0), "its quote volume is above high times volume"
    yield traded & (_quote_above(candles, "low") < 0), "its quote volume is below low times volume"
    first, last = candles["first_id"], candles["last_id"]
    told = (first >= 0) & (last >= 0)
    yield told & traded & (last - first + 1 < candles["trades"]), "its trade ids are fewer than its trades"


def _is_on_grid(candles: Candles) -> Mask:
    opens = candles["open_ms"]
    on_grid: Mask = opens >= 0
    for code in np.unique(candles["interval"]).tolist():
        of_it = candles["interval"] == code
        if code >= len(INTERVALS):
            on_grid &= ~of_it
            continue
        interval = INTERVALS[code]
        if interval.step_ms == MONTH_STEP:
            on_grid[of_it] &= [interval.is_open(t) for t in opens[of_it].tolist()]
        else:
            on_grid[of_it] &= (opens[of_it] - interval.anchor_ms) % interval.step_ms == 0
    return on_grid


def _quote_below(candles: Candles, price: str) -> npt.NDArray[np.float64]:
    """`price * volume + tolerance - quote`: exact in its sign."""
    return -_difference(candles, price, -1)


def _quote_above(candles: Candles, price: str) -> npt.NDArray[np.float64]:
    """`quote + tolerance - price * volume`: exact in its sign."""
    return _difference(candles, price, 1)


def _difference(candles: Candles, price: str, sign: int) -> npt.NDArray[np.float64]:
    """`quote - price * volume + sign * tolerance`, exact in its sign.

    Floating point decides where the two are far apart. Where they are near, their difference fits 63 bits, and is exact though the
    terms wrap around; numbers too large for that are taken one by one.
    """
    prices = candles[price]
    volume = candles["volume_hi"] * float(WORD) + candles["volume_lo"]
    quote = candles["quote_hi"] * float(WORD) + candles["quote_lo"]
    tolerance = _tolerance(candles, quote)
    result: npt.NDArray[np.float64] = quote - prices * volume + sign * tolerance
    near = np.flatnonzero(np.abs(quote - prices * volume) <= _NEAR * quote + 2.0)
    if not len(near):
        return result
    with np.errstate(over="ignore"):
        whole = candles["quote_hi"][near] * WORD + candles["quote_lo"][near]
        product = prices[near] * (candles["volume_hi"][near] * WORD + candles["volume_lo"][near])
        result[near] = (whole - product) + sign * tolerance[near]
    for at in near[quote[near] > _EXACT].tolist():
        row = candles[at]
        exact = join(int(row["quote_hi"]), int(row["quote_lo"]))
        exact -= int(row[price]) * join(int(row["volume_hi"]), int(row["volume_lo"]))
        result[at] = float(exact + sign * int(tolerance[at]))
    return result


def _tolerance(candles: Candles, quote: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    digits = candles["price_scale"].astype(np.int64) + candles["qty_scale"] - QUOTE_DIGITS
    unit = 10.0 ** np.maximum(digits, 0)
    tolerance: npt.NDArray[np.float64] = np.maximum(candles["trades"], 1) * unit + np.floor(quote / _DOUBLE)
    return tolerance


def numbers(candles: Candles, at: int) -> str:
    """The numbers of one candle in one line, as it is put on record."""
    row = candles[at]
    names = [name for name in candles.dtype.names or () if name not in ("slot", "interval", "flags")]
    return " ".join(f"{name}={int(row[name])}" for name in names)
