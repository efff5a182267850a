"""Archive files and recordings into the database, one short transaction a file.

Trades first, oldest first, since ids chain across neighbouring files and a kline proves what trades made; then klines. A
file is read whole before anything of it is written, so that a broken line leaves nothing of its file, and a service beside
is not kept waiting. What the database has already, equal and verified, is compared and not written again: a second run over
the same files costs their reading.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os import PathLike

import numpy as np
import numpy.typing as npt
import structlog

from klagg.archive import KlineReader, TradeReader
from klagg.backfill.differences import at_one_scale, matched, same_numbers
from klagg.backfill.parents import fold_brought, fold_missing
from klagg.backfill.patience import patiently_blocking
from klagg.backfill.sources import Sources, open_sources, verify_checksum
from klagg.backfill.summary import FileSummary
from klagg.gaps import APART, find_gaps
from klagg.interval import INTERVALS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, Flag, Gap, Market, no_candles
from klagg.refold import Span, refold
from klagg.replay.chain import Chain
from klagg.replay.known import Known
from klagg.replay.tapes import Tapes, begins
from klagg.store import SqliteStore

log = structlog.get_logger()

FileProgress = Callable[[int, int, FileSummary], None]
"""Told (files done, files, what they brought so far)."""


def backfill_files(
    store: SqliteStore,
    files: Iterable[str | PathLike[str]],
    *,
    market: Market,
    intervals: Sequence[Interval],
    at_ms: int,
    symbol: str | None = None,
    wants: Callable[[str], bool] = lambda _symbol: True,
    progress: FileProgress | None = None,
    insists: bool = True,
) -> FileSummary:
    """Files of klines, aggregate trades and trades, in any order, into the database.

    The interval of a file of klines is kept from then on. Trades go through the engine as in a replay: an official archive
    file covers the whole day or month in its name, the two ends of any other recording are `partial`.

    Args:
        store: the database; synchronous.
        files: the files; where one does not say the symbol, `symbol` does.
        market: what they are taken for.
        intervals: kept and folded, beside those that the market keeps.
        at_ms: now, for the instruments that are new.
        symbol: see `files`.
        wants: which symbols are wanted; others are passed over.
        progress: told after each file.
        insists: whether somebody chose the market, see `archive.read_klines`.

    Raises:
        FileFormatError | UsageError: a file cannot be read; nothing of it was written, the files before it stay.
        StoreError: the database cannot be used.

    """
    started = time.perf_counter()
    sources = open_sources(files, market=market, symbol=symbol, wants=wants, insists=insists)
    chosen = {*store.intervals(market), *intervals, MINUTE, *(reader.interval for reader in sources.klines)}
    work = _Files(store, market, tuple(sorted(chosen, key=lambda one: one.code)), at_ms, wants, progress)
    try:
        work.run(sources)
    finally:
        work.summary.seconds = time.perf_counter() - started
    return work.summary


class _Files:
    def __init__(
        self,
        store: SqliteStore,
        market: Market,
        intervals: tuple[Interval, ...],
        at_ms: int,
        wants: Callable[[str], bool],
        progress: FileProgress | None,
    ) -> None:
        self.summary = FileSummary()
        self._store = store
        self._market = market
        self._at_ms = at_ms
        self._intervals = intervals
        self._wants = wants
        self._progress = progress
        self._known = Known(store, market, at_ms)
        self._taken: dict[str, list[Candles]] = {}
        self._breaks: dict[str, list[tuple[int, int]]] = {}
        """By symbol, the times between two of its lives that the trades showed."""
        self._spans: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
        """By instrument and interval, which opens a file of this call brought."""

    def run(self, sources: Sources) -> None:
        self.summary.other_symbols = sources.other_symbols
        self.summary.other_markets = sources.other_markets
        total = len(sources.trades) + len(sources.klines)
        tapes = Tapes(self._intervals, self._take, Chain(self._store, self._market))
        self._breaks = tapes.breaks
        name = ""
        try:
            for reader in sorted(sources.trades, key=begins):
                self._trades(tapes, reader)
                name = reader.file.path.name
                self._tell(total)
        finally:
            # Also after a file that broke off: what came of the ones before it is whole.
            tapes.end()
            self._commit(name)
            self.summary.tally = Counter({name: count for name, count in tapes.tally.items() if count})
            self.summary.passed_over = tapes.passed_over
        for kline_reader in sources.klines:
            self._klines(kline_reader)
            self._tell(total)

    def _tell(self, total: int) -> None:
        self.summary.files += 1
        if self._progress is not None:
            self._progress(self.summary.files, total, self.summary)

    def _take(self, symbol: str, candles: Candles) -> None:
        if self._wants(symbol):
            self._taken.setdefault(symbol, []).append(candles)

    def _trades(self, tapes: Tapes, reader: TradeReader) -> None:
        self.summary.checksums += verify_checksum(reader.file.path)
        try:
            tapes.file(reader)
        except BaseException:
            self._taken.clear()
            raise
        self.summary.trades += reader.rows
        self.summary.unproven_trades += reader.unproven
        self.summary.taken[f"{self._market} {reader.file.kind}"] += 1
        self._commit(reader.file.path.name)

    def _klines(self, reader: KlineReader) -> None:
        self.summary.checksums += verify_checksum(reader.path)
        candles = reader.whole()
        self._taken[reader.symbol] = [candles] if len(candles) else []
        self._note(reader)
        self._commit(reader.path.name)

    def _note(self, reader: KlineReader) -> None:
        summary = self.summary
        summary.rows += reader.rows
        summary.off_grid += reader.off_grid
        summary.repeated += reader.repeated
        summary.contradicting += len(reader.contradicting)
        summary.broken_minutes += reader.broken_minutes
        summary.unproven += reader.unproven_ms is not None
        summary.taken[
            f"{self._market} {'1s klines, folded to minutes' if reader.seconds else f'{reader.interval} klines'}"
        ] += 1
        if reader.contradicting:
            log.warning(
                "backfill.file_contradicts_itself",
                file=str(reader.path),
                symbol=reader.symbol,
                interval=reader.interval.name,
                candles=len(reader.contradicting),
                first_open_ms=reader.contradicting[0],
            )

    def _commit(self, source: str) -> None:
        """Write what one file brought, and fold its parents."""
        taken, self._taken = self._taken, {}
        if not any(taken.values()):
            return
        try:
            with ExitStack() as stack:
                # A service beside commits every second.
                patiently_blocking(lambda: stack.enter_context(self._store.transaction()))
                stack.enter_context(self._store.knowing(self._at_ms, publish_new=False))
                self._store.set_intervals(self._market, self._intervals)
                for symbol, chunks in taken.items():
                    if chunks:
                        self._bring(symbol, np.concatenate(chunks), source)
        except BaseException:
            self._known.forget()
            raise

    def _bring(self, symbol: str, candles: Candles, source: str) -> None:
        number = self._known.id_of(symbol, candles)
        rows = np.concatenate([self._news(symbol, number, rows, source) for rows in _by_series(candles)])
        start_ms = int(candles["open_ms"].min())
        last = candles[int(np.argmax(candles["open_ms"]))]
        end_ms = INTERVALS[int(last["interval"])].next_open(int(last["open_ms"]))
        closed_upto_ms = self._store.closed_upto(self._market)
        if len(rows) == 0:
            # An interval kept since, or a week that other files have completed.
            self.summary.folded += fold_missing(self._store, number, self._intervals, start_ms, end_ms, closed_upto_ms)
            return
        accepted = self._write(number, rows)
        self.summary.written += int(accepted.sum())
        self.summary.refused += len(rows) - int(accepted.sum())
        for code in np.unique(rows["interval"][accepted]).tolist():
            opens = rows["open_ms"][accepted & (rows["interval"] == code)]
            self._spans.setdefault((number, code), []).append((int(opens.min()), int(opens.max()) + 1, source))
        for code in np.unique(candles["interval"][candles["interval"] != MINUTE.code]).tolist():
            longer = find_gaps(self._store, number, start_ms, end_ms, INTERVALS[code]).filled
            self.summary.filled += int(self._write(number, longer).sum())
        minutes = candles["open_ms"][candles["interval"] == MINUTE.code]
        filled = self._fill(symbol, number, start_ms, end_ms) if len(minutes) else no_candles()
        if len(filled):
            start_ms = min(start_ms, int(filled["open_ms"][0]))
            end_ms = max(end_ms, int(filled["open_ms"][-1]) + MINUTE_MS)
        elif len(minutes) == len(rows) and accepted.all():
            self.summary.folded += fold_brought(self._store, number, self._intervals, rows, closed_upto_ms)
            return
        span = Span(number, start_ms, end_ms)
        refolded = refold(self._store, [span], self._intervals, closed_upto_ms, numbers_changed=False)
        self.summary.folded += len(refolded.candles)

    def _fill(self, symbol: str, number: int, start_ms: int, end_ms: int) -> Candles:
        """Make what lies between what was brought and what is there: those that were taken."""
        for ended_ms, begun_ms in self._breaks.pop(symbol, ()):
            self._store.begin_life(number, ended_ms, begun_ms)
        gaps = find_gaps(self._store, number, start_ms, end_ms)
        for from_ms, to_ms in gaps.apart:
            self._store.record_gap(Gap(self._market, symbol, from_ms, to_ms, APART), self._at_ms)
        filled: Candles = gaps.filled[self._write(number, gaps.filled)]
        self.summary.filled += len(filled)
        return filled

    def _write(self, number: int, rows: Candles) -> npt.NDArray[np.bool_]:
        return self._store.write(np.full(len(rows), number, np.int64), rows).accepted

    def _news(self, symbol: str, number: int, rows: Candles, source: str) -> Candles:
        """The rows of one series that the database does not hold equal and verified; what differs is noted."""
        interval = INTERVALS[int(rows["interval"][0])]
        stored = self._store.read(number, interval, int(rows["open_ms"][0]), int(rows["open_ms"][-1]) + 1)
        ours, theirs = matched(stored, rows)
        if len(ours) == 0:
            return rows

        def came_from(open_ms: int) -> str:
            spans = reversed(self._spans.get((number, interval.code), []))
            return next((name for start_ms, end_ms, name in spans if start_ms <= open_ms < end_ms), "database")

        self.summary.differences.note(self._market, symbol, stored[ours], rows[theirs], source, came_from)
        known = stored["flags"][ours] & Flag.VERIFIED != 0
        known &= same_numbers(*at_one_scale(stored[ours], rows[theirs]))
        self.summary.equal += int(known.sum())
        keep = np.ones(len(rows), np.bool_)
        keep[theirs[known]] = False
        news: Candles = rows[keep]
        return news


def _by_series(candles: Candles) -> list[Candles]:
    """The candles of each interval, ascending, the newest of each open."""
    found = []
    for code in np.unique(candles["interval"]).tolist():
        rows = candles[candles["interval"] == code][::-1]
        found.append(rows[np.unique(rows["open_ms"], return_index=True)[1]])
    return found
