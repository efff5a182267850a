"""History into the database: minutes from the exchange or from archive files, the longer candles folded from them.

Newest days first, so that recent history is ready first. What the store already has verified is not asked for again, so a
backfill that was broken off goes on where it stopped. It takes no claim: where a service owns the shards, the store takes
only minutes that it has closed.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Final, TypeVar

import numpy as np
import structlog

from klagg.archive import read_klines
from klagg.clock import Clock
from klagg.errors import RequestRejected, StoreUnavailable
from klagg.exchange.budget import Purpose
from klagg.exchange.klines import SETTLE_MS, weight_of
from klagg.exchange.rest import RestClient, count_opens
from klagg.interval import BY_NAME, DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import CANDLE, Candles, Flag, Instrument, Ints, Market, Origin, Status, no_candles
from klagg.refold import Refolded, Span, refold
from klagg.store import SqliteStore
from klagg.store.thread import StoreThread

log = structlog.get_logger()

Returned = TypeVar("Returned")

CONCURRENCY: Final = 8
"""Requests at a time: at 100 ms an answer some 5,000 a minute, more than any budget allows."""
STORE_RETRY_S: Final = 1.0
STORE_ATTEMPTS: Final = 60
PIECES: Final = (BY_NAME["1d"], BY_NAME["1h"], MINUTE)
"""What the part of a running candle before the history's start is folded from."""

Progress = Callable[[int, int, float, float], None]
"""Told (done, total, weight per minute, seconds left) in days of symbols."""
OnRepaired = Callable[[Ints, Candles, Ints, Candles, int], Awaitable[None]]


@dataclass(slots=True)
class BackfillSummary:
    """What a backfill did: candles by whether they were new or equal, minutes the exchange lacks, symbols it refused."""

    written: int = 0
    changed: int = 0
    folded: int = 0
    unmatched: int = 0
    skipped_days: int = 0
    requested_days: int = 0
    refused_symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Day:
    """One UTC day (or the part of it that is asked for) of one instrument."""

    instrument_id: int
    start_ms: int
    end_ms: int


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


async def backfill(
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
    concurrency: int = CONCURRENCY,
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
        concurrency: requests at a time.

    Raises:
        ExchangeError: the exchange cannot be reached; what was fetched stays.
        StoreError: the database cannot be used.

    """
    work = _Backfill(rest, store, market, instruments, tuple(intervals), now_ms, clock, progress, on_repaired)
    settled_ms = MINUTE.open_at(now_ms() - SETTLE_MS)
    await work.run(MINUTE.open_at(start_ms), min(MINUTE.open_at(end_ms), settled_ms), concurrency)
    return work.summary


class _Backfill:
    def __init__(
        self,
        rest: RestClient,
        store: StoreThread,
        market: Market,
        instruments: Mapping[int, Instrument],
        intervals: tuple[Interval, ...],
        now_ms: Callable[[], int],
        clock: Clock,
        progress: Progress | None,
        on_repaired: OnRepaired | None,
    ) -> None:
        self.summary = BackfillSummary()
        self._rest = rest
        self._thread = store
        self._market = market
        self._instruments = instruments
        self._intervals = intervals
        self._now_ms = now_ms
        self._clock = clock
        self._progress = progress
        self._on_repaired = on_repaired
        self._refused: set[int] = set()
        self._days: deque[_Day] = deque()
        self._left: Counter[int] = Counter()
        self._total = 0
        self._weight = 0
        self._started_ns = clock.monotonic_ns()

    async def run(self, start_ms: int, end_ms: int, concurrency: int) -> None:
        """All days of all instruments, newest first; each instrument is finished when its last day is done."""
        if end_ms <= start_ms:
            return
        self._start_ms, self._end_ms = start_ms, end_ms
        for day_ms in reversed(list(BY_NAME["1d"].opens(start_ms - start_ms % DAY_MS, end_ms))):
            for instrument_id, instrument in self._instruments.items():
                first_ms = max(day_ms, start_ms, MINUTE.open_at(instrument.listed_ms))
                if first_ms < min(day_ms + DAY_MS, end_ms):
                    self._days.append(_Day(instrument_id, first_ms, min(day_ms + DAY_MS, end_ms)))
                    self._left[instrument_id] += 1
        self._total = len(self._days)
        self._tell_progress()
        results = await asyncio.gather(*(self._work() for _ in range(concurrency)), return_exceptions=True)
        self.summary.refused_symbols = tuple(sorted(self._instruments[number].symbol for number in self._refused))
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _work(self) -> None:
        while self._days:
            day = self._days.popleft()
            try:
                if day.instrument_id not in self._refused:
                    await self._one_day(day)
                self._left[day.instrument_id] -= 1
                if self._left[day.instrument_id] == 0 and day.instrument_id not in self._refused:
                    await self._finish(day.instrument_id)
            except RequestRejected as error:
                # A symbol that the exchange refuses is quarantined alone.
                self._refused.add(day.instrument_id)
                symbol = self._instruments[day.instrument_id].symbol
                log.warning("backfill.refused", market=self._market.value, symbol=symbol, reason=str(error))
            except BaseException:
                self._days.clear()
                raise
            self._tell_progress()

    async def _one_day(self, day: _Day) -> None:
        missing = await self._call(self._missing, day)
        if missing is None:
            self.summary.skipped_days += 1
            await self._call(self._fold_lacking, day)
            return
        start_ms, end_ms = missing
        self.summary.requested_days += 1
        rows = await self._klines(day.instrument_id, MINUTE, start_ms, end_ms)
        await self._call(self._bring, day.instrument_id, rows, start_ms, end_ms)
        if (start_ms, end_ms) != (day.start_ms, day.end_ms):
            await self._call(self._fold_lacking, day)

    async def _klines(self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int) -> Candles:
        instrument = self._instruments[instrument_id]
        self._weight += weight_of(self._market, count_opens(interval, start_ms, end_ms))
        rows = await self._rest.klines(
            instrument.symbol,
            interval,
            start_ms=start_ms,
            end_ms=end_ms,
            price_scale=instrument.price_scale,
            qty_scale=instrument.qty_scale,
            purpose=Purpose.BACKFILL,
        )
        settled: Candles = rows[rows["flags"] & Flag.VERIFIED != 0]
        return settled

    async def _finish(self, instrument_id: int) -> None:
        """What can only be done when an instrument's minutes are all there: gaps, the edges, the open candles."""
        closed_upto_ms = await self._call(self._thread.store.closed_upto, self._market)
        await self._call(self._fill_gaps, instrument_id)
        pieces = no_candles()
        opened = [i.open_at(self._start_ms) for i in self._intervals if i.open_at(self._start_ms) < self._start_ms]
        limit_ms = min(self._end_ms, closed_upto_ms or self._end_ms)
        # A candle that the history (or the listing) begins within is not folded from its minutes: it is fetched itself.
        first_ms = await self._call(self._first_minute, instrument_id)
        for interval in self._intervals[1:]:
            open_ms = interval.open_at(first_ms)
            if open_ms < first_ms and interval.next_open(open_ms) <= limit_ms:
                own = await self._klines(instrument_id, interval, open_ms, open_ms + 1)
                await self._call(self._write, instrument_id, own)
        running = [open_ms for open_ms in opened if any(i.open_at(limit_ms) == open_ms for i in self._intervals)]
        if running and closed_upto_ms is not None:
            pieces = await self._pieces(instrument_id, min(running))
        refolded = await self._call(self._fold_open, instrument_id, pieces, closed_upto_ms)
        if self._on_repaired is not None:
            nothing = np.zeros(0, np.int64)
            for upto_ms, ids, bases in refolded.by_upto():
                await self._on_repaired(nothing, no_candles(), ids, bases, upto_ms)

    async def _pieces(self, instrument_id: int, from_ms: int) -> Candles:
        """The exchange's closed candles that tile `[from_ms, start)`: days, then hours, then minutes."""
        found: list[Candles] = []
        for interval in PIECES:
            to_ms = interval.open_at(self._start_ms)
            if to_ms > from_ms:
                rows = await self._klines(instrument_id, interval, from_ms, to_ms)
                found.append(rows)
                if interval in self._intervals:
                    await self._call(self._bring, instrument_id, rows, from_ms, to_ms)
                from_ms = to_ms
        return np.concatenate(found) if found else no_candles()

    # In the store's thread

    def _first_minute(self, instrument_id: int) -> int:
        """Where an instrument's minutes begin: at the start, or at its listing."""
        first = self._thread.store.read(instrument_id, MINUTE, self._start_ms, self._end_ms, 1)
        return int(first["open_ms"][0]) if len(first) else self._start_ms

    def _missing(self, day: _Day) -> tuple[int, int] | None:
        """From the first to the end of the last minute of a day that is neither verified nor final; None for none."""
        rows = self._thread.store.read(day.instrument_id, MINUTE, day.start_ms, day.end_ms)
        final = (rows["flags"] & Flag.VERIFIED != 0) | (rows["origin"] == Origin.UNMATCHED)
        missing = np.setdiff1d(np.arange(day.start_ms, day.end_ms, MINUTE_MS), rows["open_ms"][final])
        return (int(missing[0]), int(missing[-1]) + MINUTE_MS) if len(missing) else None

    def _bring(self, instrument_id: int, rows: Candles, start_ms: int, end_ms: int) -> None:
        store = self._thread.store
        with store.transaction():
            self._write(instrument_id, rows)
            refolded = refold(
                store,
                [Span(instrument_id, start_ms, end_ms)],
                self._intervals,
                store.closed_upto(self._market),
                numbers_changed=False,
            )
        self.summary.folded += len(refolded.candles)

    def _fold_lacking(self, day: _Day) -> None:
        """Fold the longer candles of a day whose minutes are all there, where some are not (an interval kept since)."""
        store = self._thread.store
        closed_upto_ms = store.closed_upto(self._market)
        limit_ms = self._end_ms if closed_upto_ms is None else min(self._end_ms, closed_upto_ms)
        for interval in self._intervals[1:]:
            start_ms = max(interval.open_at(day.start_ms), 0)
            end_ms = min(interval.open_at(limit_ms), day.end_ms)
            expected = sum(1 for _ in interval.opens(start_ms, end_ms)) if start_ms < end_ms else 0
            if expected > len(store.revisions(day.instrument_id, interval, start_ms, end_ms)):
                break
        else:
            return
        span = Span(day.instrument_id, day.start_ms, day.end_ms)
        self.summary.folded += len(
            refold(store, [span], self._intervals, closed_upto_ms, numbers_changed=False).candles
        )

    def _write(self, instrument_id: int, rows: Candles) -> None:
        if len(rows):
            result = self._thread.store.write(np.full(len(rows), instrument_id, np.int64), rows)
            self.summary.written += int(result.accepted.sum())
            self.summary.changed += int(result.changed.sum())

    def _fill_gaps(self, instrument_id: int) -> None:
        store = self._thread.store
        gaps = find_gaps(store, instrument_id, self._start_ms, self._end_ms)
        if len(gaps) == 0:
            return
        with store.transaction():
            store.write(np.full(len(gaps), instrument_id, np.int64), gaps)
            span = Span(instrument_id, int(gaps["open_ms"][0]), int(gaps["open_ms"][-1]) + MINUTE_MS)
            closed_upto_ms = store.closed_upto(self._market)
            refold(store, [span], self._intervals, closed_upto_ms, numbers_changed=False)
        self.summary.unmatched += len(gaps)

    def _fold_open(self, instrument_id: int, pieces: Candles, closed_upto_ms: int | None) -> Refolded:
        listed_ms = self._instruments[instrument_id].listed_ms
        store = self._thread.store
        if listed_ms == 0 and len(pieces):
            listed_ms = int(pieces["open_ms"][0])
        elif listed_ms == 0:
            first = store.read(instrument_id, MINUTE, self._start_ms, self._end_ms, 1)
            listed_ms = int(first["open_ms"][0]) if len(first) and first["open_ms"][0] > self._start_ms else 0
        span = Span(instrument_id, max(self._end_ms - MINUTE_MS, self._start_ms), self._end_ms, listed_ms)
        return refold(store, [span], self._intervals, closed_upto_ms, extra_pieces={instrument_id: pieces})

    async def _call(self, fn: Callable[..., Returned], *args: object) -> Returned:
        """A call of the store, repeated while the database is busy."""
        for _ in range(STORE_ATTEMPTS):
            try:
                return await self._thread.call(fn, *args)
            except StoreUnavailable as error:
                log.warning("backfill.store_busy", reason=str(error))
                await self._clock.sleep(STORE_RETRY_S)
        return await self._thread.call(fn, *args)

    def _tell_progress(self) -> None:
        if self._progress is None:
            return
        left = sum(self._left.values())
        done = self._total - left
        rate = float(self._rest.budget.rate(Purpose.BACKFILL))
        day_weight = weight_of(self._market, DAY_MS // MINUTE_MS)
        per_day = self._weight / max(self.summary.requested_days, 1) if self._weight else day_weight
        minutes = (self._clock.monotonic_ns() - self._started_ns) / 60e9
        measured = minutes / done * left if done else 0.0
        self._progress(done, self._total, rate, max(left * per_day / rate, measured) * 60)


def find_gaps(store: SqliteStore, instrument_id: int, start_ms: int, end_ms: int) -> Candles:
    """Candles without trades, `unmatched`, for the minutes between stored ones that are not there.

    The caller has asked the exchange for all of `[start_ms, end_ms)`: it has none for these.
    """
    found: list[Candles] = []
    last = store.read(instrument_id, MINUTE, 0, start_ms, 1, descending=True)
    if len(last) and last["open_ms"][0] != start_ms - MINUTE_MS:
        last = no_candles()
    for piece in store.iter_read(instrument_id, MINUTE, start_ms, end_ms):
        rows = np.concatenate([last, piece])
        for at in np.flatnonzero(np.diff(rows["open_ms"]) > MINUTE_MS):
            opens = np.arange(rows["open_ms"][at] + MINUTE_MS, rows["open_ms"][at + 1], MINUTE_MS)
            gap = np.zeros(len(opens), CANDLE)
            gap["open_ms"] = opens
            gap["origin"] = Origin.UNMATCHED
            gap["flags"] = Flag.CLOSED
            for name in ("price_scale", "qty_scale"):
                gap[name] = rows[name][at]
            for name in ("open", "high", "low", "close"):
                gap[name] = rows["close"][at]
            gap["first_id"] = gap["last_id"] = -1
            found.append(gap)
        last = piece[-1:]
    return np.concatenate(found) if found else no_candles()


# Archive files


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What archive files of klines brought."""

    files: int
    rows: int
    written: int
    folded: int
    off_grid: int


def backfill_files(
    store: SqliteStore,
    files: Iterable[str | PathLike[str]],
    *,
    market: Market,
    intervals: Sequence[Interval],
    at_ms: int,
    symbol: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FileSummary:
    """Archive files of klines into the database, one transaction a file; their interval is kept from then on.

    Args:
        store: the database; synchronous.
        files: the files; where the name does not say the symbol, `symbol` does.
        market: what they are taken for.
        intervals: kept and folded, beside those that the market keeps.
        at_ms: now, for the instruments that are new.
        symbol: see `files`.
        progress: told (files done, files).

    Raises:
        FileFormatError | UsageError: a file cannot be read; nothing of it was written.
        StoreError: the database cannot be used.

    """
    readers = [read_klines(path, market=market, symbol=symbol) for path in files]
    rows = written = folded = off_grid = 0
    kept = {*store.intervals(market), *intervals, MINUTE, *(reader.interval for reader in readers)}
    chosen = tuple(sorted(kept, key=lambda interval: interval.code))
    for done, reader in enumerate(readers):
        chunks = list(reader)
        with store.transaction():
            store.set_intervals(market, chosen)
            instrument_id = known_instrument(store, market, reader.symbol, chunks, at_ms)
            for candles in chunks:
                written += int(store.write(np.full(len(candles), instrument_id, np.int64), candles).accepted.sum())
            if chunks:
                start_ms = int(min(candles["open_ms"].min() for candles in chunks))
                end_ms = reader.interval.next_open(int(max(candles["open_ms"].max() for candles in chunks)))
                span = Span(instrument_id, start_ms, end_ms)
                if reader.interval is MINUTE:
                    gaps = find_gaps(store, instrument_id, start_ms, end_ms)
                    store.write(np.full(len(gaps), instrument_id, np.int64), gaps)
                folded += len(refold(store, [span], chosen, store.closed_upto(market), numbers_changed=False).candles)
        rows += reader.rows
        off_grid += reader.off_grid
        if progress is not None:
            progress(done + 1, len(readers))
    return FileSummary(len(readers), rows, written, folded, off_grid)


def known_instrument(
    store: SqliteStore,
    market: Market,
    symbol: str,
    chunks: Sequence[np.ndarray[tuple[int], np.dtype[np.void]]],
    at_ms: int,
) -> int:
    """The identifier of a symbol, its scales widened to what the arrays (trades or candles) need; new where it is unknown."""
    price_scale = max((int(rows["price_scale"].max()) for rows in chunks if len(rows)), default=0)
    qty_scale = max((int(rows["qty_scale"].max()) for rows in chunks if len(rows)), default=0)
    for stored in store.instruments(market):
        if stored.instrument.symbol == symbol:
            return store.put_instruments(
                [replace(stored.instrument, price_scale=price_scale, qty_scale=qty_scale)], at_ms
            )[symbol]
    instrument = Instrument(market, symbol, Status.TRADING, price_scale, qty_scale)
    return store.put_instruments([instrument], at_ms)[symbol]
