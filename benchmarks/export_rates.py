"""E1: candles out of the database, in every format, and as frames; on one core."""

import csv
import io
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import numpy as np

import klagg
from benchmarks.core import Figure, Measurement, Plan, Yardstick, cpu_seconds, median, spread
from klagg.export import ExportFormat, export
from klagg.export.dataset import export_dataset
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import Candles, Flag, Instrument, Market, Origin, Status, no_candles
from klagg.store import SqliteStore, open_store

START_MS: Final = 1_704_067_200_000
ROWS = 250_000
SYMBOLS = 4
SAMPLES = 5
EVER: Final = (0, 1 << 50)

HOW = f"""
A database with {SYMBOLS} symbols of {ROWS:,} minutes each (half a year). One of them is exported by `klagg.export.export` in each
format with all columns, and read by `klagg.open(…).candles(…)` into an Arrow table; all of them are exported as a data set,
and again, when nothing has changed. Rates are rows by the CPU time of the one thread that does it. The limit is the standard
`sqlite3` reading the same columns into tuples, and nothing else; the peer is what one does without klagg: the view `candles` by
`sqlite3`, written by Python's `csv`.
"""


def made(folder: Path, rows: int) -> SqliteStore:
    store = open_store(str(folder / "klagg.db"), mode="create")
    listed = [Instrument(Market.USDM, f"S{n}USDT", Status.TRADING, 2, 3) for n in range(SYMBOLS)]
    for number in store.put_instruments(listed, START_MS).values():
        store.write(np.full(rows, number), candles(np.random.default_rng(number), rows))
    store.set_intervals(Market.USDM, [MINUTE])
    return store


def candles(random: np.random.Generator, rows: int) -> Candles:
    many = no_candles(rows)
    many["open_ms"] = START_MS + np.arange(rows) * MINUTE_MS
    many["flags"], many["origin"] = Flag.CLOSED | Flag.VERIFIED, Origin.EXCHANGE
    many["price_scale"], many["qty_scale"] = 2, 3
    price = 5_800_000 + np.cumsum(random.integers(-5, 6, rows))
    for name, away in (("open", 0), ("high", 9), ("low", -9), ("close", 1)):
        many[name] = price + away
    many["volume_lo"] = random.integers(1, 10**9, rows)
    many["taker_volume_lo"] = many["volume_lo"] // 3
    many["quote_lo"], many["taker_quote_lo"] = (price * many[name] for name in ("volume_lo", "taker_volume_lo"))
    many["first_id"] = many["last_id"] = -1
    many["trades"] = random.integers(1, 10_000, rows)
    return many


def by_hand(path: Path) -> None:
    """The view, by Python's csv."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT * FROM candles WHERE market = 'usdm' AND symbol = 'S0USDT' AND interval = '1m'"
        )
        csv.writer(io.StringIO()).writerows(rows)


def read_alone(path: Path) -> None:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        connection.execute("SELECT * FROM candle WHERE series = 16").fetchall()


def measure(plan: Plan) -> Iterator[Measurement]:
    samples, rows = plan.pick(SAMPLES, 1), plan.pick(ROWS, 5_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = made(folder, rows)
        limit = median([rows / cpu_seconds(lambda: read_alone(store.path)) for _ in range(samples)])
        peer = median([rows / cpu_seconds(lambda: by_hand(store.path)) for _ in range(samples)])
        against = (Yardstick("the view by sqlite3 and csv", peer), Yardstick("sqlite3 reading the rows alone", limit))

        def figure(what: str, rates: list[float]) -> Measurement:
            return Measurement("E1", what, median(rates), "rows/s", None, *against, samples, spread(rates))

        for form in get_args(ExportFormat):
            out = folder / f"out.{form}"

            def write(form: ExportFormat = form, out: Path = out) -> None:
                export(store, Market.USDM, "S0USDT", MINUTE, *EVER, format=form, full=True, out=out)

            yield figure(f"export as {form}", [rows / cpu_seconds(write) for _ in range(samples)])
        stored = store.instruments(Market.USDM)
        first, again = [], []
        for number in range(samples):
            out = folder / f"set{number}"

            def many(out: Path = out) -> None:
                export_dataset(store, Market.USDM, stored, [MINUTE], *EVER, out=out)

            first.append(rows * SYMBOLS / cpu_seconds(many))
            again.append(rows * SYMBOLS / cpu_seconds(many))
        yield figure("export as a data set", first)
        yield figure("the same, again, nothing changed", again)
        with klagg.open(store.path) as reader:
            frames = [rows / cpu_seconds(lambda: reader.candles("S0USDT", "1m")) for _ in range(samples)]
        yield figure("klagg.open(…).candles(…)", frames)
        store.close()


FIGURE = Figure("E1", "Export and frames", HOW, measure)
