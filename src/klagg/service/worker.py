"""A worker: one shard's core with its own streams. It gets every tick, and its start, sleep, tick and exit are log events."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import numpy as np
import structlog

from klagg.clock import Clock, Margin
from klagg.errors import StoreUnavailable
from klagg.exchange.inbox import Blind, Sighted
from klagg.exchange.streams import TradeStreams
from klagg.exchange.wire import decode
from klagg.interval import MINUTE, Interval
from klagg.model import Candles, Gap, Ints, Trades, no_candles
from klagg.plausible import impossible
from klagg.service.aside import put_aside
from klagg.service.comparison import Comparison
from klagg.service.recent import Recent
from klagg.service.shard import ShardCore
from klagg.service.ticks import Boundary
from klagg.store import Commit, CommitResult

log = structlog.get_logger()

DRAIN_TURNS: Final = 8
"""Turns of the event loop given to the sockets before a tick is applied: bounded, some tenths of a millisecond."""
SWEEP_S: Final = 0.5
"""How often holes expire, pushes are judged and evidence is written."""
WATCH_S: Final = 0.25
"""How often the event loop proves that it turns."""
FOLD_BOUND: Final = 100_000
"""Minutes whose longer candles wait to be folded: two hours of a whole market, 14 MB. When full, new ones are dropped and counted;
the repairer folds the same candles from its queue."""
RETRY_FIRST_S: Final = 0.25
RETRY_LAST_S: Final = 10.0

CommitCall = Callable[[Commit], Awaitable[CommitResult]]
Committed = Callable[[Commit, CommitResult], None]
Refold = Callable[[Ints, Candles, bool], Awaitable[None]]


class Worker:
    """Applies its shard's trades, closes its minutes at every tick, and keeps writing until all is durable."""

    def __init__(
        self,
        name: str,
        core: ShardCore,
        streams: TradeStreams,
        *,
        clock: Clock,
        now_ms: Callable[[], int],
        boundary: Boundary,
        margin: Margin,
        commit: CommitCall,
        verified: Refold,
        given_up: Callable[[list[Gap]], None],
        recent: Recent,
        stall_ms: int,
    ) -> None:
        self.name = name
        self.core = core
        self.inbox = streams.inbox
        self._streams = streams
        self.comparison = Comparison(core)
        self.last_tick_ms = boundary.boundary_ms
        self.durable_upto_ms = boundary.boundary_ms
        """The boundary that the commits have carried so far; that of the start is no news."""
        self.write_lag_ms = 0
        """How long after the newest durable boundary the commit that first carried it was through."""
        self.tick_lag_ms = 0
        self.written = 0
        self.commits = 0
        self.commit_s = 0.0
        """What the commits took in the database, together."""
        self.failing_since_ms: int | None = None
        self._clock = clock
        self._now_ms = now_ms
        self._boundary = boundary
        self._margin = margin
        self._commit = commit
        self._verified = verified
        self._given_up = given_up
        self._recent = recent
        self._stall_ms = stall_ms
        self.on_commit: Committed | None = None
        """Who is told what has just become durable."""
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._longer = tuple(interval for interval in core.engine.intervals if interval is not MINUTE)
        self._to_fold: deque[tuple[Candles, bool]] = deque()
        self._to_fold_minutes = 0
        self.folds_dropped = 0
        """Minutes whose longer candles were left to the repairer, for want of room."""
        self._foldable = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled."""
        log.info("worker.start", worker=self.name, last_tick_ms=self.last_tick_ms, symbols=len(self.core.slots))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._feed())
                tasks.create_task(self._ticks())
                tasks.create_task(self._sweeps())
                tasks.create_task(self._commits())
                tasks.create_task(self._folds())
                tasks.create_task(self._watch())
        finally:
            log.info("worker.exit", worker=self.name, last_tick_ms=self.last_tick_ms)

    async def _feed(self) -> None:
        while True:
            await self.inbox.wait()
            self.take()

    def take(self) -> None:
        """Apply what the sockets have brought."""
        payloads: list[bytes] = []
        for item in self.inbox.drain():
            if isinstance(item, Sighted):
                self._apply(payloads)
                payloads = []
                self.core.engine.sight(item.slots, item.at_ms)
            elif isinstance(item, Blind):
                self._apply(payloads)
                payloads = []
                self._go_blind(item.slots, item.since_ms, item.reason)
            else:
                payloads.append(item)
        self._apply(payloads)

    def _go_blind(self, slots: Collection[int], since_ms: int, reason: str) -> None:
        self.core.engine.blind(slots, since_ms)
        self._recent.note("feed.blind", f"{len(slots)} symbols: {reason}")

    def _apply(self, payloads: list[bytes]) -> None:
        if not payloads:
            return
        now_ms = self._now_ms()
        try:
            decoded = decode(payloads, self.core.slots)
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            self._apply_one_by_one(payloads, error)
            return
        for rejected in decoded.rejected:
            self._recent.reject(rejected)
        if len(decoded.trades):
            self._apply_trades(decoded.trades, now_ms)
            self._margin.observe(now_ms - decoded.trades["time_ms"])
        klines = decoded.klines
        found = impossible(klines)
        if found:
            # Not compared with: the repair asks for those minutes.
            self.core.put_aside(klines, found)
            for at, reason in found:
                self._recent.note("push.impossible", f"{self.core.symbol(int(klines[at]['slot']))}: {reason}")
            klines = np.delete(klines, [at for at, _ in found])
        try:
            self.comparison.take(klines, now_ms)
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            self._compare_anew(klines["slot"].tolist(), error)

    def _apply_one_by_one(self, payloads: list[bytes], error: Exception) -> None:
        """One of many messages cannot be decoded, for a reason nobody foresaw: it is left out, and what lacks then is a hole."""
        if len(payloads) > 1:
            for payload in payloads:
                self._apply([payload])
            return
        put_aside(self._recent, self.core.market, [], error)
        # Nobody knows whose it was.
        self._doubt(list(self.core.slots.values()), self._now_ms())

    def _apply_trades(self, trades: Trades, now_ms: int) -> None:
        try:
            self.core.apply(trades, now_ms)
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            slots = np.unique(trades["slot"]).tolist()
            if len(slots) > 1:
                # What had been applied before it failed is dropped as a duplicate now.
                for slot in slots:
                    self._apply_trades(trades[trades["slot"] == slot], now_ms)
                return
            put_aside(self._recent, self.core.market, [self.core.symbol(slot) for slot in slots], error)
            self._doubt(slots, int(trades["time_ms"].min()))

    def _doubt(self, slots: list[int], since_ms: int) -> None:
        """Some trades of these instruments were left out: their minutes since then prove nothing."""
        self.core.engine.blind(slots, since_ms)
        self.core.engine.sight(slots, self._now_ms())

    def _compare_anew(self, slots: list[int], error: Exception) -> None:
        """The pushes that wait cannot be compared, for a reason nobody foresaw: the repair asks for those minutes instead."""
        put_aside(self._recent, self.core.market, [self.core.symbol(slot) for slot in set(slots)], error)
        self.comparison = Comparison(self.core)

    async def _ticks(self) -> None:
        while True:
            log.debug("worker.sleep", worker=self.name, until_after_ms=self.last_tick_ms)
            boundary_ms = await self._boundary.beyond(self.last_tick_ms)
            for _ in range(DRAIN_TURNS):
                await asyncio.sleep(0)
            self.take()
            while not self.core.tick(boundary_ms):
                self._dirty.set()
                await asyncio.sleep(0)
                self.take()
            self.last_tick_ms = boundary_ms
            self.tick_lag_ms = self._now_ms() - boundary_ms
            self._dirty.set()
            log.info(
                "worker.tick",
                worker=self.name,
                boundary_ms=boundary_ms,
                lag_ms=self.tick_lag_ms,
                symbols=len(self.core.slots),
                pending_candles=self.core.outbox.candles,
            )

    async def _watch(self) -> None:
        """A loop that stood still longer than the watchdog's limit has been blind: what the sockets dropped nobody knows."""
        before_ns = self._clock.monotonic_ns()
        while True:
            await self._clock.sleep(WATCH_S)
            now_ns = self._clock.monotonic_ns()
            stood_ms = (now_ns - before_ns) // 1_000_000 - int(WATCH_S * 1e3)
            before_ns = now_ns
            slots = self._streams.slots_in_sight if stood_ms > self._stall_ms else frozenset()
            if slots:
                now_ms = self._now_ms()
                self._go_blind(
                    slots, now_ms - stood_ms - int(WATCH_S * 1e3), f"the process stood still for {stood_ms} ms"
                )
                self.core.engine.sight(slots, now_ms)

    async def _sweeps(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Expire holes, judge the exchange's pushes, and hand on the evidence that has come in."""
        now_ms = self._now_ms()
        self.core.engine.expire_holes(now_ms)
        try:
            verified, replaced = self.comparison.judge(now_ms)
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            self._compare_anew([], error)
            verified, replaced = no_candles(), no_candles()
        for row in self.comparison.differing:
            symbol = self.core.symbol(int(row["slot"]))
            self._recent.note("candle.differs", f"{symbol} 1m {int(row['open_ms'])}: the exchange is asked again")
        self.comparison.differing = []
        self.core.gather()
        if self.core.unsaved:
            self._dirty.set()
        for minutes, numbers_changed in ((verified, False), (replaced, True)):
            self.fold_later(minutes, numbers_changed=numbers_changed)

    def fold_later(self, minutes: Candles, *, numbers_changed: bool) -> None:
        """Have the parents of these minutes folded, or leave them to the repairer where too many wait."""
        if len(minutes) == 0:
            return
        if self._to_fold_minutes + len(minutes) > FOLD_BOUND:
            if self.folds_dropped == 0:
                self._recent.note(
                    "store.folds_dropped", f"{self._to_fold_minutes} minutes wait to be folded: left to the repair"
                )
            self.folds_dropped += len(minutes)
            return
        self._to_fold.append((minutes, numbers_changed))
        self._to_fold_minutes += len(minutes)
        self._foldable.set()

    async def _folds(self) -> None:
        """Have the parents of minutes folded from the store once these are durable; trades, ticks and commits go on."""
        while True:
            await self._foldable.wait()
            self._foldable.clear()
            await self.flush()
            while self._to_fold:
                try:
                    await self._fold(*self._to_fold[0])
                except StoreUnavailable as error:
                    self._recent.note("store.fold_failed", str(error))
                    await self._clock.sleep(RETRY_LAST_S)
                    continue
                except Exception as error:  # noqa: BLE001 - put on record, with its traceback
                    slots = set(self._to_fold[0][0]["slot"].tolist())
                    put_aside(self._recent, self.core.market, [self.core.symbol(slot) for slot in slots], error)
                self._to_fold_minutes -= len(self._to_fold.popleft()[0])

    async def _fold(self, minutes: Candles, numbers_changed: bool) -> None:
        """Have the longer candles folded from minutes that are now known: those that have closed, or all if numbers changed."""
        if not numbers_changed:
            opens = np.unique(minutes["open_ms"])
            boundary_ms = self.core.engine.boundary_ms
            minutes = minutes[
                np.isin(minutes["open_ms"], [o for o in opens if self._closes_longer(int(o), boundary_ms)])
            ]
        if len(minutes):
            ids = np.array([self.core.instrument_id(int(slot)) for slot in minutes["slot"]], np.int64)
            await self._verified(ids, minutes, numbers_changed)

    def _closes_longer(self, open_ms: int, boundary_ms: int) -> bool:
        return any(self._end(interval, open_ms) <= boundary_ms for interval in self._longer)

    @staticmethod
    def _end(interval: Interval, open_ms: int) -> int:
        return interval.next_open(interval.open_at(open_ms))

    async def _commits(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write until nothing waits; a failed write is retried with backoff, and trades and ticks go on meanwhile."""
        async with self._writing:
            retry_s = RETRY_FIRST_S
            while self.core.unsaved:
                batch = self.core.begin_commit(self._now_ms())
                try:
                    result = await self._commit(batch)
                except StoreUnavailable as error:
                    self._failed(error)
                    await self._clock.sleep(retry_s)
                    retry_s = min(2 * retry_s, RETRY_LAST_S)
                except BaseException:
                    self.core.commit_failed()
                    raise
                else:
                    self.core.commit_done(len(batch.gaps), len(batch.quarantined))
                    self._committed(batch, result)
                    retry_s = RETRY_FIRST_S

    def _failed(self, error: StoreUnavailable) -> None:
        given_up = self.core.commit_failed()
        now_ms = self._now_ms()
        if self.failing_since_ms is None:
            self.failing_since_ms = now_ms
            log.error("store.write_failed", worker=self.name, reason=str(error), waiting_bytes=self.core.outbox.nbytes)
            self._recent.keep("store.write_failed", str(error))
        else:
            self._recent.note("store.write_failed", str(error))
        if given_up:
            log.error("store.minutes_given_up", worker=self.name, gaps=len(given_up), reason="memory bound")
            self._given_up(given_up)

    def _committed(self, batch: Commit, result: CommitResult) -> None:
        now_ms = self._now_ms()
        if self.failing_since_ms is not None:
            log.info("store.write_recovered", worker=self.name, after_ms=now_ms - self.failing_since_ms)
            self.failing_since_ms = None
        self.written += result.written
        self.commits += 1
        self.commit_s += result.seconds
        if batch.closed_upto_ms > self.durable_upto_ms:
            self.durable_upto_ms = batch.closed_upto_ms
            self.write_lag_ms = max(now_ms - batch.closed_upto_ms, 0)
        if self.on_commit is not None:
            self.on_commit(batch, result)
        log.debug(
            "store.committed",
            worker=self.name,
            closed_upto_ms=batch.closed_upto_ms,
            written=result.written,
            refused=result.refused,
            revised=result.revised,
            took_ms=round(result.seconds * 1e3, 1),
        )
