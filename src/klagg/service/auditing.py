"""The audit composed: for `klagg audit`, and at a low rate for as long as a market runs."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from klagg.audit import AGE_MS, Auditor, Coverage, Finding, Kind, OnRepaired, Piece, Report, covered, pieces, samples
from klagg.clock import Calibrator, Clock, ExchangeClock, ScaledClock, SystemClock
from klagg.config import Settings, parse_duration_ms, parse_range_ms
from klagg.errors import ExchangeError, KlaggError, NoCandles
from klagg.exchange.budget import DEFAULT_LIMITS, WeightBudget, shares
from klagg.exchange.endpoints import for_market
from klagg.exchange.rest import RestClient
from klagg.interval import HOUR_MS, Interval
from klagg.model import Instrument, Market, Status
from klagg.refold import HeldFrom, nothing_runs
from klagg.service.recent import Recent
from klagg.service.weights import sharing
from klagg.store import StoredInstrument, open_store
from klagg.store.thread import StoreThread

log = structlog.get_logger()

SHARE_OF_BACKFILL: Final = 0.5
"""An audit leaves half of what backfill and repair may use to them: a service may run beside."""
Progress = Callable[[int, int], None]
"""Told (weight done, weight in all)."""

RECENT_MS: Final = HOUR_MS
"""What a running market compares of each symbol at a turn."""
REST_S: Final = 60.0
"""The pause of the audit where a failure of the world, or nothing to compare, stopped it."""
SAMPLED_EVERY: Final = 4
"""Every so many turns are of random older candles instead of recent ones."""
LOGGED_FINDINGS: Final = 100
"""Findings logged one by one between two turns of the whole market; after that they are only counted."""


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What to compare, as people write it: a range, or the last `recent` and `sample` random older minutes."""

    start: str | None = None
    end: str | None = None
    recent: str = "2h"
    sample: int = 1_000
    seed: int = 0
    intervals: tuple[Interval, ...] | None = None
    repair: bool = False


def audit_by_rest(settings: Settings, plan: AuditPlan, progress: Progress | None = None) -> Report:
    """Compare the database with the exchange.

    Raises:
        KlaggError: what stood in the way, in one line; what was repaired stays.

    """
    return asyncio.run(_by_rest(settings, plan, progress))


async def _by_rest(settings: Settings, plan: AuditPlan, progress: Progress | None) -> Report:
    market = settings.one_market
    # Opened first: without a database nothing is asked of anybody.
    store = StoreThread(open_store(settings.db, mode="write" if plan.repair else "read"))
    try:
        instruments = await store.call(_chosen, store, settings, market)
        clock: Clock = SystemClock() if settings.clock_speed == 1 else ScaledClock(settings.clock_speed)
        exchange_clock = ExchangeClock(clock)

        def now_or_zero_ms() -> int:
            return exchange_clock.now_ms() if exchange_clock.is_valid() else 0

        share = shares(settings.weight_share * SHARE_OF_BACKFILL)
        budget = WeightBudget(DEFAULT_LIMITS[market], clock=clock, now_ms=now_or_zero_ms, shares=share)
        endpoints = for_market(market, settings.rest_urls.get(market), settings.ws_urls.get(market))
        async with (
            sharing(budget, settings.db, market, endpoints.rest_url),
            RestClient(endpoints, clock=clock, now_ms=now_or_zero_ms, budget=budget) as rest,
        ):
            calibrator = Calibrator(clock, exchange_clock, rest.server_time)
            await calibrator.start()
            await rest.symbol_list()  # it tells the weight limit, and that this is the market's exchange
            keeping = asyncio.create_task(calibrator.run())
            try:
                return await audit_store(market, rest, store, instruments, plan, exchange_clock.now_ms, progress)
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
    except BaseExceptionGroup as group:
        ours = group.subgroup(KlaggError)
        if ours is None:
            raise
        raise _first(ours) from None
    finally:
        await store.close()


def _first(group: BaseExceptionGroup[KlaggError]) -> KlaggError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KlaggError)
    return error


def _chosen(store: StoreThread, settings: Settings, market: Market) -> dict[int, StoredInstrument]:
    """The wanted instruments among those the database has of the market."""
    held = store.store.instruments()
    of_market = {one.instrument.symbol: one for one in held if one.instrument.market is market}
    if not of_market:
        others = sorted({one.instrument.market.value for one in held})
        has = (
            f"it holds {' and '.join(others)}: choose by --market" if others else "klagg run or klagg backfill fills it"
        )
        raise NoCandles(f"{store.store.path}: the database holds nothing of market {market.value}; {has}")
    names = settings.symbol_filter(market).resolve(of_market)
    return {of_market[name].id: of_market[name] for name in names}


async def audit_store(
    market: Market,
    rest: RestClient,
    store: StoreThread,
    instruments: dict[int, StoredInstrument],
    plan: AuditPlan,
    clock_ms: Callable[[], int],
    progress: Progress | None = None,
) -> Report:
    """Compare these instruments as the plan says; `clock_ms` is the exchange's time.

    Raises:
        ExceptionGroup: of the first errors of the exchange or the database.

    """
    now_ms = clock_ms()
    start_ms, end_ms = parse_range_ms(plan.start, plan.end, now_ms)
    kept = await store.call(store.store.intervals, market)
    coverages = await store.call(_coverages, store, market, instruments, kept, now_ms)
    if plan.intervals is not None:
        coverages = [one for one in coverages if one.interval in plan.intervals]
    upto_ms = now_ms if end_ms is None else end_ms
    chosen: list[Piece] = []
    if start_ms is None and end_ms is None:
        since_ms = now_ms - parse_duration_ms(plan.recent)
        chosen = samples(market, coverages, since_ms, plan.sample, random.Random(plan.seed))  # noqa: S311 - to be repeated
    else:
        since_ms = -(1 << 62) if start_ms is None else start_ms
    # Minutes first: what is repaired in them is folded into the longer ones before these are compared.
    recent = [piece for one in coverages for piece in pieces(one, since_ms, upto_ms)]
    chosen = sorted([*recent, *chosen], key=lambda piece: piece.interval.code)
    report = Report(series=len({(one.instrument_id, one.interval) for one in coverages}))
    auditor = Auditor(
        market,
        rest,
        store,
        report,
        now_ms=clock_ms,
        intervals=kept or tuple({one.interval for one in coverages}),
        repair=plan.repair,
    )
    total = sum(piece.weight(market) for piece in chosen)
    await auditor.run(chosen, instruments, None if progress is None else lambda done: progress(done, total))
    return report


def _coverages(
    store: StoreThread,
    market: Market,
    instruments: Mapping[int, StoredInstrument],
    kept: Sequence[Interval],
    now_ms: int,
) -> list[Coverage]:
    """In the store's thread: what each series of these instruments is expected to hold."""
    closed_upto_ms = store.store.closed_upto(market)
    bound_ms = now_ms - AGE_MS if closed_upto_ms is None else min(closed_upto_ms, now_ms - AGE_MS)
    return [
        coverage
        for number, stored in instruments.items()
        for coverage in covered(
            store.store,
            number,
            kept,
            closed_upto_ms=closed_upto_ms,
            is_live=stored.retired_ms is None and stored.instrument.status is not Status.HALTED,
            bound_ms=bound_ms,
        )
    ]


@dataclass(slots=True)
class AuditStats:
    """What the continuous audit of a market has done since the start, for the live view and the metrics."""

    checked: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    repaired: int = 0
    last_run_ms: int = 0

    def take(self, report: Report, now_ms: int) -> None:
        """Follow a report that only grows."""
        self.equal = report.equal
        self.missing = report.counts[Kind.MISSING]
        self.extra = report.counts[Kind.EXTRA]
        self.differing = report.compared - report.equal
        self.checked = report.compared + report.unmatched + self.missing + self.extra
        self.repaired = report.repaired
        self.last_run_ms = now_ms


class ContinuousAudit:
    """Compares a running market with the exchange: recent candles symbol by symbol, and random older ones in between."""

    def __init__(  # noqa: PLR0913 - a part of the running market each
        self,
        market: Market,
        rest: RestClient,
        store: StoreThread,
        instruments: Callable[[], Mapping[int, Instrument]],
        *,
        intervals: Sequence[Interval],
        weight_share: float,
        repair: bool,
        now_ms: Callable[[], int],
        clock: Clock,
        recent: Recent,
        ready: Callable[[], bool],
        on_repaired: OnRepaired | None = None,
        held_from: HeldFrom = nothing_runs,
    ) -> None:
        self.stats = AuditStats()
        self._market = market
        self._rest = rest
        self._store = store
        self._instruments = instruments
        self._intervals = tuple(intervals)
        self._weight_share = weight_share
        self._now_ms = now_ms
        self._clock = clock
        self._recent = recent
        self._ready = ready
        self._chance = random.Random(now_ms())  # noqa: S311 - which candles are drawn is no secret
        self._logged = 0
        self._auditor = Auditor(
            market,
            rest,
            store,
            Report(limit=0),
            now_ms=now_ms,
            intervals=intervals,
            repair=repair,
            on_repaired=on_repaired,
            on_finding=self._found,
            held_from=held_from,
        )

    async def run(self) -> None:
        """Audit until cancelled; never ends by an error of the world. With a share of 0 it ends at once."""
        if self._weight_share <= 0:
            return
        # What the history has not reached yet would seem to be missing.
        while not self._ready():
            await self._clock.sleep(REST_S)
        turns = self._turns()
        while True:
            try:
                await self._turn(next(turns, None))
            except (ExchangeError, KlaggError, OSError, TimeoutError) as error:
                self._recent.note("audit.failed", str(error))
                await self._clock.sleep(REST_S)

    async def _turn(self, number: int | None) -> None:
        """The next symbol's recent candles, or random older ones; then the pause that keeps to the share of the weight."""
        if number is None or number not in self._instruments():
            await self._clock.sleep(REST_S if number is None else 0)
            return
        chosen, stored = await self._store.call(self._plan, number, self._chance.randrange(SAMPLED_EVERY) == 0)
        spent = self._auditor.report.weight
        for piece in chosen:
            await self._auditor.audit(piece, stored)
        self.stats.take(self._auditor.report, self._now_ms())
        weight = max(self._auditor.report.weight - spent, 1)
        await self._clock.sleep(weight / (self._rest.budget.limit * self._weight_share) * 60)

    def _turns(self) -> Iterator[int | None]:
        """The symbols in rotation, each turn of the market in another order; None where there are none."""
        while True:
            numbers = list(self._instruments())
            self._chance.shuffle(numbers)
            self._logged = 0
            if not numbers:
                yield None
            yield from numbers

    def _plan(self, number: int, older: bool) -> tuple[list[Piece], StoredInstrument]:
        """In the store's thread: what to compare of a symbol now."""
        store = self._store.store
        (stored,) = (one for one in store.instruments(self._market) if one.id == number)
        now_ms = self._now_ms()
        found = _coverages(self._store, self._market, {number: stored}, self._intervals, now_ms)
        since_ms = now_ms - AGE_MS - RECENT_MS
        if older:
            return samples(self._market, found, since_ms, 1, self._chance), stored
        return [piece for one in found for piece in pieces(one, since_ms, now_ms)], stored

    def _found(self, finding: Finding) -> None:
        self._recent.counts["audit.finding"] += 1
        if self._logged >= LOGGED_FINDINGS:
            return
        self._logged += 1
        minutes = f"{finding.symbol} {finding.interval} {finding.open_ms}"
        text = f"{finding.kind.value}: {minutes} {' '.join(finding.fields)}".rstrip()
        self._recent.notes.append((self._now_ms(), "audit.finding", text))
        log.warning(
            "audit.finding",
            market=self._market.value,
            symbol=finding.symbol,
            interval=finding.interval.name,
            open_ms=finding.open_ms,
            kind=finding.kind.value,
            fields=sorted(finding.fields),
        )
