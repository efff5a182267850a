"""Symbols that do not trade for a time: what a pause leaves in the database, and how a series goes on after it.

A pause makes no candles and asks for nothing. If the symbol trades again within a day, its series goes on from where it stopped:
the minutes between are made then, and the repair asks for them. Else that life of it has ended, and another begins when it trades.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import DAY_MS, INTERVALS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Instrument, Market, Origin
from klagg.service.mending import FILLED_AT_ONCE, fillers
from klagg.service.shard import Seed, seeds_of, seeds_of_closed
from klagg.store import SqliteStore

LONGEST_MS: Final = DAY_MS
"""A symbol that trades again within this time goes on as if it had been quiet; a longer pause has ended its life."""
_TAIL: Final = 1_440
"""Minutes looked at where the end of a life is looked for: a symbol list may tell of it late, by minutes."""
_FAR_MS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Pause:
    """A symbol that is paused, and where its candles stop."""

    instrument: Instrument
    since_ms: int

    def is_over(self, now_ms: int) -> bool:
        """Whether it has lasted so long that this life of the symbol has ended."""
        return MINUTE.open_at(now_ms) - self.since_ms > LONGEST_MS


def stored_seeds(
    store: SqliteStore, market: Market, intervals: tuple[Interval, ...], names: dict[int, str]
) -> dict[int, Seed]:
    """What the stored series of these symbols go on from: the later of the open snapshot and the newest closed minute.

    Raises:
        MalformedRow: a row contradicts itself.
    """
    newest = store.newest(market, intervals)
    closed = store.newest_closed(market, intervals)
    seeds = {
        number: seed
        for number, seed in seeds_of_closed(closed.instrument_ids, closed.candles).items()
        if number in names
    }
    opened = seeds_of(
        newest.instrument_ids, newest.candles, newest.last_trade_instrument_ids, newest.last_trades, names
    )
    for number, seed in opened.items():
        if number not in seeds or seed.boundary_ms >= seeds[number].boundary_ms:
            seeds[number] = seed
    return seeds


def end_life(store: SqliteStore, instrument_id: int, since_ms: int) -> int:
    """Find where a life has ended, and take back what was made after it: the end of its last minute that anything speaks for.

    A minute counts if someone traded in it, or if the exchange had a candle for it or was seen to have none.
    """
    with store.transaction():
        minutes = store.read(instrument_id, MINUTE, 0, _FAR_MS, _TAIL, descending=True)
        if len(minutes) == 0:
            return since_ms
        guessed = (
            (minutes["trades"] == 0) & (minutes["flags"] & Flag.VERIFIED == 0) & (minutes["origin"] <= Origin.FLAT)
        )
        told = minutes["open_ms"][~guessed]
        if len(told) == 0:
            return since_ms
        end_ms = int(told.max()) + MINUTE_MS
        forget_running(store, [instrument_id])
        for interval in INTERVALS:
            first_ms = interval.open_at(end_ms)
            store.mending.remove_from(
                instrument_id, interval, first_ms if first_ms == end_ms else interval.next_open(first_ms)
            )
    return end_ms


def extend(store: SqliteStore, instrument_id: int, to_ms: int, now_ms: int) -> int:
    """Make the minutes between the last one stored and `to_ms`, at its close: how many there are. None before the first."""
    last = store.read(instrument_id, MINUTE, 0, to_ms, 1, descending=True)
    if len(last) == 0:
        return 0
    with store.knowing(now_ms, publish_new=False):
        return write_filled(store, instrument_id, last, int(last["open_ms"][0]) + MINUTE_MS, to_ms)


def forget_running(store: SqliteStore, instrument_ids: Iterable[int]) -> None:
    """Remove the open candles of symbols that run no more: should they go on, they go on from their closed ones.

    What ran when they stopped is closed without them, by what the exchange tells of it.
    """
    with store.transaction():
        for instrument_id in instrument_ids:
            for interval in INTERVALS:
                store.mending.drop_snapshot(instrument_id, interval)


def write_filled(store: SqliteStore, instrument_id: int, before: Candles, start_ms: int, end_ms: int) -> int:
    """Store minutes `[start_ms, end_ms)` at the close of the one before, without evidence: they are in the repair's queue then."""
    written = 0
    for piece_ms in range(start_ms, end_ms, FILLED_AT_ONCE * MINUTE_MS):
        filled = fillers(before, piece_ms, min(piece_ms + FILLED_AT_ONCE * MINUTE_MS, end_ms))
        written += int(store.write(np.full(len(filled), instrument_id, np.int64), filled).accepted.sum())
    return written


def trim_head(store: SqliteStore, instrument_id: int, upto_ms: int) -> int:
    """Take back what was made before the first minute that anything speaks for, once the past is there: how many there were.

    The exchange's first candle may be later than the listing it tells of.
    """
    lives = store.lives(instrument_id)
    born_ms = MINUTE.open_at(lives[-1].listed_ms)
    minutes = store.read(instrument_id, MINUTE, born_ms, min(upto_ms, born_ms + DAY_MS))
    told = (minutes["trades"] > 0) | (minutes["flags"] & Flag.VERIFIED != 0)
    if not told.any():
        return 0
    return store.mending.remove(instrument_id, MINUTE, minutes["open_ms"][: int(np.argmax(told))].tolist())
