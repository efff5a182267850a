"""Minutes folded into longer candles with plain numpy: a witness of its own beside the engine's fold.

Sums are added as three words of base 10^9 below one another, so that no addition passes 63 bits.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from klagg.fixed import MANTISSA_LIMIT, MAX_SCALE, WORD
from klagg.interval import MONTH_STEP, Interval
from klagg.model import Candles, Ints, no_candles

Mask = npt.NDArray[np.bool_]

PRICES: Final = ("open", "high", "low", "close")
SUMS: Final = ("volume", "quote", "taker_volume", "taker_quote")
_HALF: Final = 10**9
_POW10: Final = np.array([10**n for n in range(MAX_SCALE + 1)], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """Folded candles, and of how many minutes each is made."""

    candles: Candles
    minutes: Ints


def opens_at(t_ms: Ints, interval: Interval) -> Ints:
    """The open of the candle that contains each instant."""
    if interval.step_ms == MONTH_STEP:
        months: Ints = t_ms.astype("datetime64[ms]").astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
        return months
    floored: Ints = t_ms - (t_ms - interval.anchor_ms) % interval.step_ms
    return floored


def next_opens(open_ms: Ints, interval: Interval) -> Ints:
    """The end of the candle that opens at each instant."""
    if interval.step_ms == MONTH_STEP:
        months = open_ms.astype("datetime64[ms]").astype("datetime64[M]") + 1
        ends: Ints = months.astype("datetime64[ms]").astype(np.int64)
        return ends
    following: Ints = open_ms + interval.step_ms
    return following


def _scaled_words(hi: Ints, lo: Ints, digits: Ints) -> tuple[Ints, Ints]:
    """Two-word sums times `10**digits` (0..18, one per row)."""
    for part in (np.minimum(digits, 9), np.maximum(digits - 9, 0)):
        factor = _POW10[part]
        low = lo % _HALF * factor
        high = lo // _HALF * factor + low // _HALF
        hi = hi * factor + high // _HALF
        lo = high % _HALF * _HALF + low % _HALF
    return hi, lo


def at_scale(candles: Candles, price_scale: int, qty_scale: int) -> tuple[Candles, Mask]:
    """The candles at wider scales, and which of them these can hold (the others' numbers mean nothing)."""
    price_digits = price_scale - candles["price_scale"].astype(np.int64)
    qty_digits = qty_scale - candles["qty_scale"].astype(np.int64)
    fits: Mask = np.ones(len(candles), np.bool_)
    if not (price_digits.any() or qty_digits.any()):
        return candles, fits
    scaled = candles.copy()
    for name in PRICES:
        fits &= candles[name] <= MANTISSA_LIMIT // _POW10[price_digits]
        scaled[name] = candles[name] * _POW10[price_digits]
    for name in SUMS:
        digits = qty_digits + price_digits if "quote" in name else qty_digits
        for part in (np.minimum(digits, MAX_SCALE), np.maximum(digits - MAX_SCALE, 0)):
            hi, lo = _scaled_words(scaled[f"{name}_hi"], scaled[f"{name}_lo"], part)
            fits &= scaled[f"{name}_hi"] < WORD // _POW10[part]
            scaled[f"{name}_hi"], scaled[f"{name}_lo"] = hi, lo
    scaled["price_scale"], scaled["qty_scale"] = price_scale, qty_scale
    return scaled, fits


def common_scale(*groups: Candles) -> tuple[int, int]:
    """The price and quantity scale that is wide enough for all."""
    together = [group for group in groups if len(group)]
    if not together:
        return 0, 0
    return (
        max(int(group["price_scale"].max()) for group in together),
        max(int(group["qty_scale"].max()) for group in together),
    )


def fold(children: Candles, minutes: Ints, interval: Interval) -> Folds:
    """Candles at one common scale, ascending, folded into those of a longer interval.

    Open and close are those of the first and last child with trades, high and low go over these; where none has any,
    all four are the last child's close. The trade ids are theirs, -1 where they tell none.
    `minutes` says of how many minutes each child is made.
    """
    if not len(children):
        return Folds(no_candles(), np.zeros(0, np.int64))
    opens = opens_at(children["open_ms"], interval)
    starts = np.flatnonzero(np.r_[True, opens[1:] != opens[:-1]])
    parents = no_candles(len(starts))
    parents["open_ms"] = opens[starts]
    parents["interval"] = interval.code
    parents["price_scale"] = children["price_scale"][0]
    parents["qty_scale"] = children["qty_scale"][0]
    traded = children["trades"] > 0
    index = np.arange(len(children))
    last_child = np.r_[starts[1:], len(children)] - 1
    first = np.minimum.reduceat(np.where(traded, index, len(children)), starts)
    last = np.maximum.reduceat(np.where(traded, index, -1), starts)
    any_traded = last >= 0
    first = np.where(any_traded, first, last_child)
    last = np.where(any_traded, last, last_child)
    close = children["close"][last]
    limit = np.iinfo(np.int64)
    high = np.maximum.reduceat(np.where(traded, children["high"], limit.min), starts)
    low = np.minimum.reduceat(np.where(traded, children["low"], limit.max), starts)
    parents["open"] = np.where(any_traded, children["open"][first], close)
    parents["high"] = np.where(any_traded, high, close)
    parents["low"] = np.where(any_traded, low, close)
    parents["close"] = close
    parents["first_id"] = np.where(any_traded, children["first_id"][first], -1)
    parents["last_id"] = np.where(any_traded, children["last_id"][last], -1)
    parents["trades"] = np.add.reduceat(children["trades"], starts)
    for name in SUMS:
        lo = children[f"{name}_lo"]
        low_half = np.add.reduceat(lo % _HALF, starts)
        high_half = np.add.reduceat(lo // _HALF, starts) + low_half // _HALF
        parents[f"{name}_lo"] = high_half % _HALF * _HALF + low_half % _HALF
        parents[f"{name}_hi"] = np.add.reduceat(children[f"{name}_hi"], starts) + high_half // _HALF
    return Folds(parents, np.add.reduceat(minutes, starts))
