"""What /v1 says of candles is what the database holds, read by sqlite3 alone."""

import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from klagg.interval import BY_NAME, MINUTE_MS, Interval
from klagg.model import Market, no_candles
from klagg.serve.native.candles import holes
from klagg.serve.native.source import Known
from klagg.serve.native.table import SeriesName, Table, objects
from klagg.serve.source import Frame
from serve.fakes import candle
from serve_native.rig import START_MS, SYMBOLS, Owner, Rig, served

COLUMNS = (
    *("market", "symbol", "interval", "open_time_ms", "close_time_ms", "open", "high", "low", "close", "volume"),
    *("quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id"),
    *("closed", "origin", "verified", "revision", "source"),
)
MINUTES = 23


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Owner, Rig]]:
    """Twenty-three minutes of three symbols; one symbol misses two of them, one candle is revised twice, some are verified."""
    owner = Owner(tmp_path / "klagg.db")
    owner.close(7)
    owner.close(2, skip=("ETHUSDT",))
    owner.close(MINUTES - 9)
    for minute in range(3, 6):
        owner.settle("BTCUSDT", minute)
    owner.settle("BTCUSDT", 10, 10_999)
    owner.settle("BTCUSDT", 10, 11_111)
    async with served(owner.path) as rig:
        yield owner, rig
    owner.store.close()


def stored(owner: Owner, where: str = "1", table: str = "candles") -> list[dict[str, Any]]:
    return owner.rows(
        f"SELECT {', '.join(COLUMNS)} FROM {table} WHERE closed = 1 AND {where} ORDER BY interval, symbol, open_time_ms"
    )


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = [{name: row[name] for name in COLUMNS} for row in rows]
    return sorted(chosen, key=lambda row: (row["interval"], row["symbol"], row["open_time_ms"]))


async def test_everything_at_once_is_what_the_database_holds(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    answer = await rig.get("/v1/candles", symbols="*", intervals="1m,5m", start=START_MS)
    assert comparable(answer["candles"]) == stored(owner)
    meta = answer["meta"]
    assert (meta["candles"], meta["verified"]) == (len(answer["candles"]), 4)
    assert meta["unverified"] == meta["candles"] - 4
    assert meta["durable_ms"] == START_MS + MINUTES * MINUTE_MS
    gone = {
        "symbol": "ETHUSDT",
        "interval": "1m",
        "start_ms": START_MS + 7 * MINUTE_MS,
        "end_ms": START_MS + 9 * MINUTE_MS,
    }
    five = {
        "symbol": "ETHUSDT",
        "interval": "5m",
        "start_ms": START_MS + 5 * MINUTE_MS,
        "end_ms": START_MS + 10 * MINUTE_MS,
    }
    assert meta["missing"] == [gone, five]
    assert (meta["missing_candles"], meta["truncated"], meta["next"]) == (3, False, None)


async def test_pages_join_to_the_whole_without_one_twice(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    found, start, pages = [], START_MS, 0
    while start is not None:
        answer = await rig.get("/v1/candles", symbols="*", intervals="1m,5m", start=start, limit=4)
        found += answer["candles"]
        start, pages = answer["meta"]["next"], pages + 1
        assert answer["meta"]["truncated"] == (start is not None)
    assert pages > 4
    assert comparable(found) == stored(owner)
    newest = await rig.get("/v1/candles", symbol="BTCUSDT", limit=4)
    assert [row["open_time_ms"] for row in newest["candles"]] == [START_MS + n * MINUTE_MS for n in range(19, 23)]


async def test_only_verified_and_what_that_leaves_out(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    answer = await rig.get("/v1/candles", symbols="BTC/USDT:USDT", start=START_MS, verified="only")
    assert comparable(answer["candles"]) == stored(owner, "interval = '1m' AND verified = 1 AND symbol = 'BTCUSDT'")
    assert answer["meta"]["missing_candles"] == MINUTES - 4
    assert answer["meta"]["unverified"] == 0


async def test_as_of_is_what_was_known_then(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    settled = owner.rows("SELECT known_ms FROM candle_states WHERE symbol = 'BTCUSDT' ORDER BY known_ms DESC LIMIT 3")
    for as_of in (START_MS + 12 * MINUTE_MS, *(row["known_ms"] for row in settled), owner.now_ms):
        answer = await rig.get("/v1/candles", symbols="*", intervals="1m,5m", start=START_MS, as_of=as_of)
        then = f"verified_ms BETWEEN 1 AND {as_of} AS verified"
        source = f"iif(verified_ms BETWEEN 1 AND {as_of}, source, '') AS source"
        columns = ", ".join({"verified": then, "source": source}.get(name, name) for name in COLUMNS)
        known = owner.rows(
            f"SELECT {columns} FROM candle_states "
            f"WHERE known_ms <= {as_of} AND (until_ms IS NULL OR until_ms > {as_of}) ORDER BY interval, symbol, open_time_ms"
        )
        assert comparable(answer["candles"]) == known
        at = await rig.get("/v1/candles", symbols="*", at=START_MS + 10 * MINUTE_MS + 5, as_of=as_of)
        assert comparable(at["candles"]) == [
            row for row in known if row["open_time_ms"] == START_MS + 10 * MINUTE_MS and row["interval"] == "1m"
        ]


async def test_the_whole_market_at_one_instant(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    at_ms = START_MS + 7 * MINUTE_MS + 59_999
    answer = await rig.get("/v1/candles", symbols="*", intervals="1m", at=at_ms)
    assert comparable(answer["candles"]) == stored(
        owner, f"interval = '1m' AND {at_ms} BETWEEN open_time_ms AND close_time_ms"
    )
    assert [span["symbol"] for span in answer["meta"]["missing"]] == ["ETHUSDT"]
    odd = await rig.get("/v1/candles", symbols="*", intervals="3m", at=START_MS)
    assert [(row["symbol"], row["trades"]) for row in odd["candles"]] == [(symbol, 6) for symbol in SYMBOLS]


async def test_one_candle_through_time(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    open_ms = START_MS + 10 * MINUTE_MS
    answer = await rig.get("/v1/candle", symbol="BTCUSDT", interval="1m", open_time=open_ms)
    states = owner.rows(
        f"SELECT {', '.join(COLUMNS)}, known_ms, nullif(verified_ms, 0) AS verified_ms FROM candle_states "
        "WHERE symbol = 'BTCUSDT' AND interval = '1m' AND open_time_ms = ? ORDER BY revision",
        open_ms,
    )
    assert [row["revision"] for row in states] == [0, 1, 2]
    assert answer["history"] == [row | {"closed": True, "verified": bool(row["verified"])} for row in states]
    assert answer["close"] == "111.11"
    for query in ({"interval": "2m"}, {"open_time": START_MS - MINUTE_MS}, {"symbol": "NONE"}):
        asked = {"symbol": "BTCUSDT", "interval": "1m", "open_time": open_ms} | query
        assert (await rig.get("/v1/candle", 404, **asked))["error"]["parameter"]


async def test_any_interval_is_the_sum_of_its_minutes(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    minutes = stored(owner, "interval = '1m' AND symbol = 'ETHUSDT'")
    answer = await rig.get("/v1/candles", symbols="ETHUSDT", intervals="2m", start=START_MS)
    for row in answer["candles"]:
        pieces = [m for m in minutes if row["open_time_ms"] <= m["open_time_ms"] <= row["close_time_ms"]]
        assert len(pieces) == 2
        assert (row["interval"], row["open"], row["close"]) == ("2m", pieces[0]["open"], pieces[-1]["close"])
        assert Decimal(row["volume"]) == sum(Decimal(piece["volume"]) for piece in pieces)
        assert row["trades"] == sum(piece["trades"] for piece in pieces)
    assert len(answer["candles"]) == 9  # of eleven: minutes 7 and 8 are not there
    assert answer["meta"]["missing"] == [
        {
            "symbol": "ETHUSDT",
            "interval": "2m",
            "start_ms": START_MS + 6 * MINUTE_MS,
            "end_ms": START_MS + 10 * MINUTE_MS,
        }
    ]
    shifted = await rig.get(
        "/v1/candles", symbols="BTCUSDT", intervals="45m", tz="+00:10", start=START_MS - 60 * MINUTE_MS
    )
    assert [(row["open_time_ms"] - START_MS) // MINUTE_MS for row in shifted["candles"]] in ([], [-10])


async def test_the_folded_candle_of_the_listing_needs_all_minutes_since(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "klagg.db", listed_ms=START_MS + MINUTE_MS + 500)
    owner.close(skip=("BTCUSDT", "ETHUSDT"))
    owner.close(skip=("ETHUSDT",))
    owner.close(4)
    async with served(owner.path) as rig:
        for symbol, first in (("BTCUSDT", 0), ("ETHUSDT", 3)):
            opens = [START_MS + n * MINUTE_MS for n in range(first, 6, 3)]
            for limit in (1, 5):
                klines = await rig.get("/fapi/v1/klines", symbol=symbol, interval="3m", startTime=START_MS, limit=limit)
                ours = await rig.get("/v1/candles", symbols=symbol, intervals="3m", start=START_MS, limit=limit)
                closed = [row[0] for row in klines if row[0] < START_MS + 6 * MINUTE_MS]  # the running one comes too
                assert closed == opens[:limit]
                assert [row["open_time_ms"] for row in ours["candles"]] == opens[:limit]
    owner.store.close()


async def test_running_candles_come_where_they_are_asked_for(pair: tuple[Owner, Rig]) -> None:
    _owner, rig = pair
    answer = await rig.get("/v1/candles", symbols="BTCUSDT", intervals="1m", limit=2, open="include")
    closed, running = answer["candles"]
    assert (closed["closed"], running["closed"]) == (True, False)
    assert (closed["origin"], running["origin"]) == ("trades", None)
    columns = await rig.body("/v1/candles", symbols="BTCUSDT", limit=2, open="include", format="arrow")
    assert pa.ipc.open_stream(columns).read_all()["origin"].to_pylist() == ["trades", None]
    assert running["open_time_ms"] == closed["close_time_ms"] + 1
    assert (answer["meta"]["verified"], answer["meta"]["unverified"], answer["meta"]["truncated"]) == (0, 1, True)


async def test_the_limit_counts_the_running_candle_and_pages_end_with_it(pair: tuple[Owner, Rig]) -> None:
    owner, rig = pair
    asked = {"symbols": "*", "intervals": "1m,5m", "open": "include"}
    every = {(row["symbol"], row["interval"], row["open_time_ms"]) for row in stored(owner)}
    runs = {(symbol, "1m", START_MS + MINUTES * MINUTE_MS) for symbol in SYMBOLS}
    runs |= {(symbol, "5m", START_MS + 20 * MINUTE_MS) for symbol in SYMBOLS}
    for limit in (1, 2, 4, MINUTES - 20, MINUTES, MINUTES + 1):
        found, start = [], START_MS
        while start is not None:
            answer = await rig.get("/v1/candles", **asked, start=start, limit=limit)
            counts = Counter((row["symbol"], row["interval"]) for row in answer["candles"])
            assert max(counts.values(), default=0) <= limit
            found += answer["candles"]
            start = answer["meta"]["next"]
            assert answer["meta"]["truncated"] == (start is not None)
        given = Counter((row["symbol"], row["interval"], row["open_time_ms"]) for row in found)
        assert given == Counter(every | runs)
        assert {(row["symbol"], row["interval"], row["open_time_ms"]) for row in found if not row["closed"]} == runs
    for limit, truncated in ((1, True), (MINUTES, True), (MINUTES + 1, False)):
        answer = await rig.get("/v1/candles", symbols="BTCUSDT", limit=limit, open="include")
        opens = [row["open_time_ms"] for row in answer["candles"]]
        assert opens == [START_MS + n * MINUTE_MS for n in range(MINUTES + 1 - limit, MINUTES + 1)]
        assert (answer["meta"]["truncated"], answer["meta"]["missing_candles"]) == (truncated, 0)


async def test_columns_hold_the_same(pair: tuple[Owner, Rig]) -> None:
    _owner, rig = pair
    asked = {"symbols": "*", "intervals": "1m,5m", "start": START_MS}
    expected = await rig.get("/v1/candles", **asked)
    arrow = pa.ipc.open_stream(
        await rig.body("/v1/candles", {"Accept": "application/vnd.apache.arrow.stream"}, **asked)
    ).read_all()
    parquet = pq.read_table(io.BytesIO(await rig.body("/v1/candles", **asked, format="parquet")))
    for table in (arrow, parquet):
        meta = json.loads(table.schema.metadata[b"klagg"])
        assert {**meta, "now_ms": 0} == {**expected["meta"], "now_ms": 0}
        assert table.schema.field("close").type == pa.decimal128(38, 18)
        assert table.schema.field("open_time").type == pa.timestamp("ms", tz="UTC")
        rows = table.to_pylist()
        assert len(rows) == len(expected["candles"])
        for row, same in zip(rows, expected["candles"], strict=True):
            for time, told in (
                ("open_time", "open_time_ms"),
                ("close_time", "close_time_ms"),
                ("known_time", "known_ms"),
            ):
                assert round(row[time].timestamp() * 1e3) == same[told]
            for name in ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_quote_volume"):
                assert row[name] == Decimal(same[name])
            for name in ("symbol", "interval", "trades", "first_trade_id", "origin", "verified", "revision", "closed"):
                assert row[name] == same[name]


def test_numbers_of_any_size_are_written_whole() -> None:
    rows = np.concatenate([candle(START_MS + n * MINUTE_MS, 123) for n in range(4)])
    rows["price_scale"] = [0, 8, 10, 2]
    rows["qty_scale"] = [0, 8, 9, 2]
    rows["quote_hi"] = [5, 123_456, 77, 0]
    rows["quote_lo"] = [1, 999_999_999_999_999_999, 7, 5]
    none = np.zeros(4, np.int64)
    frame = Frame(BY_NAME["1m"])
    table = Table.of(Market.SPOT, [(SeriesName('A"B', "1m", frame), Known(rows, none, none))])
    made = [json.loads(text) for text in objects(table)]
    for row, text in zip(rows, made, strict=True):
        scale = int(row["price_scale"]) + int(row["qty_scale"])
        exact = Decimal(int(row["quote_hi"]) * 10**18 + int(row["quote_lo"])).scaleb(-scale, None)
        assert Decimal(text["quote_volume"]) == exact
        assert Decimal(text["close"]) == Decimal(123).scaleb(-int(row["price_scale"]))
        assert text["symbol"] == 'A"B'


@pytest.mark.parametrize("name", ["1m", "3d", "1w", "1M", "45m"])
@pytest.mark.parametrize("shift", [0, 8 * 3_600_000])
def test_holes_are_what_a_walk_over_the_calendar_finds(name: str, shift: int) -> None:
    frame = Frame(BY_NAME.get(name) or Interval(name, 15, 45 * MINUTE_MS), shift)
    opens = [frame.open_at(START_MS)]
    for _ in range(40):
        opens.append(frame.next_open(opens[-1]))
    rng = np.random.default_rng(len(name) + shift)
    kept = [open_ms for open_ms in opens if rng.random() < 0.6]
    start_ms, end_ms = opens[2] - 1, opens[37] + 1
    missing = [o for o in opens if start_ms <= o < end_ms and o not in kept]
    found = holes(frame, np.array(kept, np.int64), start_ms, end_ms)
    assert sum(count for _, _, count in found) == len(missing)
    assert [o for o in opens if any(first <= o < last for first, last, _ in found)] == missing
    assert holes(frame, no_candles()["open_ms"], opens[3], opens[3]) == []


@pytest.mark.parametrize(
    ("query", "status", "code", "parameter"),
    [
        ({}, 400, "missing_parameter", "symbols"),
        ({"symbols": "NOPE"}, 404, "unknown_symbol", "symbols"),
        ({"symbols": "*", "intervals": "7x"}, 400, "unknown_interval", "intervals"),
        ({"symbols": "*", "market": "moon"}, 400, "unknown_market", "market"),
        ({"symbols": "*", "market": "spot"}, 404, "market_not_served", "market"),
        ({"symbols": "*", "start": "soon"}, 400, "bad_time", "start"),
        ({"symbols": "*", "tz": "+99"}, 400, "bad_timezone", "tz"),
        ({"symbols": "*", "limit": "0"}, 400, "bad_request", "limit"),
        ({"symbols": "*", "limit": "x"}, 400, "bad_request", "limit"),
        ({"symbols": "*", "verified": "maybe"}, 400, "bad_request", "verified"),
        ({"symbols": "*", "open": "perhaps"}, 400, "bad_request", "open"),
        (
            {"symbols": "*", "intervals": ",".join(f"{n}m" for n in range(1, 60)), "limit": "5000"},
            413,
            "too_much",
            "limit",
        ),
        ({"symbols": "*", "intervals": ",".join(f"{n}m" for n in range(1, 99))}, 413, "too_much", "intervals"),
    ],
)
async def test_what_is_wrong_is_named(
    pair: tuple[Owner, Rig], query: dict, status: int, code: str, parameter: str
) -> None:
    _, rig = pair
    error = (await rig.get("/v1/candles", status, **query))["error"]
    assert (error["code"], error["parameter"]) == (code, parameter)


async def test_symbols_gaps_and_barriers(pair: tuple[Owner, Rig]) -> None:
    _owner, rig = pair
    listed = await rig.get("/v1/symbols")
    assert [row["symbol"] for row in listed["symbols"]] == list(SYMBOLS)
    assert (await rig.get("/v1/symbols", at=START_MS + 1))["symbols"] == listed["symbols"]
    assert (await rig.get("/v1/symbols", at=START_MS - 1))["symbols"] == []
    barriers = (await rig.get("/v1/barriers", limit=5))["barriers"]
    durable = [one["boundary_ms"] for one in barriers if one["kind"] == "barrier_durable"]
    assert durable[:2] == [START_MS + MINUTES * MINUTE_MS, START_MS + (MINUTES - 1) * MINUTE_MS]
    assert [one["seq"] for one in barriers] == sorted((one["seq"] for one in barriers), reverse=True)
    assert (await rig.get("/v1/gaps", state="all"))["gaps"] == []
    description = await rig.get("/v1/openapi.json")
    assert description["paths"]["/v1/candles"]["get"]["responses"]["200"]
    page = await rig.body("/v1/docs")
    assert b"http" not in page.replace(b"http-equiv", b"")
    assert (await rig.get("/v1/none", 404))["error"]["code"] == "not_found"
