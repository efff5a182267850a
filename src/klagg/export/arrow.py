"""Candles as Arrow record batches, and as Parquet and Arrow files.

One decimal type for all symbols, `decimal128(38, 18)`: readers of many files at once give wrong numbers where scales differ.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from klagg.errors import NumberError
from klagg.export.columns import (
    DECIMALS,
    FLAGS,
    FRAME_COLUMNS,
    KEYS,
    NAMES,
    ORIGINS,
    SOURCES,
    TIMES,
    Numbers,
    Piece,
    Series,
    decimals,
    integers,
    iso,
)
from klagg.export.decimals import DIGITS, SCALE, TYPE, Unfit, as_decimal128, as_float64, as_text
from klagg.model import Candles

_NUMBERS: Final = {"decimal": TYPE, "float64": pa.float64(), "string": pa.string()}
_TIME: Final = pa.timestamp("ms", tz="UTC")
_KEY: Final = pa.dictionary(pa.int32(), pa.string())
_ORIGINS: Final = pa.array(ORIGINS, pa.string())
_SOURCES: Final = pa.array(SOURCES, pa.string())


def arrow_schema(
    columns: Sequence[str] = FRAME_COLUMNS, numbers: Numbers = "decimal", *, coded: bool = False
) -> pa.Schema:
    """The types of the columns of a Parquet or Arrow file, or of a frame.

    `coded` keys are dictionaries, as Arrow and pandas take the keys of a data set's folders for: others would not merge with them.
    """

    def type_of(column: str) -> pa.DataType:
        if column in DECIMALS:
            return _NUMBERS[numbers]
        if column in NAMES:
            return _KEY if coded and column in KEYS else pa.string()
        if column in TIMES:
            return _TIME
        return pa.bool_() if column in FLAGS else pa.int64()

    return pa.schema([pa.field(name, type_of(name), nullable=False) for name in columns])


def record_batch(
    piece: Piece,
    series: Series,
    columns: Sequence[str] = FRAME_COLUMNS,
    numbers: Numbers = "decimal",
    *,
    coded: bool = False,
) -> pa.RecordBatch:
    """Candles of one series as an Arrow record batch of `arrow_schema`.

    Raises:
        NumberError: a number that `decimal128(38, 18)` cannot hold; names symbol, interval, field and open time.

    """
    schema = arrow_schema(columns, numbers, coded=coded)
    arrays = [
        _code(series.name(field.name), len(piece)) if field.type == _KEY else _array(piece, series, field.name, numbers)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _array(piece: Piece, series: Series, column: str, numbers: Numbers) -> pa.Array:
    if column in DECIMALS:
        return _decimals(piece.candles, series, column, numbers)
    if column == "origin":
        return _ORIGINS.take(pa.array(piece.candles["origin"]))
    if column == "source":
        return _SOURCES.take(pa.array(piece.candles["source"]))
    if column in NAMES:
        return pa.repeat(pa.scalar(series.name(column), pa.string()), len(piece))
    values = integers(piece, series, column)
    if column in TIMES:
        return pa.array(values).cast(_TIME)
    return pa.array(values.astype(np.bool_)) if column in FLAGS else pa.array(values)


def _code(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))


def _decimals(candles: Candles, series: Series, column: str, numbers: Numbers) -> pa.Array:
    values = decimals(candles, column)
    if numbers == "float64":
        return pa.array(as_float64(values))
    if numbers == "string":
        return as_text(values)
    try:
        return as_decimal128(values)
    except Unfit as error:
        raise NumberError(
            f"{series} {iso(int(candles['open_ms'][error.row]))}: {column} {values.text(error.row)} does not fit "
            f"decimal128({DIGITS}, {SCALE}): ask for numbers as string, or export csv or jsonl"
        ) from None


def write_columns(
    file: IO[bytes],
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    format_name: Literal["parquet", "arrow"],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a Parquet or an Arrow file, batch by batch; `metadata` goes into its schema."""
    if metadata:
        schema = schema.with_metadata(dict(metadata))
    if format_name == "parquet":
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        return
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
