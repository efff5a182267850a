"""Continuity of the database, without the network.

Per series: holes, misaligned opens, prices and volumes that contradict themselves, candles without trades that do not
continue the previous close; per symbol: longer candles that are not the fold of their minutes, where all of these are
there. Gaps on record are listed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from klagg.check.folding import PRICES, SUMS, Folds, Mask, at_scale, common_scale, fold, next_opens
from klagg.check.report import MAX_FINDINGS, Finding, Kind, Report
from klagg.check.scanning import Scan, Series, price_text, sum_text
from klagg.errors import MalformedRow, UsageError
from klagg.interval import BY_NAME, DAY_MS, INTERVALS, MINUTE, MINUTE_MS, MONTH_STEP, Interval
from klagg.model import NUMBERS, Candles, Flag, Gap, Market, Origin, no_candles

if TYPE_CHECKING:
    from klagg.store import Life, StoredInstrument
    from klagg.store.mending import Mending

__all__ = ["MAX_FINDINGS", "CheckSource", "Finding", "Kind", "Report", "check", "sound_snapshot"]

BLOCK_MS: Final = 32 * DAY_MS
"""Series are read in blocks of whole days: at most 46,080 minutes, 6 MiB, in memory."""
_DAY: Final = BY_NAME["1d"]
_FOREVER_MS: Final = 1 << 62
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: a candle as late as this is a finding, and no other is expected to reach it."""


class CheckSource(Protocol):
    """What check needs of a store."""

    def instruments(self, market: Market | None = None) -> "Sequence[StoredInstrument]":
        """The instruments of a market, or all."""

    def lives(self, instrument_id: int) -> "Sequence[Life]":
        """The listings of an instrument, oldest first."""

    def closed_upto(self, market: Market) -> int | None:
        """The boundary up to which all is closed, None where nothing ran live."""

    def intervals(self, market: Market) -> tuple[Interval, ...]:
        """The intervals a market keeps; none where nothing was said."""

    @property
    def mending(self) -> "Mending":
        """What is told of whole tables: snapshots, boundaries, tallies."""

    def open_candle(self, instrument_id: int, interval: Interval) -> Candles:
        """The open snapshot of a series: one candle or none."""

    def gaps(self, market: Market) -> Sequence[Gap]:
        """Spans on record as not kept."""

    def malformed_rows(self, market: Market) -> Iterable[str]:
        """A line for each series of no instrument or interval, and for what a start would refuse."""

    def read_raw(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        descending: bool = False,
    ) -> Candles:
        """Closed candles that open in `[start_ms, end_ms)`, whatever they hold."""


def check(
    store: CheckSource,
    market: Market | None = None,
    symbols: Iterable[str] | None = None,
    intervals: Iterable[Interval] | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    *,
    limit: int = MAX_FINDINGS,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check the candles that open in `[start_ms, end_ms)`.

    Snapshots, boundaries and tallies are checked where nothing narrows the check.

    Args:
        store: the database; it may be written meanwhile.
        market: one market, or None for all in the database.
        symbols: these symbols, or None for all.
        intervals: these intervals, or None for all there are; minutes are read in any case, to fold from.
        start_ms: None for the beginning.
        end_ms: None for the end.
        limit: how many findings the report keeps; all are counted.
        progress: told (symbols done, symbols in all).

    Raises:
        UsageError: an unknown symbol, or an empty range.

    """
    span = (-_FOREVER_MS if start_ms is None else start_ms, _FOREVER_MS if end_ms is None else end_ms)
    if span[0] >= span[1]:
        raise UsageError(f"the range is empty: it starts at {span[0]} ms and ends at {span[1]} ms")
    report = Report(limit)
    wanted = None if symbols is None else set(symbols)
    chosen = tuple(INTERVALS if intervals is None else intervals)
    known: set[str] = set()
    markets = tuple(Market) if market is None else (market,)
    total = sum(
        wanted is None or one.instrument.symbol in wanted for each in markets for one in store.instruments(each)
    )
    done = 0
    for one in markets:
        # Read before the candles: what is closed meanwhile is then not missing.
        closed_upto_ms = store.closed_upto(one)
        kept = _kept(store, one)
        for stored in store.instruments(one):
            symbol = stored.instrument.symbol
            known.add(symbol)
            if wanted is None or symbol in wanted:
                _Instrument(store, stored, chosen, span, closed_upto_ms, kept, report).run()
                done += 1
                if progress is not None:
                    progress(done, total)
        if wanted is None and intervals is None and start_ms is None and end_ms is None:
            _check_tables(store, one, report)
        report.malformed += [line for line in store.malformed_rows(one) if line not in report.malformed]
        report.gaps += [
            gap
            for gap in store.gaps(one)
            if gap.end_ms > span[0] and gap.start_ms < span[1] and (wanted is None or gap.symbol in wanted | {""})
        ]
    if wanted is not None and (unknown := sorted(wanted - known)):
        raise UsageError(f"unknown symbols {' '.join(unknown)}: the database holds {len(known)} symbols")
    if market is None and wanted is None and intervals is None and start_ms is None and end_ms is None:
        for miscount in store.mending.miscounts():
            values: dict[str, str | int] = {"stored": miscount.stored, "tally": miscount.tally}
            values |= {"origin": miscount.origin, "verified": miscount.verified, "market": miscount.market}
            report.add(Finding(Kind.TALLY, Market.USDM, "", MINUTE, 0, values))
    return report


def _kept(store: CheckSource, market: Market) -> set[Interval]:
    """The intervals a market keeps; none where a row of them is unknown, which is told with the other malformed rows."""
    try:
        return set(store.intervals(market))
    except MalformedRow:
        return set()


def _check_tables(store: CheckSource, market: Market, report: Report) -> None:
    """What no series alone tells: snapshots that closed candles overtook, candles nobody closed, boundaries of shards."""
    symbols = {stored.id: stored.instrument.symbol for stored in store.instruments(market)}
    for one in store.mending.overtaken(market):
        values: dict[str, str | int] = {"newest_closed_ms": one.closed_open_ms}
        report.add(Finding(Kind.SNAPSHOT, market, symbols[one.instrument_id], one.interval, one.open_ms, values))
    for ahead in store.mending.ahead(market):
        values = {"closed_upto_ms": ahead.closed_upto_ms}
        report.add(Finding(Kind.AHEAD, market, symbols[ahead.instrument_id], ahead.interval, ahead.open_ms, values))
    for wrong in store.mending.boundaries(market):
        values = {
            "closed_upto_ms": wrong.closed_upto_ms,
            "snapshots_ms": wrong.snapshots_ms,
            "shards": len(wrong.shards),
        }
        report.add(Finding(Kind.CLOSED_UPTO, market, "", MINUTE, wrong.closed_upto_ms, values))


@dataclass(slots=True)
class _Reading:
    """One series being gone through."""

    series: Series
    scan: Scan


class _Instrument:
    """Checks all series of one instrument, in step, so that each minute is read once."""

    def __init__(
        self,
        store: CheckSource,
        stored: "StoredInstrument",
        intervals: Sequence[Interval],
        span: tuple[int, int],
        closed_upto_ms: int | None,
        kept: AbstractSet[Interval],
        report: Report,
    ) -> None:
        self._store = store
        self._stored = stored
        self._report = report
        self._span = span
        self._closed_upto_ms = closed_upto_ms
        self._intervals = intervals
        self._kept = kept or set(INTERVALS)
        self._days = Folds(no_candles(), np.zeros(0, np.int64))

    def run(self) -> None:
        """Check them."""
        bounds = {interval: self._bounds(interval) for interval in {*self._intervals, MINUTE}}
        there = {interval: found for interval, found in bounds.items() if found is not None}
        if not there:
            return
        lives = self._store.lives(self._stored.id)
        unlisted = [
            (life.retired_ms, following.listed_ms) for life, following in pairwise(lives) if life.retired_ms is not None
        ]
        readings = {}
        for interval in self._intervals:
            if interval in there:
                instrument = self._stored.instrument
                series = Series(instrument.market, instrument.symbol, interval, unlisted, instrument.price_scale)
                readings[interval] = _Reading(series, Scan(series, self._report))
        self._report.series += len(readings)
        short = {i: r for i, r in readings.items() if i.step_ms != MONTH_STEP and i.step_ms <= DAY_MS}
        last_ms = max(last for _, last in there.values())
        block_ms = min(first for first, _ in there.values()) // DAY_MS * DAY_MS
        while block_ms <= last_ms:
            self._block(short, max(block_ms, self._span[0]), min(block_ms + BLOCK_MS, self._span[1]))
            block_ms = max(block_ms + BLOCK_MS, self._next_block(there, block_ms + BLOCK_MS))
        for interval, reading in readings.items():
            if interval not in short:
                parents = reading.scan.feed(self._read(interval, *self._span))
                self._compare(reading, parents, fold(self._days.candles, self._days.minutes, interval))
            reading.scan.finish(self._expected_end(interval, there))

    def _bounds(self, interval: Interval) -> tuple[int, int] | None:
        """The opens of the first and last candle of a series in the range."""
        first = self._store.read_raw(self._stored.id, interval, *self._span, 1)
        last = self._store.read_raw(self._stored.id, interval, *self._span, 1, descending=True)
        return (int(first["open_ms"][0]), int(last["open_ms"][0])) if len(first) and len(last) else None

    def _read(self, interval: Interval, start_ms: int, end_ms: int) -> Candles:
        return self._store.read_raw(self._stored.id, interval, start_ms, end_ms)

    def _next_block(self, there: Iterable[Interval], from_ms: int) -> int:
        """The day of the next candle of any series: nothing is read where nothing is, however far a stray row lies."""
        firsts = [self._store.read_raw(self._stored.id, one, from_ms, self._span[1], 1)["open_ms"] for one in there]
        return min((int(opens[0]) // DAY_MS * DAY_MS for opens in firsts if len(opens)), default=_FOREVER_MS)

    def _expected_end(self, interval: Interval, there: Mapping[Interval, tuple[int, int]]) -> int | None:
        """Up to which open a series must reach: what is closed, if its symbol runs live; else to where its minutes end."""
        if interval not in self._kept or MINUTE not in there:
            return None
        snapshot = self._store.open_candle(self._stored.id, MINUTE)
        is_live = len(snapshot) > 0 and self._closed_upto_ms is not None
        is_live = (
            is_live and int(snapshot["open_ms"][0]) >= (self._closed_upto_ms or 0) and self._stored.retired_ms is None
        )
        if is_live:
            return interval.open_at(min(self._closed_upto_ms or 0, self._span[1]))
        # Where a longer candle was closed its minutes were, and where minutes were closed the longer candles they fill.
        ends = [one.next_open(one.open_at(last)) for one, (_, last) in there.items() if abs(last) < LATEST_MS]
        end_ms = max(ends, default=0) if interval is MINUTE else MINUTE.next_open(there[MINUTE][1])
        return interval.open_at(min(end_ms, self._span[1], LATEST_MS))

    def _block(self, readings: dict[Interval, _Reading], start_ms: int, end_ms: int) -> None:
        """The series up to a day, over whole days; keeps the days for the longer ones."""
        minutes = self._read(MINUTE, start_ms, end_ms)
        # Checked as a series where that was asked for; folded from in any case.
        scan = readings[MINUTE].scan if MINUTE in readings else _silent_scan(self._stored)
        sound = _same_scale(scan.feed(minutes))
        ones = np.ones(len(sound), np.int64)
        for interval, reading in readings.items():
            if interval is not MINUTE:
                parents = reading.scan.feed(self._read(interval, start_ms, end_ms))
                self._compare(reading, parents, fold(sound, ones, interval))
        days = fold(sound, ones, _DAY)
        together, fits = _at_common_scale(np.concatenate([self._days.candles, days.candles]))
        self._days = Folds(together[fits], np.concatenate([self._days.minutes, days.minutes])[fits])

    def _compare(self, reading: _Reading, parents: Candles, folds: Folds) -> None:
        """Stored parents against folds of all their minutes."""
        interval = reading.series.interval
        lengths = next_opens(folds.candles["open_ms"], interval) - folds.candles["open_ms"]
        whole = folds.candles[folds.minutes * MINUTE_MS == lengths]
        _, ours, theirs = np.intersect1d(whole["open_ms"], parents["open_ms"], return_indices=True)
        self._report.parents_compared += len(ours)
        differ = _differ(whole[ours], parents[theirs]) | _ids_differ(whole[ours], parents[theirs])
        for at in np.flatnonzero(differ):
            self._confirm(reading, int(whole["open_ms"][ours[at]]))

    def _confirm(self, reading: _Reading, open_ms: int) -> None:
        """Read one parent and its minutes again, since both may have been written meanwhile, and report what differs."""
        interval = reading.series.interval
        end_ms = interval.next_open(open_ms)
        parents = self._read(interval, open_ms, open_ms + 1)
        minutes = self._read(MINUTE, open_ms, end_ms)
        sound = _same_scale(_silent_scan(self._stored).feed(minutes))
        folds = fold(sound, np.ones(len(sound), np.int64), interval)
        if len(parents) != 1 or len(folds.candles) != 1 or len(sound) * MINUTE_MS != end_ms - open_ms:
            return
        if not _differ(folds.candles, parents)[0]:
            if _ids_differ(folds.candles, parents)[0]:
                told = {name: int(parents[name][0]) for name in ("first_id", "last_id")}
                told |= {f"{name}_of_minutes": int(folds.candles[name][0]) for name in ("first_id", "last_id")}
                self._report.add(reading.series.finding(Kind.IDS, open_ms, {**told}))
            return
        if _is_pending(minutes) and not _is_evident(parents[0]):
            return  # the minutes are on the repair's list, and the longer candle is known, or on it too
        values: dict[str, str | int] = {}
        scales = common_scale(folds.candles, parents)
        folded, stored = (at_scale(one, *scales)[0][0] for one in (folds.candles, parents))
        for name in (*PRICES, *SUMS, "trades"):
            if _value(folded, name) != _value(stored, name):
                values[name] = _value(stored, name)
                values[f"{name}_of_minutes"] = _value(folded, name)
        self._report.add(reading.series.finding(Kind.PARENT, open_ms, values))


def _is_pending(minutes: Candles) -> bool:
    """Whether some of the minutes are known not to be the exchange's, and marked so."""
    origin, verified = minutes["origin"], (minutes["flags"] & Flag.VERIFIED) != 0
    return bool((~verified & ((origin <= Origin.PARTIAL) | (origin == Origin.UNMATCHED))).any())


def _is_evident(candle: np.void) -> bool:
    """Whether a candle is not verified, but stands on evidence of its own."""
    return not candle["flags"] & Flag.VERIFIED and Origin.FLAT <= candle["origin"] <= Origin.EXCHANGE


def _ids_differ(folded: Candles, stored: Candles) -> Mask:
    """Where both tell the first or the last trade, and tell another; without trades there is none."""
    differ: Mask = np.zeros(len(folded), np.bool_)
    for name in ("first_id", "last_id"):
        differ |= (folded[name] >= 0) & (stored[name] >= 0) & (folded[name] != stored[name])
    return differ & (folded["trades"] > 0)


def _value(candle: np.void, name: str) -> str | int:
    if name in PRICES:
        return price_text(candle, name)
    return sum_text(candle, name) if name in SUMS else int(candle[name])


def _silent_scan(stored: "StoredInstrument") -> Scan:
    """A scan whose findings go nowhere: to tell which minutes are fit to be folded."""
    return Scan(Series(stored.instrument.market, stored.instrument.symbol, MINUTE), Report(0))


def _at_common_scale(candles: Candles) -> tuple[Candles, Mask]:
    return at_scale(candles, *common_scale(candles))


def _same_scale(candles: Candles) -> Candles:
    """The candles at their widest scale; those it cannot hold are left out, so that their parents are not compared."""
    scaled, fits = _at_common_scale(candles)
    return scaled[fits]


def _differ(folded: Candles, stored: Candles) -> Mask:
    """Where a fold and a stored parent differ. Without trades the prices are the flat rule's matter, not the fold's."""
    scales = common_scale(folded, stored)
    one, one_fits = at_scale(folded, *scales)
    other, other_fits = at_scale(stored, *scales)
    differ: Mask = np.zeros(len(folded), np.bool_)
    for name in NUMBERS:
        unequal = one[name] != other[name]
        differ |= unequal & (one["trades"] > 0) if name in PRICES else unequal
    return differ & one_fits & other_fits


def sound_snapshot(snapshot: Candles, interval: Interval) -> bool:
    """Whether an open candle (one, or none) can be true: a start refuses one that cannot."""
    report = Report(0)
    series = Series(Market.USDM, "", interval)
    return len(Scan(series, report).feed(snapshot)) == len(snapshot) and not (
        report.counts.keys() & {Kind.MISALIGNED, Kind.PRICES, Kind.VOLUMES, Kind.SCALE, Kind.ORIGIN}
    )
