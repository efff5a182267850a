"""The read side of a running service: what serving asks, answered from the engines' memory, and its address."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from klagg.clock import Clock, SystemClock
from klagg.config.settings import Settings
from klagg.config.values import parse_endpoint
from klagg.interval import Interval
from klagg.model import CANDLE, Candles, Instrument, Market
from klagg.serve.access import Access
from klagg.serve.folding import with_later
from klagg.serve.listening import listen
from klagg.serve.source import Committed, Listing, Live
from klagg.service.desk import OpsSource
from klagg.service.followers import Followers
from klagg.service.market import MarketService
from klagg.service.ops import Ops
from klagg.service.polling import PolledLive
from klagg.service.reading import Reader
from klagg.store import Commit, CommitResult, StoredInstrument, open_store

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

log = structlog.get_logger()

STALE_MS: Final = 90_000
"""A market whose newest durable minute ended longer ago than this is not writing."""


class _Listed:
    """The symbols of one market: those of earlier runs as stored, and those of this run as they are now."""

    def __init__(self, stored: Sequence[StoredInstrument]) -> None:
        self._stored = {one.instrument.symbol: one for one in stored}
        self._seen: dict[str, Instrument] = {}
        self._made: Mapping[str, Listing] = {}

    def listings(self, ids: Mapping[str, int], now: dict[str, Instrument]) -> Mapping[str, Listing]:
        if not self._made or self._seen != now:
            self._seen = dict(now)
            made = {symbol: Listing(one.id, one.instrument, one.retired_ms) for symbol, one in self._stored.items()}
            for symbol, instrument in now.items():
                if symbol in ids:
                    made[symbol] = Listing(ids[symbol], instrument)
            self._made = made
        return self._made


class RunningLive:
    """`serve.Live` of markets that run in this process."""

    def __init__(self, markets: Sequence[MarketService], reader: Reader) -> None:
        self.followers = Followers()
        self._markets = {market.market: market for market in markets}
        self._reader = reader
        self._listed: dict[Market, _Listed] = {}
        for market in markets:
            market.on_commit.append(partial(self._committed, market.market))

    async def load(self) -> None:
        """Learn the symbols of earlier runs, once each market is live."""
        for name, market in self._markets.items():
            await market.live.wait()
            self._listed[name] = _Listed(await self._reader.instruments(name))

    @property
    def markets(self) -> Sequence[Market]:
        """The markets that run."""
        return tuple(self._markets)

    def is_live(self, market: Market) -> bool:
        """Whether a market is live and its symbols are known."""
        return market in self._listed

    def now_ms(self, market: Market) -> int:
        """The exchange's time; of a market that does not run, that of the one that does."""
        chosen = self._markets.get(market) or next(iter(self._markets.values()))
        clock = chosen.exchange_clock
        return clock.now_ms() if clock.age_ms != float("inf") else time.time_ns() // 1_000_000

    def listings(self, market: Market) -> Mapping[str, Listing]:
        """The symbols by name."""
        listed = self._listed.get(market)
        if listed is None:
            return {}
        listings = self._markets[market].listings
        return listed.listings(listings.ids, listings.instruments)

    def kept(self, market: Market) -> Sequence[Interval]:
        """The intervals that are kept."""
        return self._markets[market].intervals

    def durable_ms(self, market: Market) -> int:
        """The boundary up to which all workers' commits are through."""
        return min((worker.durable_upto_ms for worker in self._markets[market].workers), default=0)

    def running(self, market: Market, symbols: Sequence[str]) -> Candles:
        """The running candles, [symbols, intervals]: what is closed of them and the running minute."""
        intervals = self._markets[market].intervals
        out = np.zeros((len(symbols), len(intervals)), CANDLE)
        for worker in self._markets[market].workers:
            slots = worker.core.slots
            places = [place for place, symbol in enumerate(symbols) if symbol in slots]
            if places:
                chosen = [slots[symbols[place]] for place in places]
                rows = worker.core.engine.open_candles(chosen).reshape(len(chosen), len(intervals))
                minutes = np.repeat(rows[:, :1], len(intervals) - 1, axis=1)
                rows[:, 1:] = with_later(rows[:, 1:], minutes)
                out[places] = rows
        return out

    def missing(self) -> Sequence[str]:
        """What is not as it must be."""
        found = []
        for name, market in self._markets.items():
            if not market.exchange_clock.is_valid():
                found.append(f"{name.value}: the exchange's time is not known")
            elif not self.is_live(name):
                found.append(f"{name.value}: {market.phase}")
            elif any(worker.failing_since_ms is not None for worker in market.workers):
                found.append(f"{name.value}: the database does not take what is written")
            elif market.now_ms - self.durable_ms(name) > STALE_MS:
                found.append(f"{name.value}: no minute has become durable for {STALE_MS // 1_000} s")
        return found

    def commits(self) -> AsyncIterator[Committed]:
        """What is committed from now on."""
        return self.followers.follow()

    def _committed(self, market: Market, batch: Commit, result: CommitResult) -> None:
        accepted = result.accepted
        self.followers.tell(
            Committed(market, self.durable_ms(market), batch.instrument_ids[accepted], batch.candles[accepted])
        )


class Serving:
    """The read side of a service, on an address that is bound before anything else begins.

    Raises:
        KlaggError: the address is in use, or open to others without a token or the leave to do without.

    """

    def __init__(self, settings: Settings) -> None:
        assert settings.serve
        self._db = settings.db
        host, port = parse_endpoint(settings.serve)
        self._access = Access.for_host(host, settings.serve_token, open_to_all=settings.serve_open)
        self._bound = listen(host, port)
        self.address: tuple[str, int] = self._bound.getsockname()[:2]
        """Host and port, also once it is closed."""

    async def run(self, markets: Sequence[MarketService], clock: Clock, metrics: Callable[[], bytes]) -> None:
        """Serve these markets, and the page that `metrics` renders, until cancelled."""
        from klagg.serve.app import metrics_route

        reader = Reader(self._db)
        live = RunningLive(markets, reader)
        ops = Ops(markets, live)
        await self._serve(live, reader, clock, live.load(), [metrics_route(metrics)], ops)

    async def run_alone(self) -> None:
        """Serve what the database holds and whatever somebody else writes to it, until cancelled.

        Raises:
            KlaggError: the database cannot be read, or holds no candles.

        """
        reader = Reader(self._db)
        live = PolledLive(reader)
        try:
            await live.load()
        except BaseException:
            reader.close()
            raise
        await self._serve(live, reader, SystemClock(), live.follow())

    async def _serve(
        self,
        live: Live,
        reader: Reader,
        clock: Clock,
        beside: Coroutine[None, None, None],
        routes: "Sequence[HTTPRouteHandler]" = (),
        ops: OpsSource | None = None,
    ) -> None:
        # The application takes a third of a second to import, which no other command should pay.
        from klagg.service.readside import ReadSide

        try:
            side = ReadSide(self._bound, self._access, live, reader, clock, routes, ops)
            log.info("serve.listening", address=side.address.name)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(beside)
                tasks.create_task(side.run())
        finally:
            await asyncio.to_thread(reader.close)

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host, port = self.address
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def close(self) -> None:
        """Give the address back."""
        self._bound.close()


async def _alone(serving: Serving) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    running = asyncio.create_task(serving.run_alone())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def serve_database(settings: Settings) -> int:
    """`klagg serve`: the read side of a database; returns the exit code.

    Raises:
        KlaggError: what stood in the way, in one line.

    """
    open_store(settings.db, mode="read").close()
    serving = Serving(settings)
    try:
        asyncio.run(_alone(serving))
    finally:
        serving.close()
    return 0
