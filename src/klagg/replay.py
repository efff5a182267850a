"""Recorded trades through the same engine and store, with time taken from the trades.

Each symbol has an engine of its own, so that recordings of different times do not close one another's minutes. A recording
counts as alive throughout: its minutes without trades are `flat`. A replay is one transaction, however many files it reads.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np

from klagg.archive import TradeChunk, TradeReader, coverage, open_trades
from klagg.archive.order import BrokenTime, InOrder
from klagg.engine.engine import Engine
from klagg.engine.state import HOLE_PATIENCE_MS
from klagg.errors import FileFormatError
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import LAST_TRADE, TRADE, Candles, Instrument, Market, Origin, Status, TradeKind, Trades, no_candles
from klagg.store import SqliteStore

SLICE_MS: Final = 32 * MINUTE_MS
"""Trades applied at a time reach over no more than this, so that no minute leaves the engine's memory uncollected."""
NEIGHBOUR_MS: Final = DAY_MS
"""Trades later than this after the one before, their ids not following, are another recording: nothing is filled in
between."""

WRITE_ROWS: Final = 16_384
"""Candles wait for one another up to so many (2 MiB): a call of the store for each slice costs more than its rows."""

Progress = Callable[[int, int, int], None]
"""Told (files done, files, trades so far)."""


@dataclass(slots=True)
class ReplaySummary:
    """What a replay did; `tally` is what became of the trades (see `engine.Tally`), `passed_over` other messages by type."""

    files: int = 0
    symbols: int = 0
    trades: int = 0
    candles: int = 0
    refused: int = 0
    seconds: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def trades_per_s(self) -> float:
        """Trades per second, reading and writing included."""
        return self.trades / self.seconds if self.seconds else 0.0


class _Tape:
    """One symbol's engine and how far its recording has come."""

    def __init__(
        self, intervals: Sequence[Interval], instrument_id: int, first: Trades, covered_ms: int | None
    ) -> None:
        self.instrument_id = instrument_id
        self.engine = Engine(intervals, capacity=1)
        self.witnesses = 0
        self.covered_to_ms: int | None = None
        """Up to where an archive file covers its time whole, if the last file read does."""
        self.last_id = int(first["agg_id"]) - 1
        self.last_ms = self.alive_ms = first_ms = int(first["time_ms"])
        boundary_ms = MINUTE.open_at(first_ms)
        covered = covered_ms is not None and covered_ms <= boundary_ms
        # Ids begin at 0 or 1 with the listing, before which there is nothing.
        if covered_ms is not None and covered and self.last_id > 0:
            boundary_ms = covered_ms
        price_scale, qty_scale = int(first["price_scale"]), int(first["qty_scale"])
        self.slot = self.engine.add(price_scale, qty_scale, boundary_ms, int(first["price"]), Origin.FILLED)
        if covered:
            before = np.zeros(1, LAST_TRADE)[0]
            before["agg_id"], before["time_ms"] = self.last_id, boundary_ms - 1
            before["price"], before["price_scale"] = first["price"], first["price_scale"]
            self.engine.restore(self.slot, no_candles(), before)
        self.sight(boundary_ms if covered else boundary_ms + MINUTE_MS)

    def sight(self, at_ms: int) -> None:
        self.engine.sight([self.slot], at_ms)

    def follows_late(self, trades: Trades) -> bool:
        """Whether these go on with the next id, so late that the engine may no longer hold the last trade's minute."""
        late = int(trades["time_ms"][0]) - self.last_ms >= SLICE_MS
        return late and int(trades["agg_id"][0]) == self.last_id + 1

    def apply(self, trades: Trades) -> None:
        now_ms = int(trades["time_ms"].max())
        trades["slot"] = self.slot
        self.engine.apply(trades, max(now_ms, self.last_ms))
        self.last_ms = max(self.last_ms, now_ms)
        self.last_id = max(self.last_id, int(trades["agg_id"].max()))
        self.engine.expire_holes(self.last_ms)

    def advance(self, boundary_ms: int) -> None:
        while not self.engine.advance(boundary_ms):
            pass

    def prove(self) -> None:
        """Prove the last trade's minute at its end, when it is known that no trade of a lower id is to come.

        The next trade may be so late that the engine no longer holds that minute: a trade of no market stands in for it.
        """
        end_ms = MINUTE.open_at(self.last_ms) + MINUTE_MS
        holes = -1
        while self.engine.tally.holes != holes:
            holes = self.engine.tally.holes
            self.engine.expire_holes(end_ms + HOLE_PATIENCE_MS)
        witness = np.zeros(1, TRADE)
        witness["kind"] = TradeKind.OTHER
        witness["slot"], witness["agg_id"], witness["time_ms"] = self.slot, self.last_id + 1, end_ms
        self.engine.apply(witness, end_ms)
        self.witnesses += 1
        last = self.engine.last_trades()[0].copy()
        last["agg_id"], last["time_ms"] = self.last_id, end_ms - 1
        self.engine.restore(self.slot, no_candles(), last)

    def lose(self) -> int:
        """The recording goes no further: what an archive file covers to its end is proven; from when on nothing is known."""
        covered_to_ms, self.covered_to_ms = self.covered_to_ms, None
        since_ms = max(self.last_ms, self.alive_ms)
        if covered_to_ms is not None and covered_to_ms > self.last_ms:
            self.prove()
            self.advance(covered_to_ms)
            since_ms = covered_to_ms
        self.engine.blind([self.slot], since_ms)
        return since_ms

    def tally(self) -> Counter[str]:
        """What became of the recording's own trades."""
        counts = Counter(asdict(self.engine.tally))
        counts["not_market"] -= self.witnesses
        return counts


class _Replay:
    """The state of one replay, inside its transaction."""

    def __init__(self, market: Market, intervals: tuple[Interval, ...], store: SqliteStore) -> None:
        self.market = market
        self.intervals = intervals
        self.store = store
        self.summary = ReplaySummary()
        self.symbols: set[str] = set()
        self.tapes: dict[str, _Tape] = {}
        self._scales: dict[str, tuple[int, int]] = {}
        self._waiting: list[tuple[int, Candles]] = []
        self._waiting_rows = 0

    def file(self, reader: TradeReader) -> None:
        """Replay one file."""
        covered = coverage(reader.file.path)
        orders: dict[str, InOrder] = {}
        begun: set[str] = set()
        try:
            for chunk in reader:
                for symbol, trades in _by_symbol(chunk):
                    order = orders.setdefault(symbol, InOrder())
                    self._play(symbol, order.take(trades), covered, begun)
            for symbol, order in orders.items():
                self._play(symbol, order.flush(), covered, begun)
        except BrokenTime as error:
            line = _line_of(reader, error.agg_id)
            raise FileFormatError(f"{reader.file.path}: line {line}: {error}") from error
        end_ms = max((self.tapes[symbol].last_ms for symbol in begun), default=0)
        for symbol in begun:
            tape = self.tapes[symbol]
            tape.alive_ms, tape.covered_to_ms = end_ms, None if covered is None else covered[1]
            tape.advance(MINUTE.open_at(end_ms))
            self._write(symbol, tape)
        self.summary.files += 1
        self.summary.trades += reader.rows
        self.summary.passed_over.update(reader.passed_over)
        self.symbols.update(reader.symbol_names)

    def _play(self, symbol: str, runs: Iterable[Trades], covered: tuple[int, int] | None, begun: set[str]) -> None:
        """Apply trades of one symbol, in the order of their ids; `begun` are the symbols that the file has begun."""
        for run in runs:
            cuts = np.flatnonzero(np.diff(run["time_ms"] // SLICE_MS)) + 1
            for piece in np.split(run, cuts) if len(cuts) else (run,):
                tape = self._tape(symbol, piece, covered, new=symbol not in begun)
                if tape is None:
                    continue
                begun.add(symbol)
                if tape.follows_late(piece):
                    tape.prove()
                    self._write(symbol, tape)
                tape.apply(piece)
                self._write(symbol, tape)

    def _tape(self, symbol: str, trades: Trades, covered: tuple[int, int] | None, *, new: bool) -> _Tape | None:
        """The tape of a symbol, going on or begun; None before its first market trade."""
        tape = self.tapes.get(symbol)
        if tape is not None:
            first_ms = int(trades["time_ms"][0])
            follows = int(trades["agg_id"].min()) <= tape.last_id + 1
            if follows or first_ms - tape.last_ms <= NEIGHBOUR_MS:
                if new and not follows:
                    lost_ms = tape.lose()
                    tape.advance(MINUTE.open_at(max(first_ms, lost_ms)))
                    tape.sight(MINUTE.open_at(first_ms) + MINUTE_MS)
                return tape
            self._end(symbol, tape)
        market_trades = np.flatnonzero((trades["kind"] == TradeKind.MARKET) & (trades["price"] > 0))
        if not len(market_trades):
            return None
        first = trades[market_trades[0]]
        if symbol not in self._scales:
            self._scales[symbol] = int(first["price_scale"]), int(first["qty_scale"])
        instrument_id = self._put_instrument(symbol)
        tape = self.tapes[symbol] = _Tape(self.intervals, instrument_id, first, covered[0] if covered else None)
        return tape

    def _put_instrument(self, symbol: str) -> int:
        price_scale, qty_scale = self._scales[symbol]
        for stored in self.store.instruments(self.market):
            if stored.instrument.symbol == symbol:
                known = replace(stored.instrument, price_scale=price_scale, qty_scale=qty_scale)
                return self.store.put_instruments([known], 0)[symbol]
        instrument = Instrument(self.market, symbol, Status.TRADING, price_scale, qty_scale)
        return self.store.put_instruments([instrument], 0)[symbol]

    def _write(self, symbol: str, tape: _Tape) -> None:
        candles = tape.engine.collect()
        if len(candles):
            self._waiting.append((tape.instrument_id, candles))
            self._waiting_rows += len(candles)
            if self._waiting_rows >= WRITE_ROWS:
                self._flush()
        scales = tape.engine.scales(tape.slot)
        if scales != self._scales[symbol]:
            self._scales[symbol] = scales
            self._put_instrument(symbol)

    def _flush(self) -> None:
        """Bring what waits to the store."""
        if self._waiting:
            ids = [np.full(len(candles), number, np.int64) for number, candles in self._waiting]
            result = self.store.write(np.concatenate(ids), np.concatenate([candles for _, candles in self._waiting]))
            accepted = int(result.accepted.sum())
            self.summary.candles += accepted
            self.summary.refused += self._waiting_rows - accepted
        self._waiting, self._waiting_rows = [], 0

    def _end(self, symbol: str, tape: _Tape) -> None:
        """Close a recording's last minute: `partial` (`filled` without trades), or proven where an archive file covers it."""
        if tape.lose() <= max(tape.last_ms, tape.alive_ms):
            tape.advance(tape.engine.minute_ms(tape.slot) + MINUTE_MS)
        self._write(symbol, tape)
        self.summary.tally.update(tape.tally())
        del self.tapes[symbol]

    def end(self) -> None:
        """Close every recording."""
        for symbol, tape in list(self.tapes.items()):
            self._end(symbol, tape)
        self._flush()


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

    The first and the last minute of a recording are `partial`; where an official archive file covers its whole day or month
    they count as covered. A longer candle at an end is `partial`, and one that has not ended is not made. Trades recorded
    late are put in the order of their ids first (see `archive.order`).

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
    readers = sorted((open_trades(path, market=market, symbol=symbol) for path in files), key=_begins)
    work = _Replay(market, tuple(intervals), store)
    with store.transaction():
        store.set_intervals(market, {*store.intervals(market), *intervals})
        for done, reader in enumerate(readers):
            work.file(reader)
            if progress is not None:
                progress(done + 1, len(readers), work.summary.trades)
        work.end()
    work.summary.symbols = len(work.symbols)
    work.summary.seconds = time.perf_counter() - started
    return work.summary


def _by_symbol(chunk: TradeChunk) -> Iterator[tuple[str, Trades]]:
    """The trades of each symbol, as recorded."""
    slots = chunk.trades["slot"]
    if slots[0] == slots[-1] and (slots == slots[0]).all():
        yield chunk.symbol_names[int(slots[0])], chunk.trades
        return
    order = np.argsort(slots, kind="stable")
    cuts = np.flatnonzero(np.diff(slots[order])) + 1
    for rows in np.split(order, cuts):
        yield chunk.symbol_names[int(slots[rows[0]])], chunk.trades[rows]


def _line_of(reader: TradeReader, agg_id: int) -> int:
    """The line of a trade, found by reading the file again."""
    for chunk in reader:
        found = np.flatnonzero(chunk.trades["agg_id"] == agg_id)
        if len(found):
            return int(chunk.lines[found[0]])
    raise AssertionError(f"trade {agg_id} is in no line")


def _begins(reader: TradeReader) -> tuple[int, Path]:
    """When a recording begins, for the order of files."""
    covered = coverage(reader.file.path)
    if covered is not None:
        return covered[0], reader.file.path
    chunk = next(iter(reader), None)
    return (int(chunk.trades["time_ms"][0]) if chunk is not None else 0), reader.file.path
