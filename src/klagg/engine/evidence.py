"""Kernels that keep what is known about completeness: ids seen, holes, and the origin of each minute.

Ids prove that no trade is missing: a minute is `trades` once ids run unbroken from a trade before its open to a trade at or after
its end, which is often known only after it has closed. A hole takes that proof away again.
"""

from typing import Any, Final

from klagg.engine import state as s
from klagg.engine.candle import folded_origin
from klagg.engine.closing import LONGER, LONGER_WIDTH, RANK_COUNTS, RANKS, RING, lowest_rank
from klagg.engine.jit import kernel
from klagg.interval import MINUTE_MS
from klagg.model import Flag, Origin

FILLED: Final = int(Origin.FILLED)
PARTIAL: Final = int(Origin.PARTIAL)
FLAT: Final = int(Origin.FLAT)
TRADES: Final = int(Origin.TRADES)
EXCHANGE: Final = int(Origin.EXCHANGE)
CLOSED: Final = int(Flag.CLOSED)
VERIFIED: Final = int(Flag.VERIFIED)
AMENDED: Final = int(Flag.AMENDED)
WINDOW: Final = s.WINDOW


@kernel
def set_origin(rows: Any, ints: Any, slot: int, column: int, origin: int) -> None:
    """Give a closed minute another origin, and its parents what follows from it."""
    row = rows[column, slot]
    old = row["origin"]
    row["origin"] = origin
    if origin < old:
        row["flags"] |= AMENDED
    ints[s.DIRTY_MINUTES, slot] |= 1 << column
    ints[RANK_COUNTS + old, slot] -= 1
    ints[RANK_COUNTS + origin, slot] += 1
    open_ms = row["open_ms"]
    for k in range(1, (rows.shape[0] - RING) // 2 + 1):
        opened = RING + 2 * (k - 1)
        if open_ms >= rows[opened, slot]["open_ms"]:
            continue
        base = LONGER + LONGER_WIDTH * (k - 1) + 1
        ints[base + old, slot] -= 1
        ints[base + origin, slot] += 1
        last = rows[opened + 1, slot]
        if 0 <= last["open_ms"] <= open_ms:
            ints[base + RANKS + old, slot] -= 1
            ints[base + RANKS + origin, slot] += 1
            folded = folded_origin(lowest_rank(ints, slot, k, True), last["trades"])
            if folded != last["origin"]:
                if folded < last["origin"]:
                    last["flags"] |= AMENDED
                last["origin"] = folded
                ints[s.DIRTY_LONGER, slot] |= 1 << k


@kernel
def is_settled(row: Any) -> bool:
    """Whether a minute's numbers are the exchange's, so that nothing of ours changes them."""
    return row["origin"] >= EXCHANGE or (row["flags"] & VERIFIED) != 0


@kernel
def earliest_held(ints: Any, slot: int) -> int:
    """The open of the earliest closed minute that the ring still holds for sure."""
    return max(ints[s.MINUTE, slot] - (RING - 1) * MINUTE_MS, ints[s.BORN, slot])


@kernel
def raise_minute(rows: Any, ints: Any, slot: int, minute_ms: int) -> None:
    """Give a closed minute the origin that unbroken ids prove: `trades`, or `flat` where there was none."""
    if minute_ms < earliest_held(ints, slot) or minute_ms >= ints[s.MINUTE, slot]:
        return
    column = (minute_ms // MINUTE_MS) % RING
    row = rows[column, slot]
    if row["open_ms"] != minute_ms or is_settled(row) or (ints[s.LACKING, slot] >> column) & 1:
        return
    proven = TRADES if row["trades"] > 0 else FLAT
    ints[s.PROVEN, slot] |= 1 << column
    if row["origin"] < proven:
        set_origin(rows, ints, slot, column, proven)


@kernel
def doubt(rows: Any, ints: Any, slot: int, from_ms: int, upto_ms: int) -> None:
    """Take the proof away from the closed minutes opening in `[from_ms, upto_ms]`: `partial`, or `filled` without trades."""
    minute_ms = max(from_ms, earliest_held(ints, slot))
    while minute_ms <= upto_ms and minute_ms < ints[s.MINUTE, slot]:
        column = (minute_ms // MINUTE_MS) % RING
        row = rows[column, slot]
        if row["open_ms"] == minute_ms and not is_settled(row):
            ints[s.PROVEN, slot] &= ~(1 << column)
            doubtful = PARTIAL if row["trades"] > 0 else FILLED
            if row["origin"] > doubtful:
                set_origin(rows, ints, slot, column, doubtful)
        minute_ms += MINUTE_MS


@kernel
def step(rows: Any, ints: Any, slot: int, time_ms: int) -> None:
    """Move the frontier by one id, to a trade at `time_ms`, and raise what is thereby proven."""
    before_ms = ints[s.FRONTIER, slot]
    minute_ms = before_ms - before_ms % MINUTE_MS
    reached_ms = time_ms - time_ms % MINUTE_MS
    if reached_ms > minute_ms:
        if ints[s.CHAIN, slot] < minute_ms:
            raise_minute(rows, ints, slot, minute_ms)
        minute_ms = max(minute_ms + MINUTE_MS, earliest_held(ints, slot))
        while minute_ms < reached_ms:
            raise_minute(rows, ints, slot, minute_ms)
            minute_ms += MINUTE_MS
    ints[s.FRONTIER, slot] = max(before_ms, time_ms)
    ints[s.NEXT_ID, slot] += 1


@kernel
def catch_up(rows: Any, ints: Any, slot: int) -> None:
    """Move the frontier over the ids ahead that have become contiguous."""
    while ints[s.AHEAD, slot] > 0:
        place = s.AHEAD_MS + ints[s.NEXT_ID, slot] % WINDOW
        time_ms = ints[place, slot]
        if time_ms == 0:
            return
        ints[place, slot] = 0
        ints[s.AHEAD, slot] -= 1
        step(rows, ints, slot, time_ms)


@kernel
def restart_chain(rows: Any, ints: Any, slot: int, agg_id: int, time_ms: int) -> None:
    """Begin a new unbroken run of ids at this one, doubting everything from the last of the old run to it."""
    before_ms = ints[s.FRONTIER, slot]
    doubt(rows, ints, slot, before_ms - before_ms % MINUTE_MS, time_ms)
    ints[s.NEXT_ID, slot] = agg_id + 1
    ints[s.CHAIN, slot] = time_ms
    ints[s.FRONTIER, slot] = time_ms
    ints[s.DOUBTED, slot] = max(ints[s.DOUBTED, slot], time_ms)


@kernel
def forget_ahead(ints: Any, slot: int) -> None:
    """Forget the ids seen beyond the frontier."""
    if ints[s.AHEAD, slot] > 0:
        ints[s.AHEAD, slot] = 0
        ints[s.AHEAD_MS : s.AHEAD_MS + WINDOW, slot] = 0


@kernel
def see(rows: Any, ints: Any, slot: int, agg_id: int, time_ms: int, now_ms: int, tallies: Any) -> None:
    """Take note of an id that was not seen before."""
    next_id = ints[s.NEXT_ID, slot]
    if next_id < 0:
        ints[s.NEXT_ID, slot] = agg_id + 1
        ints[s.CHAIN, slot] = time_ms
        ints[s.FRONTIER, slot] = time_ms
    elif agg_id == next_id:
        step(rows, ints, slot, time_ms)
        catch_up(rows, ints, slot)
    elif agg_id < next_id or agg_id - next_id >= WINDOW:
        tallies[s.RENUMBERED if agg_id < next_id else s.HOLES] += 1
        forget_ahead(ints, slot)
        restart_chain(rows, ints, slot, agg_id, time_ms)
    else:
        ints[s.AHEAD, slot] += 1
        ints[s.AHEAD_MS + agg_id % WINDOW, slot] = time_ms
        ints[s.AHEAD_SEEN + agg_id % WINDOW, slot] = now_ms
    ints[s.TOP, slot] = max(ints[s.TOP, slot], time_ms)


@kernel
def is_duplicate(ints: Any, slot: int, agg_id: int, time_ms: int) -> bool:
    """Whether an id was seen or given up; a lower id dated well past the last trade is a new numbering instead."""
    next_id = ints[s.NEXT_ID, slot]
    if next_id < 0 or agg_id == next_id:
        return False
    if agg_id < next_id:
        return time_ms <= max(ints[s.TOP, slot], ints[s.FRONTIER, slot]) + s.RENUMBERING_MS
    return agg_id - next_id < WINDOW and ints[s.AHEAD_MS + agg_id % WINDOW, slot] != 0


@kernel
def missed_since(ints: Any, slot: int) -> int:
    """Since when the ids right after the frontier are missed: the earliest arrival of an id beyond them."""
    since = s.FAR
    for place in range(WINDOW):
        if ints[s.AHEAD_MS + place, slot] != 0:
            since = min(since, ints[s.AHEAD_SEEN + place, slot])
    return since


@kernel
def give_up_hole(rows: Any, ints: Any, slot: int) -> None:
    """Go on from the first id beyond the frontier, over the ids before it that never came."""
    agg_id = ints[s.NEXT_ID, slot] + 1
    while ints[s.AHEAD_MS + agg_id % WINDOW, slot] == 0:
        agg_id += 1
    place = s.AHEAD_MS + agg_id % WINDOW
    time_ms = ints[place, slot]
    ints[place, slot] = 0
    ints[s.AHEAD, slot] -= 1
    restart_chain(rows, ints, slot, agg_id, time_ms)
    catch_up(rows, ints, slot)


@kernel
def expire_holes(rows: Any, ints: Any, live: Any, now_ms: int, tallies: Any) -> None:
    """Give up the holes that late arrivals have not filled in time."""
    for index in range(live.shape[0]):
        slot = live[index]
        while ints[s.AHEAD, slot] > 0 and now_ms - missed_since(ints, slot) >= s.HOLE_PATIENCE_MS:
            give_up_hole(rows, ints, slot)
            tallies[s.HOLES] += 1


@kernel
def blind(rows: Any, ints: Any, slots: Any, since_ms: int) -> None:
    """Take back that nothing happened: minutes without trades that ended after `since_ms` are `filled`, not `flat`.

    Those that unbroken ids prove stay what they are.
    """
    for index in range(slots.shape[0]):
        slot = slots[index]
        ints[s.SIGHTED, slot] = s.FAR
        minute_ms = max(since_ms - since_ms % MINUTE_MS, earliest_held(ints, slot))
        while minute_ms < ints[s.MINUTE, slot]:
            column = (minute_ms // MINUTE_MS) % RING
            row = rows[column, slot]
            proven = (ints[s.PROVEN, slot] >> column) & 1
            if row["open_ms"] == minute_ms and row["origin"] == FLAT and not is_settled(row) and not proven:
                set_origin(rows, ints, slot, column, FILLED)
            minute_ms += MINUTE_MS
