"""A hole in the ids is filled with its own trades while the engine still waits for them, where the weight lies idle."""

import asyncio

import numpy as np
import pytest

from klagg.exchange.budget import Purpose
from klagg.interval import MINUTE, MINUTE_MS
from klagg.model import TRADE, Market, Origin, no_candles
from klagg.repair.holes import Holes
from klagg.service.holes import HoleFilling
from klagg.service.recent import Recent
from klagg.service.shard import Seed, ShardCore
from repair.rig import T0, Answer, Rig, refusal

SYMBOL = "AAAUSDT"


class Shard:
    """One shard's core with one symbol whose ids 1 to 40 were made in the minute that began at `T0`, and the way to fill holes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.core = ShardCore(rig.market, range(256), rig.claim, rig.intervals)
        number = rig.ids[SYMBOL]
        seed = Seed(T0, 100, 2, no_candles(), None, known=True)
        self.slot = self.core.seed(rig.instruments[number], number, seed)
        self.holes = Holes(rig.market, rig.rest, lambda: rig.now_ms)
        self.filling = HoleFilling(
            rig.market,
            [self.core],
            self.holes,
            clock=rig.clock,
            now_ms=lambda: rig.now_ms,
            recent=Recent(rig.market, lambda: rig.now_ms),
        )
        rig.exchange.trades[SYMBOL] = [
            {"a": n, "p": f"{1 + n / 100:.2f}", "q": "0.5", "f": 10 * n, "l": 10 * n + 1, "T": T0 + 100 * n, "m": False}
            for n in range(1, 41)
        ]

    def hear(self, *agg_ids: int) -> None:
        rows = np.zeros(len(agg_ids), TRADE)
        for row, n in zip(rows, agg_ids, strict=True):
            row["slot"], row["agg_id"], row["time_ms"] = self.slot, n, T0 + 100 * n
            row["price"], row["price_scale"], row["qty"], row["qty_scale"] = 100 + n, 2, 5, 1
            row["first_id"], row["last_id"] = 10 * n, 10 * n + 1
        self.core.apply(rows, self.rig.now_ms)

    async def live(self, seconds: float) -> None:
        """Let time pass as in the service: holes are looked for, and expire."""
        task = asyncio.create_task(self.filling.run())
        for _ in range(int(seconds * 2)):
            await self.rig.clock.advance(500)
            self.core.engine.expire_holes(self.rig.now_ms)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def minute(self):
        """The minute once it has closed, and a trade after its end proves what came before."""
        late = np.zeros(1, TRADE)
        late["slot"], late["agg_id"], late["time_ms"] = self.slot, 41, T0 + MINUTE_MS + 5
        late["price"], late["price_scale"], late["qty"], late["qty_scale"] = 141, 2, 5, 1
        self.core.apply(late, T0 + MINUTE_MS + 10)
        self.core.engine.advance(T0 + MINUTE_MS)
        candles = self.core.engine.collect()
        (row,) = candles[candles["interval"] == MINUTE.code]
        return row


@pytest.fixture(params=list(Market))
async def shard(tmp_path, request):
    rig = Rig(tmp_path, [SYMBOL], [], request.param)
    rig.clock.jump(4_200)
    yield Shard(rig)
    rig.store.close()


async def test_the_missed_trades_are_fetched_and_the_minute_is_whole(shard):
    shard.hear(*range(1, 8), 11, 12, *range(14, 41))
    (hole,) = shard.core.engine.holes()
    assert (hole.first_id, hole.end_id, hole.since_ms) == (8, 40, shard.rig.now_ms)
    await shard.live(6)
    assert shard.core.engine.holes() == []
    assert [params["limit"] for _, path, params, _ in shard.rig.exchange.asked if path == "/aggTrades"] == [32]
    row = shard.minute()
    assert (int(row["trades"]), int(row["volume_lo"]), int(row["high"]), int(row["close"])) == (80, 200, 140, 140)
    assert (int(row["first_id"]), int(row["last_id"])) == (10, 401)
    assert shard.core.engine.tally.holes == 0
    assert shard.filling.filled == 1


async def test_without_them_the_same_minute_is_known_to_be_incomplete(shard):
    shard.rig.exchange.fault = lambda *_: refusal(-1121, "Invalid symbol.")
    shard.hear(*range(1, 8), *range(14, 41))
    await shard.live(6)
    row = shard.minute()
    assert (row["origin"], int(row["trades"])) == (Origin.PARTIAL, 68)
    assert shard.filling.filled == 0


async def test_trades_that_are_merely_late_cost_nothing(shard):
    shard.hear(*range(1, 8), *range(14, 41))
    await shard.live(0.5)
    shard.hear(*range(8, 14))
    await shard.live(6)
    assert shard.rig.exchange.asked == []


async def test_an_answer_that_comes_too_late_changes_nothing(shard):
    body = b'[{"a":8,"p":"1.08","q":"0.5","f":80,"l":81,"T":%d,"m":false}]' % (T0 + 800)
    shard.rig.exchange.fault = lambda *_: Answer(body, after_s=20)
    shard.hear(*range(1, 8), *range(9, 41))
    await shard.live(25)
    assert shard.minute()["origin"] == Origin.PARTIAL


async def test_a_hole_in_many_symbols_or_a_busy_minute_is_left_to_the_klines(shard):
    rig, engine = shard.rig, shard.core.engine
    shard.hear(*range(1, 8), *range(9, 41))
    rig.clock.jump(2_000)
    (hole,) = engine.holes()
    asked = 0
    while shard.holes.is_worth(hole):
        await_trades = asyncio.create_task(shard.holes.trades(SYMBOL, hole))
        while not await_trades.done():
            await rig.clock.advance(1)
        asked += 1
        hole = type(hole)(hole.slot, hole.first_id, hole.end_id, rig.now_ms - 2_000)
    assert asked == int(rig.budget.limit * 0.1) // (20 if rig.market is Market.USDM else 4)
    rig.clock.jump(MINUTE_MS)
    hole = type(hole)(hole.slot, hole.first_id, hole.end_id, rig.now_ms - 2_000)
    assert shard.holes.is_worth(hole)
    await rig.budget.acquire(rig.budget.limit // 2, Purpose.LIVE)
    assert not shard.holes.is_worth(hole)
