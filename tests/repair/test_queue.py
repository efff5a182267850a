"""The queue starves nobody: not the new behind the old, not the old behind a heap that waits."""

from dataclasses import replace

import numpy as np
import pytest

from klagg.interval import DAY_MS, MINUTE, MINUTE_MS
from klagg.model import Origin, Status, no_candles
from klagg.repair.patience import WAITING_BOUND, Patience
from klagg.repair.plan import Fetch
from klagg.repair.queue import PAGE, PAGES_AT_ONCE, Asked
from klagg.store import Commit
from repair.rig import T0, Rig, refusal

HEAP = 120_000
NEW, HEAPED, OLD = "AAAUSDT", "BBBUSDT", "CCCUSDT"


@pytest.fixture
async def rig(tmp_path):
    rig = Rig(tmp_path, [NEW, HEAPED, OLD], [])
    rig.clock.jump(DAY_MS)
    rig.close_upto(T0 + DAY_MS)
    yield rig
    rig.store.close()


def waits(rig, symbol):
    queue = rig.store.unverified(rig.market, before_ms=1 << 62, limit=1_000_000)
    return int((queue["instrument_id"] == rig.ids[symbol]).sum())


async def test_a_heap_of_old_candles_that_wait_hides_neither_newer_nor_older_ones(rig):
    end_ms = T0 + DAY_MS - 10 * MINUTE_MS
    rig.put(HEAPED, range(end_ms - HEAP * MINUTE_MS, end_ms, MINUTE_MS), Origin.PARTIAL)
    rig.put(OLD, [end_ms - (HEAP + 5) * MINUTE_MS], Origin.PARTIAL)
    assert HEAP > PAGE * PAGES_AT_ONCE
    rig.exchange.fault = lambda _path, params, _now_ms: (
        refusal(-1121, "Invalid symbol.") if params["symbol"] == HEAPED else None
    )
    # Nothing newer is known yet: the old one behind the heap is reached, some pages a second.
    assert await rig.run(60, lambda: waits(rig, OLD) == 0) < 30
    rig.put(NEW, [T0 + DAY_MS - MINUTE_MS], Origin.PARTIAL)
    rig.clock.jump(15_000)
    assert await rig.run(60, lambda: waits(rig, NEW) == 0) < 5
    assert waits(rig, HEAPED) == HEAP


async def test_a_heap_that_the_exchange_has_is_settled_by_the_fewest_requests(rig):
    end_ms = T0 + DAY_MS - 10 * MINUTE_MS
    rig.put(HEAPED, range(end_ms - 20_000 * MINUTE_MS, end_ms, MINUTE_MS), Origin.PARTIAL)
    await rig.run(60, lambda: waits(rig, HEAPED) == 0)
    assert waits(rig, HEAPED) == 0
    assert rig.exchange.weight == 20_000 // 500 * 2


async def test_more_candles_of_one_minute_than_a_page_holds_are_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr("klagg.repair.queue.PAGE", 4)
    symbols = [f"S{n:02}USDT" for n in range(30)]
    rig = Rig(tmp_path, symbols, [])
    rig.clock.jump(DAY_MS)
    rig.close_upto(T0 + DAY_MS)
    for symbol in symbols:
        rig.put(symbol, [T0, T0 + 7 * MINUTE_MS], Origin.PARTIAL)
    await rig.run(60, lambda: rig.unverified == 0)
    rig.check()
    assert rig.exchange.weight == len(symbols)
    rig.store.close()


async def test_minutes_wait_some_seconds_for_the_one_that_settles_next_and_come_with_it(rig):
    rig.clock.jump(1_000)
    opens = [T0 + DAY_MS - n * MINUTE_MS for n in (1, 2, 3)]
    rig.put(NEW, opens, Origin.FILLED)
    rig.put(OLD, [T0 + DAY_MS - 200 * MINUTE_MS], Origin.FILLED)
    await rig.run(5)
    assert rig.exchange.requests(NEW) == 0
    assert waits(rig, OLD) == 0
    took = await rig.run(30, lambda: waits(rig, NEW) == 0)
    assert took < 10
    assert rig.exchange.requests(NEW) == 1


async def test_a_start_does_not_wait_for_what_has_not_settled(rig):
    rig.clock.jump(1_000)
    rig.put(NEW, [T0 + DAY_MS - n * MINUTE_MS for n in (1, 2, 3)], Origin.FILLED)
    began_ms = rig.now_ms
    await rig.fill()
    assert rig.now_ms - began_ms < 1_000
    assert waits(rig, NEW) == 1


async def test_a_start_ends_at_its_deadline_and_a_request_for_others_is_not_forgotten(rig):
    rig.exchange.fault = lambda *_: refusal(-1008, "overloaded", 503)
    rig.repairer.fetch(OLD, T0, T0 + 3 * MINUTE_MS)
    rig.put(NEW, [T0 + DAY_MS - 60 * MINUTE_MS], Origin.PARTIAL)
    began_ms = rig.now_ms
    await rig.fill(5.0)
    assert rig.now_ms - began_ms <= 6_000
    rig.exchange.fault = lambda *_: None
    rig.put(OLD, [T0 - MINUTE_MS], Origin.EXCHANGE)
    await rig.run(120)
    assert len(rig.store.read(rig.ids[OLD], MINUTE, T0, T0 + DAY_MS)) == 3


async def test_minutes_that_neither_side_has_are_kept_as_such_and_asked_for_no_more(rig):
    rig.exchange.lacks[OLD] = {T0 + MINUTE_MS, T0 + 2 * MINUTE_MS}
    rig.repairer.fetch(OLD, T0, T0 + 3 * MINUTE_MS)
    await rig.run(300)
    rows = rig.store.read(rig.ids[OLD], MINUTE, T0, T0 + DAY_MS)
    assert rows["origin"].tolist() == [Origin.EXCHANGE, Origin.UNMATCHED, Origin.UNMATCHED]
    assert set(rows["close"].tolist()) == {rows["close"][0]}
    assert rig.exchange.requests(OLD) <= 3
    rig.check()


async def test_a_symbol_retired_by_an_earlier_run_is_repaired_too(rig):
    rig.put(OLD, [T0], Origin.PARTIAL)
    opened = no_candles(1)
    opened["open_ms"], opened["price_scale"], opened["qty_scale"], opened["first_id"] = T0 - MINUTE_MS, 2, 1, -1
    rig.store.commit(Commit(rig.claim, range(256), T0 + DAY_MS, np.array([rig.ids[OLD]]), opened))
    assert len(rig.store.open_candle(rig.ids[OLD], MINUTE)) == 1
    left = rig.instruments.pop(rig.ids[OLD])
    rig.store.put_instruments([replace(left, status=Status.RETIRED)], T0 + MINUTE_MS)
    await rig.run(30, lambda: rig.unverified == 0)
    rig.check()
    assert len(rig.store.open_candle(rig.ids[OLD], MINUTE)) == 0, "what its closed candles have overtaken is gone"


def test_asked_spans_wait_until_they_have_settled_and_have_a_bound(monkeypatch):
    monkeypatch.setattr("klagg.repair.queue.ASKED_BOUND", 2)
    asked = Asked()
    spans = [Fetch(1, MINUTE, T0 + n * MINUTE_MS, T0 + (n + 1) * MINUTE_MS) for n in range(3)]
    for span in (*spans, spans[0]):
        asked.keep(span)
    assert asked.dropped == 1
    assert asked.take(T0 + MINUTE_MS + 9_999) == []
    assert asked.take(T0 + MINUTE_MS + 10_000) == spans[:1]
    asked.keep(spans[0], not_before_ms=T0 + DAY_MS)
    assert asked.take(T0 + DAY_MS - 1) == spans[1:2]
    assert asked.take(T0 + DAY_MS) == spans[:1]


def test_what_waits_has_a_bound_and_the_nearest_are_tried_first(monkeypatch):
    monkeypatch.setattr("klagg.repair.patience.WAITING_BOUND", 10)
    assert WAITING_BOUND > 10
    patience = Patience()
    keys = [(1, 0, n) for n in range(11)]
    for n, key in enumerate(keys):
        patience.put_off([key], 100 + n, 0)
    assert [patience.is_ready(key, 0) for key in keys] == [True] * 6 + [False] * 5


def test_many_symbols_that_fail_in_turn_make_everything_pause_until_one_succeeds():
    patience = Patience()
    for number in range(3):
        assert patience.pause_ms(0) == 0
        patience.failed(number, 0)
    assert patience.pause_ms(0) == 1_000
    for number in range(3):
        patience.failed(number, 5_000)
    assert patience.pause_ms(5_000) == 2_000
    patience.succeeded(7)
    for number in range(3):
        patience.failed(number, 10_000)
    assert patience.pause_ms(10_000) == 1_000
    assert patience.is_resting(0, 10_000 + 19_999)
    assert not patience.is_resting(0, 10_000 + 20_000)


def test_the_same_symbol_failing_again_and_again_pauses_nothing():
    patience = Patience()
    for _ in range(100):
        patience.failed(1, 0)
    assert patience.pause_ms(0) == 0
    assert patience.is_resting(1, 59_999)
    assert not patience.is_resting(1, 60_000)
