"""`klagg backfill`: the exchange's history into a database, with or without a service beside it."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from klagg.backfill import (
    BackfillSummary,
    FileProgress,
    FileSummary,
    Progress,
    backfill,
    backfill_files,
    patiently,
    patiently_blocking,
    prepare,
)
from klagg.clock import Calibrator, Clock, ExchangeClock, ScaledClock, SystemClock
from klagg.config import Settings, SymbolFilter, parse_range_ms
from klagg.errors import RequestRejected, UsageError
from klagg.exchange.budget import DEFAULT_LIMITS, WeightBudget, shares
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.interval import BY_NAME
from klagg.model import Instrument, Market, Status
from klagg.service.weights import sharing
from klagg.store import SqliteStore, filling, open_store
from klagg.store.thread import StoreThread

GLOB: Final = frozenset("*?[")


def backfill_by_rest(
    settings: Settings, start: str, end: str | None, progress: Progress | None = None, *, again: bool = False
) -> BackfillSummary:
    """Fetch the settled history of `[start, end)`, as people write times, counted from the exchange's time.

    `again`: also what is there already, to compare it.

    Raises:
        KlaggError: what stood in the way, in one line; what was fetched stays.

    """
    return asyncio.run(_by_rest(settings, start, end, progress, again=again))


async def _by_rest(
    settings: Settings, start: str, end: str | None, progress: Progress | None, *, again: bool
) -> BackfillSummary:
    market = settings.one_market
    clock: Clock = SystemClock() if settings.clock_speed == 1 else ScaledClock(settings.clock_speed)
    exchange_clock = ExchangeClock(clock)

    def now_or_zero_ms() -> int:
        return exchange_clock.now_ms() if exchange_clock.is_valid() else 0

    budget = WeightBudget(
        DEFAULT_LIMITS[market], clock=clock, now_ms=now_or_zero_ms, shares=shares(settings.weight_share)
    )
    endpoints = for_market(market, settings.rest_urls.get(market), settings.ws_urls.get(market))
    async with (
        sharing(budget, settings.db, market, endpoints.rest_url),
        RestClient(endpoints, clock=clock, now_ms=now_or_zero_ms, budget=budget) as rest,
    ):
        calibrator = Calibrator(clock, exchange_clock, rest.server_time)
        await calibrator.start()
        now_ms = exchange_clock.now_ms()
        start_ms, end_ms = parse_range_ms(start, end, now_ms)
        assert start_ms is not None
        if start_ms >= now_ms:
            raise UsageError(f"--start {start} is in the future: name a time before now")
        listed = [one for one in await rest.instruments() if one.status is not Status.PENDING]
        wanted = settings.symbol_filter(market)
        listed += await _delisted(rest, wanted, {one.symbol for one in listed})
        names = set(wanted.resolve(one.symbol for one in listed))
        # Opened last: a wrong symbol or an exchange out of reach leaves no file behind.
        store = StoreThread(await patiently(clock, lambda: asyncio.to_thread(_open, settings.db)))
        try:
            chosen = [one for one in listed if one.symbol in names]
            instruments = await patiently(clock, lambda: prepare(store, market, chosen, settings.interval_set, now_ms))
            keeping = asyncio.create_task(calibrator.run())
            try:
                return await backfill(
                    rest,
                    store,
                    market,
                    instruments,
                    await store.call(store.store.intervals, market),
                    start_ms,
                    now_ms if end_ms is None else end_ms,
                    now_ms=exchange_clock.now_ms,
                    clock=clock,
                    progress=progress,
                    again=again,
                )
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
        finally:
            await store.close()


def _open(url: str) -> SqliteStore:
    return open_store(url, mode="create")


async def _delisted(rest: RestClient, wanted: SymbolFilter, listed: Collection[str]) -> list[Instrument]:
    """Symbols named in full that are listed no more: the exchange may still have their klines, and is asked for one."""
    found = []
    for symbol in wanted.patterns:
        if not wanted.wants_all and symbol not in listed and not set(symbol) & GLOB:
            try:
                rows = await rest.klines(symbol, BY_NAME["1d"], start_ms=0, end_ms=1 << 42, price_scale=0, qty_scale=0)
            except RequestRejected:
                continue
            if len(rows):
                scales = int(rows["price_scale"].max()), int(rows["qty_scale"].max())
                first_ms = int(rows["open_ms"][0])
                found.append(Instrument(wanted.market, symbol, Status.RETIRED, *scales, listed_ms=first_ms))
    return found


def backfill_from_files(
    settings: Settings,
    files: Sequence[Path],
    at_ms: int,
    progress: FileProgress | None = None,
    *,
    insists: bool = True,
) -> FileSummary:
    """Read files of klines and trades into the database; one name in the setting `symbols` is also that of files without one.

    Raises:
        KlaggError: a file cannot be read (nothing of it was written), or the database cannot be used.

    """
    market: Market = settings.one_market
    chosen = settings.symbol_filter(market)
    only = chosen.patterns[0] if len(chosen.patterns) == 1 and not set(chosen.patterns[0]) & GLOB else None
    with ExitStack() as stack:
        store = patiently_blocking(lambda: stack.enter_context(filling(settings.db)))
        return backfill_files(
            store,
            files,
            market=market,
            intervals=settings.interval_set,
            at_ms=at_ms,
            symbol=None if chosen.wants_all else only,
            wants=chosen.wants,
            progress=progress,
            insists=insists,
        )
