"""Recorded trades through the same engine and store, with time taken from the trades.

Each symbol has an engine of its own, so that recordings of different times do not close one another's minutes. A recording
counts as alive throughout: its minutes without trades are `flat`. A replay is one transaction, however many files it reads.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Final

import numpy as np

from klagg.archive import open_trades
from klagg.gaps import APART, find_gaps
from klagg.interval import Interval
from klagg.model import Candles, Gap, Market
from klagg.replay.chain import Chain
from klagg.replay.known import Known
from klagg.replay.tapes import Tapes, begins
from klagg.store import SqliteStore

WRITE_ROWS: Final = 16_384
"""Candles wait for one another up to so many (2 MiB): a call of the store for each slice costs more than its rows."""

Progress = Callable[[int, int, int], None]
"""Told (files done, files, trades so far)."""


@dataclass(slots=True)
class ReplaySummary:
    """What a replay did.

    `tally` is what became of the trades (see `engine.Tally`), `filled` minutes between
    recordings, `passed_over` other messages by type.
    """

    files: int = 0
    symbols: int = 0
    trades: int = 0
    candles: int = 0
    refused: int = 0
    filled: int = 0
    seconds: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def trades_per_s(self) -> float:
        """Trades per second, reading and writing included."""
        return self.trades / self.seconds if self.seconds else 0.0


class _Writer:
    """Candles on their way to the store, in large batches."""

    def __init__(self, store: SqliteStore, market: Market, summary: ReplaySummary) -> None:
        self._store = store
        self._known = Known(store, market)
        self._summary = summary
        self._market = market
        self._waiting: list[tuple[int, Candles]] = []
        self._spans: dict[str, tuple[int, int, int]] = {}
        """By symbol: its identifier, and from which to which open there are candles."""
        self._rows = 0

    def put(self, symbol: str, candles: Candles) -> None:
        number = self._known.id_of(symbol, candles)
        self._waiting.append((number, candles))
        _, start_ms, end_ms = self._spans.get(symbol, (number, 1 << 62, 0))
        opens = candles["open_ms"]
        self._spans[symbol] = number, min(start_ms, int(opens.min())), max(end_ms, int(opens.max()) + 1)
        self._rows += len(candles)
        if self._rows >= WRITE_ROWS:
            self.flush()

    def fill(self, breaks: dict[str, list[tuple[int, int]]]) -> None:
        """Make what lies between what was written and what is there, but for the times between two lives."""
        for symbol, (number, start_ms, end_ms) in self._spans.items():
            for ended_ms, begun_ms in breaks.get(symbol, ()):
                self._store.begin_life(number, ended_ms, begun_ms)
            gaps = find_gaps(self._store, number, start_ms, end_ms)
            for from_ms, to_ms in gaps.apart:
                self._store.record_gap(Gap(self._market, symbol, from_ms, to_ms, APART))
            written = self._store.write(np.full(len(gaps.filled), number, np.int64), gaps.filled)
            self._summary.filled += int(written.accepted.sum())

    def flush(self) -> None:
        if self._waiting:
            ids = [np.full(len(candles), number, np.int64) for number, candles in self._waiting]
            result = self._store.write(np.concatenate(ids), np.concatenate([candles for _, candles in self._waiting]))
            accepted = int(result.accepted.sum())
            self._summary.candles += accepted
            self._summary.refused += self._rows - accepted
        self._waiting, self._rows = [], 0


def replay(
    files: Iterable[str | PathLike[str]],
    *,
    market: Market,
    intervals: Sequence[Interval],
    store: SqliteStore,
    symbol: str | None = None,
    progress: Progress | None = None,
) -> ReplaySummary:
    """Replay recordings, oldest first; ids chain across neighbouring files of a symbol.

    The first and the last minute of a recording are `partial`, unless its ids chain to what the database holds. A longer candle
    at an end is `partial`, and one that has not ended is not made. What lies between two recordings of one life of a symbol is
    `filled`. Trades recorded late are put in the order of their ids first (see `archive.order`).

    Args:
        files: the recordings.
        market: what they are taken for; a file that says it is of another is refused.
        intervals: the candles to make, `1m` first; the market keeps them from then on.
        store: the database.
        symbol: for files whose rows do not say it.
        progress: told after each file.

    Raises:
        FileFormatError | UsageError: a file cannot be read: nothing of any was written.
        StoreError: the database cannot be used.
    """
    started = time.perf_counter()
    readers = sorted((open_trades(path, market=market, symbol=symbol) for path in files), key=begins)
    summary = ReplaySummary()
    writer = _Writer(store, market, summary)
    tapes = Tapes(intervals, writer.put, Chain(store, market))
    # Each candle is known at its own end, as it would have been live; what was never stored before is no news.
    with store.transaction(), store.knowing(None, publish_new=False):
        store.set_intervals(market, {*store.intervals(market), *intervals})
        for reader in readers:
            tapes.file(reader)
            if progress is not None:
                progress(tapes.files, len(readers), tapes.trades)
        tapes.end()
        writer.flush()
        writer.fill(tapes.breaks)
    summary.files, summary.symbols, summary.trades = tapes.files, len(tapes.symbols), tapes.trades
    summary.passed_over, summary.tally = tapes.passed_over, tapes.tally
    summary.seconds = time.perf_counter() - started
    return summary
