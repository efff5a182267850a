"""The symbols of a running market: those whose candles are made, those that wait for a first price, those that have left."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from klagg.clock import Clock
from klagg.config.values import SymbolFilter
from klagg.errors import ExchangeError, StoreUnavailable
from klagg.exchange.discovery import Changed, Discovery, Event, Listed, Retired
from klagg.exchange.rest import RestClient
from klagg.exchange.streams import TradeStreams
from klagg.interval import MINUTE
from klagg.model import Instrument, Market, Status, virtual_shard
from klagg.service.prices import seed_at, seeds_by_rest
from klagg.service.recent import Recent
from klagg.service.shard import Seed
from klagg.service.worker import Worker
from klagg.store.thread import StoreThread

log = structlog.get_logger()

LOOK_S: Final = 1.0
"""How often a symbol that waits is looked for in the mini-ticker: it is to be activated with its first trade."""
ASK_S: Final = 300.0
"""How often its price is asked for by REST instead."""


class Listings:
    """Activates and retires the symbols of one market, one at a time; a symbol that fails waits and is tried again.

    Args:
        market: the market.
        wanted: which symbols are wanted.
        ids: the identifiers that the store gave, by symbol.
        instruments: what is known of each symbol that the store has.
        workers: every worker with its streams.
    """

    def __init__(
        self,
        market: Market,
        wanted: SymbolFilter,
        *,
        ids: dict[str, int],
        instruments: dict[str, Instrument],
        workers: Sequence[tuple[Worker, TradeStreams]],
        discovery: Discovery,
        rest: RestClient,
        store: StoreThread,
        clock: Clock,
        now_ms: Callable[[], int],
        recent: Recent,
    ) -> None:
        self.ids = ids
        self.instruments = instruments
        self.waiting: dict[str, Instrument] = {}
        """Symbols that trade, or will, and of which no price is known yet."""
        self.leaving: dict[str, tuple[Instrument, int]] = {}
        """Symbols that have left trading, with the end of the minute in which they did: until then their trades count."""
        self.newcomers: dict[int, int] = {}
        """Identifiers of symbols activated since the start, with the boundary they began at: their history is to be fetched."""
        self._market = market
        self._wanted = wanted
        self._workers = workers
        self._discovery = discovery
        self._rest = rest
        self._store = store
        self._clock = clock
        self._now_ms = now_ms
        self._recent = recent
        self._successors: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._asked_ns: dict[str, int] = {}

    def by_id(self) -> dict[int, Instrument]:
        """The instruments that the store knows."""
        return {self.ids[symbol]: instrument for symbol, instrument in self.instruments.items()}

    def worker_of(self, symbol: str) -> Worker:
        """Whose symbol it is."""
        return self._home(symbol)[0]

    def _home(self, symbol: str) -> tuple[Worker, TradeStreams]:
        return self._workers[virtual_shard(self._market, symbol) % len(self._workers)]

    def seed(self, instrument: Instrument, seed: Seed) -> int:
        """Take a symbol into its worker; returns its slot."""
        core = self.worker_of(instrument.symbol).core
        return core.seed(instrument, self.ids[instrument.symbol], seed)

    async def run(self) -> None:
        """Follow the exchange's news until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._retry())
            async for event in self._discovery.events():
                await self._quarantined(event.symbol if isinstance(event, Retired) else event.instrument.symbol, event)

    async def _quarantined(self, symbol: str, event: Event) -> None:
        """Do what an event asks for; a symbol that fails must not stop the market."""
        try:
            async with self._turn:
                if isinstance(event, Listed):
                    await self._activate(event.instrument, event.price)
                elif isinstance(event, Changed):
                    await self._change(event.instrument)
                else:
                    if event.successor is not None:
                        self._successors[symbol] = event.successor
                    self._leave(event.instrument)
        except (ExchangeError, StoreUnavailable, OSError) as error:
            self._recent.note("symbol.failed", f"{symbol}: {error}")
            if not isinstance(event, Retired):
                self.waiting[symbol] = event.instrument

    async def _retry(self) -> None:
        """Activate the symbols that wait once a price of theirs is known; retire those whose last minute has closed."""
        while True:
            await self._clock.sleep(LOOK_S)
            for symbol, instrument in tuple(self.waiting.items()):
                await self._quarantined(symbol, Listed(instrument, None))
            for symbol, (instrument, end_ms) in tuple(self.leaving.items()):
                if symbol in self.leaving and self.worker_of(symbol).last_tick_ms >= end_ms:
                    try:
                        async with self._turn:
                            await self._retire(instrument, end_ms)
                    except StoreUnavailable as error:
                        self._recent.note("symbol.failed", f"{symbol}: {error}")

    async def _activate(self, instrument: Instrument, price: tuple[int, int] | None) -> None:
        """Take a new symbol in: seed candles in every interval, its streams; done when the seeds are durable."""
        symbol = instrument.symbol
        self.leaving.pop(symbol, None)
        worker, streams = self._home(symbol)
        if symbol in worker.core.slots or not self._wanted.wants(symbol):
            self.waiting.pop(symbol, None)
            return
        if symbol not in self.ids or self.instruments.get(symbol) != instrument:
            await self._put(instrument)
        # Not between a boundary and its tick: the seeds would begin a minute before the listing.
        due = MINUTE.open_at(max(self._now_ms(), instrument.listed_ms)) <= worker.last_tick_ms
        seed = await self._seed(instrument, price, worker) if due else None
        if seed is None:
            if symbol not in self.waiting:
                log.info("symbol.waits", market=self._market.value, symbol=symbol, listed_ms=instrument.listed_ms)
            self.waiting[symbol] = instrument
            return
        self.waiting.pop(symbol, None)
        slot = self.seed(instrument, seed)
        worker.core.snapshot()
        await worker.flush()
        await streams.add({symbol: slot})
        self.newcomers[self.ids[symbol]] = seed.boundary_ms
        log.info("symbol.activated", market=self._market.value, symbol=symbol, boundary_ms=seed.boundary_ms)
        self._recent.counts["symbol.activated"] += 1

    async def _seed(self, instrument: Instrument, price: tuple[int, int] | None, worker: Worker) -> Seed | None:
        """At the last price of the mini-ticker, else at the last close that the exchange has; None while there is none."""
        symbol = instrument.symbol
        if price is None and (last := self._discovery.last_price.get(symbol)) is not None:
            price = last.mantissa, last.scale
        if price is not None and price[0] > 0:
            return seed_at(worker.last_tick_ms, *price)
        now_ns = self._clock.monotonic_ns()
        if symbol in self._asked_ns and now_ns - self._asked_ns[symbol] < ASK_S * 1e9:
            return None
        self._asked_ns[symbol] = now_ns
        found = await seeds_by_rest(self._rest, [instrument], worker.last_tick_ms, self._recent)
        return found.get(symbol)

    async def _change(self, instrument: Instrument) -> None:
        """A symbol's scales or status changed: the store keeps it, the engine widens by itself when a trade needs it."""
        symbol = instrument.symbol
        if symbol in self.worker_of(symbol).core.slots:
            await self._put(instrument)
        else:
            await self._activate(instrument, None)

    def _leave(self, instrument: Instrument) -> None:
        """Have a symbol retired once the minute in which it left trading has closed."""
        self.waiting.pop(instrument.symbol, None)
        if instrument.symbol in self.ids:
            gone = replace(instrument, status=Status.RETIRED)
            self.leaving[instrument.symbol] = gone, MINUTE.next_open(MINUTE.open_at(self._now_ms()))

    async def _retire(self, instrument: Instrument, end_ms: int) -> None:
        """Stop making candles of a symbol; what it has is kept and repaired."""
        symbol = instrument.symbol
        worker, streams = self._home(symbol)
        if symbol in worker.core.slots:
            await streams.remove([symbol])
            worker.core.retire(symbol)
            await worker.flush()
        await self._put(instrument, end_ms)
        successor = self._successors.pop(symbol, None)
        if successor in self.ids:
            await self._store.call(
                self._store.store.put_rename, self.ids[symbol], self.ids[successor], MINUTE.open_at(end_ms - 1)
            )
            log.info("symbol.renamed", market=self._market.value, symbol=symbol, successor=successor)
        del self.leaving[symbol]
        log.info("symbol.retired", market=self._market.value, symbol=symbol, last_tick_ms=worker.last_tick_ms)

    async def _put(self, instrument: Instrument, at_ms: int | None = None) -> None:
        at_ms = self._now_ms() if at_ms is None else at_ms
        ids = await self._store.call(self._store.store.put_instruments, [instrument], at_ms)
        self.ids.update(ids)
        self.instruments[instrument.symbol] = instrument
