"""On virtual time: a backfill takes as long as its share of the weight allows, and hardly longer."""

import asyncio

import numpy as np
import pytest

from klagg.backfill import backfill, prepare
from klagg.clock import ManualClock
from klagg.exchange.budget import Purpose, WeightBudget, shares
from klagg.exchange.klines import page, weight_of
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS
from klagg.model import CANDLE, Flag, Instrument, Market, Origin, Status
from klagg.store import open_store

MONDAY = 1_725_235_200_000  # 2024-09-02
ANSWER_S = 0.1
SYMBOLS, DAYS = 12, 8


class Scripted:
    """Answers after 100 ms, each request counted in the budget as the client does it; refuses once, if asked to."""

    def __init__(self, clock, market):
        self.clock = clock
        self.market = market
        self.budget = WeightBudget(600, clock=clock, now_ms=self.now_ms, shares=shares(0.5))
        self.refuse_at = None
        self.per_minute = {}

    def now_ms(self):
        return MONDAY + DAY_MS + self.clock.monotonic_ns() // 1_000_000

    async def klines(self, symbol, interval, *, start_ms, end_ms, price_scale, qty_scale, purpose):
        assert (interval, purpose) == (MINUTE, Purpose.BACKFILL)
        left = (end_ms - start_ms) // MINUTE_MS
        while left > 0:
            limit, weight = page(self.market, left)
            await self.budget.acquire(weight, purpose)
            minute = self.now_ms() // MINUTE_MS
            self.per_minute[minute] = self.per_minute.get(minute, 0) + weight
            await self.clock.sleep(ANSWER_S)
            status = 200
            if self.refuse_at is not None and self.clock.monotonic_ns() >= self.refuse_at * 1e9:
                self.refuse_at, status = None, 429
            self.budget.observe({"retry-after": "90"} if status == 429 else {}, status, b"", self.now_ms())
            self.budget.settle(weight)
            left -= limit if status == 200 else 0
        rows = np.zeros((end_ms - start_ms) // MINUTE_MS, CANDLE)
        rows["open_ms"] = np.arange(start_ms, end_ms, MINUTE_MS)
        rows["origin"], rows["flags"] = Origin.EXCHANGE, Flag.CLOSED | Flag.VERIFIED
        for name in ("open", "high", "low", "close"):
            rows[name] = 100
        return rows


class Inline:
    """The store without its thread: its calls take no virtual time."""

    def __init__(self, store):
        self.store = store

    async def call(self, fn, *args):
        return fn(*args)


@pytest.mark.parametrize("refuse_at", [None, 70])
async def test_the_share_of_the_weight_is_used_up_and_no_more(tmp_path, refuse_at):
    clock = ManualClock()
    rest = Scripted(clock, Market.USDM)
    rest.refuse_at = refuse_at
    thread = Inline(open_store(str(tmp_path / "klagg.db"), mode="create"))
    wanted = [Instrument(Market.USDM, f"A{n}USDT", Status.TRADING, 2, 1) for n in range(SYMBOLS)]
    known = await prepare(thread, Market.USDM, wanted, (MINUTE,), rest.now_ms())
    paces = []
    work = asyncio.create_task(
        backfill(
            rest,
            thread,
            Market.USDM,
            known,
            (MINUTE,),
            MONDAY - (DAYS - 1) * DAY_MS,
            MONDAY + DAY_MS,
            now_ms=lambda: rest.now_ms() + 60_000,
            clock=clock,
            progress=paces.append,
        )
    )
    while not work.done():
        await clock.advance(20)
    summary = await work
    thread.store.close()
    weight = SYMBOLS * DAYS * weight_of(Market.USDM, 1_440)
    share = rest.budget.rate(Purpose.BACKFILL)
    assert summary.weight == weight
    # The exchange counts by clock minutes: so many whole shares, then the rest of the last.
    least_min = -(-weight // share) - 1 + (90 / 60 if refuse_at else 0)
    assert least_min <= summary.seconds / 60 <= least_min + 1
    spent = list(rest.per_minute.values())
    assert max(spent) <= share
    assert refuse_at or min(spent[:-1]) >= share - 2
    assert paces[0].left_s == pytest.approx(weight / share * 60)
    assert paces[-1].left_s == 0
    assert paces[-1].candles == summary.fetched == SYMBOLS * DAYS * 1_440
    assert paces[-1].weight_per_min <= share * 2
