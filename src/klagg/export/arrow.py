"""Candles as Arrow record batches, and as Parquet and Arrow files.

One decimal type for all symbols, `decimal128(38, 18)`: readers of many files at once give wrong numbers where scales differ.
"""

from collections.abc import Iterator
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from klagg import fixed
from klagg.errors import NumberError
from klagg.export.columns import (
    COLUMNS,
    FULL_COLUMNS,
    TEXTS,
    TIMES,
    ExportFormat,
    Series,
    integers,
    is_decimal,
    iso,
    mantissas,
    texts,
)
from klagg.interval import Interval
from klagg.model import Candles, Ints, Market

DECIMAL_DIGITS: Final = 38
DECIMAL_SCALE: Final = 18


def arrow_schema(*, full: bool = False) -> pa.Schema:
    """The columns of a Parquet or Arrow export."""

    def type_of(column: str) -> pa.DataType:
        if is_decimal(column):
            return pa.decimal128(DECIMAL_DIGITS, DECIMAL_SCALE)
        if column in TEXTS:
            return pa.string()
        if column in TIMES:
            return pa.timestamp("ms", tz="UTC")
        return pa.int8() if column in {"closed", "verified"} else pa.int64()

    return pa.schema([pa.field(name, type_of(name), nullable=False) for name in (FULL_COLUMNS if full else COLUMNS)])


def record_batch(
    candles: Candles, revisions: Ints, market: Market, symbol: str, interval: Interval, *, full: bool = False
) -> pa.RecordBatch:
    """Candles of one series as an Arrow record batch of `arrow_schema`.

    Raises:
        NumberError: a number that `decimal128(38, 18)` cannot hold; names symbol, interval, field and open time.

    """
    series = Series(market, symbol, interval, full)
    schema = arrow_schema(full=full)
    arrays = []
    for field in schema:
        if is_decimal(field.name):
            data = _decimal_bytes(candles, series, field.name)
            arrays.append(pa.Array.from_buffers(field.type, len(candles), [None, pa.py_buffer(data)]))
        elif field.name in TEXTS:
            arrays.append(pa.array(texts(candles, series, field.name), field.type))
        else:
            arrays.append(pa.array(integers(candles, revisions, interval, field.name), field.type))
    return pa.record_batch(arrays, schema=schema)


def _decimal_bytes(candles: Candles, series: Series, column: str) -> bytes:
    """A column's values at `DECIMAL_SCALE` as 128-bit little-endian integers, Arrow's layout of a decimal."""
    values = []
    limit = 10**DECIMAL_DIGITS
    for row, (mantissa, scale) in enumerate(zip(*mantissas(candles, column), strict=True)):
        try:
            value = fixed.rescale(mantissa, scale, DECIMAL_SCALE)
        except NumberError:
            # More decimal places than the type has: as unfit as a value beyond its digits.
            value = limit
        if abs(value) >= limit:
            raise NumberError(
                f"{series.symbol} {series.interval} {iso(int(candles['open_ms'][row]))}: {column} "
                f"{fixed.to_text(mantissa, scale)} does not fit decimal128({DECIMAL_DIGITS}, {DECIMAL_SCALE}): "
                "export csv or jsonl"
            )
        values.append(value.to_bytes(16, "little", signed=True))
    return b"".join(values)


def write_columns(
    file: IO[bytes], pieces: Iterator[tuple[Candles, Ints]], series: Series, format_name: ExportFormat
) -> None:
    """Write a Parquet or an Arrow file."""
    schema = arrow_schema(full=series.full)
    batches = (
        record_batch(candles, revisions, series.market, series.symbol, series.interval, full=series.full)
        for candles, revisions in pieces
    )
    if format_name == "parquet":
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        return
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
