"""Kernels on one candle (a record of `model.CANDLE`): exact sums, trades, folding, scales.

Two-word sums have the base 10^18; every mantissa is below 10^18, so a product is built from halves of nine digits.
"""

from typing import Any, Final

import numpy as np

from klagg.engine.jit import kernel
from klagg.fixed import MANTISSA_LIMIT, POW10, WORD
from klagg.model import Flag, Origin

HALF: Final = 10**9
QUICK_HIGH: Final = 1.0e14
"""A high word estimated below this is at most one off: its error is some 3e-16 of it."""
POWERS: Final = np.array(POW10, np.int64)
LIMITS: Final = np.array([MANTISSA_LIMIT // power for power in POW10], np.int64)
"""A mantissa below `LIMITS[n]` stays below 10^18 when n digits are added."""
FLAT: Final = int(Origin.FLAT)
TRADES: Final = int(Origin.TRADES)
PARTIAL: Final = int(Origin.PARTIAL)
CLOSED: Final = int(Flag.CLOSED)


@kernel
def product(a: int, b: int) -> Any:
    """The two words of a * b, for 0 <= a, b < 10^18.

    The high word is estimated in floating point. The low word is then exact although its terms wrap around 64 bits, because
    it fits 63 itself, and it tells whether the estimate was one off.
    """
    estimate = np.float64(a) * np.float64(b) * 1e-18
    if estimate < QUICK_HIGH:
        hi: Any = np.int64(estimate)
        lo: Any = a * b - hi * WORD
        if lo < 0:
            return hi - 1, lo + WORD
        if lo >= WORD:
            return hi + 1, lo - WORD
        return hi, lo
    a_hi, b_hi = a // HALF, b // HALF
    a_lo, b_lo = a - a_hi * HALF, b - b_hi * HALF
    middle = a_hi * b_lo + a_lo * b_hi
    middle_hi = middle // HALF
    hi = a_hi * b_hi + middle_hi
    lo = (middle - middle_hi * HALF) * HALF + a_lo * b_lo
    if lo >= WORD:
        lo -= WORD
        hi += 1
    return hi, lo


@kernel
def scaled(hi: int, lo: int, power: int) -> Any:
    """Two words multiplied by 10**power (0 <= power <= 18); the caller has made sure that they stay two words."""
    factor = POWERS[power]
    carry, low = product(lo, factor) if factor < MANTISSA_LIMIT else (lo, np.int64(0))
    return hi * factor + carry, low


@kernel
def begin(row: Any, open_ms: int, price: int) -> None:
    """Make `row` an open candle without trades at a price; slot, interval and scales stay."""
    row["origin"] = 0
    row["flags"] = 0
    row["source"] = 0
    row["open_ms"] = open_ms
    row["open"] = price
    row["high"] = price
    row["low"] = price
    row["close"] = price
    row["volume_hi"] = 0
    row["volume_lo"] = 0
    row["quote_hi"] = 0
    row["quote_lo"] = 0
    row["taker_volume_hi"] = 0
    row["taker_volume_lo"] = 0
    row["taker_quote_hi"] = 0
    row["taker_quote_lo"] = 0
    row["trades"] = 0
    row["first_id"] = -1
    row["last_id"] = -1


@kernel
def flatten(row: Any, price: int) -> None:
    """Give a candle without trades the price that ran on to it."""
    row["open"] = price
    row["high"] = price
    row["low"] = price
    row["close"] = price


@kernel
def add_volumes(row: Any, qty: int, quote_hi: int, quote_lo: int, taker_buys: bool) -> None:
    """Add one trade's quantity and quote amount to the sums."""
    row["volume_lo"] += qty
    if row["volume_lo"] >= WORD:
        row["volume_lo"] -= WORD
        row["volume_hi"] += 1
    row["quote_hi"] += quote_hi
    row["quote_lo"] += quote_lo
    if row["quote_lo"] >= WORD:
        row["quote_lo"] -= WORD
        row["quote_hi"] += 1
    if taker_buys:
        row["taker_volume_lo"] += qty
        if row["taker_volume_lo"] >= WORD:
            row["taker_volume_lo"] -= WORD
            row["taker_volume_hi"] += 1
        row["taker_quote_hi"] += quote_hi
        row["taker_quote_lo"] += quote_lo
        if row["taker_quote_lo"] >= WORD:
            row["taker_quote_lo"] -= WORD
            row["taker_quote_hi"] += 1


@kernel
def add_ids(row: Any, first_id: int, last_id: int) -> None:
    """Count the trades of one aggregate and widen the span of trade ids; call before `trades` is read as zero."""
    if row["trades"] == 0:
        row["first_id"] = first_id
        row["last_id"] = last_id
    else:
        if 0 <= first_id < row["first_id"]:
            row["first_id"] = first_id
        if row["last_id"] >= 0 and last_id > row["last_id"]:
            row["last_id"] = last_id
    row["trades"] += last_id - first_id + 1


@kernel
def fold_into(parent: Any, child: Any) -> None:
    """Add a closed child to its parent; the child is later than all the parent holds, and both have the same scales."""
    if child["trades"] == 0:
        return
    if parent["trades"] == 0:
        parent["open"] = child["open"]
        parent["high"] = child["high"]
        parent["low"] = child["low"]
        parent["first_id"] = child["first_id"]
    else:
        parent["high"] = max(parent["high"], child["high"])
        parent["low"] = min(parent["low"], child["low"])
    parent["close"] = child["close"]
    parent["last_id"] = child["last_id"]
    parent["trades"] += child["trades"]
    parent["volume_hi"] += child["volume_hi"]
    parent["volume_lo"] += child["volume_lo"]
    if parent["volume_lo"] >= WORD:
        parent["volume_lo"] -= WORD
        parent["volume_hi"] += 1
    parent["quote_hi"] += child["quote_hi"]
    parent["quote_lo"] += child["quote_lo"]
    if parent["quote_lo"] >= WORD:
        parent["quote_lo"] -= WORD
        parent["quote_hi"] += 1
    parent["taker_volume_hi"] += child["taker_volume_hi"]
    parent["taker_volume_lo"] += child["taker_volume_lo"]
    if parent["taker_volume_lo"] >= WORD:
        parent["taker_volume_lo"] -= WORD
        parent["taker_volume_hi"] += 1
    parent["taker_quote_hi"] += child["taker_quote_hi"]
    parent["taker_quote_lo"] += child["taker_quote_lo"]
    if parent["taker_quote_lo"] >= WORD:
        parent["taker_quote_lo"] -= WORD
        parent["taker_quote_hi"] += 1


@kernel
def same_numbers(a: Any, b: Any) -> bool:
    """Whether two candles at the same scales agree in every number that the exchange's kline has."""
    return (
        a["open"] == b["open"]
        and a["high"] == b["high"]
        and a["low"] == b["low"]
        and a["close"] == b["close"]
        and a["trades"] == b["trades"]
        and a["volume_hi"] == b["volume_hi"]
        and a["volume_lo"] == b["volume_lo"]
        and a["quote_hi"] == b["quote_hi"]
        and a["quote_lo"] == b["quote_lo"]
        and a["taker_volume_hi"] == b["taker_volume_hi"]
        and a["taker_volume_lo"] == b["taker_volume_lo"]
        and a["taker_quote_hi"] == b["taker_quote_hi"]
        and a["taker_quote_lo"] == b["taker_quote_lo"]
    )


@kernel
def restate(row: Any, price_scale: int, qty_scale: int) -> None:
    """State a candle at wider (or the same) scales; its numbers stay what they are."""
    by_price = price_scale - row["price_scale"]
    by_qty = qty_scale - row["qty_scale"]
    factor = POWERS[by_price]
    row["open"] *= factor
    row["high"] *= factor
    row["low"] *= factor
    row["close"] *= factor
    row["volume_hi"], row["volume_lo"] = scaled(row["volume_hi"], row["volume_lo"], by_qty)
    row["taker_volume_hi"], row["taker_volume_lo"] = scaled(row["taker_volume_hi"], row["taker_volume_lo"], by_qty)
    for by in (by_price, by_qty):
        row["quote_hi"], row["quote_lo"] = scaled(row["quote_hi"], row["quote_lo"], by)
        row["taker_quote_hi"], row["taker_quote_lo"] = scaled(row["taker_quote_hi"], row["taker_quote_lo"], by)
    row["price_scale"] = price_scale
    row["qty_scale"] = qty_scale


@kernel
def folded_origin(lowest: int, trades: int) -> int:
    """The origin of a candle folded from children whose lowest rank is `lowest`.

    Children that stand on evidence make `trades` where anyone traded; one that does not makes the parent `partial`.
    """
    if lowest > TRADES or trades == 0:
        return lowest
    return TRADES if lowest >= FLAT else PARTIAL
