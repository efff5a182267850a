"""P7: a commit, as the event loop sees it."""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core import Figure, Measurement, Plan, Yardstick, at_most, median, no_garbage, quantile, spread
from benchmarks.rows import START_MS, instruments, last_trades, some_candles
from klagg.interval import DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Ints, Market
from klagg.store import Claim, Commit, open_store
from klagg.store.rows import row_values, series_of
from klagg.store.schema import KEY, VALUES
from klagg.store.thread import StoreThread

SYMBOLS = 500
COMMITS = 240
CHECKPOINT_EVERY = 8
"""Commits between two checkpoints. In the service a checkpoint comes every 20 s and commits of this size are rare: this is harsher."""
MILLI = 1e3
ROWS = SYMBOLS * len(DEFAULT_INTERVALS)

HOW = f"""
`StoreThread.commit` of {ROWS:,} closed candles ({SYMBOLS} symbols, 7 intervals, each time the next candle of every series), from
the call on the event loop to its result, on a fresh SQLite database in WAL mode, `synchronous=NORMAL`. Every {CHECKPOINT_EVERY} commits
a checkpoint is started beside them on another thread. "A whole tick" adds what the service commits with them: the open candle of every
series and the last trade of every symbol. The limit is the standard `sqlite3` alone: `executemany` of the same rows, already tuples, by
`INSERT OR REPLACE` into a table of the same columns and key without any index, guard, claim or thread, with the same pragmas and
checkpoints of its own.
"""


async def commit_times(path: Path, commits: int, *, whole: bool) -> list[float]:
    store = open_store(str(path), mode="create")
    ids = np.array(list(store.put_instruments(instruments(SYMBOLS), START_MS).values()))
    claim = store.claim(Market.USDM, owner="benchmarks", now_ms=START_MS)
    thread = StoreThread(store)
    times = []
    checkpoints: list[asyncio.Task[None]] = []
    try:
        for number in range(commits):
            batch = commit_of(number, ids, claim, whole=whole)
            with no_garbage():
                started = time.perf_counter()
                await thread.commit(batch)
                times.append((time.perf_counter() - started) * MILLI)
            if number % CHECKPOINT_EVERY == 0:
                await asyncio.gather(*checkpoints)
                checkpoints = [asyncio.create_task(thread.checkpoint())]
        await asyncio.gather(*checkpoints)
    finally:
        await thread.close()
    return times


def commit_of(number: int, ids: Ints, claim: Claim, *, whole: bool) -> Commit:
    """The candles of minute `number`: every series goes on by one, whatever its interval."""
    open_ms = START_MS + number * MINUTE_MS
    of = np.repeat(ids, len(DEFAULT_INTERVALS))
    candles = some_candles(len(ids), DEFAULT_INTERVALS, open_ms, closed=True)
    if not whole:
        return Commit(claim, range(VIRTUAL_SHARDS), open_ms + MINUTE_MS, of, candles)
    opened = some_candles(len(ids), DEFAULT_INTERVALS, open_ms + MINUTE_MS, closed=False)
    return Commit(
        claim,
        range(VIRTUAL_SHARDS),
        open_ms + MINUTE_MS,
        np.concatenate([of, of]),
        np.concatenate([candles, opened]),
        ids,
        last_trades(ids, open_ms),
        now_ms=open_ms + MINUTE_MS,
    )


def plain_times(path: Path, commits: int) -> list[float]:
    """What SQLite itself needs for the same rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    names = (*KEY, *VALUES)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA wal_autocheckpoint = 16384",
        "PRAGMA cache_size = -65536",
        f"CREATE TABLE candle ({', '.join(f'{name} INTEGER' for name in names)}, PRIMARY KEY (series, open_ms)) WITHOUT ROWID",
    ):
        connection.execute(statement)
    insert = f"INSERT OR REPLACE INTO candle VALUES ({', '.join('?' * len(names))})"
    ids = np.repeat(np.arange(1, SYMBOLS + 1), len(DEFAULT_INTERVALS))
    times = []
    for number in range(commits):
        candles = some_candles(SYMBOLS, DEFAULT_INTERVALS, START_MS + number * MINUTE_MS, closed=True)
        series = series_of(ids, candles).tolist()
        rows = [(key, *values) for key, values in zip(series, row_values(candles), strict=True)]
        with no_garbage():
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows)
            connection.execute("COMMIT")
            times.append((time.perf_counter() - started) * MILLI)
        if number % CHECKPOINT_EVERY == 0:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.close()
    return times


def lines(
    name: str, ours: Sequence[float], plain: Sequence[float], goals: tuple[float, float] | None
) -> Iterator[Measurement]:
    for label, at, share in (("p50", 0, 0.5), ("p99", 1, 0.99)):
        yield Measurement(
            "P7",
            f"{name}, {label}",
            quantile(ours, share),
            "ms",
            goal=at_most(goals[at]) if goals else None,
            limit=Yardstick(f"plain sqlite3 executemany of the closed rows, {label}", quantile(plain, share)),
            samples=len(ours),
            spread=spread(ours),
        )


def measure(plan: Plan) -> Iterator[Measurement]:
    commits = plan.pick(COMMITS, 10)
    with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as folder:
        plain = plain_times(Path(folder) / "plain.db", commits)
        ours = asyncio.run(commit_times(Path(folder) / "closed.db", commits, whole=False))
        whole = asyncio.run(commit_times(Path(folder) / "whole.db", commits, whole=True))
    yield from lines(f"commit of {ROWS:,} closed candles", ours, plain, (7, 30))
    yield from lines("commit of a whole tick", whole, plain, None)
    per_row = median(ours) / ROWS * MILLI
    yield Measurement("P7", "the same, a closed candle", per_row, "µs", samples=len(ours))


FIGURE = Figure("P7", "A commit off the event loop", HOW, measure)
