"""Closed candles with what is known of their change, and digests of them by which a change is noticed without reading them.

One statement reads numbers, revision and time of knowing, so they are of one state, whoever writes meanwhile.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from dataclasses import dataclass
from typing import Final

from klagg.interval import Interval
from klagg.model import Candles, Ints
from klagg.store.candles import as_of_states, check_narrow
from klagg.store.database import Database
from klagg.store.rows import READ_COLUMNS, READ_WIDTH, candles_of, integers
from klagg.store.schema import SERIES_INTERVALS, VALUES

_COLUMNS: Final = f"{READ_COLUMNS}, revision, known_ms"
_ID: Final = ("first_id", "last_id")
_EXACT: Final = ("verified", "revision", "known_ms", "verified_ms")
"""Small enough that no number of rows overflows their sum; the others are added as floating point, always in the same order."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Candles, and of each its revision and since when its numbers are known."""

    candles: Candles
    revisions: Ints
    known_ms: Ints


def read(
    database: Database,
    instrument_id: int,
    interval: Interval,
    start_ms: int,
    end_ms: int,
    limit: int | None,
    as_of_ms: int | None,
) -> States:
    """The first closed candles of a series that open in `[start_ms, end_ms)`, as they are or as they were known at an instant.

    Raises:
        MalformedRow: a scale or an origin that cannot be; naming symbol, interval, open time, column and value.

    """
    series = instrument_id * SERIES_INTERVALS + interval.code
    rows = database.rows(
        f"{_selected(_COLUMNS, as_of_ms)} ORDER BY open_ms LIMIT {-1 if limit is None else limit}",
        _bound(series, start_ms, end_ms, as_of_ms),
    )
    table = integers(rows, READ_WIDTH + 2)
    candles = candles_of(table[:, :READ_WIDTH], interval.code, closed=True)
    check_narrow(database, series, candles)
    return States(candles, table[:, READ_WIDTH].copy(), table[:, READ_WIDTH + 1].copy())


def digest(
    database: Database, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, as_of_ms: int | None
) -> tuple[int | float, ...]:
    """Numbers that are other ones where any of the candles that `read` gives is another: their count, and sums of columns.

    A change of numbers moves the sums of revisions and of times of knowing, a verification that of `verified`, and what was
    written past klagg those of the numbers. Some three times as quick as reading.
    """
    sums = [f"total({name})" for name in VALUES if name not in _ID]
    exact = [f"coalesce(sum({name}), 0)" for name in _EXACT]
    ids = [f"total({name})" for name in _ID]
    columns = ", ".join(("open_ms", *VALUES, *_EXACT))
    row = database.one(
        f"SELECT count(*), {', '.join(exact + sums + ids)}, total(open_ms) "
        f"FROM ({_selected(columns, as_of_ms)} ORDER BY open_ms)",
        _bound(instrument_id * SERIES_INTERVALS + interval.code, start_ms, end_ms, as_of_ms),
    )
    assert row is not None
    return row


def span(
    database: Database, instrument_id: int, interval: Interval, start_ms: int, end_ms: int
) -> tuple[int, int] | None:
    """The opens of the first and the last closed candle that opens in `[start_ms, end_ms)`; None where there is none."""
    series = instrument_id * SERIES_INTERVALS + interval.code
    within = "FROM candle WHERE series = ?1 AND open_ms >= ?2 AND open_ms < ?3"
    row = database.one(
        f"SELECT (SELECT min(open_ms) {within}), (SELECT max(open_ms) {within})", (series, start_ms, end_ms)
    )
    return None if row is None or row[0] is None else (row[0], row[1])


def _selected(columns: str, as_of_ms: int | None) -> str:
    if as_of_ms is None:
        return f"SELECT {columns} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ?"
    return as_of_states(columns)


def _bound(series: int, start_ms: int, end_ms: int, as_of_ms: int | None) -> tuple[int, ...]:
    asked = (series, start_ms, end_ms)
    return asked if as_of_ms is None else (*asked, as_of_ms)
