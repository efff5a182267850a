"""`klagg demo`: the main job on a fresh machine.

An offline exchange in a process of its own, the service against it on SQLite, and at the end every closed candle compared
with the exchange's klines.
"""

import asyncio
import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Self

from rich.console import Console

from klagg.config.settings import DEFAULT_SERVE, Settings
from klagg.config.values import parse_duration_ms, parse_endpoint
from klagg.engine.fold import restated
from klagg.errors import ExchangeError, KlaggError, UsageError
from klagg.exchange.budget import Purpose
from klagg.interval import INTERVALS, MINUTE_MS, Interval
from klagg.model import NUMBERS, Candles, Market
from klagg.service.market import MarketService
from klagg.service.run import Service, prepare_kernels, serve_until
from klagg.service.serving import Serving
from klagg.service.view import LiveView, clock_text
from klagg.store import parse_db_url

HISTORY: Final = "2d"
SETTLED_MS: Final = 12_000
"""Candles younger than this when the demo ends are left out of the comparison: the exchange has not settled them."""
START_TIMEOUT_S: Final = 60.0
REST_AT_ONCE: Final = 6
LINES_S: Final = 1.0
REPAIR_PATIENCE_S: Final = 60.0
"""How long the end waits for candles that the repair has not settled yet: on a busy machine it may be behind."""
REPAIR_LOOK_S: Final = 0.5
REPAIR_SHOWN: Final = 10_000
"""Counting stops here."""


@dataclass(slots=True)
class Comparison:
    """How the database stands against the exchange's klines."""

    candles: int = 0
    different: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo says at its end."""

    lines: list[str]
    differ: bool


def _exchange(pipe: Connection, market: str, symbols: int, seed: int) -> None:
    """The offline exchange's process: says its addresses, then serves until it is ended."""
    from klagg.sim import ExchangeSettings, OfflineExchange

    async def serve() -> None:
        settings = ExchangeSettings(
            market=Market(market), symbols=symbols, seed=seed, history_ms=parse_duration_ms(HISTORY) + 86_400_000
        )
        exchange = OfflineExchange(settings)
        await exchange.start()
        pipe.send((exchange.rest_url, exchange.ws_url))
        await asyncio.get_running_loop().run_in_executor(None, _until_closed, pipe)
        await exchange.stop()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        asyncio.run(serve())


def _until_closed(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()


@contextlib.contextmanager
def offline_exchange(market: Market, symbols: int, seed: int) -> Iterator[tuple[str, str]]:
    """An offline exchange in another process: its REST and WebSocket addresses.

    Raises:
        ExchangeError: it did not start.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_exchange, args=(theirs, market.value, symbols, seed), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_TIMEOUT_S):
            raise ExchangeError("the offline exchange did not start in 60 s: run klagg exchange to see why")
        try:
            yield ours.recv()
        except EOFError:
            raise ExchangeError("the offline exchange ended at once: run klagg exchange to see why") from None
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.terminate()


def _fresh(database: Path, own: str) -> Path:
    """A database that is named as the demo's own is made anew; any other is left alone.

    Raises:
        UsageError: another database is there already.
    """
    if database.exists() and database.name != own:
        raise UsageError(
            f"--db {database} exists: the demo begins with an empty database, name one that does not exist"
        )
    for ending in ("", "-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    return database


def serving_somewhere(settings: Settings) -> Serving:
    """The address that `klagg run` would take, or a free one of the same host where another program has it.

    Raises:
        KlaggError: the settings ask for an address that cannot be served.
    """
    wanted = settings.serve or DEFAULT_SERVE
    try:
        return Serving(replace(settings, serve=wanted))
    except UsageError:
        raise
    except KlaggError:
        host, _ = parse_endpoint(wanted)
        return Serving(replace(settings, serve=f"[{host}]:0" if ":" in host else f"{host}:0"))


def run_demo(settings: Settings, *, own_database: str, seconds: float | None, symbols: int, seed: int) -> int:
    """Run the demo until Ctrl-C or for `seconds`; returns the exit code (0 if every candle is equal).

    Raises:
        KlaggError: what stood in the way.
    """
    console = Console(stderr=True)
    market = settings.one_market
    database = _fresh(parse_db_url(settings.db), own_database)
    console.print(f"klagg demo: an offline {market.value} exchange with {symbols} symbols, and klagg run against it")
    prepare_kernels()
    with (
        contextlib.closing(serving_somewhere(settings)) as serving,
        offline_exchange(market, symbols, seed) as (rest_url, ws_url),
    ):
        console.print(f"page      {serving.url}")
        console.print(f"exchange  {rest_url}  {ws_url}")
        console.print(f"database  {database}")
        console.print(
            f"ends      {f'by itself after {seconds:.0f} s' if seconds else 'by Ctrl-C'}, with a comparison\n"
        )
        chosen = replace(settings, rest_url=(rest_url,), ws_url=(ws_url,), history=HISTORY)
        return asyncio.run(_demo(chosen, serving, seconds, console))


async def _demo(settings: Settings, serving: Serving, seconds: float | None, console: Console) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if seconds is not None:
        loop.call_later(seconds, stopped.set)
    outcome: list[Summary] = []
    ended = asyncio.Event()

    async def finish(service: Service) -> None:
        await stopped.wait()
        try:
            outcome.append(await _summary(service, settings, console))
        finally:
            ended.set()

    async with asyncio.TaskGroup() as tasks, LiveView() if sys.stderr.isatty() else _Lines(console) as view:

        def watch(service: Service) -> None:
            view.watch(service)
            tasks.create_task(finish(service))

        await serve_until(settings, ended, watch, serving=serving)
    # Only now: what is printed below a live view tears it.
    print("\n".join(outcome[0].lines))  # noqa: T201 - the summary is the command's result
    return 1 if outcome[0].differ else 0


class _Lines:
    """The live view where there is no terminal: a line for every closed minute and every step of the history."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def watch(self, service: Service) -> None:
        """Print what happens to this service."""
        self._task = asyncio.get_running_loop().create_task(self._print(service))

    async def _print(self, service: Service) -> None:
        market = service.markets[0]
        said, phase, share, live = 0, "", -1, False
        while True:
            await asyncio.sleep(LINES_S)
            if market.phase != phase:
                phase = market.phase
                self._console.print(f"  {phase}")
            if service.live.is_set() and not live:
                live = True
                if service.serving is not None:
                    self._console.print(f"  the page: {service.serving.url}")
            if market.history_progress is not None:
                done, total, eta_s = market.history_progress
                if (now := 10 * done // max(total, 1)) != share:
                    share = now
                    self._console.print(f"  history {10 * share} %, ready in about {eta_s / 60:.1f} min")
            if market.workers and market.boundary_ms != said:
                said = market.boundary_ms
                self._console.print(minute_line(market))


def minute_line(market: MarketService) -> str:
    """One line about the minute that has just closed."""
    tallies = [worker.core.engine.tally for worker in market.workers]
    trades = sum(tally.applied + tally.late for tally in tallies)
    lag_ms = max(worker.tick_lag_ms for worker in market.workers)
    return (
        f"  {clock_text(market.boundary_ms)} closed {market.symbols} symbols +{lag_ms} ms, {trades} trades so far, "
        f"{sum(worker.comparison.verified for worker in market.workers)} minutes verified by push"
    )


async def _summary(service: Service, settings: Settings, console: Console) -> Summary:
    """Wait for the repair, compare, and say how it went."""
    market = service.markets[0]
    until_ms = market.now_ms - SETTLED_MS
    await repaired(market, service, until_ms, console)
    console.print("comparing every closed candle with the exchange's klines …")
    compared = await compare_with_exchange(market, service, until_ms)
    store = service.store.store
    counts = await service.store.call(store.candle_counts, market.market)
    stored = sum(count.candles for count in counts)
    verified = sum(count.candles for count in counts if count.verified)
    verdict = f"{len(compared.different)} DIFFER" if compared.different else "all equal"
    query = (
        "SELECT symbol, open_time, open, high, low, close, volume, origin FROM candles "
        "WHERE interval = '1h' ORDER BY open_time_ms DESC LIMIT 10"
    )
    lines = [
        "",
        f"minutes closed live     {market.closed_minutes}",
        f"candles written         {stored} ({verified} verified)",
        f"compared with exchange  {compared.candles} closed candles, {verdict}",
        *(f"  {line}" for line in compared.different[:10]),
        f"database                {store.path}",
        f'look into it            sqlite3 {settings.db} "{query}"',
        f"                        klagg status --db {settings.db}",
        f"                        klagg export --db {settings.db} --symbol BTCUSDT --interval 1h",
    ]
    return Summary(lines, differ=bool(compared.different))


async def repaired(market: MarketService, service: Service, until_ms: int, console: Console) -> None:
    """Wait until the repair has settled the urgent candles that ended before `until_ms`, for a bounded time."""
    store = service.store.store
    waited_s = 0.0
    while True:
        queue = await service.store.call(
            store.unverified, market.market, before_ms=until_ms, urgent=True, limit=REPAIR_SHOWN
        )
        left = sum(INTERVALS[row["interval"]].next_open(int(row["open_ms"])) <= until_ms for row in queue)
        if left == 0:
            return
        if waited_s == 0:
            console.print(f"waiting for the repair of {left} candles, {REPAIR_PATIENCE_S:.0f} s at most …")
        if waited_s >= REPAIR_PATIENCE_S:
            console.print(f"{left} candles are not repaired yet: they are compared as they are")
            return
        await asyncio.sleep(REPAIR_LOOK_S)
        waited_s += REPAIR_LOOK_S


async def compare_with_exchange(market: MarketService, service: Service, until_ms: int) -> Comparison:
    """Every closed candle that ended before `until_ms`, against the exchange's klines, field by field.

    Raises:
        KlaggError: the exchange or the database could not be read.
    """
    compared = Comparison()
    gate = asyncio.Semaphore(REST_AT_ONCE)
    store = service.store.store

    async def series(instrument_id: int, symbol: str, interval: Interval) -> None:
        async with gate:
            ours = await service.store.call(store.read, instrument_id, interval, 0, until_ms)
            ours = ours[[interval.next_open(int(open_ms)) <= until_ms for open_ms in ours["open_ms"]]]
            if len(ours) == 0:
                return
            theirs = await market.rest.klines(
                symbol,
                interval,
                start_ms=int(ours["open_ms"][0]),
                end_ms=int(ours["open_ms"][-1]) + MINUTE_MS,
                price_scale=int(ours["price_scale"].max()),
                qty_scale=int(ours["qty_scale"].max()),
                purpose=Purpose.LIVE,
            )
        compared.candles += len(ours)
        compared.different += differences(symbol, interval, ours, theirs)

    async with asyncio.TaskGroup() as tasks:
        for stored in await service.store.call(store.instruments, market.market):
            for interval in market.intervals:
                tasks.create_task(series(stored.id, stored.instrument.symbol, interval))
    return compared


def differences(symbol: str, interval: Interval, ours: Candles, theirs: Candles) -> list[str]:
    """A line for each candle that one side lacks or that differs in a number."""
    scales = [
        max(int(side[name].max()) for side in (ours, theirs) if len(side)) for name in ("price_scale", "qty_scale")
    ]
    mine = {int(row["open_ms"]): row for row in restated(ours, *scales)}
    exchange = {int(row["open_ms"]): row for row in restated(theirs, *scales)}
    lines = []
    for open_ms in sorted(mine.keys() | exchange.keys()):
        if open_ms not in mine or open_ms not in exchange:
            lines.append(f"{symbol} {interval} {open_ms}: only {'ours' if open_ms in mine else 'the exchange has it'}")
            continue
        wrong = [name for name in NUMBERS if mine[open_ms][name] != exchange[open_ms][name]]
        if wrong:
            values = ", ".join(f"{name} {mine[open_ms][name]} != {exchange[open_ms][name]}" for name in wrong[:3])
            lines.append(f"{symbol} {interval} {open_ms} (origin {mine[open_ms]['origin']}): {values}")
    return lines
