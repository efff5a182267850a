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
    """The lowest origin among the minutes of the open (or last closed) candle of the k-th interval; UNMATCHED if it has none.

    FILLED, which vouches for nothing, where its numbers are not those of its minutes.
    """
    if (ints[s.STALE, slot] >> (2 * k + last_closed)) & 1:
        return FILLED
    base = LONGER + LONGER_WIDTH * (k - 1) + 1
    for rank in range(RANKS):
        opened = ints[RANK_COUNTS + rank, slot] - ints[base + rank, slot]
        if (ints[base + RANKS + rank, slot] if last_closed else opened) > 0:
            return rank
    return UNMATCHED


@kernel
def close_longer(rows: Any, ints: Any, slot: int, k: int, end_ms: int, calendar: Any, out: Any, used: int) -> int:
    """Close the k-th interval's candle, which ends at `end_ms`, and open the next; returns how much of `out` is used.

    A correction of the last closed one that nobody has collected yet goes out before its place is needed.
    """
    opened = RING + 2 * (k - 1)
    if (ints[s.DIRTY_LONGER, slot] >> k) & 1:
        out[used] = rows[opened + 1, slot]
        ints[s.DIRTY_LONGER, slot] &= ~(1 << k)
        used += 1
    base = LONGER + LONGER_WIDTH * (k - 1)
    row, last = rows[opened, slot], rows[opened + 1, slot]
    row["origin"] = folded_origin(lowest_rank(ints, slot, k, False), row["trades"])
    row["flags"] = CLOSED
    rows[opened + 1, slot] = row
    for rank in range(RANKS):
        total = ints[RANK_COUNTS + rank, slot]
        ints[base + 1 + RANKS + rank, slot] = total - ints[base + 1 + rank, slot]
        ints[base + 1 + rank, slot] = total
    stale = (ints[s.STALE, slot] >> 2 * k) & 1
    ints[s.STALE, slot] = (ints[s.STALE, slot] & ~(3 << 2 * k)) | stale << (2 * k + 1)
    begin(row, end_ms, last["close"])
    ints[base, slot] = next_open_ms(end_ms, calendar[k, 0])
    out[used] = rows[opened + 1, slot]
    return used + 1


@kernel
def open_minute(rows: Any, ints: Any, slot: int, open_ms: int, price: int, out: Any, used: int) -> int:
    """Open the next minute in the ring, at a price; returns how much of `out` is used.

    A correction of the minute whose place it takes goes out if nobody has collected it yet.
    """
    column = (open_ms // MINUTE_MS) % RING
    if (ints[s.DIRTY_MINUTES, slot] >> column) & 1:
        out[used] = rows[column, slot]
        ints[s.DIRTY_MINUTES, slot] &= ~(1 << column)
        used += 1
    ints[s.REQUERY, slot] &= ~(1 << column)
    ints[s.LACKING, slot] &= ~(1 << column)
    ints[s.PROVEN, slot] &= ~(1 << column)
    ints[s.FIRST_AGG + column, slot] = -1
    ints[s.LAST_AGG + column, slot] = -1
    begin(rows[column, slot], open_ms, price)
    ints[s.MINUTE, slot] = open_ms
    return used


@kernel
def note_last_id(ints: Any, slot: int) -> None:
    """Bring the open minute's highest id up to date, which trades in their turn do not write.

    While ids run unbroken every new one is above all that were seen, so the frontier's is as good as the minute's own.
    """
    if ints[s.FRONTIER, slot] >= ints[s.MINUTE, slot]:
        place = s.LAST_AGG + (ints[s.MINUTE, slot] // MINUTE_MS) % RING
        ints[place, slot] = max(ints[place, slot], ints[s.NEXT_ID, slot] - 1)


@kernel
def close_only_minute(rows: Any, ints: Any, slot: int, intervals: int, out: Any, used: int) -> int:
    """Close an instrument's open minute, fold it into what contains it, open the next; returns how much of `out` is used."""
    open_ms = ints[s.MINUTE, slot]
    note_last_id(ints, slot)
    column = (open_ms // MINUTE_MS) % RING
    row = rows[column, slot]
    if row["trades"] > 0:
        origin = PARTIAL
    elif ints[s.DOUBTED, slot] >= open_ms:
        origin = FILLED
    elif ints[s.SEEDED, slot] == open_ms:
        origin = SEED
    else:
        origin = FLAT if ints[s.SIGHTED, slot] <= open_ms else FILLED
    row["origin"] = origin
    row["flags"] = CLOSED
    ints[RANK_COUNTS + origin, slot] += 1
    out[used] = row
    if row["trades"] > 0:
        for k in range(1, intervals):
            fold_into(rows[RING + 2 * (k - 1), slot], row)
    return open_minute(rows, ints, slot, open_ms + MINUTE_MS, row["close"], out, used + 1)


@kernel
def close_minute(rows: Any, ints: Any, slot: int, calendar: Any, due: Any, out: Any, used: int) -> int:
    """Close an instrument's open minute and the longer candles that end with it; returns how much of `out` is used.

    That is at most twice the number of intervals: each may push one correction out that was not collected.
    """
    end_ms = ints[s.MINUTE, slot] + MINUTE_MS
    used = close_only_minute(rows, ints, slot, calendar.shape[0], out, used)
    due_count = find_due(end_ms, calendar, due)
    for index in range(due_count):
        used = close_longer(rows, ints, slot, due[index], end_ms, calendar, out, used)
    return used


@kernel
def tick(
    rows: Any, ints: Any, live: Any, calendar: Any, due: Any, out: Any, used: int, from_ms: int, boundary_ms: int
) -> Any:
    """Close every minute that ends at or before `boundary_ms`, boundary by boundary, for the slots in `live`.

    `live` is the bucket that all intervals share: an instrument has all of them. Interval by interval, so that each pass walks along few
    lines of the arrays. Returns how much of `out` is used and the boundary reached, which is earlier than asked where `out` has no room
    for one boundary more.
    """
    while from_ms < boundary_ms:
        if used + 2 * live.shape[0] * calendar.shape[0] > out.shape[0]:
            return used, from_ms
        end_ms = from_ms + MINUTE_MS
        for index in range(live.shape[0]):
            slot = live[index]
            if ints[s.MINUTE, slot] == from_ms:
                used = close_only_minute(rows, ints, slot, calendar.shape[0], out, used)
        due_count = find_due(end_ms, calendar, due)
        for place in range(due_count):
            k = due[place]
            for index in range(live.shape[0]):
                slot = live[index]
                # Where a trade came before the tick, this candle has closed already and the next one ends later.
                if ints[LONGER + LONGER_WIDTH * (k - 1), slot] == end_ms:
                    used = close_longer(rows, ints, slot, k, end_ms, calendar, out, used)
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
        minute = ints[s.MINUTE, slot]
        column = (minute // MINUTE_MS) % RING
        before = (column + RING - 1) % RING
        out[used] = rows[column, slot]
        if rows[column, slot]["trades"] > 0:
            first = rows[before, slot]
            price = first["close"] if first["open_ms"] == minute - MINUTE_MS else rows[column, slot]["open"]
            begin(out[used], minute, price)
        out[used]["origin"] = FLAT
        used += 1
    for k in range(1, intervals):
        for index in range(live.shape[0]):
            slot = live[index]
            row = rows[RING + 2 * (k - 1), slot]
            row["origin"] = folded_origin(min(lowest_rank(ints, slot, k, False), FLAT), row["trades"])
            out[used] = row
            used += 1
    return used


@kernel
def place(rows: Any, ints: Any, slot: int, minute_ms: int, price: int, calendar: Any) -> None:
    """Open a candle without trades in every interval for a slot whose numbers and scales are already set."""
    for column in range(rows.shape[0]):
        row = rows[column, slot]
        row["slot"] = slot
        row["interval"] = 0
        row["price_scale"] = ints[s.PRICE_SCALE, slot]
        row["qty_scale"] = ints[s.QTY_SCALE, slot]
        begin(row, -1, price)
    begin(rows[(minute_ms // MINUTE_MS) % RING, slot], minute_ms, price)
    for k in range(1, calendar.shape[0]):
        opened = RING + 2 * (k - 1)
        open_ms = open_ms_at(minute_ms, calendar[k, 0], calendar[k, 1])
        begin(rows[opened, slot], open_ms, price)
        ints[LONGER + LONGER_WIDTH * (k - 1), slot] = next_open_ms(open_ms, calendar[k, 0])
