"""Candles that are not there between others: a series is a run without holes, whatever order its parts came in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from klagg.interval import DAY_MS, MINUTE, Interval
from klagg.model import CANDLE, Candles, Flag, Origin, no_candles
from klagg.store import SqliteStore

MOST_MS: Final = 40 * DAY_MS
"""What is longer than this between two parts of a series is put on record as one gap, and not made minute by minute: one stray file of
years ago is no reason for millions of rows."""
APART: Final = "no file has anything for this time"
"""The reason on record of such a gap."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """`filled`: candles for the minutes between; `apart`: spans `[start_ms, end_ms)` too long to be filled."""

    filled: Candles
    apart: list[tuple[int, int]]


def find_gaps(store: SqliteStore, instrument_id: int, start_ms: int, end_ms: int, interval: Interval = MINUTE) -> Gaps:
    """What is not there between the stored candles of `[start_ms, end_ms)`, the one before and the one after included.

    `filled`: nothing is known of them, so that the exchange is asked. Nothing is made between two lives of a symbol.
    """
    filled: list[Candles] = []
    apart: list[tuple[int, int]] = []
    between = _between_lives(store, instrument_id)
    for before, open_ms in _holes(store, instrument_id, start_ms, end_ms, interval):
        from_ms = interval.next_open(int(before["open_ms"]))
        if any(from_ms < last_ms and first_ms < open_ms for first_ms, last_ms in between):
            continue
        if open_ms - from_ms > MOST_MS:
            apart.append((from_ms, open_ms))
            continue
        opens = list(interval.opens(from_ms, open_ms))
        gap = np.zeros(len(opens), CANDLE)
        gap["open_ms"], gap["interval"] = opens, interval.code
        gap["origin"], gap["flags"] = Origin.FILLED, Flag.CLOSED
        for name in ("price_scale", "qty_scale"):
            gap[name] = before[name]
        for name in ("open", "high", "low", "close"):
            gap[name] = before["close"]
        gap["first_id"] = gap["last_id"] = -1
        filled.append(gap)
    return Gaps(np.concatenate(filled) if filled else no_candles(), apart)


def _holes(
    store: SqliteStore, instrument_id: int, start_ms: int, end_ms: int, interval: Interval
) -> Iterator[tuple[np.void, int]]:
    """Each stored candle that the next one does not follow, and the open of that one."""
    last = store.read(instrument_id, interval, 0, start_ms, 1, descending=True)
    after = store.read(instrument_id, interval, end_ms, 1 << 62, 1)
    longest_ms = interval.step_ms or 28 * DAY_MS
    for piece in (*store.iter_read(instrument_id, interval, start_ms, end_ms), after):
        rows = np.concatenate([last, piece])
        for at in np.flatnonzero(np.diff(rows["open_ms"]) > longest_ms).tolist():
            open_ms = int(rows["open_ms"][at + 1])
            if interval.next_open(int(rows["open_ms"][at])) < open_ms:
                yield rows[at], open_ms
        last = rows[-1:]


def _between_lives(store: SqliteStore, instrument_id: int) -> list[tuple[int, int]]:
    """The times between two lives of a symbol: of a life that ended to the beginning of the next."""
    lives = store.lives(instrument_id)
    return [
        (one.retired_ms, max(other.listed_ms, one.retired_ms))
        for one, other in pairwise(lives)
        if one.retired_ms is not None
    ]
