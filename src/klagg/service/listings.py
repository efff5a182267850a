"""The symbols of a running market: those whose candles are made, those that wait for a first price, those that have left."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from klagg.clock import Clock
from klagg.config.values import SymbolFilter
from klagg.errors import ExchangeError, StoreUnavailable
from klagg.exchange.discovery import Changed, Discovery, Event, Listed, Paused, Retired
from klagg.exchange.rest import RestClient
from klagg.exchange.streams import TradeStreams
from klagg.interval import MINUTE, Interval
from klagg.model import Instrument, Market, Status, virtual_shard
from klagg.service.aside import NAMED, put_aside
from klagg.service.pauses import Pause, end_life, forget_running, stored_seeds
from klagg.service.prices import seed_at, seeds_by_rest
from klagg.service.recent import Recent
from klagg.service.shard import Seed
from klagg.service.worker import Worker
from klagg.store.thread import StoreThread

log = structlog.get_logger()

LOOK_S: Final = 1.0
"""How often a symbol that waits is looked for in the mini-ticker: it is to be activated with its first trade."""
REPAIRED_MS: Final = 3_600_000
"""After so long the repair has asked for all that a paused symbol has: what nothing speaks for then is a guess."""
ASIDE_S: Final = 300.0
"""A symbol whose work has failed for a reason nobody foresaw is tried again after this long."""
ASK_S: Final = 300.0
"""How often its price is asked for by REST instead."""


class Listings:
    """Activates and retires the symbols of one market, one at a time; a symbol that fails waits and is tried again.

    Args:
        market: the market.
        wanted: which symbols are wanted.
        ids: the identifiers that the store gave, by symbol.
        instruments: what is known of each symbol that the store has.
        intervals: the kept ones.
        workers: every worker with its streams.
    """

    def __init__(
        self,
        market: Market,
        wanted: SymbolFilter,
        *,
        ids: dict[str, int],
        instruments: dict[str, Instrument],
        intervals: tuple[Interval, ...],
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
        """Symbols that have stopped trading, with the end of the minute in which they did: until then their trades count."""
        self.paused: dict[str, Pause] = {}
        """Symbols that do not trade now and may go on: no candles are made of them, and nothing is asked."""
        self.began_again: dict[int, int] = {}
        """Where the life before ended, of symbols that began another one since the start: nothing is made in between."""
        self.newcomers: dict[int, int] = {}
        """Identifiers of symbols activated since the start, with the boundary they began at: their history is to be fetched."""
        self.ended_ms: dict[str, int] = {}
        """Where the last life of a symbol ended that has not begun another."""
        self._market = market
        self._intervals = intervals
        self._resuming: dict[str, Instrument] = {}
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
        self._rests_ns: dict[str, int] = {}

    def by_id(self) -> dict[int, Instrument]:
        """The instruments that the store knows."""
        return {self.ids[symbol]: instrument for symbol, instrument in self.instruments.items()}

    def not_paused(self) -> dict[int, Instrument]:
        """Those of them of which anything may be asked."""
        return {number: one for number, one in self.by_id().items() if one.symbol not in self.paused}

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
            tasks.create_task(self._look())
            async for event in self._discovery.events():
                await self._take(event)

    async def _take(self, event: Event) -> None:
        """Do what an event asks for; a symbol that fails must not stop the market."""
        symbol = event.instrument.symbol
        if await self._put_aside_if_fails([symbol], self._do(event)) or isinstance(event, Retired | Paused):
            return
        self.waiting[symbol] = event.instrument

    async def _do(self, event: Event) -> None:
        symbol = event.instrument.symbol
        if isinstance(event, Listed):
            await self._activate(event.instrument, event.price)
        elif isinstance(event, Changed):
            await self._change(event.instrument)
        elif isinstance(event, Paused):
            self._leave(event.instrument, Status.HALTED)
        else:
            if event.successor is not None:
                self._successors[symbol] = event.successor
            self._leave(event.instrument, Status.RETIRED)

    async def _put_aside_if_fails(self, symbols: Sequence[str], work: Coroutine[None, None, None]) -> bool:
        """Do some symbols' work in turn; returns whether it was done. Only what is lost for the whole market is raised."""
        try:
            async with self._turn:
                await work
        except (ExchangeError, StoreUnavailable, OSError) as error:
            self._recent.note("symbol.failed", f"{', '.join(symbols[:NAMED])}: {error}")
        except Exception as error:  # noqa: BLE001 - put on record, with its traceback
            put_aside(self._recent, self._market, symbols, error)
            self._rests_ns.update(dict.fromkeys(symbols, self._clock.monotonic_ns() + int(ASIDE_S * 1e9)))
        else:
            return True
        return False

    def _ready(self, symbols: Iterable[str]) -> list[str]:
        """Those of the symbols that have not been put aside."""
        now_ns = self._clock.monotonic_ns()
        return [symbol for symbol in symbols if self._rests_ns.get(symbol, 0) <= now_ns]

    async def _together(
        self, symbols: Sequence[str], work: Callable[[Sequence[str]], Coroutine[None, None, None]]
    ) -> None:
        """Do something for many symbols at once; where that fails for a reason nobody foresaw, for each of them alone."""
        if not symbols or await self._put_aside_if_fails(symbols, work(symbols)):
            return
        if len(symbols) > 1 and not self._ready(symbols):
            for symbol in symbols:
                del self._rests_ns[symbol]
                await self._put_aside_if_fails([symbol], work([symbol]))

    async def _look(self) -> None:
        """Activate the symbols that wait once a price of theirs is known; let those go whose last minute has closed."""
        while True:
            await self._clock.sleep(LOOK_S)
            for symbol in self._ready(self.waiting):
                await self._take(Listed(self.waiting[symbol], None))
            await self._together(self._ready(self._resuming), self._resume)
            stopped = [
                symbol for symbol, (_, end_ms) in self.leaving.items() if self.worker_of(symbol).last_tick_ms >= end_ms
            ]
            await self._together(self._ready(stopped), self._stop)
            for symbol in self._ready(self.paused):
                if symbol not in self._resuming and self.paused[symbol].is_over(self._now_ms()):
                    await self._put_aside_if_fails([symbol], self._end(symbol))

    async def _activate(self, instrument: Instrument, price: tuple[int, int] | None) -> None:
        """Take a new symbol in: seed candles in every interval, its streams; done when the seeds are durable."""
        symbol = instrument.symbol
        self.leaving.pop(symbol, None)
        worker, streams = self._home(symbol)
        if symbol in worker.core.slots or not self._wanted.wants(symbol):
            self.waiting.pop(symbol, None)
            return
        pause = self.paused.get(symbol)
        if pause is not None:
            if not pause.is_over(self._now_ms()):
                self._resuming[symbol] = instrument
                return
            await self._end(symbol)
        if symbol not in self.ids or self.instruments.get(symbol) != instrument:
            await self._put(instrument)
        if symbol in self.ended_ms:
            self.began_again[self.ids[symbol]] = self.ended_ms.pop(symbol)
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
        """A symbol's scales changed: the store keeps it, the engine widens by itself when a trade needs it."""
        symbol = instrument.symbol
        if symbol in self.worker_of(symbol).core.slots:
            await self._put(instrument)
        else:
            await self._activate(instrument, None)

    def _leave(self, instrument: Instrument, status: Status) -> None:
        """Have a symbol let go once the minute in which it stopped trading has closed."""
        symbol = instrument.symbol
        self.waiting.pop(symbol, None)
        self._resuming.pop(symbol, None)
        if symbol in self.ids:
            stopped = replace(instrument, status=status)
            self.leaving[symbol] = stopped, MINUTE.next_open(MINUTE.open_at(self._now_ms()))

    async def _stop(self, symbols: Sequence[str]) -> None:
        """Stop making candles of these symbols, for good or for now; what they have is kept and repaired."""
        symbols = [symbol for symbol in symbols if symbol in self.leaving]
        for worker, streams in self._workers:
            here = [symbol for symbol in symbols if symbol in worker.core.slots]
            if here:
                await streams.remove(here)
                for symbol in here:
                    worker.core.retire(symbol)
                await worker.flush()
        await self._store.call(forget_running, self._store.store, [self.ids[symbol] for symbol in symbols])
        paused = []
        for symbol in symbols:
            instrument, end_ms = self.leaving[symbol]
            if instrument.status is Status.RETIRED:
                await self._retire(instrument, end_ms)
            else:
                await self._put(instrument, end_ms)
                self.paused[symbol] = Pause(instrument, end_ms)
                paused.append(symbol)
            del self.leaving[symbol]
        if paused:
            self._tell_paused(paused)

    async def _retire(self, instrument: Instrument, end_ms: int) -> None:
        """Keep on record that a symbol has left: what it has stays."""
        symbol = instrument.symbol
        pause = self.paused.get(symbol)
        if pause is not None:
            end_ms = pause.since_ms
            if self._now_ms() - end_ms > REPAIRED_MS:
                end_ms = await self._store.call(end_life, self._store.store, self.ids[symbol], end_ms)
        await self._put(instrument, end_ms)
        self.paused.pop(symbol, None)
        self.ended_ms[symbol] = end_ms
        successor = self._successors.pop(symbol, None)
        if successor in self.ids:
            await self._store.call(
                self._store.store.put_rename, self.ids[symbol], self.ids[successor], MINUTE.open_at(end_ms - 1)
            )
            log.info("symbol.renamed", market=self._market.value, symbol=symbol, successor=successor)
        log.info("symbol.retired", market=self._market.value, symbol=symbol, last_tick_ms=end_ms)

    # Pauses

    async def _resume(self, symbols: Sequence[str]) -> None:
        """Go on with symbols that trade again: the minutes of the pause are made, and left to the repair."""
        symbols = [symbol for symbol in symbols if symbol in self._resuming]
        names = {self.ids[symbol]: symbol for symbol in symbols}
        seeds = await self._store.call(stored_seeds, self._store.store, self._market, self._intervals, names)
        resumed = []
        for symbol in symbols:
            instrument = self._resuming[symbol]
            if self.ids[symbol] not in seeds:
                # It had no candle yet: it begins as a new one does.
                del self.paused[symbol], self._resuming[symbol]
                self.waiting[symbol] = instrument
                continue
            await self._put(instrument)
            if symbol not in self.worker_of(symbol).core.slots:
                self.seed(instrument, seeds[self.ids[symbol]])
            resumed.append(symbol)
        for worker, streams in self._workers:
            slots = {symbol: worker.core.slots[symbol] for symbol in resumed if symbol in worker.core.slots}
            if slots:
                while not worker.core.tick(worker.last_tick_ms):
                    await worker.flush()
                await worker.flush()
                await streams.add(slots)
                self.newcomers.update({self.ids[symbol]: worker.last_tick_ms for symbol in slots})
        for symbol in resumed:
            del self.paused[symbol], self._resuming[symbol]
        if resumed:
            self._recent.counts["symbol.resumed"] += len(resumed)
            log.info("symbol.resumed", market=self._market.value, count=len(resumed), symbols=sorted(resumed)[:NAMED])

    async def departed(self, symbol: str, instrument: Instrument, end_ms: int) -> None:
        """Keep the state of a symbol that stopped trading at `end_ms`, while no process ran, unless it has gone on since."""
        async with self._turn:
            if symbol in self.worker_of(symbol).core.slots or symbol in self.waiting:
                return
            if instrument.status is Status.RETIRED:
                self.paused.pop(symbol, None)
                await self._retire(instrument, end_ms)
            elif symbol in self.paused and symbol not in self._resuming:
                await self._put(instrument, end_ms)
                self.paused[symbol] = Pause(instrument, end_ms)
                self._tell_paused([symbol])

    async def _end(self, symbol: str) -> None:
        """A pause has lasted so long that this life has ended: where its last candle is that anything speaks for."""
        pause = self.paused[symbol]
        await self._retire(replace(pause.instrument, status=Status.RETIRED), pause.since_ms)

    def _tell_paused(self, symbols: Sequence[str]) -> None:
        self._recent.counts["symbol.paused"] += len(symbols)
        log.info("symbol.paused", market=self._market.value, count=len(symbols), symbols=sorted(symbols)[:NAMED])

    async def _put(self, instrument: Instrument, at_ms: int | None = None) -> None:
        at_ms = self._now_ms() if at_ms is None else at_ms
        ids = await self._store.call(self._store.store.put_instruments, [instrument], at_ms)
        self.ids.update(ids)
        self.instruments[instrument.symbol] = instrument
