"""Files of trades through engines, one for each symbol and kind of file; what closes is handed on.

Aggregates and single trades have numberings of their own: files of both kinds, of the same day, are two recordings.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from klagg.archive import TradeChunk, TradeReader, coverage
from klagg.archive.chunk import FileKind
from klagg.archive.order import BrokenTime, InOrder
from klagg.errors import FileFormatError
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, TradeKind, Trades
from klagg.replay.tape import SLICE_MS, Tape

NEIGHBOUR_MS: Final = DAY_MS
"""Trades later than this after the one before, their ids not following, are another recording: nothing is filled in
between."""

_Key = tuple[FileKind, str]
"""Kind of file and symbol."""

Deliver = Callable[[str, Candles], None]
"""Told a symbol and closed candles of it."""


class Tapes:
    """The recordings of a market, symbol by symbol; ids chain across the files that `file` is given, oldest first."""

    def __init__(self, intervals: Sequence[Interval], deliver: Deliver) -> None:
        self.symbols: set[str] = set()
        self.passed_over: Counter[str] = Counter()
        self.tally: Counter[str] = Counter()
        self.files = 0
        self.trades = 0
        self._intervals = tuple(intervals)
        self._deliver = deliver
        self._tapes: dict[_Key, Tape] = {}
        self._before: dict[_Key, Tape | None] = {}
        """The tapes that the file under way has touched, as they were before it."""

    def file(self, reader: TradeReader) -> None:
        """Play one file. Where it breaks off, what was delivered of it is void, and the tapes are as they were before it.

        Raises:
            FileFormatError: a broken line, or a time that cannot be true.

        """
        self._before.clear()
        tally = self.tally.copy()
        try:
            self._file(reader)
        except BaseException:
            self.tally = tally
            for key, tape in self._before.items():
                self._tapes.pop(key, None)
                if tape is not None:
                    self._tapes[key] = tape
            raise
        finally:
            self._before.clear()
        self.files += 1
        self.trades += reader.rows
        self.passed_over.update(reader.passed_over)
        self.symbols.update(reader.symbol_names)

    def end(self) -> None:
        """Close every recording."""
        for key, tape in list(self._tapes.items()):
            self._end(key, tape)

    def _file(self, reader: TradeReader) -> None:
        covered = coverage(reader.file.path)
        orders: dict[_Key, InOrder] = {}
        begun: set[_Key] = set()
        try:
            for chunk in reader:
                for symbol, trades in _by_symbol(chunk):
                    key = reader.file.kind, symbol
                    order = orders.setdefault(key, InOrder())
                    self._play(key, order.take(trades), covered, begun)
            for key, order in orders.items():
                self._play(key, order.flush(), covered, begun)
        except BrokenTime as error:
            line = _line_of(reader, error.agg_id)
            raise FileFormatError(f"{reader.file.path}: line {line}: {error}") from error
        end_ms = max((self._tapes[key].last_ms for key in begun), default=0)
        for key in begun:
            tape = self._tapes[key]
            tape.alive_ms, tape.covered_to_ms = end_ms, None if covered is None else covered[1]
            tape.advance(MINUTE.open_at(end_ms))
            self._collect(key, tape)

    def _play(self, key: _Key, runs: Iterable[Trades], covered: tuple[int, int] | None, begun: set[_Key]) -> None:
        """Apply trades of one recording, in the order of their ids; `begun` are those that the file has begun."""
        for run in runs:
            cuts = np.flatnonzero(np.diff(run["time_ms"] // SLICE_MS)) + 1
            for piece in np.split(run, cuts) if len(cuts) else (run,):
                tape = self._tape(key, piece, covered, new=key not in begun)
                if tape is None:
                    continue
                begun.add(key)
                if tape.follows_late(piece):
                    tape.prove()
                    self._collect(key, tape)
                tape.apply(piece)
                self._collect(key, tape)

    def _tape(self, key: _Key, trades: Trades, covered: tuple[int, int] | None, *, new: bool) -> Tape | None:
        """The tape of a recording, going on or begun; None before its first market trade."""
        tape = self._tapes.get(key)
        if key not in self._before:
            self._before[key] = None if tape is None else tape.copied()
        if tape is not None:
            first_ms = int(trades["time_ms"][0])
            follows = int(trades["agg_id"].min()) <= tape.last_id + 1
            if follows or first_ms - tape.last_ms <= NEIGHBOUR_MS:
                if new and not follows:
                    if covered is not None and covered[0] == tape.covered_to_ms:
                        # Neighbouring days whose ids do not chain: one of the files lacks trades, wherever it says it ends.
                        tape.covered_to_ms = None
                    lost_ms = tape.lose()
                    tape.advance(MINUTE.open_at(max(first_ms, lost_ms)))
                    tape.sight(MINUTE.open_at(first_ms) + MINUTE_MS)
                return tape
            self._end(key, tape)
        market_trades = np.flatnonzero((trades["kind"] == TradeKind.MARKET) & (trades["price"] > 0))
        if not len(market_trades):
            return None
        first = trades[market_trades[0]]
        tape = self._tapes[key] = Tape(self._intervals, first, covered[0] if covered else None)
        return tape

    def _collect(self, key: _Key, tape: Tape) -> None:
        candles = tape.engine.collect()
        if len(candles):
            self._deliver(key[1], candles)

    def _end(self, key: _Key, tape: Tape) -> None:
        """Close a recording's last minute: `partial` (`filled` without trades), or proven where an archive file covers it."""
        if tape.lose() <= max(tape.last_ms, tape.alive_ms):
            tape.advance(tape.engine.minute_ms(tape.slot) + MINUTE_MS)
        self._collect(key, tape)
        self.tally.update(tape.tally())
        del self._tapes[key]


def begins(reader: TradeReader) -> tuple[int, Path]:
    """When a recording begins, for the order of files."""
    covered = coverage(reader.file.path)
    if covered is not None:
        return covered[0], reader.file.path
    chunk = next(iter(reader), None)
    return (int(chunk.trades["time_ms"][0]) if chunk is not None else 0), reader.file.path


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
