"""What a check or an audit finds wrong with whole rows, and the few changes that mending needs beside the guard's writes.

A candle is never corrected here: it is taken back to unverified, so that whoever may replace it does, or it is removed
because no candle can be there. Each change keeps the tally, and is its own transaction unless the caller holds one.
"""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from klagg.interval import INTERVALS, MINUTE, Interval
from klagg.model import Market, Origin
from klagg.store.database import Database
from klagg.store.schema import SERIES_INTERVALS

LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: no candle is as late."""
_KNOWN_SERIES: Final = (
    f"series >= 0 AND series % {SERIES_INTERVALS} < {len(INTERVALS)} "
    f"AND series / {SERIES_INTERVALS} IN (SELECT id FROM instrument)"
)
_COUNTED: Final = f"""
  SELECT i.market AS market, c.origin AS origin, c.verified AS verified, count(*) AS candles
  FROM candle c JOIN instrument i ON i.id = c.series / {SERIES_INTERVALS} GROUP BY 1, 2, 3"""
_NEWEST: Final = f"""
  SELECT i.id, k.code, (SELECT max(open_ms) FROM candle WHERE series = i.id * {SERIES_INTERVALS} + k.code), s.closed_upto_ms
  FROM instrument i CROSS JOIN interval k LEFT JOIN shard s ON s.market = i.market AND s.id = i.shard
  WHERE i.market = ?"""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Closed candles of a series, from `open_ms` on, that end after their shard's `closed_upto_ms` (0: after any time)."""

    instrument_id: int
    interval: Interval
    open_ms: int
    closed_upto_ms: int


@dataclass(frozen=True, slots=True)
class Overtaken:
    """An open snapshot that opens at `open_ms` though a closed candle of its series opens there or later."""

    instrument_id: int
    interval: Interval
    open_ms: int
    closed_open_ms: int


@dataclass(frozen=True, slots=True)
class Miscount:
    """A tally that is not what is stored."""

    market: str
    origin: int
    verified: int
    stored: int
    tally: int


@dataclass(frozen=True, slots=True)
class Boundary:
    """Shards closed up to a minute that their open snapshots, which are committed with it, contradict."""

    shards: tuple[int, ...]
    closed_upto_ms: int
    snapshots_ms: int


class Mending:
    """A database's rows as a check sees them, and how they are mended; `SqliteStore.mending` gives it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ahead(self, market: Market) -> list[Ahead]:
        """Series with closed candles after what their owner has closed, or at a time no candle can have. One seek a series."""
        found = []
        for instrument_id, code, newest_ms, closed_upto_ms in self._database.rows(_NEWEST, (market.value,)):
            if newest_ms is None or not 0 <= code < len(INTERVALS):
                continue
            interval = INTERVALS[code]
            upto_ms = closed_upto_ms or LATEST_MS
            first_ms = interval.open_at(min(upto_ms, LATEST_MS))
            if newest_ms >= first_ms:
                found.append(Ahead(instrument_id, interval, first_ms, closed_upto_ms or 0))
        return found

    def overtaken(self, market: Market) -> list[Overtaken]:
        """Open snapshots that are not newer than the newest closed candle of their series. One seek a snapshot."""
        rows = self._database.rows(
            "SELECT o.series, o.open_ms, (SELECT max(open_ms) FROM candle c WHERE c.series = o.series) AS newest "
            f"FROM open_candle o JOIN instrument i ON i.id = o.series / {SERIES_INTERVALS} "
            f"WHERE i.market = ? AND o.series % {SERIES_INTERVALS} < {len(INTERVALS)} AND newest >= o.open_ms",
            (market.value,),
        )
        found = []
        for series, open_ms, newest_ms in rows:
            instrument_id, code = divmod(series, SERIES_INTERVALS)
            found.append(Overtaken(instrument_id, INTERVALS[code], open_ms, newest_ms))
        return found

    def boundaries(self, market: Market) -> list[Boundary]:
        """Shards ahead of every open minute of their market, or behind one of their own, by what they claim."""
        rows = self._database.all(
            "WITH snapshot AS (SELECT i.shard AS shard, max(o.open_ms) AS open_ms FROM open_candle o "
            f"JOIN instrument i ON i.id = o.series / {SERIES_INTERVALS} "
            f"WHERE i.market = ?1 AND o.series % {SERIES_INTERVALS} = {MINUTE.code} GROUP BY i.shard) "
            "SELECT s.id, s.closed_upto_ms, (SELECT max(open_ms) FROM snapshot), "
            "(SELECT open_ms FROM snapshot WHERE shard = s.id) FROM shard s WHERE s.market = ?1 ORDER BY s.id",
            (market.value,),
        )
        wrong: dict[tuple[int, int], list[int]] = {}
        for shard, closed_upto_ms, newest_ms, own_ms in rows:
            if newest_ms is not None and (closed_upto_ms > newest_ms or (own_ms or 0) > closed_upto_ms):
                wrong.setdefault((closed_upto_ms, newest_ms), []).append(shard)
        return [Boundary(tuple(shards), *times) for times, shards in wrong.items()]

    def miscounts(self) -> list[Miscount]:
        """Where the tally differs from what is stored, in one statement, so that a writer cannot come between. Reads every row."""
        rows = self._database.rows(
            f"SELECT market, origin, verified, sum(stored), sum(tally) FROM ("
            f"SELECT market, origin, verified, candles AS stored, 0 AS tally FROM ({_COUNTED}) "
            "UNION ALL SELECT market, origin, verified, 0, candles FROM tally) "
            "GROUP BY market, origin, verified HAVING sum(stored) <> sum(tally)"
        )
        return [Miscount(*row) for row in rows]

    def recount(self) -> None:
        """Make the tally what is stored."""
        with self._database.transaction():
            self._database.execute("DELETE FROM tally")
            self._database.execute(f"INSERT INTO tally {_COUNTED}")

    def distrust(self, instrument_id: int, interval: Interval, opens: Sequence[int]) -> int:
        """Take candles back to unverified, of the origin that is repaired urgently: how many there were."""
        series = instrument_id * SERIES_INTERVALS + interval.code
        with self._database.transaction():
            _untally(self._database, series, opens)
            changed = self._database.executemany(
                f"UPDATE candle SET verified = 0, verified_ms = 0, "
                f"origin = CASE WHEN trades > 0 THEN {Origin.PARTIAL.value} ELSE {Origin.FILLED.value} END "
                "WHERE series = ? AND open_ms = ?",
                ((series, open_ms) for open_ms in opens),
            )
            _tally(self._database, series, opens)
        return changed

    def remove(self, instrument_id: int, interval: Interval, opens: Sequence[int]) -> int:
        """Remove closed candles: how many there were."""
        series = instrument_id * SERIES_INTERVALS + interval.code
        with self._database.transaction():
            _untally(self._database, series, opens)
            return self._database.executemany(
                "DELETE FROM candle WHERE series = ? AND open_ms = ?", ((series, open_ms) for open_ms in opens)
            )

    def remove_from(self, instrument_id: int, interval: Interval, start_ms: int) -> int:
        """Remove the closed candles of a series that open at `start_ms` or later."""
        series = instrument_id * SERIES_INTERVALS + interval.code
        opens = [
            row[0]
            for row in self._database.rows(
                "SELECT open_ms FROM candle WHERE series = ? AND open_ms >= ?", (series, start_ms)
            )
        ]
        return self.remove(instrument_id, interval, opens)

    def drop_snapshot(self, instrument_id: int, interval: Interval) -> None:
        """Remove the open snapshot of a series: a start goes on from its newest closed candle."""
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM open_candle WHERE series = ?", (instrument_id * SERIES_INTERVALS + interval.code,)
            )

    def put_boundary(self, market: Market, shards: Iterable[int], closed_upto_ms: int) -> int:
        """Say up to which minute shards are closed, which only a market without an owner may need: how many there were."""
        with self._database.transaction():
            return self._database.executemany(
                "UPDATE shard SET closed_upto_ms = ? WHERE market = ? AND id = ?",
                ((closed_upto_ms, market.value, shard) for shard in shards),
            )

    def clear_ids(self, instrument_id: int, interval: Interval, opens: Sequence[int]) -> int:
        """Say of candles that their trade ids are not known: how many there were."""
        series = instrument_id * SERIES_INTERVALS + interval.code
        with self._database.transaction():
            return self._database.executemany(
                "UPDATE candle SET first_id = -1, last_id = -1 WHERE series = ? AND open_ms = ?",
                ((series, open_ms) for open_ms in opens),
            )

    def sweep(self) -> Iterator[str]:
        """Remove rows of no instrument or interval and of no market, and correct marks that cannot be; a line for each kind.

        The caller iterates to the end, inside a transaction.
        """
        stray = f"NOT ({_KNOWN_SERIES})"
        unknown = ", ".join(f"'{market.value}'" for market in Market)
        removals = (
            ("candle", stray, "of no series"),
            ("open_candle", stray, "of no series"),
            ("last_trade", "instrument NOT IN (SELECT id FROM instrument)", "of no instrument"),
            ("life", "instrument NOT IN (SELECT id FROM instrument)", "of no instrument"),
            (
                "kept_interval",
                f"market NOT IN ({unknown}) OR code NOT BETWEEN 0 AND {len(INTERVALS) - 1}",
                "of no market or interval",
            ),
            ("gap", f"market NOT IN ({unknown}) OR start_ms >= end_ms OR start_ms < 0", "of no market or time"),
            (
                "gap",
                "symbol <> '' AND (market, symbol) NOT IN (SELECT market, symbol FROM instrument)",
                "of no instrument",
            ),
        )
        for table, where, what in removals:
            removed = self._database.execute(f"DELETE FROM {table} WHERE {where}").rowcount
            if removed > 0:
                yield f"table {table}: {removed} rows {what} removed"
        corrections = (
            (
                "verified = 0, verified_ms = 0",
                "verified NOT IN (0, 1)",
                "verified that is neither 0 nor 1: now unverified",
            ),
            ("revision = 0", "revision < 0", "a negative revision: now 0"),
            (
                "known_ms = max(open_ms, 0)",
                f"known_ms NOT BETWEEN 0 AND {LATEST_MS}",
                "a time of knowing that cannot be: now their open",
            ),
            (
                "verified_ms = CASE verified WHEN 0 THEN 0 ELSE known_ms END",
                f"verified_ms > {LATEST_MS} OR CASE verified WHEN 0 THEN verified_ms <> 0 ELSE verified_ms < known_ms END",
                "a time of verification that cannot be: now the time of knowing",
            ),
        )
        for change, where, what in corrections:
            corrected = self._database.execute(f"UPDATE candle SET {change} WHERE {where}").rowcount
            if corrected > 0:
                yield f"table candle: {corrected} rows with {what}"
        # Last: what a correction of a revision left behind is of no candle.
        removed = self._database.execute(
            f"DELETE FROM candle_was WHERE known_ms < 0 OR until_ms < known_ms OR until_ms > {LATEST_MS} OR revision < 0 OR "
            "NOT EXISTS (SELECT 1 FROM candle c WHERE c.series = candle_was.series AND c.open_ms = candle_was.open_ms "
            "AND c.revision > candle_was.revision)"
        ).rowcount
        if removed > 0:
            yield f"table candle_was: {removed} rows of no candle removed"


def _untally(database: Database, series: int, opens: Sequence[int]) -> None:
    _move_tally(database, series, opens, "candles - 1")


def _tally(database: Database, series: int, opens: Sequence[int]) -> None:
    _move_tally(database, series, opens, "candles + 1")


def _move_tally(database: Database, series: int, opens: Sequence[int], step: str) -> None:
    market = f"(SELECT market FROM instrument WHERE id = {series // SERIES_INTERVALS})"
    first = 1 if "+" in step else -1
    database.executemany(
        f"INSERT INTO tally SELECT {market}, origin, verified, {first} FROM candle WHERE series = ? AND open_ms = ? "
        f"AND {market} IS NOT NULL ON CONFLICT DO UPDATE SET candles = {step}",
        ((series, open_ms) for open_ms in opens),
    )
