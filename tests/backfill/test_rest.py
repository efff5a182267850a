"""History comes whole, once, newest first, and longer candles with it."""

import asyncio

import numpy as np
import pytest

from klagg.backfill import backfill, prepare
from klagg.backfill.rest import CONCURRENCY
from klagg.clock import ManualClock
from klagg.engine.fold import fold
from klagg.errors import RequestRejected, StoreUnavailable
from klagg.exchange.budget import WeightBudget
from klagg.exchange.klines import SETTLE_MS
from klagg.interval import BY_NAME, DAY_MS, HOUR_MS, MINUTE, MINUTE_MS, parse_intervals
from klagg.model import CANDLE, Flag, Instrument, Market, Origin, Status
from klagg.store import Commit, open_store
from klagg.store.thread import StoreThread

MONDAY = 1_725_235_200_000  # 2024-09-02
LISTED = MONDAY - 10 * DAY_MS
ID = 1


class FakeRest:
    """An exchange with one trade in every minute since the listing; longer candles folded from them."""

    def __init__(self, clock, now_ms, end_ms):
        opens = np.arange(LISTED, end_ms, MINUTE_MS)
        rows = np.zeros(len(opens), CANDLE)
        rows["open_ms"] = opens
        rows["price_scale"], rows["qty_scale"] = 2, 1
        closes = 1_000 + (opens // MINUTE_MS * 7919) % 500
        for name in ("open", "high", "low", "close"):
            rows[name] = closes
        rows["trades"], rows["volume_lo"], rows["quote_lo"] = 1, 10, closes * 10
        rows["first_id"] = rows["last_id"] = -1
        rows["origin"], rows["flags"] = Origin.EXCHANGE, Flag.CLOSED | Flag.VERIFIED
        self.minutes = rows
        self.budget = WeightBudget(2_400, clock=clock, now_ms=now_ms)
        self.asked = []
        self.refuses = set()

    async def klines(self, symbol, interval, *, start_ms, end_ms, price_scale, qty_scale, purpose):
        self.asked.append((symbol, interval.name, start_ms, end_ms))
        if symbol in self.refuses:
            raise RequestRejected("no such symbol", http_status=400, code=-1121)
        rows = self.minutes if interval is MINUTE else fold(self.minutes, interval).candles
        return rows[(rows["open_ms"] >= start_ms) & (rows["open_ms"] < end_ms)].copy()


class Bench:
    def __init__(self, thread):
        self.thread, self.store = thread, thread.store
        settled_upto_ms = MONDAY + 3 * DAY_MS + 5 * HOUR_MS
        self.now_ms = settled_upto_ms + MINUTE_MS + SETTLE_MS - 1  # the minute after is over, and not settled
        self.clock = ManualClock()
        self.rest = FakeRest(self.clock, lambda: self.now_ms, settled_upto_ms)
        self.told, self.progress = [], []
        self.symbols = ["AAAUSDT"]

    async def run(self, start_ms, names=("5m", "1d", "1w"), listed_ms=LISTED, **options):
        intervals = parse_intervals(names)
        wanted = [Instrument(Market.USDM, s, Status.TRADING, 2, 1, listed_ms=listed_ms) for s in self.symbols]
        known = await prepare(self.thread, Market.USDM, wanted, intervals, self.now_ms)
        return await backfill(
            self.rest,
            self.thread,
            Market.USDM,
            known,
            intervals,
            start_ms,
            self.now_ms,
            now_ms=lambda: self.now_ms,
            clock=self.clock,
            progress=self.progress.append,
            on_repaired=self.take,
            **options,
        )

    async def own(self, closed_upto_ms):
        claim = await self.thread.call(lambda: self.store.claim(Market.USDM, owner="test", now_ms=0))
        await self.thread.call(self.store.commit, Commit(claim, range(256), closed_upto_ms))

    async def take(self, ids, candles, base_ids, bases, upto_ms):
        self.told += [(int(base["interval"]), int(base["trades"]), upto_ms) for base in bases]

    async def read(self, name, instrument_id=ID):
        return await self.thread.call(self.store.read, instrument_id, BY_NAME[name], 0, 1 << 60)


@pytest.fixture
async def bench(tmp_path):
    thread = StoreThread(open_store(str(tmp_path / "klagg.db"), mode="create"))
    yield Bench(thread)
    await thread.close()


async def test_minutes_and_parents_newest_day_first_with_progress(bench):
    summary = await bench.run(MONDAY)
    minutes = await bench.read("1m")
    assert len(minutes) == 3 * 1_440 + 300
    assert (minutes["flags"] & Flag.VERIFIED != 0).all()
    days = await bench.read("1d")
    assert days["open_ms"].tolist() == [MONDAY, MONDAY + DAY_MS, MONDAY + 2 * DAY_MS]
    assert days["trades"].tolist() == [1_440] * 3
    starts = [start for _, name, start, _ in bench.rest.asked if name == "1m"]
    assert starts == sorted(starts, reverse=True)
    assert [(told.done, told.total) for told in bench.progress] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert bench.progress[0].left_s > bench.progress[-1].left_s == 0
    assert summary.written == len(minutes)


async def test_a_second_run_asks_for_nothing(bench):
    await bench.run(MONDAY)
    asked = len(bench.rest.asked)
    summary = await bench.run(MONDAY)
    assert len(bench.rest.asked) == asked
    assert summary.skipped_days == 4


async def test_an_interval_kept_since_is_folded_from_what_is_there(bench):
    await bench.run(MONDAY - 7 * DAY_MS, names=("5m",))
    asked = len(bench.rest.asked)
    summary = await bench.run(MONDAY - 7 * DAY_MS, names=("15m", "1d", "1w"))
    assert len(bench.rest.asked) == asked
    assert len(await bench.read("15m")) == 10 * 96 + 20
    days, weeks = await bench.read("1d"), await bench.read("1w")
    assert days["trades"].tolist() == [1_440] * 10
    assert weeks["open_ms"].tolist() == [MONDAY - 7 * DAY_MS]
    assert summary.folded == 10 * 96 + 20 + 10 + 1
    assert (await bench.run(MONDAY - 7 * DAY_MS, names=("15m",))).folded == 0


async def test_only_the_missing_part_of_a_day_is_asked_for(bench):
    await bench.run(MONDAY + 3 * DAY_MS + 4 * HOUR_MS)
    bench.rest.asked.clear()
    await bench.run(MONDAY + 3 * DAY_MS)
    assert ("AAAUSDT", "1m", MONDAY + 3 * DAY_MS, MONDAY + 3 * DAY_MS + 4 * HOUR_MS) in bench.rest.asked


async def test_a_closed_parent_at_the_edge_is_the_exchanges_own(bench):
    await bench.run(MONDAY - DAY_MS - 12 * HOUR_MS)
    days = await bench.read("1d")
    assert days["open_ms"][0] == MONDAY - 2 * DAY_MS
    assert days["trades"][0] == 1_440
    assert (await bench.read("1w"))["open_ms"].tolist() == [MONDAY - 7 * DAY_MS]
    assert (await bench.read("1m"))["open_ms"][0] == MONDAY - DAY_MS - 12 * HOUR_MS


@pytest.mark.parametrize("names", [("1w",), ("5m", "1d", "1w"), ("1h", "1d", "1w")])
async def test_running_long_candles_are_handed_back_from_closed_pieces(bench, names):
    boundary_ms = MONDAY + 3 * DAY_MS + 5 * HOUR_MS
    await bench.own(boundary_ms)
    await bench.run(MONDAY + 2 * DAY_MS + 7 * HOUR_MS + 20 * MINUTE_MS, names)
    week = [told for told in bench.told if told[0] == BY_NAME["1w"].code]
    upto_ms = boundary_ms - 5 * MINUTE_MS
    assert week == [(BY_NAME["1w"].code, (upto_ms - MONDAY) // MINUTE_MS, upto_ms)]


async def test_a_symbol_listed_within_its_week_is_handed_back_from_its_listing(bench):
    boundary_ms = MONDAY + 3 * DAY_MS + 5 * HOUR_MS
    listed_ms = MONDAY + DAY_MS + 90 * MINUTE_MS
    bench.rest.minutes = bench.rest.minutes[bench.rest.minutes["open_ms"] >= listed_ms]
    await bench.own(boundary_ms)
    await bench.run(MONDAY + 2 * DAY_MS, listed_ms=listed_ms)
    upto_ms = boundary_ms - 5 * MINUTE_MS
    assert (BY_NAME["1w"].code, (upto_ms - listed_ms) // MINUTE_MS, upto_ms) in bench.told


async def test_minutes_the_exchange_lacks_between_others_are_unmatched(bench):
    rows = bench.rest.minutes
    hole = (rows["open_ms"] >= MONDAY + DAY_MS - 2 * MINUTE_MS) & (rows["open_ms"] < MONDAY + DAY_MS + 3 * MINUTE_MS)
    before = rows["close"][np.flatnonzero(hole)[0] - 1]
    bench.rest.minutes = rows[~hole]
    summary = await bench.run(MONDAY)
    minutes = await bench.read("1m")
    gap = minutes[minutes["origin"] == Origin.FILLED]
    assert (summary.filled, summary.unmatched, len(gap)) == (5, 0, 5)
    bench.now_ms += 2 * MINUTE_MS
    assert (await bench.run(MONDAY)).unmatched == 5, "seen to be absent at another time too"
    minutes = await bench.read("1m")
    gap = minutes[minutes["origin"] == Origin.UNMATCHED]
    assert len(gap) == 5
    assert set(gap["close"].tolist()) == {before}
    assert (np.diff(minutes["open_ms"]) == MINUTE_MS).all()


async def test_a_refused_symbol_does_not_stop_the_others(bench):
    bench.symbols = ["AAAUSDT", "BADUSDT"]
    bench.rest.refuses = {"BADUSDT"}
    summary = await bench.run(MONDAY + 2 * DAY_MS)
    assert summary.refused_symbols == ("BADUSDT",)
    assert len(await bench.read("1m")) == 1_440 + 300
    assert len(await bench.read("1m", 2)) == 0


async def test_an_earlier_start_folds_what_the_running_candles_had_brought(bench):
    """The pieces before a history's start are minutes too: their parents are there, at once and after a longer backfill."""
    await bench.own(int(bench.rest.minutes["open_ms"][-1]) + MINUTE_MS)
    start_ms = MONDAY + 2 * DAY_MS + 7 * HOUR_MS + 50 * MINUTE_MS
    for begin_ms in (start_ms, start_ms - 2 * HOUR_MS):
        await bench.run(begin_ms)
        minutes, fives = await bench.read("1m"), await bench.read("5m")
        assert minutes["open_ms"][0] <= begin_ms
        assert np.diff(minutes["open_ms"]).max() == MINUTE_MS
        assert fives["open_ms"][0] == minutes["open_ms"][0]
        assert np.diff(fives["open_ms"]).max() == 5 * MINUTE_MS


async def test_a_full_disk_ends_it_and_what_was_fetched_stays(bench, monkeypatch):
    monkeypatch.setattr("klagg.backfill.patience.ATTEMPTS", 3)
    connection = bench.store._database.connection
    (pages,) = await bench.thread.call(lambda: connection.execute("PRAGMA page_count").fetchone())
    await bench.thread.call(lambda: connection.execute(f"PRAGMA max_page_count = {pages + 100}").fetchone())
    work = asyncio.create_task(bench.run(MONDAY - 4 * DAY_MS))
    while not work.done():
        await bench.clock.advance(1_000)
    with pytest.raises(StoreUnavailable, match="the disk is full: free some space"):
        await work
    kept = len(await bench.read("1m"))
    assert 0 < kept < 7 * 1_440 + 300
    await bench.thread.call(lambda: connection.execute("PRAGMA max_page_count = 1073741823").fetchone())
    summary = await bench.run(MONDAY - 4 * DAY_MS)
    assert summary.skipped_days >= kept // 1_440
    assert len(await bench.read("1m")) == 7 * 1_440 + 300


async def test_days_before_a_listing_that_nobody_tells_are_not_asked_for_one_by_one(bench):
    await bench.run(LISTED - 300 * DAY_MS, listed_ms=0)
    days = [start for _, name, start, _ in bench.rest.asked if name == "1m"]
    assert len(days) <= 14 + CONCURRENCY
    assert (await bench.read("1m"))["open_ms"][0] == LISTED
    assert ("AAAUSDT", "1d") in {asked[:2] for asked in bench.rest.asked}


async def test_fetching_again_names_what_differs_and_the_newer_knowledge_stands(bench):
    await bench.run(MONDAY + 2 * DAY_MS)
    at = int(np.flatnonzero(bench.rest.minutes["open_ms"] == MONDAY + 2 * DAY_MS + 7 * MINUTE_MS)[0])
    before = int(bench.rest.minutes["high"][at])
    bench.rest.minutes["high"][at] = before + 50
    summary = await bench.run(MONDAY + 2 * DAY_MS)
    assert (summary.requested_days, summary.differences.candles) == (0, 0)
    summary = await bench.run(MONDAY + 2 * DAY_MS, again=True)
    (named,) = [one for one in summary.differences.named if one.interval == "1m"]
    assert (named.field, named.stored, named.brought) == ("high", f"{before / 100:.2f}", f"{before / 100 + 0.5:.2f}")
    assert (named.stored_from, named.brought_from) == ("database (exchange)", "rest")
    assert (summary.changed, summary.requested_days) == (1, 2)
    assert (await bench.read("1m"))["high"][7] == before + 50


async def test_what_klagg_made_for_a_minute_that_the_exchange_lacks_is_final(bench):
    open_ms = MONDAY + 2 * DAY_MS + 7 * MINUTE_MS
    made = bench.rest.minutes[bench.rest.minutes["open_ms"] == open_ms].copy()
    made["origin"], made["flags"] = Origin.FILLED, Flag.CLOSED
    made["trades"] = made["volume_lo"] = made["quote_lo"] = 0
    bench.rest.minutes = bench.rest.minutes[bench.rest.minutes["open_ms"] != open_ms]
    wanted = [Instrument(Market.USDM, "AAAUSDT", Status.TRADING, 2, 1, listed_ms=LISTED)]
    await prepare(bench.thread, Market.USDM, wanted, parse_intervals(["5m"]), bench.now_ms)
    await bench.thread.call(bench.store.write, np.array([ID]), made)
    assert (await bench.run(MONDAY + 2 * DAY_MS)).unmatched == 0
    bench.now_ms += 2 * MINUTE_MS
    bench.rest.minutes = bench.rest.minutes[bench.rest.minutes["open_ms"] < MONDAY + 3 * DAY_MS + 5 * HOUR_MS]
    assert (await bench.run(MONDAY + 2 * DAY_MS)).unmatched == 1
    minutes = await bench.read("1m")
    assert minutes["origin"][minutes["open_ms"] == open_ms].tolist() == [Origin.UNMATCHED]


@pytest.mark.parametrize("start_ms", [MONDAY + 30 * DAY_MS, MONDAY + 3 * DAY_MS + 5 * HOUR_MS + MINUTE_MS])
async def test_a_range_without_a_settled_minute_is_nothing_to_do(bench, start_ms):
    summary = await bench.run(start_ms)
    assert (summary.requested_days, bench.rest.asked) == (0, [])


async def test_ends_within_a_minute_count_from_its_open(bench):
    await bench.run(MONDAY + 3 * DAY_MS + 4 * HOUR_MS + 12_345)
    assert (await bench.read("1m"))["open_ms"][0] == MONDAY + 3 * DAY_MS + 4 * HOUR_MS
