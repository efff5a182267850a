"""Kernels that bring the exchange's own knowledge in: comparing, replacing, restoring, collecting."""

from typing import Any, Final

import numpy as np

from klagg.engine import state as s
from klagg.engine.applying import run_on
from klagg.engine.candle import fold_into, folded_origin, restate, same_numbers
from klagg.engine.closing import FILLED, LONGER, LONGER_WIDTH, RANK_COUNTS, RANKS, RING, lowest_rank
from klagg.engine.evidence import AMENDED, CLOSED, EXCHANGE, FLAT, VERIFIED, earliest_held, set_origin
from klagg.engine.jit import kernel
from klagg.interval import MINUTE_MS

GONE: Final = 0
"""The ring no longer (or never) held that minute."""
EARLY: Final = 1
"""The minute is not closed yet."""
EQUAL: Final = 2
"""Every number agrees: the candle is verified."""
DIFFERS: Final = 3
TOO_WIDE: Final = 4
"""The exchange's candle has more digits than the instrument."""


@kernel
def find_minute(rows: Any, ints: Any, slot: int, open_ms: int) -> int:
    """The ring column of a closed minute, or -1."""
    if open_ms < earliest_held(ints, slot) or open_ms >= ints[s.MINUTE, slot]:
        return -1
    column = (open_ms // MINUTE_MS) % RING
    return column if rows[column, slot]["open_ms"] == open_ms else -1


@kernel
def fits(ints: Any, slot: int, kline: Any) -> bool:
    """Whether the exchange's candle can be stated at the instrument's scales."""
    return kline["price_scale"] <= ints[s.PRICE_SCALE, slot] and kline["qty_scale"] <= ints[s.QTY_SCALE, slot]


@kernel
def compare(rows: Any, ints: Any, klines: Any, verdicts: Any) -> None:
    """Compare closed minutes with the exchange's; equal ones become verified. `klines` is restated in place."""
    for index in range(klines.shape[0]):
        kline = klines[index]
        slot, open_ms = np.int64(kline["slot"]), kline["open_ms"]
        if ints[s.LIVE, slot] != 0 and open_ms >= ints[s.MINUTE, slot]:
            verdicts[index] = EARLY
            continue
        column = find_minute(rows, ints, slot, open_ms)
        if column < 0:
            verdicts[index] = GONE
            continue
        if not fits(ints, slot, kline):
            verdicts[index] = TOO_WIDE
            continue
        restate(kline, ints[s.PRICE_SCALE, slot], ints[s.QTY_SCALE, slot])
        row = rows[column, slot]
        if not same_numbers(row, kline):
            verdicts[index] = DIFFERS
            continue
        verdicts[index] = EQUAL
        if (row["flags"] & VERIFIED) == 0:
            if row["origin"] < FLAT:
                set_origin(rows, ints, slot, column, EXCHANGE)
            row["flags"] |= VERIFIED
            row["source"] = kline["source"]
            ints[s.DIRTY_MINUTES, slot] |= 1 << column


@kernel
def make_stale(rows: Any, ints: Any, slot: int, open_ms: int) -> None:
    """Note that the longer candles that hold a minute do not hold its new numbers: they vouch for nothing until they are folded anew."""
    for k in range(1, (rows.shape[0] - RING) // 2 + 1):
        opened = RING + 2 * (k - 1)
        last = rows[opened + 1, slot]
        if open_ms >= rows[opened, slot]["open_ms"]:
            ints[s.STALE, slot] |= 1 << 2 * k
        elif 0 <= last["open_ms"] <= open_ms:
            ints[s.STALE, slot] |= 1 << (2 * k + 1)
            doubtful = folded_origin(FILLED, last["trades"])
            if doubtful < last["origin"]:
                last["origin"] = doubtful
                last["flags"] |= AMENDED
                ints[s.DIRTY_LONGER, slot] |= 1 << k


@kernel
def replace(rows: Any, ints: Any, klines: Any, verdicts: Any) -> None:
    """Put the exchange's candles in the place of closed minutes; `verdicts` says EQUAL where it was done.

    The longer candles keep their numbers, which vouch for nothing from here on: whoever replaces minutes folds their
    parents again from the store and hands the open ones back (`rebase`).
    """
    for index in range(klines.shape[0]):
        kline = klines[index]
        slot = np.int64(kline["slot"])
        column = find_minute(rows, ints, slot, kline["open_ms"])
        if column < 0:
            verdicts[index] = GONE
            continue
        if not fits(ints, slot, kline):
            verdicts[index] = TOO_WIDE
            continue
        restate(kline, ints[s.PRICE_SCALE, slot], ints[s.QTY_SCALE, slot])
        row = rows[column, slot]
        old, amended = row["origin"], row["flags"] & AMENDED
        differs = not same_numbers(row, kline)
        rows[column, slot] = kline
        row["origin"] = old
        row["interval"] = 0
        row["flags"] = CLOSED | (kline["flags"] & VERIFIED) | amended
        set_origin(rows, ints, slot, column, EXCHANGE)
        if differs:
            make_stale(rows, ints, slot, kline["open_ms"])
            run_on(rows, ints, slot, kline["open_ms"])
        verdicts[index] = EQUAL


@kernel
def rebase(rows: Any, ints: Any, slot: int, k: int, folded: Any, upto_ms: int) -> bool:
    """Give the k-th interval's open or last closed candle what was folded anew from `[its open, upto_ms)`, plus the ring's minutes since.

    Returns whether it could be done: the candle must still be here, and so must the minutes since `upto_ms`.
    """
    opened = RING + 2 * (k - 1)
    at = opened
    end_ms = ints[s.MINUTE, slot]
    if rows[opened, slot]["open_ms"] != folded["open_ms"]:
        at += 1
        end_ms = rows[opened, slot]["open_ms"]
        if rows[at, slot]["open_ms"] != folded["open_ms"]:
            return False
    if not fits(ints, slot, folded) or upto_ms < earliest_held(ints, slot):
        return False
    restate(folded, ints[s.PRICE_SCALE, slot], ints[s.QTY_SCALE, slot])
    row = rows[at, slot]
    flags = row["flags"] & CLOSED
    ints[s.STALE, slot] &= ~(1 << (2 * k + at - opened))
    lowest = folded["origin"]
    rows[at, slot] = folded
    row["flags"] = flags
    base = LONGER + LONGER_WIDTH * (k - 1) + 1
    if at != opened:
        base += RANKS
    ints[base : base + RANKS, slot] = 0
    # Minutes that are here count one by one, since each may change its rank; what is older counts as one, of the lowest.
    minute_ms = max(folded["open_ms"], earliest_held(ints, slot))
    if folded["open_ms"] < minute_ms:
        ints[base + lowest, slot] = 1
    while minute_ms < end_ms:
        child = rows[(minute_ms // MINUTE_MS) % RING, slot]
        ints[base + child["origin"], slot] += 1
        if minute_ms >= upto_ms:
            fold_into(row, child)
        minute_ms += MINUTE_MS
    if at == opened:
        for rank in range(RANKS):
            ints[base + rank, slot] = ints[RANK_COUNTS + rank, slot] - ints[base + rank, slot]
    else:
        row["origin"] = folded_origin(lowest_rank(ints, slot, k, True), row["trades"])
        row["flags"] |= AMENDED
        ints[s.DIRTY_LONGER, slot] |= 1 << k
    return True


@kernel
def collect_dirty(rows: Any, ints: Any, slots: Any, out: Any, used: int) -> Any:
    """Copy the closed candles that changed since they were last collected; returns how much of `out` is used and the next index.

    It stops at the slot for whose candles `out` may have no room.
    """
    longer = (rows.shape[0] - RING) // 2
    for index in range(slots.shape[0]):
        slot = slots[index]
        if ints[s.DIRTY_MINUTES, slot] == 0 and ints[s.DIRTY_LONGER, slot] == 0:
            continue
        if used + RING + longer > out.shape[0]:
            return used, index
        for column in range(RING):
            if (ints[s.DIRTY_MINUTES, slot] >> column) & 1:
                out[used] = rows[column, slot]
                rows[column, slot]["flags"] &= ~AMENDED
                used += 1
        for k in range(1, longer + 1):
            if (ints[s.DIRTY_LONGER, slot] >> k) & 1:
                column = RING + 2 * (k - 1) + 1
                out[used] = rows[column, slot]
                rows[column, slot]["flags"] &= ~AMENDED
                used += 1
        ints[s.DIRTY_MINUTES, slot] = 0
        ints[s.DIRTY_LONGER, slot] = 0
    return used, slots.shape[0]


@kernel
def widen(rows: Any, ints: Any, slot: int, price_scale: int, qty_scale: int) -> None:
    """State everything the engine holds of an instrument at wider scales."""
    ints[s.FRONTIER_PRICE, slot] *= 10 ** (price_scale - ints[s.PRICE_SCALE, slot])
    ints[s.PRICE_SCALE, slot] = price_scale
    ints[s.QTY_SCALE, slot] = qty_scale
    for column in range(rows.shape[0]):
        restate(rows[column, slot], price_scale, qty_scale)
