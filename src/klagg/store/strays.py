"""Rows that no reading of a series meets, or that cannot be true: what `check` tells beside its findings."""
# ruff: noqa: S608  # statements are built from names that stand in this package; values are bound

from collections.abc import Iterator
from itertools import islice
from typing import Final

from klagg.errors import MalformedRow
from klagg.interval import INTERVALS, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Market
from klagg.store.database import Database
from klagg.store.events import Kind, unreadable
from klagg.store.instruments import Directory
from klagg.store.newest import newest_open
from klagg.store.schema import SERIES_INTERVALS
from klagg.store.validate import FAR_MS

SHOWN: Final = 20
"""So many rows of one kind are named."""
_KNOWN_MARKETS: Final = ", ".join(f"'{market.value}'" for market in Market)
_KNOWN_KINDS: Final = ", ".join(f"'{kind.value}'" for kind in Kind)
_ORPHAN: Final = "instrument NOT IN (SELECT id FROM instrument)"
_RULES: Final = (
    ("candle", "series, open_ms, verified", "verified NOT IN (0, 1)", "verified is neither 0 nor 1"),
    ("candle", "series, open_ms, revision", "revision < 0", "revision is negative"),
    (
        *("candle", "series, open_ms, known_ms, verified_ms"),
        (
            f"known_ms NOT BETWEEN 0 AND {FAR_MS} OR verified_ms > {FAR_MS} "
            "OR CASE verified WHEN 0 THEN verified_ms <> 0 ELSE verified_ms < known_ms END"
        ),
        "it cannot have become known so",
    ),
    (
        *("candle_was", "series, open_ms, revision"),
        (
            "NOT EXISTS (SELECT 1 FROM candle c WHERE c.series = candle_was.series AND c.open_ms = candle_was.open_ms "
            "AND c.revision > candle_was.revision)"
        ),
        "there is no candle that supersedes it",
    ),
    (
        *("candle_was", "series, open_ms, revision, known_ms, until_ms"),
        f"known_ms < 0 OR until_ms < known_ms OR until_ms > {FAR_MS} OR revision < 0",
        "it cannot have been known so",
    ),
    ("event", "seq, market", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    ("event", "seq, kind", f"kind NOT IN ({_KNOWN_KINDS})", "the kind is unknown"),
    (
        *("event", "seq, count"),
        "count < 1 OR seq + count <> (SELECT min(seq) FROM event n WHERE n.seq > event.seq)",
        "the next row's numbers do not follow its own",
    ),
    ("barrier", "market", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    (
        *("barrier", "market, verified_ms"),
        f"verified_ms NOT BETWEEN 0 AND {FAR_MS} OR verified_ms % {MINUTE_MS} <> 0",
        "verified_ms is no minute",
    ),
    ("instrument", "market, symbol", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    ("kept_interval", "market, code", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    ("kept_interval", "market, code", f"code NOT BETWEEN 0 AND {len(INTERVALS) - 1}", "there is no such interval"),
    ("last_trade", "instrument", _ORPHAN, "the instrument is missing in table instrument"),
    ("life", "instrument, number", _ORPHAN, "the instrument is missing in table instrument"),
    ("life", "instrument, number, listed_ms", f"listed_ms NOT BETWEEN 0 AND {FAR_MS}", "listed_ms is no time"),
    ("life", "instrument, number, retired_ms", "retired_ms < listed_ms", "retired_ms is before listed_ms"),
    ("shard", "market, id", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    ("shard", "market, id", f"id NOT BETWEEN 0 AND {VIRTUAL_SHARDS - 1}", "there is no such shard"),
    ("shard", "market, id, epoch", "epoch < 0", "epoch is negative"),
    ("shard", "market, id, lease_until_ms", f"lease_until_ms NOT BETWEEN 0 AND {FAR_MS}", "lease_until_ms is no time"),
    (
        *("shard", "market, id, closed_upto_ms"),
        f"closed_upto_ms NOT BETWEEN 0 AND {FAR_MS} OR closed_upto_ms % {MINUTE_MS} <> 0",
        "closed_upto_ms is no minute",
    ),
    (
        *("shard", "market, count(*) AS shards", f"1 GROUP BY market HAVING count(*) <> {VIRTUAL_SHARDS}"),
        f"a market has {VIRTUAL_SHARDS} shards",
    ),
    ("gap", "market, symbol, start_ms", f"market NOT IN ({_KNOWN_MARKETS})", "the market is unknown"),
    (
        *("gap", "market, symbol, start_ms, end_ms"),
        f"start_ms >= end_ms OR start_ms < 0 OR end_ms > {FAR_MS}",
        "it is no span of time",
    ),
    (
        *(
            "gap",
            "market, symbol, start_ms",
            "symbol <> '' AND (market, symbol) NOT IN (SELECT market, symbol FROM instrument)",
        ),
        "the symbol is missing in table instrument",
    ),
)
"""Table, the columns that name a row, what is wrong with it, and that in words."""


def malformed_rows(database: Database, directory: Directory, market: Market) -> Iterator[str]:
    """One line for each series of no instrument or interval, rows that cannot be true, and what a start would refuse."""
    yield from _strays(database)
    for table, columns, wrong, reason in _RULES:
        for row in database.rows(f"SELECT {columns} FROM {table} WHERE {wrong} LIMIT {SHOWN}"):
            names = [column.rpartition(" ")[2] for column in columns.split(", ")]
            values = " ".join(f"{name} {value}" for name, value in zip(names, row, strict=True))
            yield f"{database.path}: table {table}: {values}: {reason}: correct or delete the row, or restore a copy"
    yield from islice(unreadable(database), SHOWN)
    try:
        newest_open(database, directory, market, INTERVALS)
    except MalformedRow as error:
        yield str(error)


def _strays(database: Database) -> Iterator[str]:
    # One seek a series, however many candles there are.
    series = database.rows(
        "WITH RECURSIVE each(series) AS (SELECT min(series) FROM candle UNION ALL "
        "SELECT (SELECT min(series) FROM candle WHERE series > each.series) FROM each WHERE each.series IS NOT NULL) "
        f"SELECT series FROM each WHERE series IS NOT NULL AND (series % {SERIES_INTERVALS} NOT BETWEEN 0 AND "
        f"{len(INTERVALS) - 1} OR series / {SERIES_INTERVALS} NOT IN (SELECT id FROM instrument))"
    )
    for (number,) in series:
        instrument, code = divmod(number, SERIES_INTERVALS)
        yield (
            f"{database.path}: table candle: series {number} is of instrument {instrument} and interval code {code}, and "
            "there is no such series: delete its rows, or restore a copy"
        )
