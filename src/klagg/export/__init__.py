"""Candles out of the database: csv, jsonl, parquet and arrow, with the exchange's archive names.

Text formats write decimals as plain strings and times as UTC ms. Parquet and Arrow write times as UTC timestamps and one
decimal type for all symbols, `decimal128(38, 18)`: readers of many files at once give wrong numbers where scales differ.
"""

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, Protocol, get_args

import numpy as np

from klagg.errors import NoCandles, StoreUnavailable, UsageError
from klagg.export.columns import ExportFormat, Series, iso
from klagg.export.text import write_text
from klagg.interval import Interval
from klagg.model import Candles, Flag, Ints, Market, Origin

if TYPE_CHECKING:
    from klagg.store import StoredInstrument

Unmatched = Literal["keep", "drop"]

CHUNK_ROWS: Final = 16_384
"""Candles in memory at once, and the rows of one Parquet row group or Arrow batch."""
_READS: Final = 10
"""How often a chunk is read anew where its revisions change meanwhile, before the database is called unavailable."""


class CandleSource(Protocol):
    """What export needs of a store."""

    def instruments(self, market: Market | None = None) -> "Sequence[StoredInstrument]":
        """The instruments of a market."""

    def intervals(self, market: Market) -> Sequence[Interval]:
        """The intervals a market keeps."""

    def read(
        self,
        instrument_id: int,
        interval: Interval,
        start_ms: int,
        end_ms: int,
        limit: int | None = None,
        *,
        as_of_ms: int | None = None,
    ) -> Candles:
        """Closed candles that open in `[start_ms, end_ms)`, ascending, as they are or as they were known at an instant."""

    def revisions(
        self, instrument_id: int, interval: Interval, start_ms: int, end_ms: int, *, as_of_ms: int | None = None
    ) -> Ints:
        """The revisions of the same candles."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows, where (None is the standard output), how many are not verified or were dropped."""

    rows: int
    path: Path | None
    unverified: int
    dropped: int


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    unverified: int = 0
    dropped: int = 0


def export(
    store: CandleSource,
    market: Market,
    symbol: str,
    interval: Interval,
    start_ms: int,
    end_ms: int,
    *,
    format: ExportFormat,  # noqa: A002 - the command's own word for it
    full: bool = False,
    out: Path | None = None,
    unmatched: Unmatched = "keep",
    as_of_ms: int | None = None,
    stdout: IO[bytes] | None = None,
) -> Exported:
    """Write the closed candles of one series that open in `[start_ms, end_ms)`, oldest first; with `as_of_ms` as then known.

    A file appears whole or not at all; one that is there is replaced. Without `out`, csv and jsonl go to the standard
    output (`stdout` in its place).

    Raises:
        UsageError: an unknown symbol, interval or format, an empty range, a file that cannot be written.
        NoCandles: the database holds none in the range.
        NumberError: a number that `decimal128(38, 18)` cannot hold; csv and jsonl can.

    """
    if format not in get_args(ExportFormat):
        raise UsageError(f"unknown format {format!r}: use one of {' '.join(get_args(ExportFormat))}")
    if start_ms >= end_ms:
        raise UsageError(f"the range is empty: it starts at {iso(start_ms)} and ends at {iso(end_ms)}")
    if out is None and format in {"parquet", "arrow"}:
        raise UsageError(f"{format} is not written to the standard output: give --out FILE")
    instrument_id = _instrument_id(store, market, symbol)
    series = Series(market, symbol, interval, full)
    source = _Source(store, instrument_id, series, as_of_ms)
    tally = _Tally()
    chunks = _chunks(source, (start_ms, end_ms), unmatched == "drop", tally)
    first = next(chunks, None)
    if first is None:
        raise NoCandles(_what_there_is(source, start_ms, end_ms, tally.dropped))
    pieces = _again(first, chunks)
    if out is None:
        write_text(stdout or sys.stdout.buffer, pieces, series, format)
    else:
        with _atomic(out) as file:
            if format in {"csv", "jsonl"}:
                write_text(file, pieces, series, format)
            else:
                # Heavy to import, and only these formats need it.
                from klagg.export.arrow import write_columns

                write_columns(file, pieces, series, format)
    return Exported(tally.rows, out, tally.unverified, tally.dropped)


def _again(first: tuple[Candles, Ints], rest: Iterator[tuple[Candles, Ints]]) -> Iterator[tuple[Candles, Ints]]:
    yield first
    yield from rest


def _instrument_id(store: CandleSource, market: Market, symbol: str) -> int:
    ids = {stored.instrument.symbol: stored.id for stored in store.instruments(market)}
    if symbol in ids:
        return ids[symbol]
    if not ids:
        raise UsageError(f"unknown symbol {symbol!r}: the database holds no symbol of market {market}")
    near = difflib.get_close_matches(symbol.upper(), ids, n=3) or sorted(ids)[:3]
    raise UsageError(
        f"unknown symbol {symbol!r}: the database holds {len(ids)} symbols of market {market}, such as {', '.join(near)}"
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """One series of a store, as it is or as it was known at an instant."""

    store: CandleSource
    instrument_id: int
    series: Series
    as_of_ms: int | None

    def read(self, start_ms: int, end_ms: int, limit: int) -> Candles:
        """The first candles of a range."""
        interval = self.series.interval
        return self.store.read(self.instrument_id, interval, start_ms, end_ms, limit, as_of_ms=self.as_of_ms)

    def revisions(self, start_ms: int, end_ms: int) -> Ints:
        """Their revisions."""
        return self.store.revisions(self.instrument_id, self.series.interval, start_ms, end_ms, as_of_ms=self.as_of_ms)


def _what_there_is(source: _Source, start_ms: int, end_ms: int, dropped: int) -> str:
    """Why nothing was found, for people."""
    store, instrument_id, series = source.store, source.instrument_id, source.series
    what = f"no {series.interval} candles of {series.symbol} ({series.market})"
    if dropped:
        return f"{what} from {iso(start_ms)} to {iso(end_ms)} but {dropped} that are unmatched"
    if source.as_of_ms is not None and store.read(instrument_id, series.interval, start_ms, end_ms, 1).size:
        return (
            f"{what} from {iso(start_ms)} to {iso(end_ms)} were known at {iso(source.as_of_ms)}: there are some since"
        )
    if store.read(instrument_id, series.interval, 0, 1 << 62, 1).size:
        return f"{what} from {iso(start_ms)} to {iso(end_ms)}: there are others, choose another --start and --end"
    kept = " ".join(interval.name for interval in store.intervals(series.market)) or "none"
    return f"{what} in the database at all: the market keeps the intervals {kept}"


def _chunks(
    source: _Source, span: tuple[int, int], drop_unmatched: bool, tally: _Tally
) -> Iterator[tuple[Candles, Ints]]:
    """The candles in pieces, each with its revisions as of one instant."""
    start_ms, end_ms = span
    while True:
        candles, revisions = _read(source, start_ms, end_ms)
        full = len(candles) == CHUNK_ROWS
        if full:
            start_ms = int(candles["open_ms"][-1]) + 1
        if drop_unmatched:
            kept = candles["origin"] != Origin.UNMATCHED
            tally.dropped += len(candles) - int(kept.sum())
            candles, revisions = candles[kept], revisions[kept]
        tally.rows += len(candles)
        tally.unverified += int(((candles["flags"] & Flag.VERIFIED) == 0).sum())
        if len(candles):
            yield candles, revisions
        if not full:
            return


def _read(source: _Source, start_ms: int, end_ms: int) -> tuple[Candles, Ints]:
    """One piece. The store reads candles and revisions one after the other: equal before and after is one state."""
    for _ in range(_READS):
        candles = source.read(start_ms, end_ms, CHUNK_ROWS)
        if not (len(candles) and source.series.full):
            return candles, np.zeros(len(candles), np.int64)
        upto_ms = int(candles["open_ms"][-1]) + 1
        before = source.revisions(start_ms, upto_ms)
        again = source.read(start_ms, end_ms, CHUNK_ROWS)
        if len(before) == len(candles) == len(again) and bool((candles == again).all()):
            return candles, before
    raise StoreUnavailable(f"the candles from {iso(start_ms)} on change while they are read: export them again later")


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
