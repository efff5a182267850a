"""Candles into the tables and out of them. The guard decides; these functions bring rows to it and read them back."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

import numpy as np

from klagg.errors import MalformedRow
from klagg.interval import INTERVALS, Interval
from klagg.model import Candles, Ints, Market, Origin
from klagg.store import events, guard, quarantine
from klagg.store.database import Database
from klagg.store.events import What
from klagg.store.instruments import MARKETS, Directory
from klagg.store.rows import (
    READ_COLUMNS,
    READ_WIDTH,
    candles_of,
    closed_rows,
    end_ms,
    integers,
    is_verified,
    row_values,
    series_of,
)
from klagg.store.schema import KEY, LEISURE_WHERE, SERIES_INTERVALS, URGENT_WHERE, VALUES
from klagg.store.validate import NARROW_LIMITS

UNVERIFIED: Final = np.dtype(
    [("instrument_id", np.int64), ("interval", np.uint8), ("open_ms", np.int64), ("origin", np.uint8)]
)
"""One candle of the repair queue."""

_UPSERT_OPEN: Final = f"""
  INSERT INTO open_candle ({", ".join((*KEY, *VALUES))}) VALUES ({", ".join("?" * (len(VALUES) + 2))})
  ON CONFLICT (series) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in ("open_ms", *VALUES))}
  WHERE excluded.open_ms >= open_candle.open_ms"""
_UPSERT_LAST_TRADE: Final = """
  INSERT INTO last_trade (instrument, price_scale, agg_id, time_ms, price) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (instrument) DO UPDATE SET
    price_scale = excluded.price_scale, agg_id = excluded.agg_id, time_ms = excluded.time_ms, price = excluded.price"""


def put_closed(
    database: Database,
    recorder: guard.Recorder,
    directory: Directory,
    instrument_ids: Ints,
    candles: Candles,
    leave: Ints,
    known_ms: Ints,
    *,
    publish_new: bool,
) -> guard.Outcome:
    """Bring closed candles to the guard, inside a transaction; keep the tally of what is stored, and publish what happened.

    Candles never stored before are published where `publish_new`. What the exchange is said to have told and cannot be is not
    accepted: it is put aside, on record.
    """
    possible, entries = quarantine.sift(directory, instrument_ids, candles)
    if entries:
        quarantine.put(database, entries, int(known_ms.max()))
        put = put_closed(
            database,
            recorder,
            directory,
            instrument_ids[possible],
            candles[possible],
            leave[possible],
            known_ms[possible],
            publish_new=publish_new,
        )
        return put.among(possible)
    outcome = recorder.outcome = guard.Outcome(len(candles))
    if len(candles):
        series, markets = series_of(instrument_ids, candles), directory.markets[instrument_ids]
        database.executemany(guard.UPSERT, closed_rows(series, candles, known_ms, leave))
        _count(database, markets, candles, outcome)
        what = _what_happened(candles, outcome, publish_new=publish_new)
        at_ms = int(known_ms.max())
        events.append_candles(database, markets, series, candles["open_ms"], what, outcome.revisions, at_ms)
    return outcome


def _what_happened(candles: Candles, outcome: guard.Outcome, *, publish_new: bool) -> Ints:
    """`events.What` of each candle of a batch; also says which were settled."""
    left = np.array(outcome.left, np.int64).reshape(-1, 3)
    replaced, was_verified = np.zeros((2, len(candles)), np.bool_)
    replaced[left[:, 0]] = True
    was_verified[left[:, 0]] = left[:, 2] != 0
    verified = outcome.accepted & is_verified(candles) & (~was_verified | outcome.changed)
    verified[outcome.disputed] = False
    outcome.settled = verified | (outcome.accepted & (candles["origin"] == Origin.UNMATCHED))
    new = outcome.accepted & ~replaced
    what: Ints = What.CLOSED * new + What.REVISED * outcome.changed + What.VERIFIED * verified
    return what if publish_new else np.where(new, 0, what)


def _count(database: Database, markets: Ints, candles: Candles, outcome: guard.Outcome) -> None:
    """Add what came to the tally and take away what it replaced."""
    origins = candles["origin"].astype(np.int64)
    if outcome.origins:
        origins[list(outcome.origins)] = list(outcome.origins.values())
    size = len(Origin) * 2
    now_verified = is_verified(candles)
    now_verified[outcome.disputed] = False
    keys = markets * size + origins * 2 + now_verified
    change = np.bincount(keys[outcome.accepted], minlength=len(MARKETS) * size)
    for row, origin, verified in outcome.left:
        change[markets[row] * size + origin * 2 + verified] -= 1
    database.executemany(
        "INSERT INTO tally VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET candles = candles + excluded.candles",
        [
            (MARKETS[key // size].value, key % size // 2, key % 2, int(change[key]))
            for key in np.flatnonzero(change).tolist()
        ],
    )


def put_open(database: Database, series: Ints, candles: Candles) -> int:
    """Replace the open snapshots of these series where these are not older: how many were."""
    rows = ((key, *values) for key, values in zip(series.tolist(), row_values(candles), strict=True))
    return database.executemany(_UPSERT_OPEN, rows)


def drop_open(database: Database, series: Ints, open_ms: Ints) -> None:
    """Remove open snapshots that a closed candle has overtaken (a retired symbol's last)."""
    database.executemany(
        "DELETE FROM open_candle WHERE series = ? AND open_ms <= ?", zip(series.tolist(), open_ms.tolist(), strict=True)
    )


def put_last_trades(
    database: Database, instrument_ids: Ints, last_trades: np.ndarray[tuple[int], np.dtype[np.void]]
) -> None:
    """Replace the last trades of these instruments."""
    columns = (last_trades[name].tolist() for name in ("price_scale", "agg_id", "time_ms", "price"))
    database.executemany(_UPSERT_LAST_TRADE, zip(instrument_ids.tolist(), *columns, strict=True))


def within_closed_upto(database: Database, directory: Directory, instrument_ids: Ints, candles: Candles) -> Ints:
    """Which candles (as positions) end by what the owner has closed; where there never was an owner, all."""
    bounds = np.full((len(MARKETS), 256), np.iinfo(np.int64).max, np.int64)
    position = {market.value: index for index, market in enumerate(MARKETS)}
    for market, shard, closed_upto_ms in database.rows(
        "SELECT market, id, closed_upto_ms FROM shard WHERE closed_upto_ms > 0"
    ):
        bounds[position[market], shard] = closed_upto_ms
    bound = bounds[directory.markets[instrument_ids], directory.shards[instrument_ids]]
    return np.flatnonzero(end_ms(candles) <= bound)


def read(
    database: Database,
    instrument_id: int,
    interval: Interval,
    start_ms: int,
    end_ms: int,
    limit: int | None,
    as_of_ms: int | None,
    *,
    descending: bool,
) -> Candles:
    """The closed candles of a series that open in `[start_ms, end_ms)`, as they are or as they were known at an instant.

    Raises:
        MalformedRow: a scale or an origin that cannot be; naming symbol, interval, open time, column and value.

    """
    if as_of_ms is None:
        candles = read_raw(database, instrument_id, interval, start_ms, end_ms, limit, descending=descending)
    else:
        rows = database.rows(
            f"{as_of_states(READ_COLUMNS)} ORDER BY open_ms {'DESC' if descending else 'ASC'} LIMIT {-1 if limit is None else limit}",
            (instrument_id * SERIES_INTERVALS + interval.code, start_ms, end_ms, as_of_ms),
        )
        candles = candles_of(integers(rows, READ_WIDTH), interval.code, closed=True)
    check_narrow(database, instrument_id * SERIES_INTERVALS + interval.code, candles)
    return candles


def check_narrow(database: Database, series: int, candles: Candles) -> None:
    """Refuse the candles of a series that have a scale or an origin that cannot be.

    Raises:
        MalformedRow: the first of them; naming symbol, interval, open time, column and value.

    """
    for name, most in NARROW_LIMITS.items():
        bad = candles[name] > most
        if bad.any():
            _refuse(database, series, int(candles["open_ms"][int(np.argmax(bad))]), name)


def as_of_states(columns: str) -> str:
    """SQL: the states of a series' candles at an instant; parameters: series, start, end, instant.

    Each state holds from when it became known until it was superseded, so of each candle there is one, or none yet.
    """
    verified = "verified_ms BETWEEN 1 AND ?4"
    then = {"verified": f"{verified} AS verified", "source": f"CASE WHEN {verified} THEN source ELSE 0 END AS source"}
    columns = ", ".join(then.get(name, name) for name in columns.split(", "))
    within = "series = ?1 AND open_ms >= ?2 AND open_ms < ?3 AND known_ms <= ?4"
    return (
        f"SELECT {columns} FROM candle WHERE {within} "
        f"UNION ALL SELECT {columns} FROM candle_was WHERE {within} AND until_ms > ?4"
    )


def _refuse(database: Database, series: int, open_ms: int, column: str) -> NoReturn:
    row = database.one(f"SELECT {column} FROM candle WHERE series = ? AND open_ms = ?", (series, open_ms))
    name = Directory(database).name(series // SERIES_INTERVALS)
    raise MalformedRow(
        f"{database.path}: table candle: {name} {INTERVALS[series % SERIES_INTERVALS]} open_ms {open_ms}: {column} is "
        f"{row[0] if row else 'gone'}, not within 0 to {NARROW_LIMITS[column]}: correct or delete the row, or restore a copy"
    )


def read_raw(
    database: Database,
    instrument_id: int,
    interval: Interval,
    start_ms: int,
    end_ms: int,
    limit: int | None,
    *,
    descending: bool,
) -> Candles:
    """The same candles, whatever they hold; a scale or origin that fits no byte is 255."""
    rows = database.rows(
        f"SELECT {READ_COLUMNS} FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? "
        f"ORDER BY open_ms {'DESC' if descending else 'ASC'} LIMIT ?",
        (instrument_id * SERIES_INTERVALS + interval.code, start_ms, end_ms, -1 if limit is None else limit),
    )
    return candles_of(integers(rows, READ_WIDTH), interval.code, closed=True)


def revisions(
    database: Database, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, as_of_ms: int | None
) -> Ints:
    """The revisions of the candles that `read` gives for the same span and instant, ascending."""
    span = (instrument_id * SERIES_INTERVALS + interval.code, start_ms, end_ms)
    if as_of_ms is None:
        rows = database.rows(
            "SELECT revision FROM candle WHERE series = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms", span
        )
        return integers(rows, 1)[:, 0]
    rows = database.rows(f"{as_of_states('open_ms, revision')} ORDER BY open_ms", (*span, as_of_ms))
    return integers(rows, 2)[:, 1]


def iter_read(
    database: Database,
    instrument_id: int,
    interval: Interval,
    start_ms: int,
    end_ms: int,
    chunk: int,
    as_of_ms: int | None,
) -> Iterator[Candles]:
    """The same candles, ascending, in pieces of at most `chunk`; no transaction stays open between pieces."""
    while True:
        piece = read(database, instrument_id, interval, start_ms, end_ms, chunk, as_of_ms, descending=False)
        if len(piece):
            yield piece
        if len(piece) < chunk:
            return
        start_ms = int(piece["open_ms"][-1]) + 1


def open_candle(database: Database, instrument_id: int, interval: Interval) -> Candles:
    """The open snapshot of a series: one candle, or none."""
    rows = database.rows(
        f"SELECT open_ms, {', '.join(VALUES)} FROM open_candle WHERE series = ?",
        (instrument_id * SERIES_INTERVALS + interval.code,),
    )
    return candles_of(integers(rows, len(VALUES) + 1), interval.code, closed=False)


def unverified(
    database: Database, market: Market, before_ms: int, urgent: bool | None, limit: int
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The newest `limit` candles of the repair queue that open before `before_ms`: the urgent, the others, or both."""
    wheres: Iterable[str] = {True: (URGENT_WHERE,), False: (LEISURE_WHERE,), None: (URGENT_WHERE, LEISURE_WHERE)}[
        urgent
    ]
    found = [
        integers(
            database.rows(
                f"SELECT i.id, c.series % {SERIES_INTERVALS}, c.open_ms, c.origin FROM candle c "
                f"CROSS JOIN instrument i ON i.id = c.series / {SERIES_INTERVALS} "
                f"WHERE {where} AND c.open_ms < ? AND i.market = ? ORDER BY c.open_ms DESC LIMIT ?",
                (before_ms, market.value, limit),
            ),
            4,
        )
        for where in wheres
    ]
    table = np.concatenate(found)
    table = table[np.argsort(-table[:, 2], kind="stable")][:limit]
    queue = np.zeros(len(table), UNVERIFIED)
    for position, name in enumerate(("instrument_id", "interval", "open_ms", "origin")):
        queue[name] = table[:, position]
    return queue
