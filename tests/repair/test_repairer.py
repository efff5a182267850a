"""What is not verified is settled with the exchange: equal, replaced or unmatched, parents included."""

import asyncio

import numpy as np
import pytest

from klagg.clock import ManualClock
from klagg.errors import ExchangeError, RequestRejected
from klagg.exchange.budget import WeightBudget
from klagg.interval import BY_NAME, HOUR_MS, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import CANDLE, Flag, Instrument, Market, Origin, Status
from klagg.repair import Repairer
from klagg.store import Commit, open_store
from klagg.store.thread import StoreThread

T0 = 1_725_148_800_000
FIVE = BY_NAME["5m"]
ID = 1


def minutes(closes, start_ms=T0, *, origin=Origin.TRADES, verified=False):
    rows = np.zeros(len(closes), CANDLE)
    rows["open_ms"] = start_ms + np.arange(len(closes)) * MINUTE_MS
    rows["price_scale"], rows["qty_scale"] = 2, 1
    for name in ("open", "high", "low", "close"):
        rows[name] = closes
    rows["trades"] = 1
    rows["volume_lo"], rows["quote_lo"] = 10, np.array(closes) * 10
    rows["first_id"] = rows["last_id"] = -1
    rows["origin"] = origin
    rows["flags"] = Flag.CLOSED | (Flag.VERIFIED if verified else 0)
    return rows


class FakeRest:
    """An exchange that has the candles it was given; `fails` are raised first."""

    def __init__(self, candles, clock, now_ms):
        self.candles = candles
        self.budget = WeightBudget(2_400, clock=clock, now_ms=now_ms)
        self.fails = []
        self.asked = []

    async def klines(self, symbol, interval, *, start_ms, end_ms, price_scale, qty_scale, purpose):
        self.asked.append((interval.name, start_ms, end_ms))
        if self.fails:
            raise self.fails.pop(0)
        rows = self.candles
        within = (rows["open_ms"] >= start_ms) & (rows["open_ms"] < end_ms) & (rows["interval"] == interval.code)
        return rows[within].copy()


class Bench:
    """A store with one symbol, owned and closed up to one hour, and a repairer over a fake exchange."""

    def __init__(self, thread):
        self.thread = thread
        self.store = thread.store
        self.now_ms = T0 + HOUR_MS
        self.clock = ManualClock()
        self.rest = FakeRest(minutes([]), self.clock, lambda: self.now_ms)
        self.told = []
        self.instrument = Instrument(Market.USDM, "AAAUSDT", Status.TRADING, 2, 1)
        self.repairer = Repairer(
            Market.USDM,
            self.rest,
            thread,
            lambda: {ID: self.instrument},
            now_ms=lambda: self.now_ms,
            clock=self.clock,
            intervals=parse_intervals(["5m", "4h"]),
            on_repaired=self.take,
        )

    async def take(self, ids, candles, base_ids, bases, upto_ms):
        self.told.append((candles, bases, upto_ms))

    async def put(self, rows):
        await self.thread.call(self.store.write, np.full(len(rows), ID), rows)

    async def read(self, interval=MINUTE):
        return await self.thread.call(self.store.read, ID, interval, T0, T0 + HOUR_MS)


@pytest.fixture
async def bench(tmp_path):
    store_path = str(tmp_path / "klagg.db")
    thread = StoreThread(open_store(store_path, mode="create"))
    bench = Bench.__new__(Bench)
    await thread.call(thread.store.put_instruments, [Instrument(Market.USDM, "AAAUSDT", Status.TRADING, 2, 1)], 0)
    claim = await thread.call(lambda: thread.store.claim(Market.USDM, owner="test", now_ms=0))
    await thread.call(thread.store.commit, Commit(claim, range(256), T0 + HOUR_MS))
    bench.__init__(thread)
    yield bench
    await thread.close()


async def test_urgent_minutes_are_replaced_and_their_parents_verified(bench):
    truth = minutes(range(200, 210), origin=Origin.EXCHANGE, verified=True)
    bench.rest.candles = truth
    await bench.put(minutes(range(100, 110), origin=Origin.PARTIAL))
    assert await bench.repairer.fill(20.0) == 0
    rows = await bench.read()
    assert rows["close"].tolist() == truth["close"].tolist()
    assert (rows["flags"] & Flag.VERIFIED != 0).all()
    parents = await bench.read(FIVE)
    assert (parents["flags"] & Flag.VERIFIED != 0).all()
    assert parents["close"].tolist() == [204, 209]
    assert bench.rest.asked == [("1m", T0, T0 + 11 * MINUTE_MS)]
    assert bench.repairer.stats.repaired == 10
    assert bench.told[0][0]["close"].tolist() == truth["close"].tolist()


async def test_an_open_parent_is_handed_back_when_its_minutes_changed(bench):
    bench.rest.candles = minutes(range(200, 260), origin=Origin.EXCHANGE, verified=True)
    await bench.put(minutes(range(100, 160), origin=Origin.PARTIAL))
    await bench.repairer.fill(20.0)
    assert await bench.repairer.fill(20.0) >= 0
    bases = [base for _, bases, _ in bench.told for base in bases]
    assert [(int(base["interval"]), int(base["trades"])) for base in bases] == [(BY_NAME["4h"].code, 55)]


async def test_minutes_that_have_not_settled_wait(bench):
    bench.rest.candles = minutes([200], origin=Origin.EXCHANGE, verified=True)
    await bench.put(minutes([100], origin=Origin.PARTIAL))
    bench.now_ms = T0 + MINUTE_MS + 9_999
    await bench.repairer.fill(20.0)
    assert bench.rest.asked == []
    bench.now_ms += 1
    await bench.repairer.fill(20.0)
    assert len(bench.rest.asked) == 1


def without_trades(rows):
    for name in ("trades", "volume_lo", "quote_lo"):
        rows[name] = 0
    return rows


async def test_a_minute_the_exchange_lacks_twice_is_unmatched(bench):
    bench.rest.candles = minutes([200, 201, 202], origin=Origin.EXCHANGE, verified=True)[[0, 2]]
    await bench.put(minutes([100, 101, 102], origin=Origin.PARTIAL)[[0, 2]])
    await bench.put(without_trades(minutes([101], T0 + MINUTE_MS, origin=Origin.FILLED)))
    await bench.repairer.fill(20.0)
    assert (await bench.read())["origin"].tolist() == [Origin.EXCHANGE, Origin.FILLED, Origin.EXCHANGE]
    bench.now_ms += 30 * MINUTE_MS
    await bench.repairer.fill(20.0)
    rows = await bench.read()
    assert rows["origin"].tolist() == [Origin.EXCHANGE, Origin.UNMATCHED, Origin.EXCHANGE]
    assert rows["close"].tolist() == [200, 200, 202]
    asked = len(bench.rest.asked)
    await bench.repairer.fill(20.0)
    assert len(bench.rest.asked) == asked


async def test_no_absence_is_believed_where_klagg_has_seen_trades(bench):
    bench.rest.candles = minutes([200, 201, 202], origin=Origin.EXCHANGE, verified=True)[[0, 2]]
    await bench.put(minutes([100, 101, 102], origin=Origin.PARTIAL))
    for _ in range(5):
        await bench.repairer.fill(20.0)
        bench.now_ms += 60 * MINUTE_MS
    assert (await bench.read())["origin"].tolist() == [Origin.EXCHANGE, Origin.PARTIAL, Origin.EXCHANGE]
    bench.rest.candles = minutes([200, 201, 202], origin=Origin.EXCHANGE, verified=True)
    bench.now_ms += 60 * MINUTE_MS
    await bench.repairer.fill(20.0)
    assert (await bench.read())["close"].tolist() == [200, 201, 202]


async def test_empty_answers_are_no_evidence(bench):
    await bench.put(without_trades(minutes([100, 100], origin=Origin.FILLED)))
    for _ in range(5):
        await bench.repairer.fill(20.0)
        bench.now_ms += 60 * MINUTE_MS
    assert (await bench.read())["origin"].tolist() == [Origin.FILLED] * 2
    bench.rest.candles = minutes([200, 201], origin=Origin.EXCHANGE, verified=True)
    bench.now_ms += 60 * MINUTE_MS
    await bench.repairer.fill(20.0)
    assert (await bench.read())["close"].tolist() == [200, 201]


async def test_what_is_unmatched_is_looked_at_again_after_an_hour_and_gives_way(bench):
    bench.rest.candles = minutes([200, 201, 202], origin=Origin.EXCHANGE, verified=True)[[0, 2]]
    await bench.put(bench.rest.candles)
    await bench.put(without_trades(minutes([101], T0 + MINUTE_MS, origin=Origin.UNMATCHED)))
    for _ in range(2):
        await bench.thread.call(bench.store.note_absent, ID, MINUTE, [T0 + MINUTE_MS], bench.now_ms)
        bench.now_ms += 2 * MINUTE_MS
    bench.rest.candles = minutes([200, 201, 202], origin=Origin.EXCHANGE, verified=True)
    running = asyncio.create_task(bench.repairer.run())

    async def pass_by(ms):
        for _ in range(20):
            bench.now_ms += ms // 20
            await bench.clock.advance(ms // 20)
            for _ in range(20):
                await asyncio.sleep(0.001)

    try:
        await pass_by(20 * MINUTE_MS)
        assert (await bench.read())["close"].tolist() == [200, 101, 202]
        await pass_by(60 * MINUTE_MS)
    finally:
        running.cancel()
    assert (await bench.read())["close"].tolist() == [200, 201, 202]


async def test_an_answer_that_nobody_foresaw_puts_one_symbol_aside(bench):
    bench.rest.fails = [IndexError("list index out of range")]
    bench.rest.candles = minutes([200], origin=Origin.EXCHANGE, verified=True)
    await bench.put(minutes([100], origin=Origin.PARTIAL))
    await bench.repairer.fill(20.0)
    assert bench.repairer.stats.put_aside == 1
    (entry,) = await bench.thread.call(bench.store.quarantined, Market.USDM, 9)
    assert (entry.symbol, entry.door) == ("AAAUSDT", "repair")
    bench.now_ms += 60 * MINUTE_MS
    await bench.repairer.fill(20.0)
    assert (await bench.read())["close"].tolist() == [200]


async def test_a_longer_candle_that_minutes_do_not_tile_is_fetched_itself(bench):
    own = minutes([300], origin=Origin.EXCHANGE, verified=True)
    own["interval"] = FIVE.code
    bench.rest.candles = own
    partial = minutes([100], origin=Origin.PARTIAL)
    partial["interval"] = FIVE.code
    await bench.put(partial)
    await bench.repairer.fill(20.0)
    assert (await bench.read(FIVE))["close"].tolist() == [300]
    assert [name for name, _, _ in bench.rest.asked] == ["5m"]


async def test_a_longer_candle_closed_wrong_is_folded_from_its_repaired_minutes_at_once(bench):
    """Its minutes were repaired before it closed, so nothing that happens later would fold it."""
    await bench.put(minutes([100, 101, 102, 103, 104], origin=Origin.EXCHANGE, verified=True))
    wrong = minutes([90], origin=Origin.PARTIAL)
    wrong["interval"] = FIVE.code
    await bench.put(wrong)
    bench.now_ms = T0 + 5 * MINUTE_MS + 10_000
    await bench.repairer.fill(1.0)
    (five,) = await bench.read(FIVE)
    assert (five["close"], five["trades"], five["flags"] & Flag.VERIFIED != 0) == (104, 5, True)
    assert bench.rest.asked == []


async def test_a_longer_candle_is_given_time_before_its_own_kline_is_fetched(bench):
    wrong = minutes([90], origin=Origin.PARTIAL)
    wrong["interval"] = FIVE.code
    await bench.put(wrong)
    bench.now_ms = T0 + 5 * MINUTE_MS + 10_000
    await bench.repairer.fill(1.0)
    assert bench.rest.asked == []
    bench.now_ms = T0 + 7 * MINUTE_MS
    await bench.repairer.fill(1.0)
    assert [name for name, _, _ in bench.rest.asked] == ["5m"]


async def test_run_compares_at_leisure_and_survives_errors(bench):
    bench.rest.candles = minutes([100, 201], origin=Origin.EXCHANGE, verified=True)
    bench.rest.fails = [ExchangeError("down"), ExchangeError("busy")]
    await bench.put(minutes([100, 101]))
    task = asyncio.create_task(bench.repairer.run())
    for _ in range(300):
        bench.now_ms += 1_000
        await bench.clock.advance(1_000)
        await asyncio.sleep(0.002)
        if bench.repairer.stats.equal:
            break
    task.cancel()
    stats = bench.repairer.stats
    assert (stats.equal, stats.repaired, stats.differences) == (1, 1, 1)
    assert stats.last_error
    assert (await bench.read())["origin"].tolist() == [Origin.EXCHANGE, Origin.EXCHANGE]


async def test_a_refused_symbol_rests_and_raises_nothing(bench):
    bench.rest.fails = [RequestRejected("no such symbol", http_status=400, code=-1121)]
    await bench.put(minutes([100], origin=Origin.PARTIAL))
    await bench.repairer.fill(20.0)
    await bench.repairer.fill(20.0)
    assert len(bench.rest.asked) == 1


async def test_spans_asked_for_are_fetched_whatever_is_stored(bench):
    bench.rest.candles = minutes(range(200, 205), origin=Origin.EXCHANGE, verified=True)
    await bench.put(minutes([100], origin=Origin.EXCHANGE, verified=True))
    bench.repairer.fetch("AAAUSDT", T0 + MINUTE_MS, T0 + 5 * MINUTE_MS)
    bench.repairer.ask(ID, T0)
    await bench.repairer.fill(20.0)
    assert (await bench.read())["close"].tolist() == [200, 201, 202, 203, 204]
    assert (await bench.read(FIVE))["trades"].tolist() == [5]
