"""A worker by itself: what it says of its writes, and what it does with more than it can hold."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from klagg.clock import ManualClock, Margin
from klagg.errors import StoreUnavailable
from klagg.exchange.endpoints import for_market
from klagg.exchange.streams import TradeStreams
from klagg.exchange.wire import Decoded
from klagg.interval import DEFAULT_INTERVALS, MINUTE_MS
from klagg.model import (
    CANDLE,
    TRADE,
    VIRTUAL_SHARDS,
    Candles,
    Instrument,
    Ints,
    Market,
    Origin,
    Status,
    Trades,
    no_candles,
)
from klagg.service import worker as worker_module
from klagg.service.recent import Recent
from klagg.service.shard import Seed, ShardCore
from klagg.service.ticks import Boundary
from klagg.service.worker import Worker
from klagg.store import Claim, Commit, CommitResult

START_MS = 1_800_000_000_000


@dataclass
class Surroundings:
    """A clock moved by hand, a database that takes or refuses, and the worker between them."""

    clock: ManualClock = field(default_factory=ManualClock)
    took_ms: int = 0
    refuses: bool = False
    folded: list[Candles] = field(default_factory=list)

    def __post_init__(self) -> None:
        claim = Claim(Market.USDM, 1, "test", 0, np.zeros(VIRTUAL_SHARDS, np.int64))
        self.core = ShardCore(Market.USDM, range(VIRTUAL_SHARDS), claim, DEFAULT_INTERVALS)
        instrument = Instrument(Market.USDM, "BTCUSDT", Status.TRADING, 2, 0)
        self.core.seed(instrument, 1, Seed(START_MS, 1_000, 2, no_candles(), None, known=False))
        self.recent = Recent(Market.USDM, self.now_ms)
        streams = TradeStreams(for_market(Market.USDM, None, None), clock=self.clock, now_ms=self.now_ms)
        self.worker = Worker(
            "usdm-0",
            self.core,
            streams,
            clock=self.clock,
            now_ms=self.now_ms,
            boundary=Boundary(START_MS),
            margin=Margin(10),
            commit=self.commit,
            verified=self.fold,
            given_up=lambda gaps: None,
            recent=self.recent,
            stall_ms=1_000,
        )

    def now_ms(self) -> int:
        return START_MS + self.clock.monotonic_ns() // 1_000_000

    async def commit(self, batch: Commit) -> CommitResult:
        if self.refuses:
            raise StoreUnavailable("locked")
        self.clock.jump(self.took_ms)
        count = len(batch.candles)
        return CommitResult(count, 0, 0, 0.0, np.ones(count, np.bool_), np.zeros(count, np.int64))

    async def fold(self, _ids: Ints, minutes: Candles, _numbers_changed: bool) -> None:
        self.folded.append(minutes)


async def test_write_lag_is_from_the_boundary_to_the_commit_that_carried_it() -> None:
    world = Surroundings(took_ms=70)
    world.clock.jump(20_000)
    world.core.snapshot()
    await world.worker.flush()
    assert world.worker.write_lag_ms == 0, "the boundary of the start is not new"
    world.clock.jump(MINUTE_MS - 20_070 + 250)
    assert world.core.tick(START_MS + MINUTE_MS)
    await world.worker.flush()
    assert world.worker.write_lag_ms == 320
    world.clock.jump(31_000)
    world.core.snapshot()
    await world.worker.flush()
    assert world.worker.write_lag_ms == 320, "a commit in mid-minute carries no new boundary"


async def test_write_lag_of_a_database_that_was_away_is_more_than_a_minute() -> None:
    world = Surroundings(refuses=True)
    world.clock.jump(MINUTE_MS)
    assert world.core.tick(START_MS + MINUTE_MS)
    flushing = asyncio.create_task(world.worker.flush())
    await world.clock.advance(2 * MINUTE_MS)
    world.refuses = False
    await world.clock.advance(10_000)
    await flushing
    assert 2 * MINUTE_MS < world.worker.write_lag_ms <= 2 * MINUTE_MS + 10_000


def minutes(count: int, start_ms: int = START_MS) -> Candles:
    made = np.zeros(count, CANDLE)
    made["open_ms"] = start_ms
    return made


async def until(clock: ManualClock, condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await clock.advance(10)
    raise AssertionError("it did not happen")


async def test_what_waits_to_be_folded_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FOLD_BOUND", 10)
    world = Surroundings()
    worker = world.worker
    worker.fold_later(minutes(6), numbers_changed=True)
    worker.fold_later(minutes(5), numbers_changed=True)
    worker.fold_later(minutes(7), numbers_changed=True)
    worker.fold_later(minutes(4), numbers_changed=True)
    assert worker.folds_dropped == 12
    assert world.recent.counts["store.folds_dropped"] == 1, "told once"
    running = asyncio.create_task(worker.run())
    try:
        await until(world.clock, lambda: len(world.folded) == 2)
        assert [len(folded) for folded in world.folded] == [6, 4]
        worker.fold_later(minutes(10), numbers_changed=True)
        await until(world.clock, lambda: len(world.folded) == 3)
        assert worker.folds_dropped == 12, "there is room again"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def trades(slot: int, first: int, count: int) -> Trades:
    made = np.zeros(count, TRADE)
    made["slot"], made["price_scale"], made["price"], made["qty"] = slot, 2, 1_000, 5
    made["agg_id"] = made["first_id"] = made["last_id"] = np.arange(first, first + count)
    made["time_ms"] = START_MS + 1_000 + np.arange(count)
    return made


def test_trades_that_the_engine_cannot_take_cost_their_symbol_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Surroundings()
    other = world.core.seed(
        Instrument(Market.USDM, "ODDUSDT", Status.TRADING, 2, 0),
        2,
        Seed(START_MS, 1_000, 2, no_candles(), None, known=False),
    )
    world.core.engine.sight([0, other], START_MS)
    apply = world.core.engine.apply

    def fails(batch: Trades, now_ms: int) -> None:
        apply(batch[:1], now_ms)
        if other in batch["slot"]:
            raise IndexError("nobody foresaw this")
        apply(batch, now_ms)

    monkeypatch.setattr(world.core.engine, "apply", fails)
    world.worker._apply_trades(np.concatenate([trades(0, 10, 3), trades(other, 70, 3)]), START_MS + 2_000)
    world.core.tick(START_MS + MINUTE_MS)
    batch = world.core.begin_commit(START_MS + MINUTE_MS)
    closed = batch.candles[(batch.candles["interval"] == 0) & (batch.candles["flags"] & 1 != 0)]
    assert dict(zip(batch.instrument_ids.tolist(), batch.candles["trades"].tolist(), strict=True))[1] == 3
    by_slot = {int(row["slot"]): Origin(int(row["origin"])) for row in closed}
    assert by_slot[other] in {Origin.PARTIAL, Origin.FILLED, Origin.SEED}, "it is doubted, so it is asked for"
    assert world.recent.counts["symbol.put_aside"] == 1


def test_a_message_that_cannot_be_decoded_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Surroundings()
    decode, taken = worker_module.decode, []

    def fails(payloads: list[bytes], slots: dict[str, int]) -> Decoded:
        if b"odd" in payloads:
            raise KeyError("nobody foresaw this")
        taken.extend(payloads)
        return decode(payloads, slots)

    monkeypatch.setattr(worker_module, "decode", fails)
    world.worker._apply([b"{}", b"odd", b"[]"])
    assert taken == [b"{}", b"[]"]
    assert world.recent.counts["symbol.put_aside"] == 1


def test_pushes_that_cannot_be_compared_are_left_to_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Surroundings()

    def fails(_now_ms: int) -> None:
        raise IndexError("nobody foresaw this")

    monkeypatch.setattr(world.worker, "comparison", SimpleNamespace(judge=fails))
    world.worker.sweep()
    world.worker.sweep()
    assert world.recent.counts["symbol.put_aside"] == 1, "the next sweep begins anew"


async def test_a_closing_push_that_cannot_be_is_put_aside_on_record() -> None:
    world = Surroundings()
    world.core.put_aside(no_candles(1), [(0, "its low is above its high")])
    batch = world.core.begin_commit(START_MS + MINUTE_MS)
    (entry,) = batch.quarantined
    assert (entry.symbol, entry.interval, entry.reason[-4:]) == (world.core.symbol(0), "1m", "high")
    world.core.commit_done(0, 1)
    assert world.core.begin_commit(START_MS + MINUTE_MS).quarantined == ()
