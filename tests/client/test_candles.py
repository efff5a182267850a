"""Candles by the Python API: a database and a service give the same, and what SQLite's own views say."""

import sqlite3
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import klagg
from client.conftest import Served
from client.made import END_MS, HOLE_MS, LEARNED_MS, LISTED_MS, REVISED_MS, SCALES, START_MS
from klagg.client import service as service_module
from klagg.interval import DAY_MS, HOUR_MS, MINUTE_MS

TIMES = st.integers(START_MS - HOUR_MS, END_MS + HOUR_MS)
NAMES = st.lists(st.sampled_from([*SCALES, "*", "BTC/USDT:USDT", "*SHIB*"]), min_size=1, max_size=3)
INTERVALS = st.lists(st.sampled_from(["1m", "5m", "1h", "2m", "45m", "4h", "1d", "1w", "1M"]), min_size=1, max_size=2)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """What may be asked, in all combinations."""
    asked: dict[str, Any] = {"symbols": draw(NAMES), "intervals": draw(INTERVALS)}
    match draw(st.sampled_from(["range", "all", "limit", "at"])):
        case "range":
            asked["start"], asked["end"] = sorted((draw(TIMES), draw(TIMES) + END_MS - START_MS + 1))
            asked["end"] = min(
                asked["end"], asked["start"] + draw(st.sampled_from([1, HOUR_MS, 2 * DAY_MS, 9 * DAY_MS]))
            )
        case "limit":
            asked["limit"] = draw(st.integers(1, 50))
        case "at":
            asked["at"] = draw(TIMES)
    asked["as_of"] = draw(st.sampled_from([None, LEARNED_MS - 1, LEARNED_MS, START_MS]))
    asked["tz"] = draw(st.sampled_from([None, "+08:00", "-03:30"]))
    asked["verified"] = draw(st.sampled_from(["any", "only"]))
    asked["unmatched"] = draw(st.sampled_from(["keep", "drop"]))
    asked["numbers"] = draw(st.sampled_from(["float64", "decimal", "string"]))
    return asked


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions())
def test_both_give_the_same(database: klagg.Reader, service: klagg.Reader, question: dict[str, Any]) -> None:
    ours, theirs = database.candles(**question), service.candles(**question)
    assert ours.table.schema.equals(theirs.table.schema)
    assert ours.table.equals(theirs.table)
    assert (
        (ours.durable_ms, ours.verified_ms) == (theirs.durable_ms, theirs.verified_ms) == (END_MS, theirs.verified_ms)
    )
    assert ours.missing == theirs.missing


def test_they_are_what_the_view_says(served: Served, reader: klagg.Reader) -> None:
    names = (
        "symbol, interval, open_time_ms, close_time_ms, open, volume, quote_volume, trades, origin, verified, revision"
    )
    with sqlite3.connect(f"file:{served.path}?mode=ro", uri=True) as connection:
        rows = connection.execute(f"SELECT {names} FROM candles WHERE closed = 1 ORDER BY interval = '1h', symbol, 3")
        wanted = [row for row in rows.fetchall() if row[1] in {"1m", "1h"}]
    found = reader.candles("*", ["1m", "1h"], numbers="string").table
    columns = [
        found[name].cast(pa.int64()).to_pylist() if name.endswith("_time") else found[name].to_pylist()
        for name in names.replace("_ms", "").split(", ")
    ]
    assert list(zip(*columns, strict=True)) == wanted
    assert len(wanted) > 20_000


def test_long_answers_come_in_pages(
    database: klagg.Reader, service: klagg.Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SYMBOLS", 2)
    assert service.candles("*", at=REVISED_MS).table.equals(database.candles("*", at=REVISED_MS).table)
    monkeypatch.setattr(service_module, "SERIES_ROWS", 700)
    monkeypatch.setattr(service_module, "ROWS", {"arrow": 1_500, "json": 900})
    for numbers in ("float64", "string"):
        paged = service.candles("*", "1m,5m", START_MS, START_MS + 4 * DAY_MS, numbers=numbers)  # type: ignore[arg-type]
        assert paged.table.equals(
            database.candles("*", "1m,5m", START_MS, START_MS + 4 * DAY_MS, numbers=numbers).table
        )  # type: ignore[arg-type]
        assert paged.missing == database.candles("*", "1m,5m", START_MS, START_MS + 4 * DAY_MS).missing


def test_what_is_missing_is_named(reader: klagg.Reader) -> None:
    found = reader.candles("ETHUSDT,1000SHIBUSDT", "1m", START_MS, START_MS + 4 * DAY_MS)
    assert found.missing == [klagg.Missing("ETHUSDT", "1m", *HOLE_MS)]
    assert reader.candles("1000SHIBUSDT", "1m", limit=2).missing == []
    assert len(reader.candles("1000SHIBUSDT", "1m", start=LISTED_MS - DAY_MS, end=LISTED_MS + MINUTE_MS)) == 1


def test_numbers(reader: klagg.Reader) -> None:
    def column(numbers: str, name: str) -> list[Any]:
        found = reader.candles("BTCUSDT", at=START_MS, numbers=numbers)  # type: ignore[arg-type]
        return list(found.table[name].to_pylist())

    for name in ("open", "volume", "quote_volume"):
        (text,), (exact,), (near,) = (column(numbers, name) for numbers in ("string", "decimal", "float64"))
        assert exact == Decimal(text)
        assert near == float(text)
    table = reader.candles("BTCUSDT", limit=1).table
    assert (table.schema.field("open").type, table.schema.field("trades").type) == (pa.float64(), pa.int64())
    assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")
    assert "count" not in table.column_names


def test_frames(reader: klagg.Reader) -> None:
    found = reader.candles("BTCUSDT,1000SHIBUSDT", "1h", limit=30)
    assert len(found) == len(found.pandas()) == len(found.polars()) == found.arrow().num_rows == 60
    assert found.verified + found.unverified == 60
    pandas, polars = found.pandas(), found.polars()
    assert isinstance(pandas["open_time"].dtype, pd.DatetimeTZDtype)
    assert polars.schema["open_time"] == pl.Datetime("ms", "UTC")
    assert pandas["close"].tolist() == polars["close"].to_list() == [row["close"] for row in found.rows()]
    assert pl.DataFrame(found).equals(polars)
    assert polars.group_by("symbol").agg(pl.col("trades").sum()).height == 2
    hours = found.arrow()
    assert duckdb.sql("SELECT count(*), max(open_time) FROM hours").fetchall() == [(60, pandas["open_time"].max())]
    assert hours.equals(pa.table(found))


def test_as_of_is_what_was_known(reader: klagg.Reader) -> None:
    def closes(as_of: int | None) -> list[tuple[Any, int]]:
        table = reader.candles(
            "BTCUSDT", "1m", REVISED_MS, REVISED_MS + 2 * MINUTE_MS, as_of=as_of, numbers="string"
        ).table
        return list(zip(table["close"].to_pylist(), table["revision"].to_pylist(), strict=True))

    now, then = closes(None), closes(LEARNED_MS - 1)
    assert [revision for _, revision in now] == [1, 1]
    assert [revision for _, revision in then] == [0, 0]
    assert now != then
    assert closes(LEARNED_MS) == now
    assert closes(START_MS) == []


def test_times_are_written_in_many_ways(database: klagg.Reader) -> None:
    moment = datetime.fromtimestamp(START_MS / 1_000, UTC)
    wanted = database.candles("BTCUSDT", "1h", START_MS, START_MS + 2 * HOUR_MS).table
    assert wanted.num_rows == 2
    for start in (
        moment,
        moment.replace(tzinfo=None),
        date(2024, 1, 28),
        "2024-01-28",
        "2024-01-28T00:00Z",
        str(START_MS),
    ):
        assert database.candles("BTCUSDT", "1h", start, moment + timedelta(hours=2)).table.equals(wanted)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"symbols": "NOPEUSDT"}, "NOPEUSDT"),
        ({"symbols": []}, "no symbol is given"),
        ({"symbols": "*X*"}, "matches no symbol"),
        ({"symbols": "BTCUSDT", "intervals": "7x"}, "'7x' is no interval"),
        ({"symbols": "BTCUSDT", "tz": "Mars"}, "time zone"),
        ({"symbols": "BTCUSDT", "start": 5, "end": 5}, "the range is empty"),
        ({"symbols": "BTCUSDT", "start": "soon"}, "'soon' is not a time"),
        ({"symbols": "BTCUSDT", "at": 5, "limit": 5}, "at is an instant by itself"),
        ({"symbols": "BTCUSDT", "limit": 0}, "1 to 10000"),
        ({"symbols": "BTCUSDT", "numbers": "float"}, "numbers is 'float': use one of decimal float64 string"),
        ({"symbols": "BTCUSDT", "verified": "yes"}, "verified is 'yes'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(reader: klagg.Reader, question: dict[str, Any], reason: str) -> None:
    with pytest.raises(klagg.UsageError) as raised:
        reader.candles(**question)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
