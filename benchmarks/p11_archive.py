"""P11: archive files into the database, on one core."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.core import Figure, Measurement, Plan, Yardstick, at_least, cpu_seconds, median, spread
from klagg.archive import open_trades, read_klines
from klagg.backfill import backfill_files
from klagg.interval import DAY_MS, DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import Market
from klagg.replay import replay
from klagg.store import SqliteStore, open_store
from klagg.store.rows import row_values, series_of
from klagg.store.schema import KEY, VALUES

DAY = 1_725_235_200_000
"""2024-09-02, which the names of the files say."""
TRADES = 2_000_000
KLINE_DAYS = 29
SAMPLES = 5

HOW = f"""
Two files as the exchange publishes them, unpacked, each of one symbol: {TRADES:,} aggregate trades of one day, and the
1-minute klines of {KLINE_DAYS} days ({KLINE_DAYS * 1_440:,} rows). Each is brought into a fresh database (SQLite in WAL mode,
`synchronous=NORMAL`) with all 7 default intervals, by `klagg.replay.replay` or `klagg.backfill.backfill_files`: reading,
engine or folding, and the transaction included. Rates are by the CPU time of the one thread that does it all. "Again" is a
second run over the same file on the same database, as after a kill. The limits: reading alone; and the standard `sqlite3`
alone with the same candles, already tuples, by `INSERT OR REPLACE` into a table of the same columns and key without any
index or guard, in rows of klines a second.
"""


def write_trades(folder: Path, rows: int) -> Path:
    random = np.random.default_rng(11)
    ids = np.arange(1_000_000, 1_000_000 + rows)
    times = DAY + np.sort(random.integers(0, DAY_MS, rows))
    ticks = 5_800_000 + np.cumsum(random.integers(-3, 4, rows))
    qtys = random.integers(1, 20_000, rows)
    counts = random.integers(1, 4, rows)
    firsts = 3_000_000 + np.concatenate([[0], np.cumsum(counts)[:-1]])
    path = folder / "BTCUSDT-aggTrades-2024-09-02.csv"
    with path.open("w") as file:
        file.write("agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n")
        columns = (ids, ticks, qtys, firsts, counts, times, random.integers(0, 2, rows))
        for a, p, q, f, n, t, m in zip(*(column.tolist() for column in columns), strict=True):
            price = f"{p // 100}.{p % 100:02d}"
            file.write(f"{a},{price},{q // 1000}.{q % 1000:03d},{f},{f + n - 1},{t},{'true' if m else 'false'}\n")
    return path


def write_klines(folder: Path, days: int) -> Path:
    random = np.random.default_rng(12)
    path = folder / "BTCUSDT-1m-2024-09.csv"
    with path.open("w") as file:
        for at in range(days * 1_440):
            open_ms = DAY + at * MINUTE_MS
            price, qty = 58_000 + random.random() * 100, random.random() * 900
            prices = f"{price:.2f},{price + 9:.2f},{price - 9:.2f},{price + 1:.2f}"
            sums = f"{qty * price:.5f},{at % 5_000 + 1},{qty / 2:.3f},{qty * price / 2:.5f}"
            file.write(f"{open_ms},{prices},{qty:.3f},{open_ms + MINUTE_MS - 1},{sums},0\n")
    return path


class Folder:
    """Databases, each used once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def fresh(self) -> SqliteStore:
        return open_store(str(self._folder / f"{next(self._numbers)}.db"), mode="create")


def rates(
    rows: int, samples: int, run: Callable[[SqliteStore], object], folder: Folder
) -> tuple[list[float], list[float]]:
    """Rows a second at first and again."""
    first, again = [], []
    for _ in range(samples):
        store = folder.fresh()
        first.append(rows / cpu_seconds(lambda store=store: run(store)))  # type: ignore[misc]
        again.append(rows / cpu_seconds(lambda store=store: run(store)))  # type: ignore[misc]
        store.close()
    return first, again


def plain_sqlite(store: SqliteStore, klines: int, path: Path) -> float:
    """Rows of klines a second where SQLite alone writes the candles that came of them."""
    rows: list[tuple[int, ...]] = []
    instrument = store.instruments(Market.USDM)[0].id
    for interval in DEFAULT_INTERVALS:
        candles = store.read(instrument, interval, 0, 1 << 60)
        series = series_of(np.full(len(candles), instrument, np.int64), candles)
        rows += [(key, *values) for key, values in zip(series.tolist(), row_values(candles), strict=True)]
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
    columns = ", ".join((*KEY, *VALUES))
    database.execute(f"CREATE TABLE candle ({columns}, PRIMARY KEY (series, open_ms)) WITHOUT ROWID")

    def write() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(f"INSERT OR REPLACE INTO candle VALUES ({', '.join('?' * (len(VALUES) + 2))})", rows)
        database.execute("COMMIT")

    spent = cpu_seconds(write)
    database.close()
    return klines / spent


def exhaust(path: Path, *, klines: bool) -> None:
    for _ in read_klines(path) if klines else open_trades(path, market=Market.USDM):
        pass


def measure(plan: Plan) -> Iterator[Measurement]:
    samples = plan.pick(SAMPLES, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        trades, days = plan.pick(TRADES, 20_000), plan.pick(KLINE_DAYS, 2)
        trade_file, kline_file = write_trades(Path(name), trades), write_klines(Path(name), days)

        def replayed(store: SqliteStore) -> None:
            replay([trade_file], market=Market.USDM, intervals=DEFAULT_INTERVALS, store=store)

        def backfilled(path: Path) -> Callable[[SqliteStore], object]:
            return lambda store: backfill_files(
                store, [path], market=Market.USDM, intervals=DEFAULT_INTERVALS, at_ms=DAY
            )

        reading = median([trades / cpu_seconds(lambda: exhaust(trade_file, klines=False)) for _ in range(samples)])
        limit = Yardstick("reading the file alone", reading)
        first, _ = rates(trades, samples, replayed, folder)
        yield Measurement(
            "P11",
            "replay of an archive file of trades",
            median(first),
            "trades/s",
            at_least(3e6),
            None,
            limit,
            samples,
            spread(first),
        )
        first, again = rates(trades, samples, backfilled(trade_file), folder)
        yield Measurement(
            "P11", "backfill of the same file", median(first), "trades/s", None, None, limit, samples, spread(first)
        )
        yield Measurement("P11", "the same, again", median(again), "trades/s", samples=samples, spread=spread(again))
        klines = days * 1_440
        first, again = rates(klines, samples, backfilled(kline_file), folder)
        store = folder.fresh()
        backfilled(kline_file)(store)
        plain = median([plain_sqlite(store, klines, Path(name) / f"plain{n}.db") for n in range(samples)])
        store.close()
        limit = Yardstick("plain sqlite3 executemany of the candles", plain)
        yield Measurement(
            "P11",
            "backfill of an archive file of klines",
            median(first),
            "rows/s",
            at_least(2e5),
            None,
            limit,
            samples,
            spread(first),
        )
        yield Measurement("P11", "the same, again", median(again), "rows/s", samples=samples, spread=spread(again))


FIGURE = Figure("P11", "Archive files", HOW, measure)
