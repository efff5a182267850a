"""Where everything stands in the engine's arrays: one column an instrument.

Two arrays hold the whole state:

- `rows`: `CANDLE[RING + 2 * (intervals - 1), capacity]`. Lines `0 … RING-1` are a ring of minutes, by `minute_column`: the open
  minute and the closed ones before it. Then, for the k-th longer interval (k = 1, 2, …), the open candle, folded from *closed* minutes
  only, so that after a tick it is folded to exactly that boundary, and the last closed one.
- `ints`: `int64[…, capacity]`: the lines named below.

The instruments of one line lie side by side: what is busy at one time (the open minute of all of them, the candles of one
interval that close together) is one short stretch of memory, which a tick walks through and trades find in the cache.

Kernels take a few large arrays rather than many small ones, because unpacking an array argument costs more than the work of one trade.
"""

from typing import Final

from klagg.interval import MINUTE_MS

RING: Final = 64
"""Minutes kept in memory, a power of two: closing pushes, repairs and late trades reach back far less than an hour."""
HELD_MINUTES: Final = 3
"""A late trade amends a minute this many boundaries back; an older one is counted and repaired from the exchange."""
WINDOW: Final = 256
"""Ids ahead of the contiguous frontier that may arrive out of order, a power of two; a jump beyond is a hole at once."""
HOLE_PATIENCE_MS: Final = 5_000
"""How long a hole in the ids may be filled by late arrivals."""
FUTURE_TOLERANCE_MS: Final = 60_000
"""A trade dated later than now by more than this is invalid."""
RENUMBERING_MS: Final = 60_000
"""A lower id dated this much after the last trade is a new numbering, not a duplicate."""
MINUTE_QUOTE_LIMIT: Final = 10**14
"""The high word of a minute's quote volume stays below this, so that the minutes of a month can never overflow their sum."""
LONGER_HIGH_LIMIT: Final = 4 * 10**18
"""Widening may bring the high word of a longer sum up to this: a month of minutes more still fits 63 bits."""
FAR: Final = 1 << 62
"""An instant that never comes."""
RANKS: Final = 7
"""How many origins there are."""

# The lines of `ints`. The first eight are what a trade in its turn touches.
LIVE: Final = 0
PRICE_SCALE: Final = 1
QTY_SCALE: Final = 2
MINUTE: Final = 3
"""The open of the open minute: everything before it is closed."""
NEXT_ID: Final = 4
"""The first aggregate id neither seen nor given up; -1 before the first trade."""
AHEAD: Final = 5
"""How many ids beyond the frontier have been seen."""
FRONTIER: Final = 6
"""The time of the newest trade up to which ids run unbroken."""
FRONTIER_PRICE: Final = 7
BORN: Final = 8
"""The open of the instrument's first minute here: nothing is made before it."""
SEEDED: Final = 9
"""The open of the minute it was activated in (-1: it was restored)."""
CHAIN: Final = 10
"""The time of the trade since which ids run unbroken to the frontier; FAR before the first trade."""
DOUBTED: Final = 11
"""The latest time of a trade at the far edge of a hole that was given up: minutes up to it may lack trades."""
TOP: Final = 12
"""The latest time of a trade that did not come in its turn; of all trades: the later of this and the frontier's."""
SIGHTED: Final = 13
"""Since when the feed has been alive without a break; FAR while it is blind."""
DIRTY_MINUTES: Final = 14
"""Bits by ring column: closed minutes changed since they were last collected."""
DIRTY_LONGER: Final = 15
"""Bits by k: last closed longer candles changed since they were last collected."""
REQUERY: Final = 16
"""Bits by ring column: minutes that a trade came too late for, to be compared with the exchange."""
LACKING: Final = 17
"""Bits by ring column: minutes of which a trade is in no candle, because it came too late: ids do not prove them."""
PROVEN: Final = 18
"""Bits by ring column: minutes that unbroken ids have proven whole."""
STALE: Final = 19
"""Bits by 2k (the open) and 2k + 1 (the last closed longer candle): a minute of it was replaced, and it was not folded anew since."""
RANK_COUNTS: Final = 20
"""RANKS columns: closed minutes of each origin since birth."""
FIRST_AGG: Final = RANK_COUNTS + RANKS
"""RING columns: the lowest aggregate id in the minute."""
LAST_AGG: Final = FIRST_AGG + RING
"""RING columns: the highest aggregate id in the minute; of the open one it may lag behind (`note_last_id`)."""
AHEAD_MS: Final = LAST_AGG + RING
"""WINDOW columns, by id modulo WINDOW: the time of an id seen beyond the frontier, 0 where it was not seen."""
AHEAD_SEEN: Final = AHEAD_MS + WINDOW
"""WINDOW columns: when (now_ms) that id arrived, which is since when those before it are missed."""
LONGER: Final = AHEAD_SEEN + WINDOW
"""Then for each longer interval: its end, the rank counts when it opened, and the rank counts of the last closed one."""
LONGER_WIDTH: Final = 1 + 2 * RANKS

# The columns of the tallies: what became of the trades, since the engine was made.
APPLIED: Final = 0
LATE: Final = 1
DUPLICATE: Final = 2
TOO_OLD: Final = 3
INVALID: Final = 4
NOT_MARKET: Final = 5
HOLES: Final = 6
RENUMBERED: Final = 7
AFTER_VERIFIED: Final = 8
TALLIES: Final = 9
TALLY_NAMES: Final = (
    "applied",
    "late",
    "duplicate",
    "too_old",
    "invalid",
    "not_market",
    "holes",
    "renumbered",
    "after_verified",
)


def width(capacity: int) -> int:
    """The length of a line for so many instruments: an odd number of cache lines of 8 integers.

    With a power of two, all that belongs to one instrument would fall into the same few places of the cache.
    """
    lines = -(-capacity // 8)
    return 8 * (lines | 1)


def int_columns(intervals: int) -> int:
    """The number of lines in `ints` for that many intervals."""
    return LONGER + LONGER_WIDTH * (intervals - 1)


def row_columns(intervals: int) -> int:
    """The number of lines in `rows` for that many intervals."""
    return RING + 2 * (intervals - 1)


def minute_column(open_ms: int) -> int:
    """The column of a minute in the ring."""
    return (open_ms // MINUTE_MS) % RING
