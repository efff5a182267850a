"""Many series into a folder: a data set that DuckDB, Arrow and polars read alike, and the files that freqtrade reads."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from klagg.cli import main
from klagg.errors import NumberError, UsageError
from klagg.export import dataset as dataset_module
from klagg.export.dataset import DataSet, export_dataset
from klagg.export.freqtrade import export_freqtrade, file_of
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, parse_interval
from klagg.model import Candles, Flag, Instrument, Market, Origin, Status, no_candles
from klagg.store import SqliteStore, open_store

JANUARY = 1_704_067_200_000
"""2024-01-01."""
FEBRUARY = JANUARY + 31 * DAY_MS
HOUR = parse_interval("1h")
EVER = (0, 1 << 50)
SCALES = {"BTCUSDT": (2, 3), "1000SHIBUSDT": (8, 0), "币安人生USDT": (7, 0)}


def candles(start_ms: int, count: int, scales: tuple[int, int], **columns: int) -> Candles:
    many = no_candles(count)
    many["open_ms"] = start_ms + np.arange(count) * MINUTE_MS
    facts = {
        "flags": Flag.CLOSED | Flag.VERIFIED,
        "origin": Origin.EXCHANGE,
        "price_scale": scales[0],
        "qty_scale": scales[1],
    }
    numbers = {"open": 123, "high": 130, "low": 110, "close": 123, "volume_lo": 5_000, "quote_lo": 615_000, "trades": 4}
    numbers |= {"first_id": 7, "last_id": 10}
    for name, value in (facts | numbers | columns).items():
        many[name] = value
    return many


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(str(tmp_path / "klagg.db"), mode="create")) as opened:
        ids = opened.put_instruments(
            [
                Instrument(Market.USDM, symbol, Status.TRADING, *scales, symbol.removesuffix("USDT"), "USDT")
                for symbol, scales in SCALES.items()
            ],
            JANUARY,
        )
        opened.set_intervals(Market.USDM, [MINUTE])
        for symbol, scales in SCALES.items():
            # Three minutes of January, two of February.
            put(opened, ids[symbol], candles(FEBRUARY - 3 * MINUTE_MS, 5, scales))
        yield opened


def put(store: SqliteStore, instrument_id: int, many: Candles) -> None:
    store.write(np.full(len(many), instrument_id), many)


def run(store: SqliteStore, out: Path, span: tuple[int, int] = EVER, **options: object) -> DataSet:
    stored = store.instruments(Market.USDM)
    return export_dataset(store, Market.USDM, stored, [MINUTE], *span, out=out, **options)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_duckdb_reads_all_symbols_exactly(store: SqliteStore, tmp_path: Path) -> None:
    """With a decimal type a symbol DuckDB took the first file's and made 0.00 of 0.00000123."""
    out = tmp_path / "out"
    assert run(store, out) == DataSet(rows=15, written=6)
    found = duckdb.sql(
        f"SELECT symbol, min(close), max(volume), count(*) FROM read_parquet('{out}/**/*.parquet') GROUP BY symbol ORDER BY symbol"
    ).fetchall()
    assert found == [
        ("1000SHIBUSDT", Decimal("0.00000123"), Decimal(5000), 5),
        ("BTCUSDT", Decimal("1.23"), Decimal(5), 5),
        ("币安人生USDT", Decimal("0.0000123"), Decimal(5000), 5),
    ]
    keys = "market, interval, symbol"
    hive = f"read_parquet('{out}/**/*.parquet', hive_partitioning = true)"
    assert duckdb.sql(f"SELECT DISTINCT {keys} FROM {hive} WHERE symbol = 'BTCUSDT'").fetchall() == [
        ("usdm", "1m", "BTCUSDT")
    ]
    assert duckdb.sql(f"SELECT typeof(close) FROM {hive} LIMIT 1").fetchall() == [("DECIMAL(38,18)",)]


def test_a_file_is_a_month_sorted_with_its_keys(store: SqliteStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(store, out)
    assert files(out) == sorted(
        f"market=usdm/interval=1m/symbol={symbol}/2024-{month}.parquet" for symbol in SCALES for month in ("01", "02")
    )
    path = out / "market=usdm/interval=1m/symbol=BTCUSDT/2024-01.parquet"
    assert {pq.read_metadata(path).row_group(0).column(n).compression for n in range(21)} == {"ZSTD"}
    rows = pq.ParquetFile(path).read().to_pylist()
    assert [row["open_time"] for row in rows] == [datetime(2024, 1, 31, 23, 57 + n, tzinfo=UTC) for n in range(3)]
    assert [tuple(row[key] for key in ("market", "interval", "symbol")) for row in rows] == [
        ("usdm", "1m", "BTCUSDT")
    ] * 3
    assert rows[0] | {"known_time": None} == {
        "market": "usdm",
        "symbol": "BTCUSDT",
        "interval": "1m",
        "open_time": datetime(2024, 1, 31, 23, 57, tzinfo=UTC),
        "close_time": datetime(2024, 1, 31, 23, 57, 59, 999_000, tzinfo=UTC),
        **{
            name: Decimal(value)
            for name, value in (("open", "1.23"), ("high", "1.30"), ("low", "1.10"), ("close", "1.23"))
        },
        "volume": Decimal(5),
        "quote_volume": Decimal("6.15"),
        "trades": 4,
        "taker_buy_volume": Decimal(0),
        "taker_buy_quote_volume": Decimal(0),
        "first_trade_id": 7,
        "last_trade_id": 10,
        "closed": True,
        "origin": "exchange",
        "verified": True,
        "revision": 0,
        "source": "",
        "known_time": None,
    }
    assert ds.dataset(out).to_table().num_rows == pq.read_table(out).num_rows == len(pd.read_parquet(out)) == 15
    assert set(pl.scan_parquet(out).filter(pl.col("close") == Decimal("0.00000123")).collect()["symbol"]) == {
        "1000SHIBUSDT"
    }


def test_a_second_run_writes_only_what_changed(store: SqliteStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(store, out)
    before = {path: path.stat().st_ino for path in out.rglob("*.parquet")}
    assert run(store, out) == DataSet(unchanged=6)
    assert {path: path.stat().st_ino for path in out.rglob("*.parquet")} == before
    ids = {one.instrument.symbol: one.id for one in store.instruments(Market.USDM)}
    # A changed number, one candle more, one that is only verified: each is one file.
    put(store, ids["BTCUSDT"], candles(FEBRUARY, 1, SCALES["BTCUSDT"], close=124))
    assert run(store, out) == DataSet(rows=2, written=1, unchanged=5)
    unverified = candles(FEBRUARY + 2 * MINUTE_MS, 1, SCALES["BTCUSDT"], flags=Flag.CLOSED, origin=Origin.TRADES)
    put(store, ids["BTCUSDT"], unverified)
    assert run(store, out) == DataSet(rows=3, unverified=1, written=1, unchanged=5)
    unverified["flags"] = Flag.CLOSED | Flag.VERIFIED
    put(store, ids["BTCUSDT"], unverified)
    assert run(store, out) == DataSet(rows=3, written=1, unchanged=5)
    # What is asked for otherwise, or is no whole file, is written again; a range chooses months.
    assert run(store, out, numbers="string") == DataSet(rows=16, written=6)
    path = out / "market=usdm/interval=1m/symbol=BTCUSDT/2024-01.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert run(store, out, (FEBRUARY, FEBRUARY + 1), numbers="string") == DataSet(unchanged=3)
    assert run(store, out, (FEBRUARY - 1, FEBRUARY), numbers="string") == DataSet(rows=3, written=1, unchanged=2)


def test_what_was_changed_past_klagg_is_noticed(store: SqliteStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(store, out)
    store._database.execute("UPDATE candle SET close = close + 1 WHERE open_ms = ?", (FEBRUARY,))
    assert run(store, out) == DataSet(rows=6, written=3, unchanged=3)
    store._database.execute("DELETE FROM candle WHERE open_ms >= ?", (FEBRUARY,))
    assert run(store, out) == DataSet(unchanged=3, removed=3)


def test_as_of_and_unmatched(store: SqliteStore, tmp_path: Path) -> None:
    ids = {one.instrument.symbol: one.id for one in store.instruments(Market.USDM)}
    later = FEBRUARY + 60 * MINUTE_MS
    with store.knowing(later):
        put(store, ids["BTCUSDT"], candles(FEBRUARY, 1, SCALES["BTCUSDT"], close=124))
        own = candles(FEBRUARY + 2 * MINUTE_MS, 1, SCALES["BTCUSDT"], origin=Origin.UNMATCHED, flags=Flag.CLOSED)
        put(store, ids["BTCUSDT"], own)

    def closes(**options: object) -> list[Decimal]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        run(store, out, **options)
        return sorted(duckdb.sql(f"SELECT close FROM '{out}/**/symbol=BTCUSDT/2024-02.parquet'").fetchnumpy()["close"])

    old, new = 1.23, 1.24
    assert closes() == [old, old, new]
    assert closes(unmatched="drop") == [old, new]
    assert closes(as_of_ms=later - 1) == [old, old]
    assert run(store, tmp_path / "never", as_of_ms=JANUARY) == DataSet()
    assert files(tmp_path / "never") == []


def test_a_number_that_does_not_fit_names_the_series_and_fits_as_text(store: SqliteStore, tmp_path: Path) -> None:
    (number,) = store.put_instruments([Instrument(Market.USDM, "HUGEUSDT", Status.TRADING, 0, 0)], JANUARY).values()
    put(store, number, candles(FEBRUARY, 1, (0, 0), volume_hi=10**8, flags=Flag.CLOSED, origin=Origin.TRADES))
    with pytest.raises(NumberError, match=r"HUGEUSDT 1m 2024-02-01T00:00:00Z: volume 10+5000 does not fit .*string"):
        run(store, tmp_path / "out")
    assert not any("HUGE" in name for name in files(tmp_path / "out"))
    assert run(store, tmp_path / "text", numbers="string").written == 7
    table = pq.read_table(tmp_path / "text" / "market=usdm/interval=1m/symbol=HUGEUSDT/2024-02.parquet")
    assert table["volume"].to_pylist() == ["1" + "0" * 22 + "5000"]


def test_a_kill_leaves_no_half_file_and_the_next_run_finishes(store: SqliteStore, tmp_path: Path) -> None:
    script = f"""
import os, signal
from klagg.export import dataset
real = dataset.write_columns
def killed(*arguments, **named):
    if len(list(__import__("pathlib").Path("out").rglob("*.parquet"))) == 3:
        arguments[0].write(b"half"); arguments[0].flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments, **named)
dataset.write_columns = killed
from klagg.cli import main
main(["export", "--db", {str(store.path)!r}, "--symbols", "all", "--format", "parquet", "--out", "out"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    assert sum(name.endswith(".part") for name in files(out)) == 1
    whole = [path for path in out.rglob("*.parquet") if pq.read_table(path).num_rows]
    assert len(whole) == 3
    assert run(store, out).unchanged == 3
    assert len(files(out)) == 6
    assert all(name.endswith(".parquet") for name in files(out))


def test_another_living_process_keeps_its_beginning(store: SqliteStore, tmp_path: Path) -> None:
    beginning = tmp_path / "market=usdm/interval=1m/symbol=BTCUSDT" / f".2024-01.parquet.{os.getppid()}.part"
    beginning.parent.mkdir(parents=True)
    beginning.write_bytes(b"half")
    run(store, tmp_path)
    assert beginning.read_bytes() == b"half"


def test_folders_are_made_of_any_symbol() -> None:
    series = dataset_module.Series(Market.SPOT, "A/B=C%", MINUTE)
    assert str(dataset_module.folder_of(Path("x"), series)) == "x/market=spot/interval=1m/symbol=A%2FB%3DC%25"


# The command


def test_the_command(store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, out = ["--db", str(store.path)], tmp_path / "out"
    many = ["export", *database, "--format", "parquet", "--out", str(out)]
    assert main([*many, "--symbols", "BTCUSDT,1000SHIBUSDT", "--interval", "1m"]) == 0
    assert "10 candles written to 4 files" in capsys.readouterr().err
    assert main([*many, "--symbols", "*USDT"]) == 0
    assert "5 candles written to 2 files" in (err := capsys.readouterr().err)
    assert "4 files are as they were" in err
    # One series into a folder that is there is a data set too.
    assert main([*many, "--symbol", "BTC/USDT:USDT", "--interval", "1m"]) == 0
    assert "2 files are as they were" in capsys.readouterr().err
    for arguments, code, reason in [
        (["--symbols", "all"], 2, "give --format parquet and a folder"),
        (["--symbols", "all", "--format", "csv", "--out", str(out)], 2, "give --format parquet and a folder"),
        (["--symbols", "NOPE,BTCUSDT", "--format", "parquet", "--out", str(out)], 2, "unknown symbol 'NOPE'"),
        (
            ["--symbols", "all", "--interval", "9m", "--format", "parquet", "--out", str(out)],
            2,
            "unknown interval '9m'",
        ),
        (
            ["--symbols", "all", "--end", "2020-01-01", "--format", "parquet", "--out", str(out)],
            1,
            "no candles of these",
        ),
    ]:
        assert main(["export", *database, *arguments]) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert reason in shown.err
        assert shown.err.count("\n") == 1


# freqtrade


def test_freqtrade_reads_it(store: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "binance"
    command = ["export", "--db", str(store.path), "--preset", "freqtrade", "--symbols", "all", "--out", str(out)]
    assert main(command) == 0
    path = out / "futures" / "1000SHIB_USDT_USDT-1m-futures.feather"
    assert path in list(out.rglob("*.feather"))
    assert len(files(out)) == 3
    # As freqtrade's FeatherDataHandler does.
    read = pd.read_feather(path)
    read.columns = ["date", "open", "high", "low", "close", "volume"]
    read = read.astype(dict.fromkeys(read.columns[1:], "float"))
    read["date"] = pd.to_datetime(read["date"], unit="ms", utc=True)
    assert read["date"].tolist() == [pd.Timestamp(FEBRUARY + n * MINUTE_MS, unit="ms", tz="UTC") for n in range(-3, 2)]
    assert (
        read[["open", "high", "low", "close", "volume"]].to_numpy().tolist()
        == [[0.00000123, 0.0000013, 0.0000011, 0.00000123, 5000.0]] * 5
    )
    capsys.readouterr()
    assert main(command) == 0
    assert "3 files are as they were" in capsys.readouterr().err


def test_freqtrades_names() -> None:
    """As freqtrade 2024.9 makes them of ccxt's pairs BTC/USDT, BTC/USDT:USDT and BTC/USDT:USDT-251226."""

    def name(symbol: str, market: Market, interval: str, base: str = "", quote: str = "", **extra: str) -> str:
        instrument = Instrument(market, symbol, Status.TRADING, 2, 3, base, quote, extra=dict(extra))
        return str(file_of(Path(), instrument, parse_interval(interval)))

    assert name("BTCUSDT", Market.SPOT, "5m", "BTC", "USDT") == "BTC_USDT-5m.feather"
    assert name("BTCUSDT", Market.USDM, "5m", "BTC", "USDT") == "futures/BTC_USDT_USDT-5m-futures.feather"
    assert name("BTCUSDT", Market.USDM, "1M", "BTC", "USDT") == "futures/BTC_USDT_USDT-1Mo-futures.feather"
    assert name("ETHBTC", Market.SPOT, "1h") == "ETH_BTC-1h.feather"
    assert (
        name("BTCUSDT_251226", Market.USDM, "1d", margin_asset="USDT")
        == "futures/BTC_USDT_USDT-251226-1d-futures.feather"
    )
    with pytest.raises(UsageError, match="XYZ: its base and quote assets are not known"):
        name("XYZ", Market.SPOT, "1h")


def test_freqtrade_files_hold_the_range_and_change_with_it(store: SqliteStore, tmp_path: Path) -> None:
    stored = store.instruments(Market.USDM)

    def write(span: tuple[int, int]) -> DataSet:
        return export_freqtrade(store, Market.USDM, stored, [MINUTE, HOUR], *span, out=tmp_path)

    assert write(EVER) == DataSet(rows=15, written=3)
    assert write(EVER) == DataSet(unchanged=3)
    assert write((FEBRUARY, FEBRUARY + DAY_MS)) == DataSet(rows=6, written=3)
    path = tmp_path / "futures" / "BTC_USDT_USDT-1m-futures.feather"
    assert pa.ipc.open_file(path).read_all().num_rows == 2
    assert json.loads(pa.ipc.open_file(path).schema.metadata[b"klagg"])["preset"] == "freqtrade"
