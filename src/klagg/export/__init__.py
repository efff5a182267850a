"""Candles out of the database: one series as csv, jsonl, parquet or arrow, many as a data set, and what freqtrade reads.

Text formats have the exchange's archive names, decimals as plain strings and times as UTC ms. Parquet and Arrow write times as
UTC timestamps, `trades` instead of `count`, and one decimal type for all symbols, `decimal128(38, 18)`: readers of many files at
once give wrong numbers where scales differ.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

from klagg.errors import UsageError
from klagg.export.arrow import arrow_schema, record_batch, write_columns
from klagg.export.columns import (
    COLUMNS,
    FULL_COLUMNS,
    TYPED_COLUMNS,
    TYPED_FULL_COLUMNS,
    ExportFormat,
    Numbers,
    Piece,
    Series,
    iso,
)
from klagg.export.source import CandleSource, Source, Tally, Unmatched, stored_instrument
from klagg.export.text import write_text
from klagg.export.whole import whole_file
from klagg.interval import Interval
from klagg.model import Market

__all__ = ["CandleSource", "ExportFormat", "Exported", "Numbers", "Unmatched", "check_range", "export", "iso"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows, where (None is the standard output), how many are not verified or were dropped."""

    rows: int
    path: Path | None
    unverified: int
    dropped: int


def export(  # noqa: PLR0913 - each is an option of the command
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
    numbers: Numbers = "decimal",
    stdout: IO[bytes] | None = None,
) -> Exported:
    """Write the closed candles of one series that open in `[start_ms, end_ms)`, oldest first; with `as_of_ms` as then known.

    A file appears whole or not at all; one that is there is replaced. Without `out`, csv and jsonl go to the standard
    output (`stdout` in its place). `numbers` is for parquet and arrow.

    Raises:
        UsageError: an unknown symbol, interval or format, an empty range, a file that cannot be written.
        NoCandles: the database holds none in the range.
        NumberError: a number that `decimal128(38, 18)` cannot hold; csv, jsonl and numbers as string can.

    """
    check_range(start_ms, end_ms)
    if format not in get_args(ExportFormat):
        raise UsageError(f"unknown format {format!r}: use one of {' '.join(get_args(ExportFormat))}")
    if out is None and format in {"parquet", "arrow"}:
        raise UsageError(f"{format} is not written to the standard output: give --out FILE")
    series = Series(market, symbol, interval)
    source = Source(store, stored_instrument(store, market, symbol).id, series, as_of_ms, unmatched)
    tally = Tally()
    found = source.pieces(start_ms, end_ms, tally)
    first = next(found, None)
    if first is None:
        raise source.nothing(start_ms, end_ms, tally.dropped)
    pieces = _again(first, found)
    if out is None:
        _write(stdout or sys.stdout.buffer, pieces, series, format, numbers, full=full)
    else:
        with whole_file(out) as file:
            _write(file, pieces, series, format, numbers, full=full)
    return Exported(tally.rows, out, tally.unverified, tally.dropped)


def check_range(start_ms: int, end_ms: int) -> None:
    """Refuse an empty range.

    Raises:
        UsageError: it is.

    """
    if start_ms >= end_ms:
        raise UsageError(f"the range is empty: it starts at {iso(start_ms)} and ends at {iso(end_ms)}")


def _again(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest


def _write(
    file: IO[bytes], pieces: Iterator[Piece], series: Series, format_name: ExportFormat, numbers: Numbers, *, full: bool
) -> None:
    if format_name == "csv" or format_name == "jsonl":  # noqa: PLR1714 - mypy narrows this
        write_text(file, pieces, series, FULL_COLUMNS if full else COLUMNS, format_name)
        return
    columns = TYPED_FULL_COLUMNS if full else TYPED_COLUMNS
    batches = (record_batch(piece, series, columns, numbers) for piece in pieces)
    write_columns(file, batches, arrow_schema(columns, numbers), format_name)
