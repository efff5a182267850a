"""What commands bring that fetch or replay the past: known when they learned it, and no news but where it changes something."""

import numpy as np
import pytest

from klagg.interval import BY_NAME, MINUTE, MINUTE_MS
from klagg.model import Gap, Market, Origin
from klagg.refold import Span, refold
from klagg.replay import replay
from klagg.store import Kind, What, open_store
from store.samples import T0, Owned, candle, instrument, minutes

HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"


def of_candles(store, after=0):
    events = store.events(after, 10_000)
    return [What(what) for event in events if event.kind is Kind.CANDLES for what in event.values[:, 2].tolist()]


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "klagg.db"), mode="create")
    yield store
    store.close()


def test_a_replay_is_known_as_if_it_had_run_live_and_is_no_news(store, tmp_path):
    file = tmp_path / "BTCUSDT-aggTrades.csv"
    times = range(T0 + 1_000, T0 + 12 * MINUTE_MS, 30_000)
    file.write_text(HEADER + "".join(f"{n},1.10,2.5,{n},{n},{ms},true\n" for n, ms in enumerate(times, 5)))
    five = BY_NAME["5m"]
    replay([file], market=Market.USDM, intervals=(MINUTE, five), store=store, symbol="BTCUSDT")
    (number,) = [stored.id for stored in store.instruments(Market.USDM)]
    for minute in range(12):
        now_ms = T0 + minute * MINUTE_MS
        known = store.read(number, MINUTE, 0, 2**60, as_of_ms=now_ms)["open_ms"].tolist()
        assert known == list(range(T0, now_ms, MINUTE_MS))
        known = store.read(number, five, 0, 2**60, as_of_ms=now_ms)["open_ms"].tolist()
        assert known == list(range(T0, T0 + minute // 5 * five.step_ms, five.step_ms))
    assert of_candles(store) == []
    before = store.newest_seq()
    replay([file], market=Market.USDM, intervals=(MINUTE, five), store=store, symbol="BTCUSDT")
    assert of_candles(store, before) == []
    exchanges = candle(T0, origin=Origin.EXCHANGE, verified=True)
    store.write(np.array([number]), exchanges)
    assert of_candles(store, before) == [What.REVISED | What.VERIFIED]


@pytest.mark.parametrize("news", [False, True])
def test_what_is_folded_in_a_block_is_known_and_told_as_the_block_says(store, news):
    ids, five, at_ms = store.put_instruments([instrument("BTCUSDT")], T0), BY_NAME["5m"], T0 + 900_000
    with store.knowing(at_ms, publish_new=news):
        store.write(np.full(5, ids["BTCUSDT"]), minutes(0, 5))
        refold(store, [Span(1, T0, T0 + five.step_ms)], (MINUTE, five), None)
    for interval in (MINUTE, five):
        assert store.read(1, interval, 0, 2**60, as_of_ms=at_ms - 1).size == 0
        assert store.read(1, interval, 0, 2**60, as_of_ms=at_ms).size > 0
    assert of_candles(store) == ([What.CLOSED] * 6 if news else [])


def test_a_gap_is_known_when_the_block_says(owned: Owned):
    seq = owned.store.newest_seq()
    with owned.store.knowing(T0 + 900_000):
        owned.store.record_gap(Gap(Market.USDM, "BTCUSDT", T0, T0 + MINUTE_MS, "stall"))
    assert [event.at_ms for event in owned.store.events(seq, 9)] == [T0 + 900_000]
