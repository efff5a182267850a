"""Kernels that make candles because the clock says so: close, fill, open."""

from typing import Any, Final

from klagg.engine import state as s
from klagg.engine.calendar import find_due, next_open_ms, open_ms_at
from klagg.engine.candle import CLOSED, begin, fold_into, folded_origin
from klagg.engine.jit import kernel
from klagg.interval import MINUTE_MS
from klagg.model import Origin

FILLED: Final = int(Origin.FILLED)
SEED: Final = int(Origin.SEED)
PARTIAL: Final = int(Origin.PARTIAL)
FLAT: Final = int(Origin.FLAT)
UNMATCHED: Final = int(Origin.UNMATCHED)

RING: Final = s.RING
RANKS: Final = s.RANKS
LONGER: Final = s.LONGER
LONGER_WIDTH: Final = s.LONGER_WIDTH
RANK_COUNTS: Final = s.RANK_COUNTS


@kernel
def lowest_rank(ints: Any, slot: int, k: int, last_closed: bool) -> int:
    """The lowest origin among the minutes of the open (or last closed) candle of the k-th interval; UNMATCHED if it has none."""
    base = LONGER + LONGER_WIDTH * (k - 1) + 1
    for rank in range(RANKS):
        opened = ints[slot, RANK_COUNTS + rank] - ints[slot, base + rank]
        if (ints[slot, base + RANKS + rank] if last_closed else opened) > 0:
            return rank
    return UNMATCHED


@kernel
def close_longer(rows: Any, ints: Any, slot: int, k: int, end_ms: int, calendar: Any, out: Any, used: int) -> int:
    """Close the k-th interval's candle, which ends at `end_ms`, and open the next; returns how much of `out` is used.

    A correction of the last closed one that nobody has collected yet goes out before its place is needed.
    """
    opened = RING + 2 * (k - 1)
    if (ints[slot, s.DIRTY_LONGER] >> k) & 1:
        out[used] = rows[slot, opened + 1]
        ints[slot, s.DIRTY_LONGER] &= ~(1 << k)
        used += 1
    base = LONGER + LONGER_WIDTH * (k - 1)
    row, last = rows[slot, opened], rows[slot, opened + 1]
    row["origin"] = folded_origin(lowest_rank(ints, slot, k, False), row["trades"])
    row["flags"] = CLOSED
    rows[slot, opened + 1] = row
    for rank in range(RANKS):
        total = ints[slot, RANK_COUNTS + rank]
        ints[slot, base + 1 + RANKS + rank] = total - ints[slot, base + 1 + rank]
        ints[slot, base + 1 + rank] = total
    begin(row, end_ms, last["close"])
    ints[slot, base] = next_open_ms(end_ms, calendar[k, 0])
    out[used] = rows[slot, opened + 1]
    return used + 1


@kernel
def open_minute(rows: Any, ints: Any, slot: int, open_ms: int, price: int, out: Any, used: int) -> int:
    """Open the next minute in the ring, at a price; returns how much of `out` is used.

    A correction of the minute whose place it takes goes out if nobody has collected it yet.
    """
    column = (open_ms // MINUTE_MS) % RING
    if (ints[slot, s.DIRTY_MINUTES] >> column) & 1:
        out[used] = rows[slot, column]
        ints[slot, s.DIRTY_MINUTES] &= ~(1 << column)
        used += 1
    ints[slot, s.REQUERY] &= ~(1 << column)
    ints[slot, s.LACKING] &= ~(1 << column)
    ints[slot, s.PROVEN] &= ~(1 << column)
    ints[slot, s.FIRST_AGG + column] = -1
    ints[slot, s.LAST_AGG + column] = -1
    begin(rows[slot, column], open_ms, price)
    ints[slot, s.MINUTE] = open_ms
    return used


@kernel
def close_minute(rows: Any, ints: Any, slot: int, calendar: Any, due: Any, due_count: int, out: Any, used: int) -> int:
    """Close an instrument's open minute and what ends with it, open the next; returns how much of `out` is used.

    That is at most twice the number of intervals: each may push one correction out that was not collected.
    `due[:due_count]`: the longer intervals of which a candle ends where this minute ends (`find_due`).
    """
    open_ms = ints[slot, s.MINUTE]
    end_ms = open_ms + MINUTE_MS
    column = (open_ms // MINUTE_MS) % RING
    row = rows[slot, column]
    if row["trades"] > 0:
        origin = PARTIAL
    elif ints[slot, s.DOUBTED] >= open_ms:
        origin = FILLED
    elif ints[slot, s.SEEDED] == open_ms:
        origin = SEED
    else:
        origin = FLAT if ints[slot, s.SIGHTED] <= open_ms else FILLED
    row["origin"] = origin
    row["flags"] = CLOSED
    ints[slot, RANK_COUNTS + origin] += 1
    out[used] = row
    used += 1
    if row["trades"] > 0:
        for k in range(1, calendar.shape[0]):
            fold_into(rows[slot, RING + 2 * (k - 1)], row)
    for index in range(due_count):
        used = close_longer(rows, ints, slot, due[index], end_ms, calendar, out, used)
    return open_minute(rows, ints, slot, end_ms, row["close"], out, used)


@kernel
def tick(
    rows: Any, ints: Any, live: Any, calendar: Any, due: Any, out: Any, used: int, from_ms: int, boundary_ms: int
) -> Any:
    """Close every minute that ends at or before `boundary_ms`, boundary by boundary, for the slots in `live`.

    `live` is the bucket that all intervals share: an instrument has all of them. Returns how much of `out` is used and the
    boundary reached, which is earlier than asked where `out` has no room for one boundary more.
    """
    while from_ms < boundary_ms:
        if used + 2 * live.shape[0] * calendar.shape[0] > out.shape[0]:
            return used, from_ms
        end_ms = from_ms + MINUTE_MS
        due_count = find_due(end_ms, calendar, due)
        for index in range(live.shape[0]):
            slot = live[index]
            if ints[slot, s.MINUTE] == from_ms:
                used = close_minute(rows, ints, slot, calendar, due, due_count, out, used)
        from_ms = end_ms
    return used, from_ms


@kernel
def snapshots(rows: Any, ints: Any, live: Any, intervals: int, out: Any, used: int) -> int:
    """Copy the open candles of the slots in `live`, each folded to exactly the last boundary; returns how much of `out` is used.

    The open minute goes out without the trades it already has: a restart repairs that minute, and a candle that
    holds half of it must not look whole.
    """
    for index in range(live.shape[0]):
        slot = live[index]
        minute = ints[slot, s.MINUTE]
        column = (minute // MINUTE_MS) % RING
        before = (column + RING - 1) % RING
        out[used] = rows[slot, column]
        if rows[slot, column]["trades"] > 0:
            first = rows[slot, before]
            price = first["close"] if first["open_ms"] == minute - MINUTE_MS else rows[slot, column]["open"]
            begin(out[used], minute, price)
        out[used]["origin"] = FLAT
        used += 1
        for k in range(1, intervals):
            row = rows[slot, RING + 2 * (k - 1)]
            row["origin"] = folded_origin(min(lowest_rank(ints, slot, k, False), FLAT), row["trades"])
            out[used] = row
            used += 1
    return used


@kernel
def place(rows: Any, ints: Any, slot: int, minute_ms: int, price: int, calendar: Any) -> None:
    """Open a candle without trades in every interval for a slot whose numbers and scales are already set."""
    for column in range(rows.shape[1]):
        row = rows[slot, column]
        row["slot"] = slot
        row["interval"] = 0
        row["price_scale"] = ints[slot, s.PRICE_SCALE]
        row["qty_scale"] = ints[slot, s.QTY_SCALE]
        begin(row, -1, price)
    begin(rows[slot, (minute_ms // MINUTE_MS) % RING], minute_ms, price)
    for k in range(1, calendar.shape[0]):
        opened = RING + 2 * (k - 1)
        open_ms = open_ms_at(minute_ms, calendar[k, 0], calendar[k, 1])
        begin(rows[slot, opened], open_ms, price)
        ints[slot, LONGER + LONGER_WIDTH * (k - 1)] = next_open_ms(open_ms, calendar[k, 0])
