"""Kernels that apply a batch of trades: route by time, amend what is closed, order by id."""

from typing import Any, Final

import numpy as np

from klagg.engine import state as s
from klagg.engine.calendar import find_due
from klagg.engine.candle import LIMITS, POWERS, add_ids, add_volumes, flatten, product
from klagg.engine.closing import RING, close_minute
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
        ints[slot, first] = agg_id
        ints[slot, last] = agg_id
    else:
        row["high"] = max(row["high"], price)
        row["low"] = min(row["low"], price)
        if agg_id < ints[slot, first]:
            ints[slot, first] = agg_id
            row["open"] = price
        if agg_id > ints[slot, last]:
            ints[slot, last] = agg_id
            row["close"] = price
    add_ids(row, trade["first_id"], trade["last_id"])
    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)


@kernel
def add_next(row: Any, trade: Any, price: int, qty: int, quote_hi: int, quote_lo: int) -> None:
    """Add a trade whose id is above all others of its minute."""
    if row["trades"] == 0:
        flatten(row, price)
    elif price > row["high"]:
        row["high"] = price
    elif price < row["low"]:
        row["low"] = price
    row["close"] = price
    add_ids(row, trade["first_id"], trade["last_id"])
    add_volumes(row, qty, quote_hi, quote_lo, trade["buyer_is_maker"] == 0)


@kernel
def trades_between(rows: Any, slot: int, from_ms: int, upto_ms: int) -> int:
    """How many trades the ring's minutes in `[from_ms, upto_ms)` hold."""
    count = 0
    while from_ms < upto_ms:
        count += rows[slot, (from_ms // MINUTE_MS) % RING]["trades"]
        from_ms += MINUTE_MS
    return count


@kernel
def run_on(rows: Any, ints: Any, slot: int, minute_ms: int) -> None:
    """Carry the close of a closed minute through the candles without trades that follow it."""
    price = rows[slot, (minute_ms // MINUTE_MS) % RING]["close"]
    current_ms = ints[slot, s.MINUTE]
    reached_ms = minute_ms + MINUTE_MS
    while reached_ms <= current_ms:
        column = (reached_ms // MINUTE_MS) % RING
        row = rows[slot, column]
        if row["trades"] > 0 or is_settled(row):
            break
        if row["close"] != price:
            flatten(row, price)
            if reached_ms < current_ms:
                ints[slot, s.DIRTY_MINUTES] |= 1 << column
        reached_ms += MINUTE_MS
    for k in range(1, (rows.shape[1] - RING) // 2 + 1):
        for column in range(RING + 2 * (k - 1), RING + 2 * k):
            row = rows[slot, column]
            if minute_ms < row["open_ms"] <= reached_ms and row["trades"] == 0 and row["close"] != price:
                flatten(row, price)
                if column & 1:
                    ints[slot, s.DIRTY_LONGER] |= 1 << k


@kernel
def amend(
    rows: Any, ints: Any, slot: int, minute_ms: int, trade: Any, price: int, qty: int, quote_hi: int, quote_lo: int
) -> None:
    """Add a late trade to a closed minute and to every longer candle that contains it."""
    current_ms = ints[slot, s.MINUTE]
    column = (minute_ms // MINUTE_MS) % RING
    minute = rows[slot, column]
    held = trades_between(rows, slot, minute_ms, current_ms)
    before = minute["trades"]
    add_trade(minute, ints, slot, column, trade, price, qty, quote_hi, quote_lo)
    for k in range(1, (rows.shape[1] - RING) // 2 + 1):
        at = RING + 2 * (k - 1)
        end_ms = current_ms
        within = held
        if rows[slot, at]["open_ms"] > minute_ms:
            end_ms = rows[slot, at]["open_ms"]
            within = held - trades_between(rows, slot, end_ms, current_ms)
            at += 1
        row = rows[slot, at]
        if row["open_ms"] < 0 or row["open_ms"] > minute_ms:
            continue
        if at & 1:
            ints[slot, s.DIRTY_LONGER] |= 1 << k
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
    ints[slot, s.DIRTY_MINUTES] |= 1 << column
    if minute["origin"] != PARTIAL:
        set_origin(rows, ints, slot, column, PARTIAL)
    run_on(rows, ints, slot, minute_ms)


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
    for index in range(start, trades.shape[0]):
        trade = trades[index]
        slot = trade["slot"]
        time_ms = trade["time_ms"]
        price, qty = trade["price"], trade["qty"]
        counted = trade["kind"] == MARKET
        quote_hi, quote_lo = np.int64(0), np.int64(0)
        if ints[slot, s.LIVE] == 0 or time_ms <= 0 or time_ms > now_ms + s.FUTURE_TOLERANCE_MS or trade["agg_id"] < 0:
            tallies[s.INVALID] += 1
            continue
        if counted:
            if price <= 0 or qty <= 0 or trade["last_id"] < trade["first_id"]:
                tallies[s.INVALID] += 1
                continue
            by_price = ints[slot, s.PRICE_SCALE] - trade["price_scale"]
            by_qty = ints[slot, s.QTY_SCALE] - trade["qty_scale"]
            if by_price < 0 or by_qty < 0:
                return index, used, WIDEN
            if price >= LIMITS[by_price] or qty >= LIMITS[by_qty]:
                tallies[s.INVALID] += 1
                continue
            price *= POWERS[by_price]
            qty *= POWERS[by_qty]
            quote_hi, quote_lo = product(price, qty)
            if quote_hi >= s.MINUTE_QUOTE_LIMIT:
                tallies[s.INVALID] += 1
                continue
        into_ms = time_ms - ints[slot, s.MINUTE]
        if (
            counted
            and trade["agg_id"] == ints[slot, s.NEXT_ID]
            and 0 <= into_ms < MINUTE_MS
            and ints[slot, s.AHEAD] == 0
            and ints[slot, s.FRONTIER] >= ints[slot, s.MINUTE]
        ):
            # The common case, written out: the next id, in the open minute, proving nothing new.
            column = (ints[slot, s.MINUTE] // MINUTE_MS) % RING
            if rows[slot, column]["quote_hi"] + quote_hi >= s.MINUTE_QUOTE_LIMIT:
                tallies[s.INVALID] += 1
                continue
            add_next(rows[slot, column], trade, price, qty, quote_hi, quote_lo)
            if ints[slot, s.FIRST_AGG + column] < 0:
                ints[slot, s.FIRST_AGG + column] = trade["agg_id"]
            ints[slot, s.LAST_AGG + column] = trade["agg_id"]
            ints[slot, s.NEXT_ID] += 1
            ints[slot, s.FRONTIER] = max(ints[slot, s.FRONTIER], time_ms)
            ints[slot, s.TOP] = max(ints[slot, s.TOP], time_ms)
            ints[slot, s.FRONTIER_PRICE] = price
            tallies[s.APPLIED] += 1
            continue
        if is_duplicate(ints, slot, trade["agg_id"], time_ms):
            tallies[s.DUPLICATE] += 1
            continue
        minute_ms = time_ms - time_ms % MINUTE_MS
        while ints[slot, s.MINUTE] < minute_ms:
            if used + 2 * calendar.shape[0] > out.shape[0]:
                return index, used, FULL
            due_count = find_due(ints[slot, s.MINUTE] + MINUTE_MS, calendar, due)
            used = close_minute(rows, ints, slot, calendar, due, due_count, out, used)
        current_ms = ints[slot, s.MINUTE]
        old = minute_ms < current_ms - s.HELD_MINUTES * MINUTE_MS or minute_ms < ints[slot, s.BORN]
        column = (minute_ms // MINUTE_MS) % RING
        # The amount goes in before the id is noted: noting it may prove the minute, which must then be whole.
        if counted and not old:
            if rows[slot, column]["quote_hi"] + quote_hi >= s.MINUTE_QUOTE_LIMIT:
                # Its id stays unseen: the hole it leaves has the minute repaired from the exchange.
                tallies[s.INVALID] += 1
                continue
            if minute_ms == current_ms:
                add_trade(rows[slot, column], ints, slot, column, trade, price, qty, quote_hi, quote_lo)
                tallies[s.APPLIED] += 1
            elif is_settled(rows[slot, column]):
                tallies[s.AFTER_VERIFIED] += 1
                ints[slot, s.REQUERY] |= 1 << column
            else:
                amend(rows, ints, slot, minute_ms, trade, price, qty, quote_hi, quote_lo)
                tallies[s.LATE] += 1
        elif counted:
            tallies[s.TOO_OLD] += 1
            if current_ms - minute_ms < RING * MINUTE_MS and minute_ms >= ints[slot, s.BORN]:
                # Its id is seen but its amount is in no candle: ids do not prove that minute.
                ints[slot, s.LACKING] |= 1 << column
                ints[slot, s.REQUERY] |= 1 << column
                doubt(rows, ints, slot, minute_ms, minute_ms)
        see(rows, ints, slot, trade["agg_id"], time_ms, now_ms, tallies)
        if not counted:
            tallies[s.NOT_MARKET] += 1
            continue
        if trade["agg_id"] + 1 == ints[slot, s.NEXT_ID]:
            ints[slot, s.FRONTIER_PRICE] = price
    return trades.shape[0], used, DONE
