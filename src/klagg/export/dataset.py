"""Many series as a data set of Parquet files: `market=…/interval=…/symbol=…/YYYY-MM.parquet`.

A file is always a whole month of the database, so that runs over different ranges agree on it; one that would be written as it
is already stays untouched. The keys are in the rows too: a file can be read by itself.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from klagg.errors import UsageError
from klagg.export.arrow import arrow_schema, record_batch, write_columns
from klagg.export.changed import KEY, carried, fingerprint
from klagg.export.columns import Numbers, Series
from klagg.export.source import CandleSource, Source, Tally, Unmatched
from klagg.export.whole import whole_file
from klagg.interval import Interval, month_index, month_open_ms
from klagg.model import Market

if TYPE_CHECKING:
    from klagg.store import StoredInstrument

Told = Callable[[int, int], None]
"""Series that are done, and all of them."""
_MONTH_FILE: Final = re.compile(r"(\d{4})-(\d\d)\.parquet")
_UNSAFE: Final = re.compile(r"[\x00-\x20\"#%*/:<=>?\\|]")
_FAR_MONTH: Final = month_index(253_402_300_799_000)
"""December 9999: datetime knows no later one."""


@dataclass(slots=True)
class DataSet:
    """What a run made of a data set: `rows` of the `written` files, files left as they were, files whose candles are gone."""

    rows: int = 0
    unverified: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0


def folder_of(root: Path, series: Series) -> Path:
    """Where the files of a series are. What a path or a Hive key cannot hold is percent-encoded."""
    symbol = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", series.symbol)
    return root / f"market={series.market.value}" / f"interval={series.interval.name}" / f"symbol={symbol}"


def export_dataset(
    store: CandleSource,
    market: Market,
    instruments: "Sequence[StoredInstrument]",
    intervals: Sequence[Interval],
    start_ms: int,
    end_ms: int,
    *,
    out: Path,
    numbers: Numbers = "decimal",
    unmatched: Unmatched = "keep",
    as_of_ms: int | None = None,
    tell: Told | None = None,
) -> DataSet:
    """Write the months of these series that `[start_ms, end_ms)` touches, where they are not there already.

    Raises:
        UsageError: a file that cannot be written.
        NumberError: a number that `decimal128(38, 18)` cannot hold; the files before it stay.

    """
    done = DataSet()
    months = range(month_index(max(start_ms, 0)), min(month_index(max(end_ms - 1, 0)), _FAR_MONTH) + 1)
    every = [(one, interval) for interval in intervals for one in instruments]
    for number, (one, interval) in enumerate(every):
        if tell is not None:
            tell(number, len(every))
        series = Series(market, one.instrument.symbol, interval)
        _export_series(Source(store, one.id, series, as_of_ms, unmatched), months, out, numbers, done)
    if tell is not None:
        tell(len(every), len(every))
    return done


def _export_series(source: Source, months: range, out: Path, numbers: Numbers, done: DataSet) -> None:
    folder = folder_of(out, source.series)
    wanted = months_of(source, months)
    for month in sorted({*wanted, *(month for month in _there(folder) if month in months)}):
        path = folder / f"{month // 12 + 1970:04}-{month % 12 + 1:02}.parquet"
        span = month_open_ms(month), month_open_ms(month + 1)
        mark = fingerprint(source, *span, {"numbers": numbers}) if month in wanted else None
        if mark is not None and carried(path, "parquet") == mark:
            done.unchanged += 1
        elif mark is None or not _written(source, span, path, numbers, mark, done):
            done.removed += path.exists()
            path.unlink(missing_ok=True)


def months_of(source: Source, months: range) -> range:
    """The months, of these, from the first to the last that has candles."""
    start_ms, end_ms = month_open_ms(months.start), month_open_ms(months.stop)
    span = source.store.span(source.instrument_id, source.series.interval, start_ms, end_ms)
    return range(0) if span is None else range(month_index(span[0]), month_index(span[1]) + 1)


def _there(folder: Path) -> Iterator[int]:
    """The months of which there are files."""
    if folder.is_dir():
        for path in folder.iterdir():
            if match := _MONTH_FILE.fullmatch(path.name):
                yield (int(match[1]) - 1970) * 12 + int(match[2]) - 1


def _written(source: Source, span: tuple[int, int], path: Path, numbers: Numbers, mark: str, done: DataSet) -> bool:
    """Whether there was anything to write."""
    tally = Tally()
    batches = (record_batch(piece, source.series, numbers=numbers, coded=True) for piece in source.pieces(*span, tally))
    first = next(batches, None)
    if first is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
    with whole_file(path) as file:
        write_columns(file, _again(first, batches), arrow_schema(numbers=numbers, coded=True), "parquet", {KEY: mark})
    done.rows += tally.rows
    done.unverified += tally.unverified
    done.written += 1
    return True


def _again(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
