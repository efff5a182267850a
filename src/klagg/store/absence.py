"""Candles that the exchange was seen not to have: how often, when last, and when they are looked at again (`rules.Absence`)."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable
from typing import Final

import numpy as np

from klagg import rules
from klagg.interval import Interval
from klagg.model import Market
from klagg.rules import Absence
from klagg.store.candles import UNVERIFIED
from klagg.store.database import Database
from klagg.store.rows import integers
from klagg.store.schema import SERIES_INTERVALS

_NEVER_MS: Final = 1 << 62
_STANDS: Final = f"c.verified = 0 AND c.origin = {rules.FINAL.value}"


def note(database: Database, instrument_id: int, interval: Interval, opens: Iterable[int], now_ms: int) -> set[int]:
    """Note candles that an answer lacked between two of its rows, in the caller's transaction; those now proven absent."""
    series = instrument_id * SERIES_INTERVALS + interval.code
    proven = set()
    for open_ms in opens:
        row = database.one("SELECT looks, seen_ms FROM absence WHERE series = ? AND open_ms = ?", (series, open_ms))
        found = rules.absent_again(None if row is None else Absence(*row), now_ms)
        next_ms = _NEVER_MS if found.next_ms is None else found.next_ms
        database.execute(
            "INSERT OR REPLACE INTO absence (series, open_ms, looks, seen_ms, next_ms) VALUES (?, ?, ?, ?, ?)",
            (series, open_ms, found.looks, found.seen_ms, next_ms),
        )
        if found.proven:
            proven.add(open_ms)
    return proven


def due(database: Database, market: Market, now_ms: int, limit: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The candles called `unmatched` that are to be looked at again by now, as the repair queue has them (`UNVERIFIED`)."""
    rows = database.rows(
        f"SELECT i.id, c.series % {SERIES_INTERVALS}, c.open_ms, c.origin FROM absence a "
        f"CROSS JOIN candle c ON c.series = a.series AND c.open_ms = a.open_ms AND {_STANDS} "
        f"CROSS JOIN instrument i ON i.id = c.series / {SERIES_INTERVALS} AND i.market = ? "
        "WHERE a.next_ms <= ? ORDER BY a.next_ms LIMIT ?",
        (market.value, now_ms, limit),
    )
    table = integers(rows, 4)
    queue = np.zeros(len(table), UNVERIFIED)
    for position, name in enumerate(("instrument_id", "interval", "open_ms", "origin")):
        queue[name] = table[:, position]
    return queue


def forget_settled(database: Database) -> int:
    """Forget the absences of candles that have come after all: how many there were."""
    with database.transaction():
        cursor = database.execute(
            "DELETE FROM absence WHERE EXISTS (SELECT 1 FROM candle c "
            "WHERE c.series = absence.series AND c.open_ms = absence.open_ms AND c.verified <> 0)"
        )
    return cursor.rowcount
