"""Export: the exchange's own files come out as they went in, in every format, whole or not at all."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klagg.archive import read_klines
from klagg.errors import NoCandles, NumberError, UsageError
from klagg.export import export, source
from klagg.interval import MINUTE, MINUTE_MS, parse_interval
from klagg.model import CANDLE, Candles, Flag, Instrument, Market, Origin, Status, no_candles
from klagg.store import SqliteStore, open_store

T0 = 1_700_006_400_000
EVER = (0, 1 << 60)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(str(tmp_path / "klagg.db"), mode="create")
    opened.put_instruments([Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 2, 3)], T0)
    yield opened
    opened.close()


def put(store: SqliteStore, candles: Candles) -> None:
    stored = store.instruments(Market.USDM)[0]
    store.write(np.full(len(candles), stored.id), candles)


def candles(count: int, **columns: int) -> Candles:
    many = no_candles(count)
    many["open_ms"] = T0 + np.arange(count) * MINUTE_MS
    facts = {"flags": Flag.CLOSED | Flag.VERIFIED, "origin": Origin.EXCHANGE, "price_scale": 2, "qty_scale": 3}
    numbers = {"open": 110, "high": 120, "low": 9, "close": 100, "volume_lo": 5_000, "quote_lo": 550_000, "trades": 4}
    ids = {"first_id": 7, "last_id": 10}
    for name, value in (facts | numbers | ids | columns).items():
        many[name] = value
    return many


def text(store: SqliteStore, span: tuple[int, int] = EVER, **options: object) -> str:
    out = io.BytesIO()
    export(store, Market.USDM, "BTCUSDT", MINUTE, *span, stdout=out, **({"format": "csv"} | options))  # type: ignore[arg-type]
    return out.getvalue().decode()


def test_the_exchanges_own_file_comes_out_equal(store: SqliteStore, shared_data: Path) -> None:
    path = shared_data / "usdm_BTCUSDT_20240808_klines_1m.csv"
    for chunk in read_klines(path, symbol="BTCUSDT"):
        put(store, chunk)
    ours = list(csv.reader(io.StringIO(text(store))))
    theirs = list(csv.reader(io.StringIO(path.read_text())))
    assert ours[0] == theirs[0]
    assert [[Decimal(cell) for cell in row] for row in ours[1:]] == [[Decimal(c) for c in row] for row in theirs[1:]]
    assert "E" not in text(store)


def test_csv_with_everything(store: SqliteStore) -> None:
    put(store, candles(1, volume_hi=3, origin=Origin.PARTIAL, flags=Flag.CLOSED))
    assert text(store, full=True) == (
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,"
        "market,symbol,interval,first_trade_id,last_trade_id,closed,origin,verified,revision,source\n"
        f"{T0},1.10,1.20,0.09,1.00,3000000000000005.000,{T0 + 59_999},5.50000,4,0.000,0.00000,"
        "usdm,BTCUSDT,1m,7,10,1,partial,0,0,\n"
    )
    put(store, candles(1))
    assert text(store, full=True).splitlines()[1].endswith("usdm,BTCUSDT,1m,7,10,1,exchange,1,1,")


def test_jsonl_has_the_same_names_and_texts(store: SqliteStore) -> None:
    put(store, candles(3))
    for full in (False, True):
        rows = [json.loads(line) for line in text(store, format="jsonl", full=full).splitlines()]
        header, *cells = [line.split(",") for line in text(store, full=full).splitlines()]
        assert [list(row) for row in rows] == [header] * 3
        assert [[str(value) for value in row.values()] for row in rows] == cells
        assert isinstance(rows[0]["open_time"], int)
        assert isinstance(rows[0]["open"], str)


@pytest.mark.parametrize("name", ["parquet", "arrow"])
@pytest.mark.parametrize("full", [False, True])
def test_columnar(store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, full: bool) -> None:
    monkeypatch.setattr(source, "CHUNK_ROWS", 2)
    put(store, candles(5, volume_hi=10, quote_hi=1_000))
    out = tmp_path / f"x.{name}"
    out.write_text("old")
    done = export(store, Market.USDM, "BTCUSDT", MINUTE, *EVER, format=name, full=full, out=out)  # type: ignore[arg-type]
    assert (done.rows, done.path, done.unverified) == (5, out, 0)
    table = pq.read_table(out) if name == "parquet" else pa.ipc.open_file(out).read_all()
    assert table.schema.field("open").type == pa.decimal128(38, 18)
    assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")
    header, *cells = [line.split(",") for line in text(store, full=full).splitlines()]
    named = ["trades" if column == "count" else column for column in header if column != "ignore"]
    assert table.column_names == named
    for row, cell in zip(table.to_pylist(), cells, strict=True):
        for column, expected in zip(named, cell, strict=False):
            value = row[column]
            if isinstance(value, datetime):
                assert value == datetime.fromtimestamp(int(expected) / 1000, UTC)
            elif isinstance(value, Decimal):
                assert value == Decimal(expected)
            elif isinstance(value, bool):
                assert str(int(value)) == expected
            else:
                assert str(value) == expected
    assert sorted(path.name for path in tmp_path.iterdir() if "klagg.db" not in path.name) == [out.name]


def test_a_number_that_does_not_fit_is_named_and_nothing_is_written(store: SqliteStore, tmp_path: Path) -> None:
    put(store, candles(2, quote_hi=10**8, price_scale=0, qty_scale=0, flags=Flag.CLOSED, origin=Origin.TRADES))
    out = tmp_path / "x.parquet"
    with pytest.raises(NumberError, match=r"BTCUSDT 1m 2023-11-15T00:00:00Z: quote_volume 10+550000 does not fit"):
        export(store, Market.USDM, "BTCUSDT", MINUTE, *EVER, format="parquet", out=out)
    assert [path.name for path in tmp_path.iterdir() if "klagg.db" not in path.name] == []
    assert text(store).splitlines()[1].split(",")[7] == "1" + "0" * 20 + "550000"


def test_range_and_chunks(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, candles(10))
    whole = text(store, (T0 + MINUTE_MS, T0 + 9 * MINUTE_MS))
    monkeypatch.setattr(source, "CHUNK_ROWS", 4)
    assert text(store, (T0 + MINUTE_MS, T0 + 9 * MINUTE_MS)) == whole
    assert [int(line.split(",")[0]) for line in whole.splitlines()[1:]] == [T0 + n * MINUTE_MS for n in range(1, 9)]


def test_unmatched_is_kept_or_dropped(store: SqliteStore) -> None:
    put(store, candles(3))
    extra = candles(4, origin=Origin.UNMATCHED, flags=Flag.CLOSED)[3:]
    put(store, extra)
    assert len(text(store).splitlines()) == 1 + 4
    assert len(text(store, unmatched="drop").splitlines()) == 1 + 3
    with pytest.raises(NoCandles, match="1 that are unmatched"):
        text(store, (int(extra["open_ms"][0]), 1 << 60), unmatched="drop")


def test_what_is_wrong_is_said(store: SqliteStore, tmp_path: Path) -> None:
    put(store, candles(1))

    def run(**changes: object) -> None:
        asked = {"market": Market.USDM, "symbol": "BTCUSDT", "interval": MINUTE, "start_ms": 0, "end_ms": 1 << 60}
        export(store, **(asked | {"format": "csv", "stdout": io.BytesIO()} | changes))  # type: ignore[arg-type]

    for error, reason, changes in [
        (UsageError, "unknown symbol 'BTCUSD': .* such as BTCUSDT", {"symbol": "BTCUSD"}),
        (UsageError, "holds no symbol of market spot", {"market": Market.SPOT}),
        (UsageError, "unknown format 'xls'", {"format": "xls"}),
        (UsageError, "the range is empty", {"start_ms": 5, "end_ms": 5}),
        (UsageError, "give --out", {"format": "parquet"}),
        (UsageError, "cannot be written", {"out": tmp_path / "none" / "x.csv"}),
        (NoCandles, "at all", {"interval": parse_interval("1h")}),
        (NoCandles, "there are others", {"end_ms": 5}),
    ]:
        with pytest.raises(error, match=reason):  # type: ignore[arg-type]
            run(**changes)


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet", "arrow"])
def test_as_of_gives_what_was_known_then(store: SqliteStore, tmp_path: Path, name: str) -> None:
    t1, t2, t3 = (T0 + hours * 3_600_000 for hours in (1, 2, 3))
    with store.knowing(t1):
        put(store, candles(2, origin=Origin.TRADES, flags=Flag.CLOSED))
    with store.knowing(t2):
        put(store, candles(3, close=101))
    with store.knowing(t3):
        put(store, candles(1, close=102))

    def rows(as_of_ms: int | None) -> list[tuple[Decimal, str, int, int]]:
        out = tmp_path / f"x.{name}"
        export(store, Market.USDM, "BTCUSDT", MINUTE, *EVER, format=name, full=True, out=out, as_of_ms=as_of_ms)  # type: ignore[arg-type]
        if name in {"csv", "jsonl"}:
            lines = out.read_text().splitlines()
            found = list(csv.DictReader(lines)) if name == "csv" else [json.loads(line) for line in lines]
        else:
            found = (pq.read_table(out) if name == "parquet" else pa.ipc.open_file(out).read_all()).to_pylist()
        return [(Decimal(row["close"]), row["origin"], int(row["verified"]), int(row["revision"])) for row in found]

    first = (Decimal("1.00"), "trades", 0, 0)
    second = (Decimal("1.01"), "exchange", 1, 1)
    assert rows(t1) == [first, first]
    assert rows(t2 - 1) == [first, first]
    assert rows(t2) == [second, second, (*second[:3], 0)]
    assert rows(t3) == rows(None) == [(Decimal("1.02"), "exchange", 1, 2), second, (*second[:3], 0)]
    with pytest.raises(NoCandles, match=r"were known at 2023-11-15T00:59:59Z: there are some since"):
        rows(t1 - 1)


def test_the_sample_has_every_column_of_a_candle() -> None:
    assert candles(1).dtype == CANDLE
