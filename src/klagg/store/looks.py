"""What the read side looks up beside plain candles.

Candles with their revision and since when they are known: of a series, of a whole market at one open, of one candle through
time; gaps' reasons, barriers, and counts of minutes. One statement each, so of one state.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klagg.interval import MINUTE, Interval
from klagg.model import Candles, Ints, Market, Origin, no_candles
from klagg.store import events
from klagg.store.candles import as_of_states, check_narrow
from klagg.store.database import Database
from klagg.store.events import Kind
from klagg.store.rows import READ_COLUMNS, READ_WIDTH, candles_of, integers
from klagg.store.schema import LEISURE_WHERE, SERIES_INTERVALS, URGENT_WHERE

_MORE: Final = ("revision", "known_ms", "verified_ms")
_WIDTH: Final = READ_WIDTH + len(_MORE)
_COLUMNS: Final = f"{READ_COLUMNS}, {', '.join(_MORE)}"
_UNMATCHED: Final = Origin.UNMATCHED.value
SCANNED: Final = 100_000
"""Rows of the event log that are looked through for barriers: half a day of a busy market."""
MOST_UNSETTLED: Final = 200_000
"""Unsettled minutes that are told at most, of each kind: an hour of 3,000 symbols."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """Closed candles: whose each is, its revision, since when its numbers are known, and since when as the exchange's (0: not)."""

    instrument_ids: Ints
    candles: Candles
    revisions: Ints
    known_ms: Ints
    verified_ms: Ints

    @classmethod
    def none(cls) -> "Looked":
        """No candles."""
        empty = np.zeros(0, np.int64)
        return cls(empty, no_candles(), empty, empty, empty)


@dataclass(frozen=True, slots=True)
class BarrierEvent:
    """A barrier as the event log tells it; `count` is of instruments (durable) or of candles left unverified (verified)."""

    seq: int
    at_ms: int
    kind: Kind
    boundary_ms: int
    count: int


class Looks:
    """Look-ups over one connection, for the thread that uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def series(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int,
        *,
        newest: bool,
        as_of_ms: int | None = None,
        only_verified: bool = False,
        unmatched: bool = True,
    ) -> Looked:
        """At most `limit` closed candles of a series that open in `[start_ms, end_ms)`, ascending: the oldest or the newest.

        Raises:
            MalformedRow: a scale or an origin that cannot be.

        """
        series = instrument_id * SERIES_INTERVALS + interval.code
        where = " AND ".join(["1"] + ["verified <> 0"] * only_verified + [f"origin <> {_UNMATCHED}"] * (not unmatched))
        if as_of_ms is None:
            asked: tuple[int, ...] = (series, start_ms, end_ms)
            selected = f"SELECT {_COLUMNS} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? AND {where}"
        else:
            asked = (series, start_ms, end_ms, as_of_ms)
            selected = f"SELECT * FROM ({as_of_states(_COLUMNS)}) WHERE {where}"
        order = "DESC" if newest else "ASC"
        rows = self._database.rows(f"{selected} ORDER BY open_ms {order} LIMIT {limit}", asked)
        table = integers(rows, _WIDTH)
        found = _looked(np.full(len(table), instrument_id, np.int64), table[::-1] if newest else table, interval.code)
        check_narrow(self._database, series, found.candles)
        return found

    def market(self, market: Market, interval: Interval, open_ms: int, as_of_ms: int | None = None) -> Looked:
        """The closed candles of one interval that open at an instant, of all instruments of a market, by instrument."""
        key = f"c.series = i.id * {SERIES_INTERVALS} + {interval.code} AND c.open_ms = ?1"
        columns = ", ".join(f"c.{name}" for name in _COLUMNS.split(", "))
        arms = [f"SELECT i.id, {columns} FROM instrument i CROSS JOIN candle c ON {key} WHERE i.market = ?2"]
        asked: tuple[int | str, ...] = (open_ms, market.value)
        if as_of_ms is not None:
            then = "c.verified_ms BETWEEN 1 AND ?3"
            columns = columns.replace("c.verified,", f"({then}),").replace("c.source,", f"iif({then}, c.source, 0),")
            arms = [
                f"SELECT i.id, {columns} FROM instrument i CROSS JOIN {table} c ON {key} AND c.known_ms <= ?3{more} WHERE i.market = ?2"
                for table, more in (("candle", ""), ("candle_was", " AND c.until_ms > ?3"))
            ]
            asked = (*asked, as_of_ms)
        table = integers(self._database.rows(" UNION ALL ".join(arms) + " ORDER BY 1", asked), _WIDTH + 1)
        return _looked(table[:, 0].copy(), table[:, 1:], interval.code)

    def history(self, instrument_id: int, interval: Interval, open_ms: int) -> Looked:
        """Every state of one candle, from the first to the one that stands."""
        key = "series = ?1 AND open_ms = ?2"
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM candle_was WHERE {key} UNION ALL SELECT {_COLUMNS} FROM candle WHERE {key} ORDER BY revision",
            (instrument_id * SERIES_INTERVALS + interval.code, open_ms),
        )
        table = integers(rows, _WIDTH)
        return _looked(np.full(len(table), instrument_id, np.int64), table, interval.code)

    def at_revisions(self, keys: Iterable[tuple[int, int, int]]) -> Looked:
        """The candles of (series, open_ms, revision), in that order; the one that stands where the revision is not kept.

        A candle that is no longer there is left out.
        """
        one = f"SELECT {_COLUMNS} FROM candle WHERE series = ? AND open_ms = ?"
        was = f"SELECT {_COLUMNS} FROM candle_was WHERE series = ? AND open_ms = ? AND revision = ?"
        found, series = [], []
        for key in keys:
            row = self._database.one(one, key[:2])
            if row is not None and row[READ_WIDTH] != key[2]:
                row = self._database.one(was, key) or row
            if row is not None:
                found.append(row)
                series.append(key[0])
        if not found:
            return Looked.none()
        owners = np.array(series, np.int64)
        return _looked(owners // SERIES_INTERVALS, integers(found, _WIDTH), owners % SERIES_INTERVALS)

    def gap_reason(self, market: Market, symbol: str, start_ms: int, end_ms: int) -> str:
        """Why a gap is on record; nothing where it is not, or has been joined with its neighbours."""
        row = self._database.one(
            "SELECT reason FROM gap WHERE market = ? AND symbol = ? AND start_ms <= ? AND end_ms >= ? ORDER BY at_ms DESC",
            (market.value, symbol, start_ms, end_ms),
        )
        return str(row[0]) if row else ""

    def barriers(self, market: Market, limit: int) -> list[BarrierEvent]:
        """The newest barriers of a market that the event log tells of, newest first; only its last `SCANNED` rows are looked at."""
        rows = self._database.all(
            "SELECT seq, count FROM (SELECT seq, count, market, kind FROM event ORDER BY seq DESC LIMIT ?) "
            "WHERE market = ? AND kind IN (?, ?) LIMIT ?",
            (SCANNED, market.value, Kind.DURABLE.value, Kind.VERIFIED.value, limit),
        )
        found: list[BarrierEvent] = []
        for seq, count in rows:
            for event in events.read(self._database, seq - 1, count, None):
                told = enumerate(event.values.tolist(), event.seq)
                found += [BarrierEvent(number, event.at_ms, event.kind, *row) for number, row in reversed(list(told))]
        return found[:limit]

    def minute_marks(self, market: Market, open_ms: int) -> Ints:
        """[n, 3]: instrument, verified, origin of each candle of a minute of a market; one seek a symbol."""
        return integers(
            self._database.rows(
                f"SELECT i.id, c.verified, c.origin FROM instrument i CROSS JOIN candle c "
                f"ON c.series = i.id * {SERIES_INTERVALS} + {MINUTE.code} AND c.open_ms = ? WHERE i.market = ?",
                (open_ms, market.value),
            ),
            3,
        )

    def closes(self, instrument_ids: Iterable[int], start_ms: int, end_ms: int) -> Ints:
        """[n, 5]: instrument, open_ms, close, price scale, origin of the minutes of some instruments in `[start_ms, end_ms)`."""
        found = [
            integers(
                self._database.rows(
                    f"SELECT {number}, open_ms, close, price_scale, origin FROM candle "
                    "WHERE series = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms",
                    (number * SERIES_INTERVALS + MINUTE.code, start_ms, end_ms),
                ),
                5,
            )
            for number in instrument_ids
        ]
        return np.concatenate([np.zeros((0, 5), np.int64), *found])

    def quote_volumes(self, instrument_ids: Iterable[int], start_ms: int, end_ms: int) -> dict[int, float]:
        """The quote volume of the minutes of each instrument in `[start_ms, end_ms)`, as floating point."""
        found = {}
        for number in instrument_ids:
            rows = self._database.rows(
                "SELECT price_scale + qty_scale, sum(quote_hi), total(quote_lo) FROM candle "
                "WHERE series = ? AND open_ms >= ? AND open_ms < ? GROUP BY 1",
                (number * SERIES_INTERVALS + MINUTE.code, start_ms, end_ms),
            )
            found[number] = sum((hi * 1e18 + lo) / 10**scale for scale, hi, lo in rows)
        return found

    def unsettled_minutes(self, start_ms: int, end_ms: int) -> Ints:
        """[n, 2]: open_ms and instrument of the minutes of `[start_ms, end_ms)` that are neither verified nor final, of all markets."""
        parts = [
            integers(
                self._database.rows(
                    f"SELECT open_ms, series / {SERIES_INTERVALS} FROM candle INDEXED BY {index} WHERE {where} "
                    f"AND open_ms >= ? AND open_ms < ? AND series % {SERIES_INTERVALS} = {MINUTE.code} LIMIT {MOST_UNSETTLED}",
                    (start_ms, end_ms),
                ),
                2,
            )
            for index, where in (("candle_urgent", URGENT_WHERE), ("candle_leisure", LEISURE_WHERE))
        ]
        return np.concatenate(parts)


def _looked(instrument_ids: Ints, table: Ints, codes: Ints | int) -> Looked:
    candles = candles_of(table[:, :READ_WIDTH], codes, closed=True)
    return Looked(instrument_ids, candles, *(table[:, READ_WIDTH + place].copy() for place in range(len(_MORE))))
