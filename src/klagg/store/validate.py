"""What a stored candle must be: vectorised checks that name the first row that contradicts itself."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from klagg.errors import MalformedRow
from klagg.fixed import MANTISSA_LIMIT, MAX_SCALE, POW10, WORD
from klagg.interval import INTERVALS
from klagg.model import Candles, Ints, Origin
from klagg.store.rows import Mask, is_aligned
from klagg.store.schema import SERIES_INTERVALS

NARROW_LIMITS: Final = {"price_scale": MAX_SCALE, "qty_scale": MAX_SCALE, "origin": max(Origin).value}
"""What the small columns of a candle are at most; at least they are 0."""
FAR_MS: Final = 1 << 53
"""No time is as late as this."""
_SUMS: Final = ("volume", "quote", "taker_volume", "taker_quote")


def check_narrow(series: Ints, columns: dict[str, Ints], name_of: Callable[[int], str], where: str) -> None:
    """Check what must hold before rows can become `CANDLE`s, whose small columns would wrap: scales, origin, interval.

    Raises:
        MalformedRow: naming symbol, interval, column and value.

    """
    codes = series % SERIES_INTERVALS
    bad = codes >= len(INTERVALS)
    if bad.any():
        number = int(np.argmax(bad))
        raise MalformedRow(
            f"{where}: {name_of(int(series[number]) // SERIES_INTERVALS)}: series {series[number]} has the unknown interval "
            f"code {codes[number]}: delete the row, or restore a copy"
        )
    for name, limit in NARROW_LIMITS.items():
        values = columns[name]
        bad = (values < 0) | (values > limit)
        if bad.any():
            number = int(np.argmax(bad))
            reason = "is no origin klagg knows" if name == "origin" else f"is not within 0 to {limit}"
            raise _malformed(int(series[number]), name, int(values[number]), reason, name_of, where)


def check_candles(series: Ints, candles: Candles, name_of: Callable[[int], str], where: str) -> None:
    """Check that every candle can be true.

    Raises:
        MalformedRow: naming symbol, interval, column and value.

    """
    for column, bad, reason in _contradictions(candles):
        if bad.any():
            number = int(np.argmax(bad))
            raise _malformed(int(series[number]), column, int(candles[column][number]), reason, name_of, where)


def check_together(series: Ints, candles: Candles, name_of: Callable[[int], str], where: str) -> None:
    """Check that the candles of each instrument can be stated at the widest scale among them (ascending by series).

    Raises:
        MalformedRow: naming the row of that scale: symbol, interval, column and value.

    """
    if len(candles) == 0:
        return
    owners = series // SERIES_INTERVALS
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(np.append(starts, len(owners)))
    scales = candles["price_scale"].astype(np.int64)
    widest = np.repeat(np.maximum.reduceat(scales, starts), counts)
    limits = np.array([MANTISSA_LIMIT // power for power in POW10], np.int64)[widest - scales]
    bad = candles["high"] >= limits
    if bad.any():
        unfit = int(np.argmax(bad))
        number = int(np.argmax((owners == owners[unfit]) & (scales == widest[unfit])))
        reason = f"leaves no room for the prices of its {INTERVALS[series[unfit] % SERIES_INTERVALS]} candle"
        raise _malformed(int(series[number]), "price_scale", int(scales[number]), reason, name_of, where)


def _contradictions(candles: Candles) -> Iterator[tuple[str, Mask, str]]:
    yield "open_ms", (candles["open_ms"] < 0) | (candles["open_ms"] > FAR_MS), "is no time that can be"
    yield "open_ms", ~is_aligned(candles), "is no open of its interval"
    for name in ("open", "high", "low", "close"):
        yield (
            name,
            (candles[name] <= 0) | (candles[name] >= MANTISSA_LIMIT),
            "is not a price above zero of at most 18 digits",
        )
    yield "high", candles["high"] < np.maximum(candles["open"], candles["close"]), "is below its open or close"
    yield "low", candles["low"] > np.minimum(candles["open"], candles["close"]), "is above its open or close"
    yield "trades", candles["trades"] < 0, "is negative"
    for name in _SUMS:
        yield f"{name}_hi", candles[f"{name}_hi"] < 0, "is negative"
        yield f"{name}_lo", (candles[f"{name}_lo"] < 0) | (candles[f"{name}_lo"] >= WORD), "is not within 0 and 10^18"
    for taker, whole in (("taker_volume", "volume"), ("taker_quote", "quote")):
        above = candles[f"{taker}_hi"] > candles[f"{whole}_hi"]
        yield f"{taker}_hi", above, f"is more than its {whole}"
        level = candles[f"{taker}_hi"] == candles[f"{whole}_hi"]
        yield f"{taker}_lo", level & (candles[f"{taker}_lo"] > candles[f"{whole}_lo"]), f"is more than its {whole}"


def _malformed(
    series: int, column: str, value: int, reason: str, name_of: Callable[[int], str], where: str
) -> MalformedRow:
    symbol, interval = name_of(series // SERIES_INTERVALS), INTERVALS[series % SERIES_INTERVALS]
    return MalformedRow(
        f"{where}: {symbol} {interval}: {column} is {value}, which {reason}: correct or delete the row, or restore a copy"
    )
