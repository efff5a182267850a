"""Databases that somebody changed by hand: what is wrong is named at the opening, by `check`, or where it is read."""

import re
import sqlite3

import numpy as np
import pytest

from klagg.check import check
from klagg.errors import MalformedRow, StoreError
from klagg.interval import BY_NAME, DEFAULT_INTERVALS, MINUTE, MINUTE_MS
from klagg.model import Gap, Market
from klagg.store import open_store
from store.samples import T0, candle, last_trade, minutes

HOUR = BY_NAME["1h"]


@pytest.fixture
def made(owned, db):
    """A database with closed and open candles, last trades and a gap, closed again."""
    owned.commit(minutes(0, 60), candle(interval=HOUR, open=100, close=110, trades=240), upto_ms=T0 + HOUR.step_ms)
    owned.commit(
        candle(T0 + HOUR.step_ms, closed=False),
        candle(T0 + HOUR.step_ms, interval=HOUR, closed=False),
        last_trade_instrument_ids=np.array([owned.btc]),
        **last_trade(),
    )
    owned.store.record_gap(Gap(Market.USDM, "BTCUSDT", T0, T0 + MINUTE_MS, "memory bound"))
    owned.store.close()
    return db


def change(db, *statements):
    with sqlite3.connect(db) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def anew(table, statement, columns="*"):
    """The statements that make a table anew without SQLite's guard of types and keys, and then do one thing more."""
    views = ("DROP VIEW candles_f64", "DROP VIEW candles", "DROP VIEW candle_states")
    return (*views, f"CREATE TABLE loose AS SELECT {columns} FROM {table}", f"DROP TABLE {table}",
            f"ALTER TABLE loose RENAME TO {table}", statement)  # fmt: skip


FIRST = f"series % 16 = 0 AND open_ms = {T0}"


@pytest.mark.parametrize(
    ("table", "statement", "says"),
    [
        (
            "candle",
            f"UPDATE candle SET high = NULL WHERE {FIRST}",
            f"usdm BTCUSDT 1m open_ms {T0}: high is NULL, not a",
        ),
        (
            "candle",
            f"UPDATE candle SET close = 'x' WHERE {FIRST}",
            f"usdm BTCUSDT 1m open_ms {T0}: close is 'x', not a",
        ),
        ("candle", f"UPDATE candle SET low = 1.5 WHERE {FIRST}", f"usdm BTCUSDT 1m open_ms {T0}: low is 1.5, not a"),
        (
            "candle",
            f"INSERT INTO candle SELECT * FROM candle WHERE {FIRST}",
            f"there are several rows of series 16 open_ms {T0}",
        ),
        ("open_candle", "UPDATE open_candle SET origin = 'trades'", "usdm BTCUSDT 1m open_ms .*: origin is 'trades'"),
        ("last_trade", "UPDATE last_trade SET price = NULL", "usdm BTCUSDT: price is NULL"),
        (
            "instrument",
            "UPDATE instrument SET status = NULL WHERE id = 1",
            "table instrument: usdm BTCUSDT: status is NULL, not text",
        ),
        ("shard", "UPDATE shard SET epoch = 'one'", "table shard: usdm: epoch is 'one', not a whole number"),
        ("gap", "UPDATE gap SET end_ms = 'soon'", "table gap: usdm BTCUSDT: end_ms is 'soon', not a whole number"),
    ],
)
@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_table_made_anew_without_its_guard_is_read_through(made, mode, table, statement, says):
    change(made, *anew(table, statement))
    with pytest.raises(MalformedRow, match=f"{re.escape(str(made))}: table {table}: ") as caught:
        open_store(str(made), mode=mode)
    assert re.search(says, str(caught.value)), caught.value


def test_a_table_made_anew_that_is_sound_is_read(made):
    change(made, *anew("candle", f"UPDATE candle SET revision = 0 WHERE {FIRST}"))
    store = open_store(str(made), mode="read")
    assert len(store.read(1, MINUTE, 0, 1 << 60)) == 60
    store.close()


@pytest.mark.parametrize(
    "table",
    [
        *("instrument", "life", "kept_interval", "shard", "open_candle", "last_trade", "gap", "tally"),
        *("candle_was", "event", "barrier"),
    ],
)
def test_a_missing_table_is_named(made, table):
    change(made, f"DROP TABLE {table}")
    with pytest.raises(StoreError, match=f"klagg's table {table} is missing"):
        open_store(str(made), mode="write")


def test_a_missing_column_is_named(made):
    change(
        made, *anew("gap", "SELECT 1", columns="market, symbol, start_ms, end_ms, at_ms, closed_ms, final, checked_ms")
    )
    with pytest.raises(StoreError, match="klagg's table gap has no column reason"):
        open_store(str(made), mode="read")


@pytest.mark.parametrize(
    ("setting", "says"),
    [("price_scale = 99", "price_scale is 99, not within 0 to 18"), ("qty_scale = -1", "qty_scale is -1"),
     ("qty_scale = 300", "qty_scale is 300"), ("origin = 7", "origin is 7, not within 0 to 6")],
)  # fmt: skip
def test_reading_a_scale_or_origin_that_cannot_be_is_an_error(made, setting, says):
    change(made, f"UPDATE candle SET {setting} WHERE {FIRST}")
    store = open_store(str(made), mode="read")
    with pytest.raises(MalformedRow, match=f"table candle: usdm BTCUSDT 1m open_ms {T0}: {says}"):
        store.read(1, MINUTE, 0, 1 << 60)
    assert len(store.read(1, MINUTE, T0 + MINUTE_MS, 1 << 60)) == 59
    assert not check(store).ok
    store.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE candle SET series = 99 * 16 WHERE " + FIRST, "series 1584 is of instrument 99 and interval code 0"),
        ("UPDATE candle SET series = 16 + 15 WHERE " + FIRST, "series 31 is of instrument 1 and interval code 15"),
        ("UPDATE candle SET series = -32 WHERE " + FIRST, "series -32 is of instrument -2"),
        (
            "UPDATE candle SET verified = 7 WHERE " + FIRST,
            f"series 16 open_ms {T0} verified 7: verified is neither 0 nor 1",
        ),
        ("UPDATE candle SET revision = -1 WHERE " + FIRST, "revision is negative"),
        ("UPDATE open_candle SET high = 1", "usdm BTCUSDT 1m: high is 1, which is below its open"),
        ("UPDATE open_candle SET open_ms = -60000", "open_ms is -60000, which is no time that can be"),
        ("UPDATE open_candle SET price_scale = 18 WHERE series = 21", "1h: price_scale is 18, which leaves no room"),
        ("UPDATE last_trade SET agg_id = 9223372036854775807", "agg_id is 9223372036854775807, which cannot be"),
        ("UPDATE last_trade SET instrument = 77", "instrument 77: the instrument is missing"),
        ("UPDATE life SET retired_ms = -5", "retired_ms is before listed_ms"),
        (
            "UPDATE shard SET closed_upto_ms = 61 WHERE id = 4",
            "market usdm id 4 closed_upto_ms 61: closed_upto_ms is no minute",
        ),
        ("UPDATE shard SET market = 'mars' WHERE id = 4", "market mars id 4: the market is unknown"),
        ("DELETE FROM shard WHERE id > 9", "market usdm shards 10: a market has 256 shards"),
        ("UPDATE gap SET end_ms = 0", "it is no span of time"),
        ("UPDATE gap SET symbol = 'NOPE'", "the symbol is missing in table instrument"),
        ("INSERT INTO kept_interval VALUES ('usdm', 77)", "market usdm code 77: there is no such interval"),
    ],
)
def test_check_tells_of_rows_that_cannot_be_true(made, statement, says):
    change(made, statement)
    store = open_store(str(made), mode="read")
    report = check(store)
    store.close()
    assert not report.ok
    told = [line for line in report.malformed if says in line]
    assert len(told) >= 1, report.malformed
    assert told[0].startswith(f"{made}: table ")


REVISED = f"UPDATE candle SET revision = 1, known_ms = known_ms + 5 WHERE {FIRST}"


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (
            [f"UPDATE candle SET known_ms = -1 WHERE {FIRST}"],
            "known_ms -1 verified_ms 0: it cannot have become known so",
        ),
        ([f"UPDATE candle SET verified_ms = {T0} WHERE {FIRST}"], "it cannot have become known so"),
        (
            [f"UPDATE candle SET verified = 1, verified_ms = known_ms - 1 WHERE {FIRST}"],
            "it cannot have become known so",
        ),
        ([REVISED, "UPDATE candle_was SET open_ms = 60000"], "series 16 open_ms 60000 revision 0: there is no candle"),
        ([REVISED, "UPDATE candle_was SET revision = 1"], f"series 16 open_ms {T0} revision 1: there is no candle"),
        ([REVISED, "UPDATE candle_was SET until_ms = 1"], "until_ms 1: it cannot have been known so"),
        (["UPDATE event SET market = 'mars' WHERE seq = 1"], "seq 1 market mars: the market is unknown"),
        (["UPDATE event SET kind = 'other' WHERE seq = 1"], "seq 1 kind other: the kind is unknown"),
        (["DELETE FROM event WHERE seq = (SELECT min(seq) FROM event WHERE seq > 1)"], "seq 1 count 3: the next row's"),
        (["UPDATE event SET body = x'00' WHERE seq = 1"], "seq 1: its body cannot be read"),
        (["UPDATE barrier SET verified_ms = 61"], "market usdm verified_ms 61: verified_ms is no minute"),
        (["UPDATE barrier SET market = 'mars'"], "market mars: the market is unknown"),
    ],
)
def test_check_tells_of_a_history_that_cannot_be_true(made, statements, says):
    change(made, *statements)
    store = open_store(str(made), mode="read")
    report = check(store)
    store.close()
    told = [line for line in report.malformed if says in line]
    assert len(told) >= 1, report.malformed
    assert told[0].startswith(f"{made}: table ")


def test_a_candle_that_was_revised_is_sound(made):
    change(made, REVISED)
    store = open_store(str(made), mode="read")
    assert check(store).malformed == []
    store.close()


def test_a_sound_database_has_no_such_rows(made):
    store = open_store(str(made), mode="read")
    assert check(store).malformed == []
    assert len(store.newest(Market.USDM, DEFAULT_INTERVALS).candles) == 2
    store.close()


@pytest.mark.parametrize(
    ("column", "value"), [("id", -1), ("symbol", "''"), ("status", "'weird'"), ("price_scale", 99), ("shard", 999),
                          ("listed_ms", -1), ("listed_ms", 1 << 60), ("retired_ms", -1), ("extra", "'['")]
)  # fmt: skip
def test_an_instrument_that_cannot_be_is_named(made, column, value):
    change(made, f"UPDATE instrument SET {column} = {value} WHERE symbol = 'BTCUSDT'")
    store = open_store(str(made), mode="read")
    with pytest.raises(MalformedRow, match=f"table instrument, symbol .*{column} is "):
        store.instruments()
    store.close()
