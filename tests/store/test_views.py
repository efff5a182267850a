"""The views that people read: exact decimals, UTC times, and the primary key behind every sensible question."""

import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klagg.interval import BY_NAME, MINUTE_MS
from klagg.model import Market, Origin
from klagg.store import open_store
from store.samples import T0, Owned, candle, instrument

MONTH_MS = 1_706_745_600_000  # 2024-02-01, a leap February
words = st.one_of(st.just(0), st.integers(0, 4), st.integers(0, 10**17))
low = st.one_of(st.integers(0, 9), st.integers(0, 10**18 - 1))
price = st.one_of(st.integers(1, 9), st.integers(1, 10**18 - 1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "v.db"
    store = open_store(str(path), mode="create")
    ids = store.put_instruments([instrument("BTCUSDT")], T0)
    owned = Owned(store, ids, store.claim(Market.USDM, owner="first", now_ms=T0))
    yield owned
    store.close()


@settings(max_examples=200, deadline=None)
@given(price, words, low, words, low, st.integers(0, 18), st.integers(0, 18), st.booleans())
def test_texts_are_the_exact_decimals(
    shared, at, volume_hi, volume_lo, quote_hi, quote_lo, price_scale, qty_scale, closed
):
    numbers = dict.fromkeys(("open", "high", "low", "close"), at)
    numbers |= {"volume_hi": volume_hi, "volume_lo": volume_lo, "quote_hi": quote_hi, "quote_lo": quote_lo}
    numbers |= {"taker_volume_hi": 0, "taker_volume_lo": volume_lo, "taker_quote_hi": 0, "taker_quote_lo": quote_lo}
    connection = shared.store._database.connection
    with pytest.raises(ZeroDivisionError), shared.store.transaction():  # noqa: PT012  # rolled back at its end
        shared.commit(candle(closed=closed, price_scale=price_scale, qty_scale=qty_scale, **numbers))
        columns = "open, high, low, close, volume, quote_volume, taker_buy_volume, taker_buy_quote_volume"
        (row,) = connection.execute(f"SELECT {columns} FROM candles").fetchall()
        (floats,) = connection.execute(f"SELECT {columns} FROM candles_f64").fetchall()
        both = price_scale + qty_scale
        expected = [
            *[(at, price_scale)] * 4,
            (volume_hi * 10**18 + volume_lo, qty_scale),
            (quote_hi * 10**18 + quote_lo, both),
            (volume_lo, qty_scale),
            (quote_lo, both),
        ]
        for text, number, (mantissa, scale) in zip(row, floats, expected, strict=True):
            sign, digits, exponent = Decimal(text).as_tuple()
            assert int("".join(map(str, digits))) * (-1 if sign else 1) == mantissa
            assert exponent == -scale
            assert not text.startswith(".")
            assert not text.endswith(".")
            assert number == pytest.approx(float(text), rel=1e-15)
        raise ZeroDivisionError


@pytest.fixture
def filled(owned):
    owned.commit(
        candle(origin=Origin.PARTIAL),
        candle(T0 + MINUTE_MS, verified=True),
        candle(T0 + 2 * MINUTE_MS, closed=False),
        candle(MONTH_MS, interval=BY_NAME["1M"], closed=False),
        upto_ms=T0 + 2 * MINUTE_MS,
    )
    return owned


def test_times_names_and_marks(filled, db):
    with sqlite3.connect(db) as connection:
        rows = connection.execute(
            "SELECT market, symbol, interval, open_time, close_time_ms, closed, origin, verified, first_trade_id "
            "FROM candles ORDER BY interval, open_time_ms"
        ).fetchall()
    march = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1000)
    assert rows == [
        ("usdm", "BTCUSDT", "1M", "2024-02-01T00:00:00Z", march - 1, 0, "trades", 0, 7),
        ("usdm", "BTCUSDT", "1m", "2023-11-15T00:00:00Z", T0 + 59_999, 1, "partial", 0, 7),
        ("usdm", "BTCUSDT", "1m", "2023-11-15T00:01:00Z", T0 + 119_999, 1, "trades", 1, 7),
        ("usdm", "BTCUSDT", "1m", "2023-11-15T00:02:00Z", T0 + 179_999, 0, "trades", 0, 7),
    ]


@pytest.mark.parametrize("view", ["candles", "candles_f64"])
def test_a_series_and_span_is_found_by_the_primary_key(filled, db, view):
    question = f"""EXPLAIN QUERY PLAN SELECT * FROM {view}
        WHERE market = 'usdm' AND symbol = 'BTCUSDT' AND interval = '1m' AND open_time_ms BETWEEN {T0} AND {T0 + 60_000}"""
    with sqlite3.connect(db) as connection:
        plan = [row[3] for row in connection.execute(question)]
    assert "SEARCH candle USING PRIMARY KEY (series=? AND open_ms>? AND open_ms<?)" in plan
    assert "SEARCH open_candle USING INTEGER PRIMARY KEY (rowid=?)" in plan
    assert [step for step in plan if step.startswith("SCAN")] == ["SCAN candles"]  # of what the searches found


def test_pandas_reads_them(filled, db):
    with sqlite3.connect(db) as connection:
        exact = pd.read_sql("SELECT * FROM candles WHERE interval = '1m'", connection)
        floats = pd.read_sql("SELECT * FROM candles_f64 WHERE interval = '1m'", connection)
    assert exact["close"].tolist() == ["1.10"] * 3
    assert floats["close"].tolist() == [1.1] * 3
    assert floats["close"].dtype == "float64"
    assert pd.to_datetime(exact["open_time"]).iloc[0] == pd.Timestamp("2023-11-15", tz="UTC")


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_the_shell_reads_them_while_the_owner_writes(filled, db):
    command = [
        "sqlite3",
        str(db),
        "SELECT symbol, open_time, high FROM candles WHERE closed = 1 ORDER BY open_time_ms LIMIT 1",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "BTCUSDT|2023-11-15T00:00:00Z|1.20\n"


def test_duckdb_reads_them(filled, db):
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    try:
        connection.execute("LOAD sqlite")
    except duckdb.Error:
        pytest.skip("DuckDB's sqlite extension is not installed (it is downloaded separately)")
    rows = connection.execute(f"SELECT close FROM sqlite_scan('{db}', 'candles') WHERE interval = '1m'").fetchall()
    assert rows == [("1.10",)] * 3
