"""One market, from claim to live: its clock, its workers, its repair, its discovery."""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import structlog

from klagg.backfill import backfill
from klagg.clock import Calibrator, Clock, ExchangeClock, Margin, MinuteTicker
from klagg.config.settings import Settings
from klagg.errors import ExchangeError, KlaggError, RestrictedLocation
from klagg.exchange.budget import Purpose, WeightBudget
from klagg.exchange.discovery import Changed, Discovery, Listed, Retired
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.exchange.settings import StreamSettings
from klagg.exchange.streams import TradeStreams
from klagg.interval import MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Candles, Gap, Instrument, Ints, Market, Status, no_candles, virtual_shard
from klagg.repair import Repairer
from klagg.service.recent import Recent
from klagg.service.shard import Seed, ShardCore, seeds_of, seeds_of_closed
from klagg.service.ticks import Boundary
from klagg.service.worker import Worker
from klagg.store import Claim
from klagg.store.thread import StoreThread

log = structlog.get_logger()

FILL_DEADLINE_S: Final = 20.0
"""How long a start waits for the minutes since the last run before it goes live; the rest is repaired while it runs."""
PRICE_LOOKBACK_MS: Final = 60 * MINUTE_MS
PRICE_REQUESTS_AT_ONCE: Final = 8
RENEW_LEASE_S: Final = 5.0
RETRY_S: Final = 5.0
COUNT_S: Final = 3.0
UNVERIFIED_SHOWN: Final = 10_000
"""Counting stops here: more than this is simply much."""
DEFAULT_LIMITS: Final = {Market.SPOT: 6000, Market.USDM: 2400}
"""The weight a minute that the exchange documents, until its own list has said it."""


def owner_name() -> str:
    """Who holds a claim, as another process would be told: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_active(instrument: Instrument) -> bool:
    """Whether candles are made of an instrument now: it trades, or may trade again."""
    return instrument.status in {Status.TRADING, Status.HALTED}


class MarketService:
    """Everything of one market that runs in this process."""

    def __init__(self, market: Market, settings: Settings, store: StoreThread, clock: Clock) -> None:
        self.market = market
        self.settings = settings
        self.intervals = settings.interval_set
        self.filter = settings.symbol_filter(market)
        self.exchange_clock = ExchangeClock(clock)
        self.recent = Recent(self._now_or_zero)
        self.margin = Margin.of(market, settings.margin)
        endpoints = for_market(market, settings.rest_urls.get(market), settings.ws_urls.get(market))
        self.budget = WeightBudget(DEFAULT_LIMITS[market], clock=clock, now_ms=self._now_or_zero)
        self.rest = RestClient(endpoints, clock=clock, now_ms=self._now_or_zero, budget=self.budget)
        self.claim: Claim | None = None
        self.workers: list[Worker] = []
        self.phase = "starting"
        self.history_progress: tuple[int, int, float] | None = None
        self.history_ready = False
        self.closed_minutes = 0
        self.unverified = 0
        self.live = asyncio.Event()
        self._endpoints = endpoints
        self._clock = clock
        self._store = store
        self._streams: list[TradeStreams] = []
        self._calibrator = Calibrator(clock, self.exchange_clock, self.rest.server_time)
        self._known: dict[str, int] = {}
        self._instruments: dict[str, Instrument] = {}
        self._unpriced: dict[str, Instrument] = {}

    def _now_or_zero(self) -> int:
        return self.exchange_clock.now_ms() if self.exchange_clock.age_ms != float("inf") else 0

    @property
    def now_ms(self) -> int:
        """The exchange's time."""
        return self.exchange_clock.now_ms()

    @property
    def boundary_ms(self) -> int:
        """The boundary up to which all workers are closed."""
        return min((worker.last_tick_ms for worker in self.workers), default=0)

    # Start

    async def start(self) -> None:
        """Calibrate, claim, subscribe and buffer, load, close up to now: everything but the live tasks.

        Raises:
            KlaggError: what stands in the way, in one line.
        """
        await self._calibrator.start()
        listed = await self.rest.instruments()
        names = set(self.filter.resolve(instrument.symbol for instrument in listed if is_active(instrument)))
        chosen = [instrument for instrument in listed if instrument.symbol in names]
        call, store = self._store.call, self._store.store
        claim = await call(
            store.claim,
            self.market,
            owner=owner_name(),
            now_ms=self.now_ms,
            take_over=self.settings.take_over,
        )
        await call(store.set_intervals, self.market, self.intervals)
        self._known = await call(store.put_instruments, chosen, self.now_ms)
        self.claim = claim
        log.info("market.claimed", market=self.market.value, epoch=claim.epoch, symbols=len(chosen))
        self._instruments = {instrument.symbol: instrument for instrument in chosen}
        await self._load(chosen, claim)

    async def _load(self, chosen: Sequence[Instrument], claim: Claim) -> None:
        self.phase = "loading"
        names = {self._known[i.symbol]: i.symbol for i in chosen}
        store = self._store.store
        newest = await self._store.call(store.newest, self.market, self.intervals)
        closed = await self._store.call(store.newest_closed, self.market, self.intervals)
        seeds = seeds_of_closed(closed.instrument_ids, closed.candles)
        seeds.update(
            seeds_of(
                newest.instrument_ids,
                newest.candles,
                newest.last_trade_instrument_ids,
                newest.last_trades,
                names,
            )
        )
        boundary_ms = self.exchange_clock.last_boundary_ms()
        self.boundary = Boundary(boundary_ms)
        shards = [range(n, VIRTUAL_SHARDS, self.settings.workers) for n in range(self.settings.workers)]
        self.repairer = Repairer(
            self.market,
            self.rest,
            self._store,
            self._repairable,
            now_ms=lambda: self.now_ms,
            clock=self._clock,
            intervals=self.intervals,
            on_repaired=self._take_repaired,
        )
        for number, owned in enumerate(shards):
            core = ShardCore(self.market, owned, claim, self.intervals, bound_bytes=self.settings.memory_bytes)
            streams = TradeStreams(
                self._endpoints, clock=self._clock, now_ms=lambda: self.now_ms, settings=self._stream_settings()
            )
            self._streams.append(streams)
            self.workers.append(
                Worker(
                    f"{self.market.value}-{number}",
                    core,
                    streams.inbox,
                    clock=self._clock,
                    now_ms=lambda: self.now_ms,
                    boundary=self.boundary,
                    margin=self.margin,
                    commit=self._store.commit,
                    verified=self._fold_verified,
                    given_up=self._given_up,
                    recent=self.recent,
                    stall_ms=self.settings.loop_watchdog_ms,
                )
            )
        missing = [i for i in chosen if self._known[i.symbol] not in seeds]
        prices = await self._prices(missing, boundary_ms)
        for instrument in chosen:
            instrument_id = self._known[instrument.symbol]
            seed = seeds.get(instrument_id) or prices.get(instrument.symbol)
            if seed is None:
                self._unpriced[instrument.symbol] = instrument
            else:
                self._worker_of(instrument.symbol).core.seed(instrument, instrument_id, seed)
        log.info(
            "market.loaded",
            market=self.market.value,
            restored=len(chosen) - len(missing),
            new=len(missing),
            unpriced=len(self._unpriced),
        )

    async def _prices(self, instruments: Sequence[Instrument], boundary_ms: int) -> dict[str, Seed]:
        """The close before the boundary of symbols that the store does not know, as the exchange has it."""
        gate = asyncio.Semaphore(PRICE_REQUESTS_AT_ONCE)
        seeds: dict[str, Seed] = {}

        async def ask(instrument: Instrument) -> None:
            async with gate:
                rows = await self.rest.klines(
                    instrument.symbol,
                    self.intervals[0],
                    start_ms=boundary_ms - PRICE_LOOKBACK_MS,
                    end_ms=boundary_ms,
                    price_scale=instrument.price_scale,
                    qty_scale=instrument.qty_scale,
                    purpose=Purpose.LIVE,
                )
            if len(rows):
                last = rows[-1]
                seeds[instrument.symbol] = Seed(
                    boundary_ms, int(last["close"]), int(last["price_scale"]), rows[:0], None, known=False
                )

        async with asyncio.TaskGroup() as tasks:
            for instrument in instruments:
                tasks.create_task(ask(instrument))
        return seeds

    def _stream_settings(self) -> StreamSettings:
        return replace(
            StreamSettings.of(self.market),
            silence_s=self.settings.stream_watchdog_s,
            renew_after_s=self.settings.renew_hours * 3_600,
        )

    def _worker_of(self, symbol: str) -> Worker:
        return self.workers[virtual_shard(self.market, symbol) % len(self.workers)]

    # Live

    async def run(self) -> None:
        """Run until cancelled; `start` has been done."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._calibrator.run())
            for streams, worker in zip(self._streams, self.workers, strict=True):
                await streams.add(worker.core.slots)
                tasks.create_task(streams.run())
            await self._catch_up()
            for worker in self.workers:
                tasks.create_task(worker.run())
            tasks.create_task(self._tick())
            tasks.create_task(self._renew())
            await self._fill()
            self.phase = "live"
            log.info("market.live", market=self.market.value, symbols=self.symbols, boundary_ms=self.boundary_ms)
            self.live.set()
            tasks.create_task(self.repairer.run())
            tasks.create_task(self._discover())
            tasks.create_task(self._requeries())
            tasks.create_task(self._history())
            tasks.create_task(self._count_unverified())

    @property
    def symbols(self) -> int:
        """How many symbols have candles made."""
        return sum(len(worker.core.slots) for worker in self.workers)

    async def _catch_up(self) -> None:
        """Close everything since the last run, in bounded chunks between which the sockets are read."""
        self.phase = "closing the minutes since the last run"
        boundary_ms = self.boundary.boundary_ms
        for worker in self.workers:
            while not worker.core.tick(boundary_ms):
                await worker.flush()
                await asyncio.sleep(0)
            await worker.flush()

    async def _fill(self) -> None:
        """Fetch the minutes since the last run before going live, as far as the deadline allows."""
        self.phase = "fetching the minutes since the last run"
        try:
            await self.repairer.fill(FILL_DEADLINE_S)
        except ExchangeError as error:
            self.recent.note("repair.failed", str(error))

    async def _tick(self) -> None:
        ticker = MinuteTicker(self._clock, self.exchange_clock, self.margin, self.boundary.boundary_ms)
        while True:
            boundary_ms = await ticker.next()
            self.boundary.move(boundary_ms)
            self.closed_minutes += 1

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(RENEW_LEASE_S)
            assert self.claim is not None
            await self._store.call(self._store.store.renew, self.claim, self.now_ms)

    async def _requeries(self) -> None:
        """Have minutes that a trade came too late for compared with the exchange."""
        while True:
            await self._clock.sleep(RETRY_S)
            for worker in self.workers:
                for slot, open_ms in worker.core.engine.take_requeries():
                    self.repairer.ask(worker.core.instrument_id(slot), open_ms)

    async def _count_unverified(self) -> None:
        """Keep the number that people are shown; it is the length of the repair queue."""
        store = self._store.store
        while True:
            queue = await self._store.call(
                store.unverified, self.market, before_ms=self.boundary_ms, urgent=None, limit=UNVERIFIED_SHOWN
            )
            self.unverified = len(queue)
            await self._clock.sleep(COUNT_S)

    # What repair and comparison bring

    def _repairable(self) -> dict[int, Instrument]:
        return {self._known[symbol]: instrument for symbol, instrument in self._instruments.items()}

    async def _take_repaired(
        self, instrument_ids: Ints, candles: Candles, base_ids: Ints, bases: Candles, upto_ms: int
    ) -> None:
        for worker in self.workers:
            worker.core.take_repaired(instrument_ids, candles, bases, base_ids, upto_ms)

    async def _fold_verified(self, instrument_ids: Ints, minutes: Candles, numbers_changed: bool) -> None:
        start_ms = int(minutes["open_ms"].min())
        end_ms = int(minutes["open_ms"].max()) + MINUTE_MS
        await self.repairer.refold_after(np.unique(instrument_ids), start_ms, end_ms, numbers_changed=numbers_changed)

    def _given_up(self, gaps: list[Gap]) -> None:
        for gap in gaps:
            self.repairer.fetch(gap.symbol, gap.start_ms, gap.end_ms)

    # Symbols that come and go

    async def _discover(self) -> None:
        discovery = Discovery(
            self._endpoints, self.rest, clock=self._clock, now_ms=lambda: self.now_ms, known=self._instruments.values()
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(discovery.run())
            async for event in discovery.events():
                try:
                    if isinstance(event, Listed):
                        await self._activate(event.instrument, event.price)
                    elif isinstance(event, Changed):
                        await self._change(event.instrument)
                    elif isinstance(event, Retired):
                        await self._retire(event.symbol)
                except (KlaggError, OSError) as error:
                    # A bad symbol is quarantined alone: the market goes on.
                    self.recent.note("symbol.failed", str(error))

    async def _activate(self, instrument: Instrument, price: tuple[int, int] | None) -> None:
        """Take a new symbol in: seed candles in every interval, its streams; done when the seeds are durable."""
        symbol = instrument.symbol
        worker = self._worker_of(symbol)
        if symbol in worker.core.slots or not self.filter.wants(symbol):
            return
        ids = await self._store.call(self._store.store.put_instruments, [instrument], self.now_ms)
        if price is None:
            found = await self._prices([instrument], worker.last_tick_ms)
            if symbol not in found:
                return
            seed = found[symbol]
        else:
            mantissa, scale = price
            seed = Seed(worker.last_tick_ms, mantissa, scale, no_candles(), None, known=False)
        self._known.update(ids)
        self._instruments[symbol] = instrument
        slot = worker.core.seed(instrument, ids[symbol], seed)
        worker.core.snapshot()
        await worker.flush()
        await self._streams[self.workers.index(worker)].add({symbol: slot})
        log.info("symbol.activated", market=self.market.value, symbol=symbol, boundary_ms=worker.last_tick_ms)
        self.recent.counts["symbol.activated"] += 1

    async def _change(self, instrument: Instrument) -> None:
        """A symbol's scales or status changed: the store keeps it, the engine widens by itself when a trade needs it."""
        if instrument.symbol in self._instruments:
            self._instruments[instrument.symbol] = instrument
            await self._store.call(self._store.store.put_instruments, [instrument], self.now_ms)

    async def _retire(self, symbol: str) -> None:
        worker = self._worker_of(symbol)
        if symbol not in worker.core.slots:
            return
        await self._streams[self.workers.index(worker)].remove([symbol])
        worker.core.retire(symbol)
        await worker.flush()
        log.info("symbol.retired", market=self.market.value, symbol=symbol, last_tick_ms=worker.last_tick_ms)

    # History

    async def _history(self) -> None:
        """Fetch the configured depth of history while live candles already run."""
        history_ms = self.settings.history_ms
        if history_ms <= 0:
            self.history_ready = True
            return
        end_ms = self.boundary_ms
        start_ms = end_ms - history_ms
        while True:
            try:
                await backfill(
                    self.rest,
                    self._store,
                    self.market,
                    self._repairable(),
                    self.intervals,
                    start_ms,
                    end_ms,
                    now_ms=lambda: self.now_ms,
                    clock=self._clock,
                    progress=self._progress,
                    on_repaired=self._take_repaired,
                )
            except RestrictedLocation:
                raise
            except (ExchangeError, OSError) as error:
                self.recent.note("history.failed", str(error))
                await self._clock.sleep(RETRY_S)
            else:
                self.history_progress = None
                self.history_ready = True
                log.info("history.ready", market=self.market.value, start_ms=start_ms, end_ms=end_ms)
                return

    def _progress(self, done: int, total: int, weight_per_min: float, eta_s: float) -> None:
        if self.history_progress is None:
            log.info(
                "history.started",
                market=self.market.value,
                text=f"live now; history ready in about {max(eta_s / 60, 0.1):.1f} min at {weight_per_min:.0f} weight/min",
            )
        self.history_progress = (done, total, eta_s)

    # End

    async def stop(self) -> None:
        """Close what is due, flush, give the claim back; the live tasks have ended and the feed has stopped."""
        try:
            if self.claim is not None:
                await self._close_and_flush()
                await self._store.call(self._store.store.release, self.claim)
        finally:
            await self.rest.close()

    async def _close_and_flush(self) -> None:
        if not self.workers:
            return
        boundary_ms = max(self.boundary.boundary_ms, self.exchange_clock.last_boundary_ms())
        for worker in self.workers:
            worker.take()
            while not worker.core.tick(boundary_ms):
                await worker.flush()
            await worker.flush()
