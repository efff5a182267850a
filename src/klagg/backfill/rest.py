"""Minutes from the exchange, the longer candles folded from them.

Newest days first, so that recent history is ready first. What the store already has verified is not asked for again, so a
backfill that was broken off goes on where it stopped. It takes no claim: where a service owns the shards, the store takes
only minutes that it has closed.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import structlog

from klagg.backfill.patience import patiently
from klagg.backfill.plan import Day, days
from klagg.backfill.stored import Stored
from klagg.backfill.summary import BackfillSummary, OnRepaired, Pace, Progress
from klagg.clock import Clock
from klagg.errors import RequestRejected
from klagg.exchange.budget import Purpose
from klagg.exchange.klines import SETTLE_MS, weight_of
from klagg.exchange.rest import RestClient, count_opens
from klagg.interval import BY_NAME, DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Instrument, Market, no_candles
from klagg.refold import HeldFrom, nothing_runs
from klagg.store.thread import StoreThread

log = structlog.get_logger()

Returned = TypeVar("Returned")

CONCURRENCY: Final = 8
"""Requests at a time: at 100 ms an answer some 5,000 a minute, more than any budget allows."""
PIECES: Final = (BY_NAME["1d"], BY_NAME["1h"], MINUTE)
"""What the part of a running candle before the history's start is folded from."""


async def prepare(
    store: StoreThread, market: Market, instruments: Iterable[Instrument], intervals: Sequence[Interval], at_ms: int
) -> dict[int, Instrument]:
    """Make a database ready that no service runs on: its instruments and kept intervals; the instruments by id.

    Intervals that the market already keeps stay kept.
    """
    wanted = list(instruments)

    def put() -> dict[int, Instrument]:
        ids = store.store.put_instruments(wanted, at_ms)
        store.store.set_intervals(market, {*store.store.intervals(market), *intervals})
        return {ids[instrument.symbol]: instrument for instrument in wanted}

    return await store.call(put)


async def backfill(  # noqa: PLR0913 - what is to be fetched, and whom it concerns
    rest: RestClient,
    store: StoreThread,
    market: Market,
    instruments: Mapping[int, Instrument],
    intervals: Sequence[Interval],
    start_ms: int,
    end_ms: int,
    *,
    now_ms: Callable[[], int],
    clock: Clock,
    progress: Progress | None = None,
    on_repaired: OnRepaired | None = None,
    held_from: HeldFrom = nothing_runs,
    again: bool = False,
) -> BackfillSummary:
    """Fetch the settled minutes of `[start_ms, end_ms)` and fold the longer candles; see the module.

    Args:
        rest: the exchange; its weight budget is obeyed with the purpose BACKFILL.
        store: the database, in its thread.
        market: the market of the instruments.
        instruments: by identifier, as `put_instruments` gave it.
        intervals: the kept ones, `1m` first.
        start_ms: the first minute, or before an instrument's listing.
        end_ms: the end; minutes that have not settled are left out.
        now_ms: the exchange's time.
        clock: for waits.
        progress: told after each day of a symbol, and once before.
        on_repaired: told open candles that were folded anew, as `repair.OnRepaired`.
        held_from: where the engine that is told begins.
        again: fetch also what is there already, and compare.

    Raises:
        ExchangeError: the exchange cannot be reached; what was fetched stays.
        StoreError: the database cannot be used.

    """
    start_ms, end_ms = MINUTE.open_at(start_ms), min(MINUTE.open_at(end_ms), MINUTE.open_at(now_ms() - SETTLE_MS))
    summary = BackfillSummary()
    kept = tuple(intervals)
    stored = Stored(store.store, market, kept, start_ms, end_ms, summary)
    work = _Backfill(rest, store, stored, market, instruments, kept, start_ms, end_ms, now_ms, clock, summary)
    work.progress, work.on_repaired, work.held_from, work.again = progress, on_repaired, held_from, again
    await work.run()
    return summary


class _Backfill:
    def __init__(
        self,
        rest: RestClient,
        store: StoreThread,
        stored: Stored,
        market: Market,
        instruments: Mapping[int, Instrument],
        intervals: tuple[Interval, ...],
        start_ms: int,
        end_ms: int,
        now_ms: Callable[[], int],
        clock: Clock,
        summary: BackfillSummary,
    ) -> None:
        self.progress: Progress | None = None
        self.on_repaired: OnRepaired | None = None
        self.held_from: HeldFrom = nothing_runs
        self.again = False
        self.summary = summary
        self._rest = rest
        self._thread = store
        self._market = market
        self._instruments = instruments
        self._intervals = intervals
        self._start_ms, self._end_ms = start_ms, end_ms
        self._stored = stored
        self._now_ms = now_ms
        self._clock = clock
        self._refused: set[int] = set()
        self._days: deque[Day] = deque()
        self._left: Counter[int] = Counter()
        self._total = 0
        self._present: dict[int, set[int]] = {}
        """Of symbols that have no minutes on some day: the days that they have any on."""
        self._started_ns = clock.monotonic_ns()

    async def run(self) -> None:
        """All days of all instruments, newest first; each instrument is finished when its last day is done."""
        if self._end_ms <= self._start_ms:
            return
        self._days.extend(days(self._instruments, self._start_ms, self._end_ms))
        self._left.update(day.instrument_id for day in self._days)
        self._total = len(self._days)
        self._tell_progress()
        results = await asyncio.gather(*(self._work() for _ in range(CONCURRENCY)), return_exceptions=True)
        self.summary.refused_symbols = tuple(sorted(self._instruments[number].symbol for number in self._refused))
        self.summary.seconds = self._elapsed_s()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _work(self) -> None:
        while self._days:
            day = self._days.popleft()
            try:
                if day.instrument_id not in self._refused:
                    await self._one_day(day)
                if self._left[day.instrument_id] == 1 and day.instrument_id not in self._refused:
                    await self._finish(day.instrument_id)
            except RequestRejected as error:
                # A symbol that the exchange refuses is quarantined alone.
                self._refused.add(day.instrument_id)
                symbol = self._instruments[day.instrument_id].symbol
                log.warning("backfill.refused", market=self._market.value, symbol=symbol, reason=str(error))
            except BaseException:
                self._days.clear()
                raise
            finally:
                self._left[day.instrument_id] -= 1
            self._tell_progress()

    async def _one_day(self, day: Day) -> None:
        number = day.instrument_id
        if day.start_ms - day.start_ms % DAY_MS not in self._present.get(
            number, {day.start_ms - day.start_ms % DAY_MS}
        ):
            return
        missing = (day.start_ms, day.end_ms) if self.again else await self._call(self._stored.missing, day)
        if missing is None:
            self.summary.skipped_days += 1
            await self._call(self._stored.fold_lacking, day)
            return
        start_ms, end_ms = missing
        self.summary.requested_days += 1
        rows = await self._klines(number, MINUTE, start_ms, end_ms)
        await self._call(self._stored.bring, self._instruments[number], number, rows, start_ms, end_ms)
        if len(rows) == 0 and end_ms - start_ms == DAY_MS and number not in self._present:
            await self._find_days(number, day.start_ms)
        if (start_ms, end_ms) != (day.start_ms, day.end_ms):
            await self._call(self._stored.fold_lacking, day)

    async def _find_days(self, number: int, before_ms: int) -> None:
        """A whole day without minutes is before the listing, or there was none: a row a day tells where any are.

        If that day has one itself, its minutes were not given though they are there: they are asked for once more.
        """
        self._present[number] = set(range(before_ms, self._end_ms, DAY_MS))
        first_ms = self._start_ms - self._start_ms % DAY_MS
        rows = await self._klines(number, BY_NAME["1d"], first_ms, before_ms + DAY_MS)
        self._present[number].update(rows["open_ms"].tolist())
        if before_ms in rows["open_ms"]:
            minutes = await self._klines(number, MINUTE, before_ms, before_ms + DAY_MS)
            await self._call(
                self._stored.bring, self._instruments[number], number, minutes, before_ms, before_ms + DAY_MS
            )

    async def _klines(self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int) -> Candles:
        instrument = self._instruments[instrument_id]
        self.summary.weight += weight_of(self._market, count_opens(interval, start_ms, end_ms))
        rows = await self._rest.klines(
            instrument.symbol,
            interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=instrument.price_scale,
            qty_scale=instrument.qty_scale,
            purpose=Purpose.BACKFILL,
        )
        self.summary.fetched += len(rows)
        settled: Candles = rows[rows["flags"] & Flag.VERIFIED != 0]
        return settled

    async def _finish(self, instrument_id: int) -> None:
        """What can only be done when an instrument's minutes are all there: gaps, the edges, the open candles."""
        closed_upto_ms = await self._call(self._stored.closed_upto_ms)
        await self._call(self._stored.fill_gaps, instrument_id)
        for start_ms, end_ms in await self._call(self._stored.unsettled_spans, instrument_id):
            rows = await self._klines(instrument_id, MINUTE, start_ms, end_ms)
            await self._call(
                self._stored.bring, self._instruments[instrument_id], instrument_id, rows, start_ms, end_ms
            )
            await self._call(self._stored.judge, instrument_id, rows, start_ms, end_ms, self._now_ms())
        pieces = no_candles()
        opened = [i.open_at(self._start_ms) for i in self._intervals if i.open_at(self._start_ms) < self._start_ms]
        limit_ms = min(self._end_ms, closed_upto_ms or self._end_ms)
        # A candle that the history (or the listing) begins within is not folded from its minutes: it is fetched itself.
        first_ms = await self._call(self._stored.first_minute, instrument_id)
        for interval in self._intervals[1:]:
            open_ms = interval.open_at(first_ms)
            if open_ms >= first_ms or interval.next_open(open_ms) > limit_ms:
                continue
            if self.again or await self._call(self._stored.lacks, instrument_id, interval, open_ms):
                own = await self._klines(instrument_id, interval, open_ms, open_ms + 1)
                await self._call(self._stored.write, instrument_id, own)
        running = [open_ms for open_ms in opened if any(i.open_at(limit_ms) == open_ms for i in self._intervals)]
        if running and closed_upto_ms is not None:
            pieces = await self._pieces(instrument_id, min(running))
        held_ms = self.held_from(instrument_id)
        refolded = await self._call(
            self._stored.fold_open, self._instruments[instrument_id], instrument_id, pieces, held_ms
        )
        await self._call(self._stored.fill_longer, instrument_id, min([self._start_ms, *opened]))
        if self.on_repaired is not None:
            nothing = np.zeros(0, np.int64)
            for upto_ms, ids, bases in refolded.by_upto():
                await self.on_repaired(nothing, no_candles(), ids, bases, upto_ms)

    async def _pieces(self, instrument_id: int, from_ms: int) -> Candles:
        """The exchange's closed candles that tile `[from_ms, start)`: days, then hours, then minutes."""
        found: list[Candles] = []
        for interval in PIECES:
            to_ms = interval.open_at(self._start_ms)
            if to_ms > from_ms:
                rows = await self._klines(instrument_id, interval, from_ms, to_ms)
                found.append(rows)
                if interval in self._intervals:
                    await self._call(
                        self._stored.bring, self._instruments[instrument_id], instrument_id, rows, from_ms, to_ms
                    )
                from_ms = to_ms
        return np.concatenate(found) if found else no_candles()

    async def _call(self, fn: Callable[..., Returned], *args: object) -> Returned:
        return await patiently(self._clock, lambda: self._thread.call(self._stored.known, self._now_ms(), fn, *args))

    def _elapsed_s(self) -> float:
        return (self._clock.monotonic_ns() - self._started_ns) / 1e9

    def _tell_progress(self) -> None:
        if self.progress is None:
            return
        left = sum(self._left.values())
        done = self._total - left
        allowed = self._rest.budget.rate(Purpose.BACKFILL)
        weight, days_asked = self.summary.weight, self.summary.requested_days
        per_day = weight / days_asked if weight and days_asked else weight_of(self._market, DAY_MS // MINUTE_MS)
        elapsed_s = self._elapsed_s()
        left_s = max(left * per_day / allowed * 60, elapsed_s / done * left if done else 0.0)
        rates = (self.summary.fetched / elapsed_s, weight / elapsed_s * 60) if elapsed_s else (0.0, 0.0)
        self.progress(Pace(done, self._total, self.summary.fetched, *rates, allowed, left_s))
