"""One market, from claim to live: its clock, its workers, its repair, its discovery."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np
import structlog

from klagg.clock import Calibrator, Clock, ExchangeClock, Margin, MinuteTicker
from klagg.config.settings import Settings
from klagg.errors import StoreError, StoreUnavailable
from klagg.exchange.budget import DEFAULT_LIMITS, WeightBudget, shares
from klagg.exchange.discovery import Discovery
from klagg.exchange.endpoints import for_market
from klagg.exchange.lane import LaneStats
from klagg.exchange.pacing import ConnectGate
from klagg.exchange.rest import RestClient
from klagg.exchange.settings import StreamSettings
from klagg.exchange.streams import TradeStreams
from klagg.exchange.transport import SOCKETS, Transport
from klagg.interval import DAY_MS, MINUTE_MS
from klagg.model import VIRTUAL_SHARDS, Candles, Gap, Instrument, Ints, Market, Status
from klagg.repair import Repairer
from klagg.repair.holes import Holes
from klagg.service.auditing import ContinuousAudit
from klagg.service.departures import Departures
from klagg.service.facts import StoredFacts, stored_facts
from klagg.service.holes import HoleFilling
from klagg.service.listings import Listings
from klagg.service.past import Past
from klagg.service.pauses import Pause, end_life, stored_seeds
from klagg.service.prices import seeds_by_rest
from klagg.service.recent import Recent
from klagg.service.seams import Seams
from klagg.service.shard import Seed, ShardCore
from klagg.service.sorting import Sorted, Sorting
from klagg.service.ticks import Boundary
from klagg.service.worker import Committed, Worker
from klagg.store import Claim, Commit, CommitResult
from klagg.store.budget import WeightLedger
from klagg.store.thread import StoreThread

log = structlog.get_logger()

FILL_DEADLINE_S: Final = 20.0
"""How long a start waits for the minutes since the last run before it goes live; the rest is repaired while it runs."""
LAST_FLUSH_S: Final = 10.0
"""Real seconds that the end waits for the database."""
RENEW_LEASE_S: Final = 5.0
RETRY_S: Final = 5.0
COUNT_S: Final = 3.0
FACTS_S: Final = 30.0
"""What else the database says is read this often: the last hour of a whole market takes some tens of milliseconds."""
UNVERIFIED_SHOWN: Final = 10_000
"""Counting stops here: more than this is simply much."""
LISTS_ASKED: Final = 3
"""A symbol list that lacks too much of what is stored is asked for again so often, some seconds apart."""


def owner_name() -> str:
    """Who holds a claim, as another process would be told: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def joined_late(begun: Mapping[int, int], boundary_ms: int) -> dict[int, int]:
    """The instruments whose candles began after the market's first, within the last day, and where they did.

    The process may have ended between their activation and the fetch of what passed since their listing: it is looked at
    again, for one request each.
    """
    first_ms = min(begun.values(), default=0)
    return {number: at_ms for number, at_ms in begun.items() if max(first_ms, boundary_ms - DAY_MS - 1) < at_ms}


class MarketService:
    """Everything of one market that runs in this process."""

    def __init__(
        self, market: Market, settings: Settings, store: StoreThread, clock: Clock, transport: Transport = SOCKETS
    ) -> None:
        self.market = market
        self.settings = settings
        self.intervals = settings.interval_set
        self.filter = settings.symbol_filter(market)
        self.exchange_clock = ExchangeClock(clock)
        self.recent = Recent(market, self._now_or_zero)
        self.margin = Margin.of(market, settings.margin)
        endpoints = for_market(market, settings.rest_urls.get(market), settings.ws_urls.get(market))
        self.budget = WeightBudget(
            DEFAULT_LIMITS[market],
            clock=clock,
            now_ms=self._now_or_zero,
            shares=shares(settings.weight_share),
            ledger=WeightLedger(store, market, endpoints.rest_url),
        )
        self.rest = RestClient(
            endpoints, clock=clock, now_ms=self._now_or_zero, budget=self.budget, transport=transport
        )
        self.claim: Claim | None = None
        self.workers: list[Worker] = []
        self.phase = "starting"
        self.closed_minutes = 0
        self.unverified = 0
        self.stored = StoredFacts()
        """What the database said last."""
        self.live = asyncio.Event()
        self.on_commit: list[Committed] = []
        """Who is told what has just become durable."""
        self._endpoints = endpoints
        self._clock = clock
        self._store = store
        self._transport = transport
        self._streams: list[TradeStreams] = []
        self._calibrator = Calibrator(clock, self.exchange_clock, self.rest.server_time, chance=transport.chance())
        self._gate = ConnectGate(clock)

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
        """Calibrate, claim, load: everything that must be before the streams and the live tasks.

        Raises:
            KlaggError: what stands in the way, in one line.
        """
        await self._calibrator.start()
        listed = await self.rest.instruments()
        store = self._store.store
        sorting = await self._sorting()
        for _ in range(LISTS_ASKED):
            if not sorting.is_doubtful(listed):
                break
            await self._clock.sleep(RETRY_S)
            listed = await self.rest.instruments()
        sorting.sort(listed)  # what is wanted may be wrong: that is said before anything is claimed
        claim = await self._store.call(
            store.claim,
            self.market,
            owner=owner_name(),
            now_ms=self.now_ms,
            take_over=self.settings.take_over,
        )
        self.claim = claim
        await self._store.call(store.set_intervals, self.market, self.intervals)
        sorting = await self._sorting()
        symbols = sorting.sort(listed)
        going_on = [instrument for instrument in symbols.trading if instrument.symbol not in symbols.were_paused]
        ids = sorting.ids | await self._store.call(store.put_instruments, going_on, self.now_ms)
        log.info(
            "market.claimed",
            market=self.market.value,
            epoch=claim.epoch,
            symbols=len(symbols.trading),
            paused=len(symbols.paused),
        )
        await self._load(listed, symbols, ids, claim)

    async def _sorting(self) -> Sorting:
        return Sorting(self.market, self.filter, await self._store.call(self._store.store.instruments, self.market))

    async def _load(self, listed: Sequence[Instrument], symbols: Sorted, ids: dict[str, int], claim: Claim) -> None:
        """Seed the engine from the store, and symbols that it does not know from the exchange's last close."""
        self.phase = "loading"
        store = self._store.store
        chosen = symbols.trading
        boundary_ms = self.exchange_clock.last_boundary_ms()
        known = {ids[symbol]: symbol for symbol in (*(one.symbol for one in chosen), *symbols.stopped)}
        stored = await self._store.call(stored_seeds, store, self.market, self.intervals, known)
        await self._resume(symbols, ids, stored, boundary_ms)
        names = {ids[instrument.symbol]: instrument.symbol for instrument in chosen}
        # A symbol that had retired begins another life: nothing is made for the time between.
        seeds = {
            names[number]: seed
            for number, seed in stored.items()
            if number in names and names[number] not in symbols.again
        }
        self.boundary = Boundary(boundary_ms)
        self._discovery = Discovery(
            self._endpoints,
            self.rest,
            clock=self._clock,
            now_ms=lambda: self.now_ms,
            known=(*listed, *symbols.absent),
            absent=[instrument.symbol for instrument in symbols.absent],
            settings=self._stream_settings(),
            gate=self._gate,
            transport=self._transport,
        )
        for number in range(self.settings.workers):
            self._hire(number, claim)
        self.listings = Listings(
            self.market,
            self.filter,
            ids=ids,
            instruments={instrument.symbol: instrument for instrument in (*chosen, *symbols.stopped.values())},
            intervals=self.intervals,
            workers=list(zip(self.workers, self._streams, strict=True)),
            discovery=self._discovery,
            rest=self.rest,
            store=self._store,
            clock=self._clock,
            now_ms=lambda: self.now_ms,
            recent=self.recent,
        )
        self.repairer = Repairer(
            self.market,
            self.rest,
            self._store,
            self.listings.by_id,
            now_ms=lambda: self.now_ms,
            clock=self._clock,
            intervals=self.intervals,
            on_repaired=self._take_repaired,
            held_from=self._held_from,
        )
        self.holes = HoleFilling(
            self.market,
            [worker.core for worker in self.workers],
            Holes(self.market, self.rest, lambda: self.now_ms),
            clock=self._clock,
            now_ms=lambda: self.now_ms,
            recent=self.recent,
        )
        self.past = Past(
            self.market,
            self.settings.history_ms,
            self.intervals,
            listings=self.listings,
            rest=self.rest,
            store=self._store,
            clock=self._clock,
            now_ms=lambda: self.now_ms,
            on_repaired=self._take_repaired,
            held_from=self._held_from,
            recent=self.recent,
            absent_ms=boundary_ms - (self._closed_before_ms(claim) or boundary_ms),
        )
        first = await self._store.call(store.first_minutes, self.market)
        self.seams = Seams(
            self.market,
            listings=self.listings,
            past=self.past,
            store=self._store,
            repairer=self.repairer,
            intervals=self.intervals,
            clock=self._clock,
            recent=self.recent,
            now_ms=lambda: self.now_ms,
            absent_ms=boundary_ms - (self._closed_before_ms(claim) or boundary_ms),
            began_ms=min(first.values(), default=boundary_ms),
        )
        self.audit = ContinuousAudit(
            self.market,
            self.rest,
            self._store,
            self.listings.not_paused,
            intervals=self.intervals,
            weight_share=self.settings.audit_weight_share,
            repair=self.settings.audit_repair,
            now_ms=lambda: self.now_ms,
            clock=self._clock,
            recent=self.recent,
            ready=lambda: self.past.ready,
            on_repaired=self._take_repaired,
            held_from=self._held_from,
        )
        self.listings.ended_ms.update(symbols.ended_ms)
        self.listings.began_again.update({ids[symbol]: symbols.ended_ms.pop(symbol) for symbol in symbols.again})
        self.departures = Departures(
            self.market,
            listings=self.listings,
            rest=self.rest,
            store=self._store,
            repairer=self.repairer,
            clock=self._clock,
            recent=self.recent,
            now_ms=lambda: self.now_ms,
            boundary_ms=boundary_ms,
        )
        for symbol, instrument in symbols.stopped.items():
            seed = stored.get(ids[symbol])
            since_ms = boundary_ms if seed is None else seed.boundary_ms
            if instrument.status is Status.HALTED:
                self.listings.paused[symbol] = Pause(instrument, since_ms)
            if symbol in symbols.unseen_end:
                self.departures.unseen[symbol] = since_ms
        new = [instrument for instrument in chosen if instrument.symbol not in seeds]
        if self._closed_before_ms(claim) or self.settings.history_ms == 0:
            # Listed since the last run: what passed since then is theirs too; and without a history, what their running candles had.
            self.listings.newcomers.update({ids[instrument.symbol]: boundary_ms for instrument in new})
        begun = {
            ids[symbol]: first.get(ids[symbol], seed.boundary_ms) for symbol, seed in seeds.items() if symbol in ids
        }
        self.listings.newcomers.update(joined_late(begun, boundary_ms))
        seeds.update(await seeds_by_rest(self.rest, new, boundary_ms, self.recent))
        for instrument in chosen:
            if instrument.symbol in seeds:
                self.listings.seed(instrument, seeds[instrument.symbol])
            else:
                self.listings.waiting[instrument.symbol] = instrument
        log.info(
            "market.loaded",
            market=self.market.value,
            restored=len(chosen) - len(new),
            new=len(new),
            unpriced=len(self.listings.waiting),
            paused=len(self.listings.paused),
        )

    async def _resume(
        self, symbols: Sorted, ids: Mapping[str, int], stored: Mapping[int, Seed], boundary_ms: int
    ) -> None:
        """Of the symbols that were paused and trade now, end the lives of those whose pause was too long."""
        store = self._store.store
        for instrument in symbols.trading:
            symbol = instrument.symbol
            seed = stored.get(ids[symbol])
            if symbol in symbols.were_paused and seed is not None:
                pause = Pause(instrument, seed.boundary_ms)
                if pause.is_over(boundary_ms):
                    end_ms = await self._store.call(end_life, store, ids[symbol], pause.since_ms)
                    retired = replace(instrument, status=Status.RETIRED)
                    await self._store.call(store.put_instruments, [retired], end_ms)
                    symbols.again.add(symbol)
                    symbols.ended_ms[symbol] = end_ms
        resumed = [instrument for instrument in symbols.trading if instrument.symbol in symbols.were_paused]
        await self._store.call(store.put_instruments, resumed, self.now_ms)

    @staticmethod
    def _closed_before_ms(claim: Claim) -> int:
        """Up to where an earlier run has closed; 0 where there was none."""
        return int(claim.closed_upto.max())

    def _hire(self, number: int, claim: Claim) -> None:
        """A worker for every n-th virtual shard, with its own streams."""
        name = f"{self.market.value}-{number}"
        owned = range(number, VIRTUAL_SHARDS, self.settings.workers)
        core = ShardCore(self.market, owned, claim, self.intervals, bound_bytes=self.settings.memory_bytes)
        streams = TradeStreams(
            self._endpoints,
            clock=self._clock,
            now_ms=lambda: self.now_ms,
            settings=self._stream_settings(),
            gate=self._gate,
            transport=self._transport,
            name=name,
        )
        streams.traded_ms = self._discovery.traded_ms
        self._streams.append(streams)
        self.workers.append(
            Worker(
                name,
                core,
                streams,
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
        self.workers[-1].on_commit = self._committed

    def _committed(self, batch: Commit, result: CommitResult) -> None:
        for tell in self.on_commit:
            tell(batch, result)

    def _stream_settings(self) -> StreamSettings:
        return replace(
            StreamSettings.of(self.market),
            silence_s=self.settings.stream_watchdog_s,
            renew_after_s=self.settings.renew_hours * 3_600,
        )

    # Live

    async def run(self) -> None:
        """Run until cancelled; `start` has been done."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._calibrator.run())
            tasks.create_task(self._discovery.run())
            for streams, worker in zip(self._streams, self.workers, strict=True):
                await streams.add(worker.core.slots)
                tasks.create_task(streams.run())
            await self._catch_up()
            for worker in self.workers:
                tasks.create_task(worker.run())
            tasks.create_task(self.margin.learn(self._clock))
            tasks.create_task(self._tick())
            tasks.create_task(self._renew())
            tasks.create_task(self.holes.run())
            await self._fill()
            self.phase = "live"
            log.info("market.live", market=self.market.value, symbols=self.symbols, boundary_ms=self.boundary_ms)
            self.live.set()
            tasks.create_task(self.repairer.run())
            tasks.create_task(self.listings.run())
            tasks.create_task(self.departures.run())
            tasks.create_task(self.seams.run())
            tasks.create_task(self._requeries())
            tasks.create_task(self.past.run(self.boundary_ms))
            tasks.create_task(self.audit.run())
            tasks.create_task(self._count_unverified())

    @property
    def symbols(self) -> int:
        """How many symbols have candles made."""
        return sum(len(worker.core.slots) for worker in self.workers)

    def lanes(self) -> list[LaneStats]:
        """How each connection fares, that of discovery too."""
        lanes = [lane for streams in self._streams for lane in streams.stats()]
        return [*lanes, self._discovery.stats()] if self.workers else lanes

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
        await self.repairer.fill(FILL_DEADLINE_S)

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
            try:
                await self._store.call(self._store.store.renew, self.claim, self.now_ms)
            except StoreUnavailable as error:
                # The database is away; if another takes over meanwhile, the fence of the next write tells.
                self.recent.note("store.renew_failed", str(error))

    async def _requeries(self) -> None:
        """Have minutes compared with the exchange that a trade came too late for, or of which its push and its trades tell otherwise."""
        while True:
            await self._clock.sleep(RETRY_S)
            for worker in self.workers:
                for slot, open_ms in (*worker.core.engine.take_requeries(), *worker.comparison.take_asked()):
                    self.repairer.ask(worker.core.instrument_id(slot), open_ms)

    async def _count_unverified(self) -> None:
        """Keep the number that people are shown; it is the length of the repair queue."""
        store = self._store.store
        while True:
            with suppress(StoreUnavailable):
                queue = await self._store.call(
                    store.unverified, self.market, before_ms=self.boundary_ms, urgent=None, limit=UNVERIFIED_SHOWN
                )
                self.unverified = len(queue)
                if self.now_ms - self.stored.read_ms >= FACTS_S * 1e3:
                    self.stored = await self._store.call(
                        stored_facts, store, self.market, self.boundary_ms, self.now_ms
                    )
            await self._clock.sleep(COUNT_S)

    # What repair and comparison bring

    async def _take_repaired(
        self, instrument_ids: Ints, candles: Candles, base_ids: Ints, bases: Candles, upto_ms: int
    ) -> None:
        for worker in self.workers:
            worker.core.take_repaired(instrument_ids, candles, bases, base_ids, upto_ms)

    def _held_from(self, instrument_id: int) -> int:
        return max(worker.core.held_from(instrument_id) for worker in self.workers)

    async def _fold_verified(self, instrument_ids: Ints, minutes: Candles, numbers_changed: bool) -> None:
        start_ms = int(minutes["open_ms"].min())
        end_ms = int(minutes["open_ms"].max()) + MINUTE_MS
        await self.repairer.refold_after(np.unique(instrument_ids), start_ms, end_ms, numbers_changed=numbers_changed)

    def _given_up(self, gaps: list[Gap]) -> None:
        for gap in gaps:
            self.repairer.fetch(gap.symbol, gap.start_ms, gap.end_ms)

    # History

    @property
    def history_ready(self) -> bool:
        """Whether the configured depth of history is there, and was looked through for holes."""
        return self.workers != [] and self.past.ready and self.seams.looked > 0

    @property
    def history_progress(self) -> tuple[int, int, float] | None:
        """Days of symbols done, all of them, and seconds left; None while none is fetched."""
        return self.past.progress if self.workers else None

    # End

    async def stop(self) -> None:
        """Close what is due, flush, give the claim back; the live tasks have ended and the feed has stopped.

        Raises:
            StoreError: the database did not take what was left, within a bounded time.
        """
        try:
            if self.claim is not None:
                async with asyncio.timeout(LAST_FLUSH_S):
                    await self._close_and_flush()
                    await self._store.call(self._store.store.release, self.claim)
        except TimeoutError:
            left = sum(worker.core.outbox.candles for worker in self.workers)
            raise StoreError(
                f"{self._store.store.path}: {left} candles of market {self.market.value} could not be written in "
                f"{LAST_FLUSH_S:.0f} s: free the database; the next start fetches their minutes again"
            ) from None
        finally:
            await self.rest.close()

    async def _close_and_flush(self) -> None:
        if not self.workers:
            return
        boundary_ms = max(self.boundary.boundary_ms, self.exchange_clock.last_boundary_ms())
        for worker in self.workers:
            worker.take()
            if worker.last_tick_ms < boundary_ms:
                # Its tick was still to come, and with it trades that are on their way: that nothing came proves nothing.
                worker.core.engine.blind(worker.core.engine.live.tolist(), boundary_ms - 1)
            while not worker.core.tick(boundary_ms):
                await worker.flush()
            await worker.flush()
