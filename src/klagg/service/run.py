"""The composition root: one process, one database, one or two markets, one TaskGroup, an ordered end."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable

import structlog

from klagg.clock import Clock, ScaledClock, SystemClock
from klagg.config.settings import Settings
from klagg.engine import jit
from klagg.engine.engine import compile_kernels
from klagg.errors import KlaggError
from klagg.exchange.transport import SOCKETS, Transport
from klagg.service.market import MarketService
from klagg.service.metrics import Metrics
from klagg.service.serving import Serving
from klagg.service.view import LiveView
from klagg.store import filling
from klagg.store.thread import StoreThread

log = structlog.get_logger()

CHECKPOINT_S = 20.0
"""The write-ahead log is moved into the database this often, away from the commits."""


class Service:
    """A running klagg: its markets over one store."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: StoreThread,
        transport: Transport = SOCKETS,
        *,
        serving: Serving | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.markets = [MarketService(market, settings, store, clock, transport) for market in settings.markets]
        self.metrics = Metrics(self.markets)
        self.live = asyncio.Event()
        self._clock = clock
        self.serving = serving

    async def run(self, stopped: asyncio.Event) -> None:
        """Start, run until `stopped` is set (at any stage), and end in order: feed, due closes, flush, claim.

        Raises:
            KlaggError: the first error that ended it, or what kept its end from being in order.
        """
        started: list[MarketService] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self._run(started))
                read_side = tasks.create_task(self._serve())
                await _either(running, stopped)
                if not running.done():
                    log.info("service.stopping")
                    running.cancel()
                read_side.cancel()
        except BaseExceptionGroup as group:
            ours, others = group.split(KlaggError)
            if ours is None or others is not None:
                raise
            raise _first(ours) from None
        finally:
            ended = [await self._end(market) for market in started]
        for error in ended:
            if error is not None:
                raise error

    async def _serve(self) -> None:
        if self.serving is not None:
            await self.serving.run(self.markets, self._clock, self.metrics.render)

    async def _end(self, market: MarketService) -> KlaggError | None:
        try:
            await market.stop()
        except KlaggError as error:
            log.error("market.stop_failed", market=market.market.value, reason=str(error))
            return error
        return None

    async def _run(self, started: list[MarketService]) -> None:
        for market in self.markets:
            started.append(market)
            await market.start()
        async with asyncio.TaskGroup() as tasks:
            for market in self.markets:
                tasks.create_task(market.run())
            tasks.create_task(self._checkpoints())
            for market in self.markets:
                await market.live.wait()
            self.live.set()

    async def _checkpoints(self) -> None:
        while True:
            await self._clock.sleep(CHECKPOINT_S)
            with contextlib.suppress(KlaggError):
                await self.store.checkpoint()


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Return when the task is done or the event is set."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _first(errors: BaseExceptionGroup[KlaggError]) -> KlaggError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KlaggError)
    return error


async def serve_until(
    settings: Settings,
    stopped: asyncio.Event,
    watch: Callable[[Service], None] | None = None,
    *,
    serving: Serving | None = None,
) -> None:
    """Run the service over its database until `stopped` is set, on an address that is bound already or as the settings say.

    Raises:
        KlaggError: what ended it.
    """
    clock: Clock = SystemClock() if settings.clock_speed == 1 else ScaledClock(settings.clock_speed)
    serving = serving or (Serving(settings) if settings.serve else None)
    with contextlib.ExitStack() as ends:
        if serving is not None:
            ends.callback(serving.close)
        store = StoreThread(ends.enter_context(filling(settings.db)))
        try:
            service = Service(settings, clock, store, serving=serving)
            if watch is not None:
                watch(service)
            await service.run(stopped)
        finally:
            await store.close()


def prepare_kernels() -> None:
    """Compile the kernels, or load them: before anything is subscribed, and not in silence."""
    if not jit.is_cached():
        print("klagg: compiling kernels (once, up to half a minute)", file=sys.stderr)  # noqa: T201 - breaks the silence of a first run
    compile_kernels()


async def _main(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if sys.stderr.isatty() and settings.log_format is None:
        async with LiveView() as view:
            await serve_until(settings, stopped, view.watch)
    else:
        await serve_until(settings, stopped)


def run_service(settings: Settings) -> int:
    """`klagg run`: returns the exit code.

    Raises:
        KlaggError: what stood in the way, in one line.
    """
    prepare_kernels()
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main(settings))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    return 0
