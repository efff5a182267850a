"""P7: a commit, as the event loop sees it."""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core import Figure, Measurement, Plan, Yardstick, at_most, no_garbage, quantile, spread
from benchmarks.rows import START_MS, instruments, last_trades, some_candles
from klagg.interval import DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Market
from klagg.store import Commit, open_store
from klagg.store.rows import row_values, series_of
from klagg.store.schema import KEY, VALUES
from klagg.store.thread import StoreThread

SYMBOLS = 500
COMMITS = 120
CHECKPOINT_EVERY = 8
"""Commits between two checkpoints. In the service a checkpoint comes every 20 s and commits of this size are rare: this is harsher."""
MILLI = 1e3
ROWS = SYMBOLS * len(DEFAULT_INTERVALS)

HOW = f"""
`StoreThread.commit` of {ROWS:,} closed candles ({SYMBOLS} symbols, 7 intervals, each time the next candle of every series),
from the call on the event loop to its result, on a fresh SQLite database in WAL mode, `synchronous=NORMAL`. With every
{CHECKPOINT_EVERY}th commit a checkpoint begins on another thread. "A whole tick" adds what the service commits with them:
the open candle of every series and the last trade of every symbol. The limit is the standard `sqlite3` alone: `executemany`
of the same rows, already tuples, by `INSERT OR REPLACE` into a table of the same columns and key without any index, guard,
claim or thread, with the same pragmas, and its checkpoints between the commits. The three take turns.
"""


class Owner:
    """A store in its thread, and the claim under which it is written."""

    def __init__(self, path: Path, *, whole: bool) -> None:
        store = open_store(str(path), mode="create")
        self.times: list[float] = []
        self._ids = np.array(list(store.put_instruments(instruments(SYMBOLS), START_MS).values()))
        self._claim = store.claim(Market.USDM, owner="benchmarks", now_ms=START_MS)
        self._whole = whole
        self.thread = StoreThread(store)

    async def commit(self, number: int) -> None:
        batch = self._batch(number)
        checkpoint = asyncio.create_task(self.thread.checkpoint()) if number % CHECKPOINT_EVERY == 0 else None
        with no_garbage():
            started = time.perf_counter()
            await self.thread.commit(batch)
            self.times.append((time.perf_counter() - started) * MILLI)
        if checkpoint:
            await checkpoint

    def _batch(self, number: int) -> Commit:
        """The candles of minute `number`: every series goes on by one, whatever its interval."""
        open_ms = START_MS + number * MINUTE_MS
        of = np.repeat(self._ids, len(DEFAULT_INTERVALS))
        candles = some_candles(SYMBOLS, DEFAULT_INTERVALS, open_ms, closed=True)
        if not self._whole:
            return Commit(self._claim, range(VIRTUAL_SHARDS), open_ms + MINUTE_MS, of, candles)
        opened = some_candles(SYMBOLS, DEFAULT_INTERVALS, open_ms + MINUTE_MS, closed=False)
        return Commit(
            self._claim,
            range(VIRTUAL_SHARDS),
            open_ms + MINUTE_MS,
            np.concatenate([of, of]),
            np.concatenate([candles, opened]),
            self._ids,
            last_trades(self._ids, open_ms),
            now_ms=open_ms + MINUTE_MS,
        )


class Plain:
    """What SQLite itself needs for the same rows."""

    def __init__(self, path: Path) -> None:
        self.times: list[float] = []
        self.connection = sqlite3.connect(path, isolation_level=None)
        names = (*KEY, *VALUES)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            "PRAGMA wal_autocheckpoint = 16384",
            "PRAGMA cache_size = -65536",
            f"CREATE TABLE candle ({', '.join(f'{name} INTEGER' for name in names)}, PRIMARY KEY (series, open_ms)) WITHOUT ROWID",
        ):
            self.connection.execute(statement)
        self._insert = f"INSERT OR REPLACE INTO candle VALUES ({', '.join('?' * len(names))})"
        self._ids = np.repeat(np.arange(1, SYMBOLS + 1), len(DEFAULT_INTERVALS))

    def commit(self, number: int) -> None:
        candles = some_candles(SYMBOLS, DEFAULT_INTERVALS, START_MS + number * MINUTE_MS, closed=True)
        series = series_of(self._ids, candles).tolist()
        rows = [(key, *values) for key, values in zip(series, row_values(candles), strict=True)]
        with no_garbage():
            started = time.perf_counter()
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(self._insert, rows)
            self.connection.execute("COMMIT")
            self.times.append((time.perf_counter() - started) * MILLI)
        if number % CHECKPOINT_EVERY == 0:
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


async def take_turns(folder: Path, commits: int) -> tuple[list[float], list[float], list[float]]:
    """The milliseconds of commits of closed candles, of whole ticks, and of SQLite alone."""
    closed, whole = Owner(folder / "closed.db", whole=False), Owner(folder / "whole.db", whole=True)
    plain = Plain(folder / "plain.db")
    try:
        for number in range(commits):
            await closed.commit(number)
            await whole.commit(number)
            plain.commit(number)
    finally:
        await closed.thread.close()
        await whole.thread.close()
        plain.connection.close()
    return closed.times, whole.times, plain.times


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
    with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as folder:
        closed, whole, plain = asyncio.run(take_turns(Path(folder), plan.pick(COMMITS, 10)))
    yield from lines(f"commit of {ROWS:,} closed candles", closed, plain, (7, 30))
    yield from lines("commit of a whole tick", whole, plain, None)


FIGURE = Figure("P7", "A commit off the event loop", HOW, measure)
