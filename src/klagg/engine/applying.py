"""Kernels that apply a batch of trades: route by time, amend what is closed, order by id."""

from typing import Any, Final

import numpy as np

from klagg.engine import state as s
from klagg.engine.candle import LIMITS, POWERS, add_ids, add_volumes, flatten, product
from klagg.engine.closing import RING, close_minute, note_last_id
from klagg.engine.evidence import PARTIAL, doubt, is_duplicate, is_settled, see, set_origin
from klagg.engine.jit import kernel
from klagg.interval import MINUTE_MS
from klagg.model import TradeKind

MARKET: Final = int(TradeKind.MARKET)

DONE: Final = 0
WIDEN: Final = 1
"""The trade has more digits than its instrument."""
FULL: Final = 2
"""No room for the candles that the next trade closes."""


@kernel
def add_trade(
    row: Any, ints: Any, slot: int, column: int, trade: Any, price: int, qty: int, quote_hi: int, quote_lo: int
) -> None:
    """Add a trade to its minute; open and close go by id, not by arrival."""
    agg_id = trade["agg_id"]
    first, last = s.FIRST_AGG + column, s.LAST_AGG + column
    if row["trades"] == 0:
        flatten(row, price)
        ints[first, slot] = agg_id
        ints[last, slot] = agg_id
    else:
        row["high"] = max(row["high"], price)
        row["low"] = min(row["low"], price)
        if agg_id < ints[first, slot]:
            ints[first, slot] = agg_id
            row["open"] = price
        if agg_id > ints[last, slot]:
            ints[last, slot] = agg_id
            row["close"] = price
    add_ids(row, trade["first_id"], trade["last_id"])
    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)


@kernel
def add_next(row: Any, trade: Any, price: int, qty: int, quote_hi: int, quote_lo: int) -> None:
    """Add a trade whose id is above all others of its minute, which has some."""
    row["high"] = max(row["high"], price)
    row["low"] = min(row["low"], price)
    row["close"] = price
    add_ids(row, trade["first_id"], trade["last_id"])
    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)


@kernel
def trades_between(rows: Any, slot: int, from_ms: int, upto_ms: int) -> int:
    """How many trades the ring's minutes in `[from_ms, upto_ms)` hold."""
    count = 0
    while from_ms < upto_ms:
        count += rows[(from_ms // MINUTE_MS) % RING, slot]["trades"]
        from_ms += MINUTE_MS
    return count


@kernel
def run_on(rows: Any, ints: Any, slot: int, minute_ms: int) -> None:
    """Carry the close of a closed minute through the candles without trades that follow it."""
    price = rows[(minute_ms // MINUTE_MS) % RING, slot]["close"]
    current_ms = ints[s.MINUTE, slot]
    reached_ms = minute_ms + MINUTE_MS
    while reached_ms <= current_ms:
        column = (reached_ms // MINUTE_MS) % RING
        row = rows[column, slot]
        if row["trades"] > 0 or is_settled(row):
            break
        if row["close"] != price:
            flatten(row, price)
            if reached_ms < current_ms:
                ints[s.DIRTY_MINUTES, slot] |= 1 << column
        reached_ms += MINUTE_MS
    for k in range(1, (rows.shape[0] - RING) // 2 + 1):
        for column in range(RING + 2 * (k - 1), RING + 2 * k):
            row = rows[column, slot]
            if minute_ms < row["open_ms"] <= reached_ms and row["trades"] == 0 and row["close"] != price:
                flatten(row, price)
                if column & 1:
                    ints[s.DIRTY_LONGER, slot] |= 1 << k


@kernel
def amend(
    rows: Any, ints: Any, slot: int, minute_ms: int, trade: Any, price: int, qty: int, quote_hi: int, quote_lo: int
) -> None:
    """Add a late trade to a closed minute and to every longer candle that contains it."""
    current_ms = ints[s.MINUTE, slot]
    column = (minute_ms // MINUTE_MS) % RING
    minute = rows[column, slot]
    held = trades_between(rows, slot, minute_ms, current_ms)
    before = minute["trades"]
    add_trade(minute, ints, slot, column, trade, price, qty, quote_hi, quote_lo)
    for k in range(1, (rows.shape[0] - RING) // 2 + 1):
        at = RING + 2 * (k - 1)
        end_ms = current_ms
        within = held
        if rows[at, slot]["open_ms"] > minute_ms:
            end_ms = rows[at, slot]["open_ms"]
            within = held - trades_between(rows, slot, end_ms, current_ms)
            at += 1
        row = rows[at, slot]
        if row["open_ms"] < 0 or row["open_ms"] > minute_ms:
            continue
        if at & 1:
            ints[s.DIRTY_LONGER, slot] |= 1 << k
        none_before = row["trades"] == within
        none_after = within == before
        if row["trades"] == 0:
            flatten(row, price)
        row["high"] = max(row["high"], price)
        row["low"] = min(row["low"], price)
        if none_before:
            row["open"] = minute["open"]
        if none_after:
            row["close"] = minute["close"]
        add_ids(row, trade["first_id"], trade["last_id"])
        add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)
    ints[s.DIRTY_MINUTES, slot] |= 1 << column
    if minute["origin"] != PARTIAL:
        set_origin(rows, ints, slot, column, PARTIAL)
    run_on(rows, ints, slot, minute_ms)


@kernel
def apply_out_of_turn(
    rows: Any,
    ints: Any,
    trade: Any,
    price: int,
    qty: int,
    quote_hi: int,
    quote_lo: int,
    now_ms: int,
    calendar: Any,
    due: Any,
    out: Any,
    used: int,
    tallies: Any,
) -> int:
    """Apply any trade: duplicates, early, late, too late, out of order, of no market; returns how much of `out` is used.

    Negative (-1 less what is used) where `out` has no room for what the trade closes: empty it and call again.
    """
    slot, agg_id, time_ms = np.int64(trade["slot"]), trade["agg_id"], trade["time_ms"]
    counted = trade["kind"] == MARKET
    if is_duplicate(ints, slot, agg_id, time_ms):
        tallies[s.DUPLICATE] += 1
        return used
    minute_ms = time_ms - time_ms % MINUTE_MS
    while ints[s.MINUTE, slot] < minute_ms:
        if used + 2 * calendar.shape[0] > out.shape[0]:
            return -1 - used
        used = close_minute(rows, ints, slot, calendar, due, out, used)
    note_last_id(ints, slot)
    current_ms = ints[s.MINUTE, slot]
    old = minute_ms < current_ms - s.HELD_MINUTES * MINUTE_MS or minute_ms < ints[s.BORN, slot]
    column = (minute_ms // MINUTE_MS) % RING
    # The amount goes in before the id is noted: noting it may prove the minute, which must then be whole.
    if counted and not old:
        if rows[column, slot]["quote_hi"] + quote_hi >= s.MINUTE_QUOTE_LIMIT:
            # Its id stays unseen: the hole it leaves has the minute repaired from the exchange.
            tallies[s.INVALID] += 1
            return used
        if minute_ms == current_ms:
            add_trade(rows[column, slot], ints, slot, column, trade, price, qty, quote_hi, quote_lo)
            tallies[s.APPLIED] += 1
        elif is_settled(rows[column, slot]):
            tallies[s.AFTER_VERIFIED] += 1
            ints[s.REQUERY, slot] |= 1 << column
        else:
            amend(rows, ints, slot, minute_ms, trade, price, qty, quote_hi, quote_lo)
            tallies[s.LATE] += 1
    elif counted:
        tallies[s.TOO_OLD] += 1
        if current_ms - minute_ms < RING * MINUTE_MS and minute_ms >= ints[s.BORN, slot]:
            # Its id is seen but its amount is in no candle: ids do not prove that minute.
            ints[s.LACKING, slot] |= 1 << column
            ints[s.REQUERY, slot] |= 1 << column
            doubt(rows, ints, slot, minute_ms, minute_ms)
    else:
        tallies[s.NOT_MARKET] += 1
    see(rows, ints, slot, agg_id, time_ms, now_ms, tallies)
    if counted and agg_id + 1 == ints[s.NEXT_ID, slot]:
        ints[s.FRONTIER_PRICE, slot] = price
    return used


@kernel
def apply(
    rows: Any,
    ints: Any,
    trades: Any,
    start: int,
    now_ms: int,
    calendar: Any,
    due: Any,
    out: Any,
    used: int,
    tallies: Any,
) -> Any:
    """Apply `trades[start:]`; returns the index it stopped at, how much of `out` is used, and why it stopped.

    `out` receives the candles that a trade of a later minute closed before the tick came.
    """
    in_turn = 0
    invalid = 0
    why = DONE
    index = start
    latest_ms = now_ms + s.FUTURE_TOLERANCE_MS
    while index < trades.shape[0]:
        trade = trades[index]
        slot = np.int64(trade["slot"])  # one type of slot everywhere: each more would compile all it reaches again
        time_ms = trade["time_ms"]
        agg_id = trade["agg_id"]
        price, qty = trade["price"], trade["qty"]
        quote_hi, quote_lo = np.int64(0), np.int64(0)
        if ints[s.LIVE, slot] == 0 or time_ms <= 0 or time_ms > latest_ms or agg_id < 0:
            invalid += 1
            index += 1
            continue
        if trade["kind"] == MARKET:
            by_price = ints[s.PRICE_SCALE, slot] - trade["price_scale"]
            by_qty = ints[s.QTY_SCALE, slot] - trade["qty_scale"]
            if price > 0 and qty > 0 and (by_price < 0 or by_qty < 0):
                why = WIDEN
                break
            if (
                price <= 0
                or qty <= 0
                or price >= LIMITS[by_price]
                or qty >= LIMITS[by_qty]
                or trade["last_id"] < trade["first_id"]
            ):
                invalid += 1
                index += 1
                continue
            price *= POWERS[by_price]
            qty *= POWERS[by_qty]
            quote_hi, quote_lo = product(price, qty)
            if quote_hi >= s.MINUTE_QUOTE_LIMIT:
                invalid += 1
                index += 1
                continue
            minute_ms = ints[s.MINUTE, slot]
            if (
                agg_id == ints[s.NEXT_ID, slot]
                and 0 <= time_ms - minute_ms < MINUTE_MS
                and ints[s.AHEAD, slot] == 0
                and ints[s.FRONTIER, slot] >= minute_ms
            ):
                # The common case, written out: the next id, in the open minute, proving nothing new.
                row = rows[(minute_ms // MINUTE_MS) % RING, slot]
                if row["trades"] > 0 and row["quote_hi"] + quote_hi < s.MINUTE_QUOTE_LIMIT:
                    add_next(row, trade, price, qty, quote_hi, quote_lo)
                    ints[s.NEXT_ID, slot] = agg_id + 1
                    ints[s.FRONTIER, slot] = max(ints[s.FRONTIER, slot], time_ms)
                    ints[s.FRONTIER_PRICE, slot] = price
                    in_turn += 1
                    index += 1
                    continue
        used = apply_out_of_turn(
            rows, ints, trade, price, qty, quote_hi, quote_lo, now_ms, calendar, due, out, used, tallies
        )
        if used < 0:
            used = -1 - used
            why = FULL
            break
        index += 1
    tallies[s.APPLIED] += in_turn
    tallies[s.INVALID] += invalid
    return index, used, why
