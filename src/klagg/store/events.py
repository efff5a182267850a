"""The event log: what became durable, in the order in which it did, under one sequence for the whole database.

A row stands for as many events as its transaction had of a kind, so a minute of a whole market is one row. It is written in
the transaction it tells of: there is an event exactly where there is the change. Old rows go as new ones come.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final

import numpy as np

from klagg.errors import MalformedRow
from klagg.interval import DAY_MS
from klagg.model import Ints, Market
from klagg.store.database import Database
from klagg.store.instruments import MARKETS
from klagg.store.schema import SERIES_INTERVALS

KEPT_MS: Final = 7 * DAY_MS
"""Events are kept this long, as their own times tell."""
KEPT_EVENTS: Final = 20_000_000
"""And at most so many: a week of 500 symbols, some 30 MB."""
DROPPED_ROWS: Final = 8
"""Old rows deleted with one that comes: more than come, so that the log shrinks, and too few to be felt."""


class Kind(StrEnum):
    """What an event tells."""

    CANDLES = "candles"
    """A closed candle came, changed or was verified: series, open_ms, `What`, revision."""
    DURABLE = "durable"
    """Every shard of the market is closed and durable up to a boundary: boundary_ms, number of instruments."""
    VERIFIED = "verified"
    """The candles that end at a boundary are verified or final: boundary_ms, how many are not."""
    ADDED = "added"
    """A symbol is new, or trades again: instrument id."""
    RETIRED = "retired"
    """A symbol left trading for good: instrument id."""
    GAP = "gap"
    """Minutes that could not be kept are on record: instrument id (0 for all symbols), start_ms, end_ms."""


WIDTHS: Final = {Kind.CANDLES: 4, Kind.DURABLE: 2, Kind.VERIFIED: 2, Kind.ADDED: 1, Kind.RETIRED: 1, Kind.GAP: 3}
"""How many integers an event of a kind has."""


class What(IntFlag):
    """What happened to a closed candle, all at once."""

    CLOSED = 1
    """It was stored for the first time."""
    REVISED = 2
    """Its numbers changed."""
    VERIFIED = 4
    """Its numbers were seen to be the exchange's."""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Events of one kind and one transaction: `values[n]` has the sequence number `seq + n`.

    `values` is an array [count, width] of int64, its columns as the kind says.
    """

    seq: int
    market: Market
    at_ms: int
    kind: Kind
    values: Ints

    @property
    def last_seq(self) -> int:
        """The sequence number of the last of them."""
        return self.seq + len(self.values) - 1

    @property
    def instrument_ids(self) -> Ints:
        """Whose they are (of CANDLES, ADDED, RETIRED, GAP)."""
        column: Ints = self.values[:, 0]
        return column // SERIES_INTERVALS if self.kind is Kind.CANDLES else column

    @property
    def interval_codes(self) -> Ints:
        """The intervals of CANDLES."""
        codes: Ints = self.values[:, 0] % SERIES_INTERVALS
        return codes


def append(database: Database, market: Market, at_ms: int, kind: Kind, values: Ints) -> None:
    """Write events inside a transaction; nothing where there are none."""
    count = len(values)
    if count == 0:
        return
    seq = newest_seq(database) + 1
    database.execute(
        "INSERT INTO event (seq, market, at_ms, kind, count, body) VALUES (?, ?, ?, ?, ?, ?)",
        (seq, market.value, at_ms, kind.value, count, _packed(values)),
    )
    # The row just written is young and within the number, so the sequence never begins again.
    database.execute(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?) AND (at_ms < ? OR seq + count <= ?)",
        (DROPPED_ROWS, at_ms - KEPT_MS, seq + count - KEPT_EVENTS),
    )


def append_candles(
    database: Database, markets: Ints, series: Ints, open_ms: Ints, what: Ints, revisions: Ints, at_ms: int
) -> None:
    """Write what happened to candles (`What`; 0 for nothing), each of a market by its position in `MARKETS`."""
    happened = what != 0
    for position in np.unique(markets[happened]).tolist():
        chosen = happened & (markets == position)
        values = np.stack([column[chosen] for column in (series, open_ms, what, revisions)], axis=1)
        append(database, MARKETS[position], at_ms, Kind.CANDLES, values)


def newest_seq(database: Database) -> int:
    """The sequence number of the newest event, 0 before the first."""
    row = database.one("SELECT seq + count - 1 FROM event ORDER BY seq DESC LIMIT 1")
    return int(row[0]) if row else 0


def oldest_seq(database: Database) -> int:
    """The sequence number of the oldest event still here; one more than the newest where there is none."""
    row = database.one("SELECT seq FROM event ORDER BY seq LIMIT 1")
    return int(row[0]) if row else 1


def read(database: Database, after_seq: int, limit: int, market: Market | None) -> Iterator[Event]:
    """The first `limit` events after a sequence number, of one market or all.

    Raises:
        MalformedRow: a row that cannot be read; named by its sequence number.

    """
    first = database.one("SELECT max(seq) FROM event WHERE seq <= ?", (after_seq + 1,))
    rows = database.rows(
        "SELECT seq, market, at_ms, kind, count, body FROM event WHERE seq >= ?1 AND (?2 IS NULL OR market = ?2) ORDER BY seq",
        (first[0] if first and first[0] is not None else 0, market.value if market else None),
    )
    for seq, name, at_ms, kind, count, body in rows:
        if limit <= 0:
            return
        values = _unpacked(database, seq, kind, count, body)[max(after_seq + 1 - seq, 0) :][:limit]
        if len(values):
            limit -= len(values)
            yield Event(max(seq, after_seq + 1), Market(name), at_ms, Kind(kind), values)


def unreadable(database: Database) -> Iterator[str]:
    """One line for each row of a known kind whose body cannot be read."""
    for seq, kind, count, body in database.rows("SELECT seq, kind, count, body FROM event ORDER BY seq"):
        if kind in set(Kind):
            try:
                _unpacked(database, seq, kind, count, body)
            except MalformedRow as error:
                yield str(error)


def _packed(values: Ints) -> bytes:
    """Column after column, each as the differences of its integers: what a minute repeats takes no room."""
    columns = np.ascontiguousarray(values.T, "<i8")
    columns[:, 1:] -= columns[:, :-1].copy()
    return zlib.compress(columns.tobytes(), 1)


def _unpacked(database: Database, seq: int, kind: str, count: int, body: bytes) -> Ints:
    try:
        columns = np.frombuffer(zlib.decompress(body), "<i8").reshape(WIDTHS[Kind(kind)], count)
    except (ValueError, zlib.error) as error:
        raise MalformedRow(
            f"{database.path}: table event, seq {seq}: its body cannot be read ({error}): delete the row, or restore a copy"
        ) from error
    return np.ascontiguousarray(np.cumsum(columns, axis=1).T)
