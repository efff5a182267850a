"""The load at the start: what it gives, what it refuses, and that it reads the snapshots only."""

import sqlite3

import numpy as np
import pytest

from klagg.errors import MalformedRow
from klagg.interval import BY_NAME, DEFAULT_INTERVALS, MINUTE, MINUTE_MS
from klagg.model import Market, Origin
from store.samples import T0, candle, last_trade

HOUR, MONTH = BY_NAME["1h"], BY_NAME["1M"]
MONTH_MS = 1_698_796_800_000  # 2023-11-01


def test_an_empty_database_gives_nothing(owned):
    for newest in (
        owned.store.newest(Market.USDM, DEFAULT_INTERVALS),
        owned.store.newest_closed(Market.USDM, DEFAULT_INTERVALS),
    ):
        assert len(newest.candles) == len(newest.instrument_ids) == len(newest.last_trades) == 0


def test_it_gives_back_what_was_committed_huge_sums_included(owned):
    huge = {"volume_hi": 5, "quote_hi": 4_096, "taker_volume_hi": 5, "taker_quote_hi": 2**40, "quote_lo": 10**18 - 1}
    huge["quote_hi"] = 2**41
    snapshots = [candle(closed=False, **huge), candle(interval=HOUR, closed=False, origin=Origin.PARTIAL)]
    owned.commit(*snapshots, last_trade_instrument_ids=np.array([owned.btc]), **last_trade())
    newest = owned.store.newest(Market.USDM, (MINUTE, HOUR))
    assert newest.candles.tolist() == np.concatenate(snapshots).tolist()
    assert newest.instrument_ids.tolist() == [owned.btc] * 2
    assert newest.last_trades.tolist() == last_trade()["last_trades"].tolist()
    assert newest.last_trade_instrument_ids.tolist() == [owned.btc]
    assert owned.store.newest(Market.USDM, (HOUR,)).candles["interval"].tolist() == [HOUR.code]
    assert len(owned.store.newest(Market.SPOT, (MINUTE, HOUR)).candles) == 0


def test_newest_closed_takes_the_last_of_each_series(owned):
    eth = owned.ids["ETHUSDT"]
    owned.commit(*(candle(T0 + n * MINUTE_MS, close=100 + n) for n in range(5)), upto_ms=T0 + 5 * MINUTE_MS)
    owned.commit(candle(T0, verified=True, origin=Origin.EXCHANGE), instrument_id=eth)
    newest = owned.store.newest_closed(Market.USDM, DEFAULT_INTERVALS)
    assert newest.instrument_ids.tolist() == [owned.btc, eth]
    assert newest.candles["close"].tolist() == [104, 110]
    assert newest.candles["flags"].tolist() == [1, 3]


DAMAGE = [
    ("high = 105", "high is 105, which is below its open or close"),
    ("low = 101", "low is 101, which is above its open or close"),
    ("open = 0, low = 0", "open is 0, which is not a price above zero"),
    ("close = -5", "close is -5"),
    ("trades = -1", "trades is -1, which is negative"),
    ("volume_lo = -1", "volume_lo is -1"),
    ("quote_hi = -1", "quote_hi is -1, which is negative"),
    ("volume_lo = 1000000000000000000", "volume_lo is 1000000000000000000"),
    ("taker_volume_lo = 5001", "taker_volume_lo is 5001, which is more than its volume"),
    ("taker_quote_hi = 1", "taker_quote_hi is 1, which is more than its quote"),
    ("price_scale = 19", "price_scale is 19, which is not within 0 to 18"),
    ("qty_scale = -1", "qty_scale is -1"),
    ("origin = 7", "origin is 7, which is no origin klagg knows"),
    ("open_ms = open_ms + 1", "open_ms is {t1}, which is no open of its interval"),
]


@pytest.mark.parametrize(("change", "says"), DAMAGE)
@pytest.mark.parametrize("table", ["open_candle", "candle"])
def test_a_row_made_malformed_by_hand_stops_the_load_by_name(owned, db, table, change, says):
    owned.commit(candle(), candle(interval=HOUR), upto_ms=T0 + MINUTE_MS)
    owned.commit(candle(T0 + MINUTE_MS, closed=False), candle(T0 + HOUR.step_ms, interval=HOUR, closed=False))
    with sqlite3.connect(db) as connection:
        connection.execute(f"UPDATE {table} SET {change} WHERE series % 16 = {HOUR.code}")
    connection.close()
    load = owned.store.newest if table == "open_candle" else owned.store.newest_closed
    t1 = T0 + 1 + (HOUR.step_ms if table == "open_candle" else 0)
    with pytest.raises(MalformedRow) as caught:
        load(Market.USDM, DEFAULT_INTERVALS)
    for part in (str(db), f"table {table}", "usdm BTCUSDT 1h", says.format(t1=t1)):
        assert part in str(caught.value)


def test_months_are_checked_by_the_calendar(owned, db):
    owned.commit(candle(MONTH_MS, interval=MONTH, closed=False))
    assert len(owned.store.newest(Market.USDM, (MONTH,)).candles) == 1
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE open_candle SET open_ms = open_ms + 86400000")
    connection.close()
    with pytest.raises(MalformedRow, match="BTCUSDT 1M: open_ms"):
        owned.store.newest(Market.USDM, (MONTH,))


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE open_candle SET series = 99 * 16", "instrument 99, which is missing"),
        ("UPDATE open_candle SET series = series + 15", "unknown interval code 15"),
        ("UPDATE open_candle SET series = -5", "missing in table instrument"),
        ("UPDATE last_trade SET price = 0", "usdm BTCUSDT: price is 0"),
        ("UPDATE last_trade SET agg_id = -2", "usdm BTCUSDT: agg_id is -2"),
        ("UPDATE last_trade SET price_scale = 40", "usdm BTCUSDT: price_scale is 40"),
    ],
)
def test_rows_of_nobody_and_broken_last_trades(owned, db, statement, says):
    owned.commit(candle(closed=False), last_trade_instrument_ids=np.array([owned.btc]), **last_trade())
    with sqlite3.connect(db) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(MalformedRow, match=says):
        owned.store.newest(Market.USDM, DEFAULT_INTERVALS)


def test_the_load_reads_the_snapshots_and_no_history(owned):
    seen = []
    owned.commit(candle(), candle(T0 + MINUTE_MS, closed=False), upto_ms=T0 + MINUTE_MS)
    owned.store._database.connection.set_trace_callback(seen.append)
    owned.store.newest(Market.USDM, DEFAULT_INTERVALS)
    assert sum("FROM open_candle" in statement for statement in seen) == 1
    assert not any("FROM candle" in statement for statement in seen)
