"""Candles and instruments of the size that real ones have, for the figures of the store."""

from collections.abc import Sequence

import numpy as np

from klagg.interval import Interval
from klagg.model import LAST_TRADE, Candles, Flag, Instrument, Ints, Market, Origin, Status, no_candles

START_MS = 1_700_006_400_000


def instruments(count: int) -> list[Instrument]:
    return [Instrument(Market.USDM, f"SYM{n:05d}USDT", Status.TRADING, 2, 3) for n in range(count)]


def some_candles(count: int, intervals: Sequence[Interval], open_ms: int, *, closed: bool) -> Candles:
    """A candle of each interval for `count` instruments, one instrument after the other."""
    candles = no_candles(count * len(intervals))
    random = np.random.default_rng(7)
    candles["interval"] = np.tile([interval.code for interval in intervals], count)
    candles["origin"] = Origin.TRADES.value
    candles["flags"] = Flag.CLOSED.value if closed else 0
    candles["price_scale"], candles["qty_scale"] = 2, 3
    candles["open_ms"] = open_ms
    price = random.integers(1_000_000, 9_000_000, len(candles))
    candles["open"], candles["high"], candles["low"], candles["close"] = price, price + 900, price - 900, price + 50
    for name, scale in (("volume_lo", 10**8), ("quote_lo", 10**13)):
        candles[name] = random.integers(scale // 2, scale, len(candles))
        candles[f"taker_{name}"] = candles[name] // 2
    candles["trades"] = random.integers(1, 2_000, len(candles))
    candles["first_id"] = random.integers(10**9, 5 * 10**9, len(candles))
    candles["last_id"] = candles["first_id"] + candles["trades"] - 1
    return candles


def last_trades(ids: Ints, time_ms: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    trades = np.zeros(len(ids), LAST_TRADE)
    trades["price_scale"], trades["price"], trades["time_ms"], trades["agg_id"] = 2, 5_000_000, time_ms, time_ms
    return trades
