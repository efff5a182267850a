"""What was not believed, or could not be handled, on record: whose it was, at which door, why, and what it said."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import INTERVALS
from klagg.model import Candles, Ints, Market, Source
from klagg.plausible import impossible, numbers
from klagg.store.database import Database
from klagg.store.instruments import Directory
from klagg.store.rows import Mask, is_verified

KEPT: Final = 10_000
"""Rows kept, some 4 MB; past it the oldest go. How many there ever were stays known."""
_PRUNED_EVERY: Final = 256
IMPOSSIBLE: Final = "an impossible candle"
"""What the reason of a candle that cannot be begins with."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One thing that was put aside.

    `door` is where it came in: `archive`, `api` for candles, else what was being done (`repair`, `listing`, …). `interval` and
    `open_ms` are empty and 0 where it is of no one candle; `content` is what was told, or the last line of the error.
    """

    market: Market
    symbol: str
    door: str
    reason: str
    interval: str = ""
    open_ms: int = 0
    content: str = ""
    at_ms: int = 0


def put(database: Database, entries: Iterable[Quarantined], at_ms: int) -> None:
    """Put things aside, in the caller's transaction; what was put aside with the same reason and content before is not repeated."""
    for one in entries:
        key = (one.market.value, one.symbol, one.door, one.interval, one.open_ms, one.reason, one.content)
        cursor = database.execute(
            "INSERT INTO quarantine (at_ms, market, symbol, door, interval, open_ms, reason, content) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (at_ms, *key),
        )
        if cursor.rowcount and (cursor.lastrowid or 0) % _PRUNED_EVERY == 0:
            database.execute("DELETE FROM quarantine WHERE id <= ?", ((cursor.lastrowid or 0) - KEPT,))


def newest(database: Database, market: Market, limit: int) -> list[Quarantined]:
    """The newest of a market, newest first."""
    rows = database.rows(
        "SELECT symbol, door, reason, interval, open_ms, content, at_ms FROM quarantine WHERE market = ? ORDER BY id DESC LIMIT ?",
        (market.value, limit),
    )
    return [Quarantined(market, *row) for row in rows]


def count(database: Database, market: Market) -> int:
    """How many of a market are kept on record."""
    row = database.one("SELECT count(*) FROM quarantine WHERE market = ?", (market.value,))
    return int(row[0]) if row else 0


def sift(directory: Directory, instrument_ids: Ints, candles: Candles) -> tuple[Mask, list[Quarantined]]:
    """Which closed candles can be, and the others as they are put on record.

    Only what the exchange is said to have told is judged: klagg's own are its arithmetic, which the check judges.
    """
    possible: Mask = np.ones(len(candles), np.bool_)
    told = np.flatnonzero(is_verified(candles) | (candles["source"] != Source.NONE))
    entries = []
    for at, reason in impossible(candles[told]):
        row = int(told[at])
        possible[row] = False
        market, _, symbol = directory.name(int(instrument_ids[row])).partition(" ")
        entries.append(
            Quarantined(
                Market(market),
                symbol,
                Source(int(candles["source"][row])).label or "unknown",
                f"{IMPOSSIBLE}: {reason}",
                INTERVALS[int(candles["interval"][row])].name,
                int(candles["open_ms"][row]),
                numbers(candles, row),
            )
        )
    return possible, entries
