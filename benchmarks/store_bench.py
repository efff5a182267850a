"""P7 and P8: what a commit and the load at the start cost, each beside a peer in the same run.

P7: 3,500 closed candles committed by one call to the store's thread, as the event loop sees it. Peer: the same rows by a
plain `executemany` into the same table, without guard, claim or thread.
P8: the newest candle of 70,000 series, at several lengths of history. Peer: `GROUP BY` over the history.
"""

import asyncio
import gc
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from klagg.interval import BY_NAME, DEFAULT_INTERVALS, MINUTE_MS, Interval
from klagg.model import VIRTUAL_SHARDS, Candles, Instrument, Ints, Market, Origin, Status, no_candles
from klagg.store import Commit, SqliteStore, open_store
from klagg.store.rows import closed_rows, series_of
from klagg.store.schema import VALUES
from klagg.store.thread import StoreThread

START_MS = 1_700_006_400_000
COMMIT_ROWS = 3_500
COMMITS = 120
CHECKPOINT_EVERY = 8
SERIES = 70_000
HISTORIES = (100_000, 1_000_000, 10_000_000)
SHARDS = range(VIRTUAL_SHARDS)


def instruments(count: int) -> list[Instrument]:
    return [Instrument(Market.USDM, f"SYM{n:05d}USDT", Status.TRADING, 2, 3) for n in range(count)]


def some_candles(count: int, intervals: Iterable[Interval], opens_ms: Ints, flags: int, origin: Origin) -> Candles:
    """`count` candles of each interval, with numbers of the size real ones have."""
    codes = [interval.code for interval in intervals]
    candles = no_candles(count * len(codes))
    random = np.random.default_rng(7)
    candles["interval"] = np.tile(codes, count)
    candles["flags"], candles["origin"] = flags, origin.value
    candles["price_scale"], candles["qty_scale"] = 2, 3
    candles["open_ms"] = opens_ms
    price = random.integers(1_000_000, 9_000_000, len(candles))
    candles["open"], candles["high"], candles["low"], candles["close"] = price, price + 900, price - 900, price + 50
    for name, scale in (("volume_lo", 10**8), ("quote_lo", 10**13)):
        candles[name] = random.integers(scale // 2, scale, len(candles))
        candles[f"taker_{name}"] = candles[name] // 2
    candles["trades"] = random.integers(1, 2_000, len(candles))
    candles["first_id"] = random.integers(10**9, 5 * 10**9, len(candles))
    candles["last_id"] = candles["first_id"] + candles["trades"] - 1
    return candles


def figures() -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="klagg-bench-") as folder:
        yield from commit_figures(Path(folder))
        for rows in HISTORIES:
            yield newest_figure(Path(folder), rows)


def figure(name: str, value: float, peer: float | None, goal: str, number: str) -> dict[str, object]:
    return {
        "id": number,
        "name": name,
        "value": round(value, 2),
        "unit": "ms",
        "peer": None if peer is None else round(peer, 2),
        "ratio": None if not peer else round(value / peer, 3),
        "goal": goal,
    }


def commit_figures(folder: Path) -> Iterator[dict[str, object]]:
    ours = asyncio.run(commit_times(folder / "commit.db"))
    plain = plain_times(folder / "plain.db")
    for name, quantile, goal in (("p50", 0.5, "<= 7"), ("p99", 0.99, "<= 30")):
        yield figure(
            f"commit of {COMMIT_ROWS} closed candles, {name} (peer: plain executemany)",
            float(np.quantile(ours, quantile)),
            float(np.quantile(plain, quantile)),
            goal,
            "P7",
        )


def minute_of(number: int, ids: Ints) -> Candles:
    """One minute that closes 7 series of 500 symbols: their opens are those of minute `number`, whatever the interval."""
    return some_candles(len(ids), DEFAULT_INTERVALS, START_MS + number * MINUTE_MS, 1, Origin.TRADES)


async def commit_times(path: Path) -> list[float]:
    store = open_store(str(path), mode="create")
    count = COMMIT_ROWS // len(DEFAULT_INTERVALS)
    ids = np.array(list(store.put_instruments(instruments(count), START_MS).values()))
    claim = store.claim(Market.USDM, owner="bench", now_ms=START_MS)
    rows_ids = np.repeat(ids, len(DEFAULT_INTERVALS))
    thread = StoreThread(store)
    times = []
    for number in range(COMMITS):
        candles = minute_of(number, ids)
        batch = Commit(claim, SHARDS, START_MS + (number + 1) * MINUTE_MS, rows_ids, candles)
        started = time.perf_counter()
        await thread.commit(batch)
        times.append((time.perf_counter() - started) * 1e3)
        if number % CHECKPOINT_EVERY == 0:
            await thread.checkpoint()
    await thread.close()
    return times


def plain_times(path: Path) -> list[float]:
    open_store(str(path), mode="create").close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 16384")
    connection.execute("PRAGMA cache_size = -65536")
    count = COMMIT_ROWS // len(DEFAULT_INTERVALS)
    ids = np.repeat(np.arange(1, count + 1), len(DEFAULT_INTERVALS))
    insert = f"INSERT OR REPLACE INTO candle VALUES ({', '.join('?' * (len(VALUES) + 3))}, 0)"
    times = []
    for number in range(COMMITS):
        candles = minute_of(number, np.arange(count))
        started = time.perf_counter()
        rows = [row[:-2] for row in closed_rows(series_of(ids, candles), candles, np.zeros(len(ids), np.int64))]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")
        times.append((time.perf_counter() - started) * 1e3)
        if number % CHECKPOINT_EVERY == 0:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.close()
    return times


def newest_figure(folder: Path, history: int) -> dict[str, object]:
    path = folder / f"newest-{history}.db"
    store = open_store(str(path), mode="create")
    fill(store, history)
    store.close()
    # The load of a start: a new connection, and nothing else in the heap.
    store = open_store(str(path), mode="write")
    ours = median_of(lambda: store.newest(Market.USDM, BY_NAME.values()))
    connection = sqlite3.connect(path)
    peer = median_of(
        lambda: connection.execute("SELECT series, max(open_ms), close FROM candle GROUP BY series").fetchall(), 1
    )
    connection.close()
    store.close()
    path.unlink()
    name = f"newest of {SERIES:,} series, {history:,} rows of history (peer: GROUP BY)"
    return figure(name, ours, peer, "<= 100, flat", "P8")


def fill(store: SqliteStore, history: int) -> None:
    """`SERIES` series with an open snapshot each, and `history` closed candles over them."""
    kept = DEFAULT_INTERVALS
    ids = np.array(list(store.put_instruments(instruments(SERIES // len(kept)), START_MS).values()))
    every = np.repeat(ids, len(kept))
    steps = np.array([interval.step_ms for interval in kept])
    opens = np.array([interval.open_at(START_MS) for interval in kept])
    claim = store.claim(Market.USDM, owner="bench", now_ms=START_MS)
    live = some_candles(len(ids), kept, np.tile(opens, len(ids)), 0, Origin.TRADES)
    store.commit(Commit(claim, SHARDS, START_MS, every, live))
    depth, chunk = -(-history // SERIES), 100
    for at in range(0, len(ids), chunk):
        some = ids[at : at + chunk]
        back = np.concatenate([(opens - steps * (n + 1)) for n in range(depth)])
        wanted = max(0, min(len(some) * len(back), history - at * len(kept) * depth))
        candles = some_candles(len(some), kept * depth, np.tile(back, len(some)), 3, Origin.EXCHANGE)[:wanted]
        store.write(np.repeat(some, len(back))[:wanted], candles)
    store.checkpoint()


def median_of(run: Callable[[], object], times: int = 5) -> float:
    """Milliseconds."""
    spent = []
    for _ in range(times):
        gc.collect()
        started = time.perf_counter()
        run()
        spent.append((time.perf_counter() - started) * 1e3)
    return statistics.median(spent)


def main() -> None:
    for line in figures():
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
