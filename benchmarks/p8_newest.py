"""P8: the newest candle of every series, whatever the history."""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.core import (
    TIMES,
    Figure,
    Measurement,
    Plan,
    Yardstick,
    at_most,
    median,
    number,
    say,
    spread,
    wall_seconds,
)
from benchmarks.rows import START_MS, instruments
from klagg.interval import DEFAULT_INTERVALS
from klagg.model import Market, Origin
from klagg.store import open_store
from klagg.store.schema import KEY, SERIES_INTERVALS, VALUES

SYMBOLS = 10_000
SERIES = SYMBOLS * len(DEFAULT_INTERVALS)
SHORTEST = 1_000_000
ROUNDS = 7
FLAT = 1.5
"""Flat means: with the longest history not more than this many times what it is with the shortest."""
MILLI = 1e3

HOW = f"""
A database of {SERIES:,} series ({SYMBOLS:,} symbols, 7 intervals), each with its open candle and as many closed ones as the
history says, written by SQL alone into a temporary folder. Timed are the two loads of a start, on a connection opened for it
and with every row checked: `newest`, the open candle of every series (the seeds of the computation), and `newest_closed`,
the newest closed candle of every series. The file lies in the system's cache. The peer asks the obvious way: `SELECT …,
max(open_ms) FROM candle GROUP BY series`, its rows fetched and nothing checked, once. "Flat": at most {FLAT:g} times the CPU
time from the shortest history to the longest. 10^8 rows take some 12 GB and minutes to write, so they are left out unless
asked for: `--rows 100000000`.
"""

_SMALL = {"price_scale": "2", "qty_scale": "3", "origin": str(Origin.EXCHANGE.value)}


def _values(depth: str) -> str:
    """SQL: numbers of the size real ones have, whose high and low contain open and close; `s` is the series, `depth` the candle's."""
    price = f"(5000000 + (s * 7919 + {depth} * 104729) % 900000)"
    sums = {
        "open": price,
        "high": f"{price} + 900",
        "low": f"{price} - 900",
        "close": f"{price} + 50",
        "volume_lo": f"50000000 + {price}",
        "taker_volume_lo": "20000000",
        "quote_lo": f"5000000000000 + {price}",
        "taker_quote_lo": "2000000000000",
        "trades": "500",
        "first_id": f"1000000000 + {depth} * 500",
        "last_id": f"1000000000 + {depth} * 500 + 499",
        **_SMALL,
    }
    return ", ".join(sums.get(name, "0") for name in VALUES)


def fill(path: Path, depth: int) -> None:
    """`SERIES` series with an open candle and `depth` closed ones each."""
    store = open_store(str(path), mode="create")
    store.put_instruments(instruments(SYMBOLS), START_MS)
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = OFF",
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -262144",
        "CREATE TEMP TABLE kept (code INTEGER PRIMARY KEY, step_ms INTEGER, open_ms INTEGER)",
    ):
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO kept VALUES (?, ?, ?)",
        [(interval.code, interval.step_ms, interval.open_at(START_MS)) for interval in DEFAULT_INTERVALS],
    )
    series = f"SELECT i.id * {SERIES_INTERVALS} + k.code AS s, k.open_ms AS at_ms, k.step_ms AS step_ms FROM instrument i CROSS JOIN kept k"
    connection.execute("BEGIN")
    connection.execute(
        f"INSERT INTO open_candle ({', '.join((*KEY, *VALUES))}) SELECT s, at_ms, {_values('0')} FROM ({series}) ORDER BY s"
    )
    # In the order of the key, so that every page is written once.
    connection.execute(
        f"WITH RECURSIVE back (n) AS (SELECT {depth} UNION ALL SELECT n - 1 FROM back WHERE n > 1) "
        f"INSERT INTO candle ({', '.join((*KEY, *VALUES))}, verified, revision) "
        f"SELECT s, at_ms - n * step_ms, {_values('n')}, 1, 0 FROM ({series} ORDER BY s) CROSS JOIN back"
    )
    connection.execute("COMMIT")
    connection.close()


def times_of(path: Path, method: str, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a load, each on a new connection: of the clock, and of the processor."""
    spent, worked = [], []
    for _ in range(times):
        store = open_store(str(path), mode="write")
        load = getattr(store, method)
        found = []
        began = time.thread_time()
        spent.append(wall_seconds(lambda: found.append(load(Market.USDM, DEFAULT_INTERVALS))) * MILLI)  # noqa: B023 - called at once
        worked.append((time.thread_time() - began) * MILLI)
        store.close()
        assert len(found[0].candles) == SERIES
    return spent, worked


def grouped(path: Path) -> float:
    """Milliseconds of the obvious query."""
    connection = sqlite3.connect(path)
    query = f"SELECT {', '.join((*KEY, *VALUES))}, max(open_ms) FROM candle GROUP BY series"
    seconds = wall_seconds(lambda: connection.execute(query).fetchall())
    connection.close()
    return seconds * MILLI


def histories(longest: int) -> list[int]:
    """Rows of history: 10^6, 10^7, … up to the longest."""
    rows, wanted = SHORTEST, []
    while rows < longest:
        wanted.append(rows)
        rows *= 10
    return [*wanted, longest]


LOADS = (("newest", "open candle of every series"), ("newest_closed", "newest closed candle of every series"))


def measure(plan: Plan) -> Iterator[Measurement]:
    found: dict[str, list[float]] = {method: [] for method, _ in LOADS}
    times = plan.pick(ROUNDS, 1)
    with tempfile.TemporaryDirectory(prefix="klagg-benchmarks-") as folder:
        wanted = histories(SERIES if plan.quick else plan.newest_rows)
        for rows in wanted[-1:] if plan.quick else wanted:
            path = Path(folder) / "newest.db"
            depth = -(-rows // SERIES)
            say(f"P8: writing {depth * SERIES:,} rows")
            fill(path, depth)
            say(f"P8: {path.stat().st_size / 2**20:,.0f} MiB")
            taken = {method: times_of(path, method, times) for method, _ in LOADS}
            peer = Yardstick("GROUP BY", grouped(path))
            path.unlink()
            for method, what in LOADS:
                spent, worked = taken[method]
                found[method].append(median(worked))
                yield Measurement(
                    "P8",
                    f"{what}, history of {depth * SERIES:,} rows",
                    median(spent),
                    "ms",
                    goal=at_most(100),
                    peer=peer,
                    samples=times,
                    spread=spread(spent),
                )
    for method, what in LOADS:
        values = found[method]
        yield Measurement(
            "P8",
            f"{what}: longest history to shortest, CPU time",
            values[-1] / values[0] if len(values) > 1 else None,
            TIMES,
            goal=at_most(FLAT),
            note=" → ".join(f"{number(value)} ms" for value in values) if len(values) > 1 else "one history only",
        )


FIGURE = Figure("P8", "The newest candle of every series", HOW, measure)
