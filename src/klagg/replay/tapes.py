"""Files of trades through engines, one for each symbol and kind of file; what closes is handed on.

Aggregates and single trades have numberings of their own: files of both kinds, of the same day, are two recordings.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from klagg.archive import TradeChunk, TradeReader
from klagg.archive.chunk import FileKind
from klagg.archive.order import RENUMBERING_MS, BrokenTime, InOrder
from klagg.errors import FileFormatError
from klagg.interval import DAY_MS, MINUTE, MINUTE_MS, Interval
from klagg.model import Candles, TradeKind, Trades
from klagg.replay.chain import NOTHING, Chain
from klagg.replay.tape import SLICE_MS, Tape

NEIGHBOUR_MS: Final = DAY_MS
"""Trades later than this after the one before, their ids not following, are another recording: what lies between is filled in the
database."""

_Key = tuple[FileKind, str]
"""Kind of file and symbol."""

Deliver = Callable[[str, Candles], None]
"""Told a symbol and closed candles of it."""


class Tapes:
    """The recordings of a market, symbol by symbol.

    What they cover is told by ids alone: within a file, across the files that `file` is given, oldest first, and to the candles
    that the database holds (`chain`). `breaks` are the times between two lives of a symbol, `[end_ms, begin_ms)`, whose numberings
    are not one: nothing is made for these.
    """

    def __init__(self, intervals: Sequence[Interval], deliver: Deliver, chain: Chain | None = None) -> None:
        self.breaks: dict[str, list[tuple[int, int]]] = {}
        self.symbols: set[str] = set()
        self.passed_over: Counter[str] = Counter()
        self.tally: Counter[str] = Counter()
        self.files = 0
        self.trades = 0
        self._intervals = tuple(intervals)
        self._deliver = deliver
        self._chain = chain
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
        orders: dict[_Key, InOrder] = {}
        begun: set[_Key] = set()
        try:
            for chunk in reader:
                for symbol, told in _by_symbol(chunk):
                    # What may or may not belong to its candle counts as an id that was not seen.
                    trades = told[told["kind"] != TradeKind.UNPROVEN]
                    if len(trades):
                        key = reader.file.kind, symbol
                        self._play(key, orders.setdefault(key, InOrder()).take(trades), begun)
            for key, order in orders.items():
                self._play(key, order.flush(), begun)
        except BrokenTime as error:
            line = _line_of(reader, error.agg_id)
            raise FileFormatError(f"{reader.file.path}: line {line}: {error}") from error
        for key in begun:
            tape = self._tapes[key]
            tape.advance(MINUTE.open_at(tape.last_ms))
            self._collect(key, tape)

    def _play(self, key: _Key, runs: Iterable[Trades], begun: set[_Key]) -> None:
        """Apply trades of one recording, in the order of their ids; `begun` are those that the file has begun."""
        for run in runs:
            cuts = np.flatnonzero(np.diff(run["time_ms"] // SLICE_MS)) + 1
            for piece in np.split(run, cuts) if len(cuts) else (run,):
                tape = self._tape(key, piece, new=key not in begun)
                if tape is None:
                    continue
                begun.add(key)
                if tape.follows_late(piece):
                    tape.prove()
                    self._collect(key, tape)
                tape.apply(piece)
                self._collect(key, tape)

    def _tape(self, key: _Key, trades: Trades, *, new: bool) -> Tape | None:
        """The tape of a recording, going on or begun; None before its first market trade."""
        tape = self._tapes.get(key)
        if key not in self._before:
            self._before[key] = None if tape is None else tape.copied()
        ended_ms = None
        if tape is not None:
            first_ms, first_id = int(trades["time_ms"][0]), int(trades["agg_id"].min())
            anew = first_id <= tape.last_id and first_ms > tape.last_ms + RENUMBERING_MS
            follows = first_id <= tape.last_id + 1
            if not anew and (follows or first_ms - tape.last_ms <= NEIGHBOUR_MS):
                if new and not follows:
                    tape.lose()
                    tape.advance(MINUTE.open_at(first_ms))
                    tape.sight(MINUTE.open_at(first_ms) + MINUTE_MS)
                return tape
            ended_ms = MINUTE.open_at(tape.last_ms) + MINUTE_MS if anew else None
            self._end(key, tape)
        market_trades = np.flatnonzero((trades["kind"] == TradeKind.MARKET) & (trades["price"] > 0))
        if not len(market_trades):
            return None
        first = trades[market_trades[0]]
        before = NOTHING
        if self._chain is not None and market_trades[0] == 0:
            before = self._chain.before(key[1], int(first["first_id"]), int(first["time_ms"]))
        ended_ms = before.anew_since_ms if ended_ms is None else ended_ms
        if ended_ms is not None:
            self.breaks.setdefault(key[1], []).append((ended_ms, MINUTE.open_at(int(first["time_ms"]))))
        tape = self._tapes[key] = Tape(self._intervals, first, before)
        return tape

    def _collect(self, key: _Key, tape: Tape) -> None:
        candles = tape.engine.collect()
        if len(candles):
            self._deliver(key[1], candles)

    def _end(self, key: _Key, tape: Tape) -> None:
        """Close a recording's last minute: proven where the database goes on with the next id, else `partial`."""
        until_ms = None
        if self._chain is not None:
            until_ms = self._chain.after(key[1], tape.last_trade_id, tape.last_ms)
        tape.lose(until_ms)
        if until_ms is None:
            tape.advance(tape.engine.minute_ms(tape.slot) + MINUTE_MS)
        self._collect(key, tape)
        self.tally.update(tape.tally())
        del self._tapes[key]


def begins(reader: TradeReader) -> tuple[int, Path]:
    """When a recording begins, for the order of files; one that is broken at its beginning comes last, and is named when it is read."""
    try:
        chunk = next(iter(reader), None)
    except FileFormatError:
        return 1 << 62, reader.file.path
    return (int(chunk.trades["time_ms"].min()) if chunk is not None else 0), reader.file.path


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
