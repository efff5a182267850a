"""Candles as Arrow and as Parquet: one decimal type for all symbols, what the answer says of them in the schema's metadata.

pyarrow is imported when columns are first asked for: it takes half a second.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from klagg.fixed import join
from klagg.model import Flag, Ints, Origin, Source
from klagg.serve.native.table import PRICES, SUMS, Table

if TYPE_CHECKING:
    import pyarrow as pa

ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
_DIGITS: Final = 38
_SCALE: Final = 18
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)


class DoesNotFit(Exception):
    """A number that `decimal128(38, 18)` cannot hold."""


def record_batch(table: Table, meta: bytes) -> "pa.RecordBatch":
    """The table as columns; `meta` is put into the schema's metadata as `klagg`.

    Raises:
        DoesNotFit: a number that the type cannot hold.

    """
    import pyarrow as pa

    candles = table.candles
    decimal = pa.decimal128(_DIGITS, _SCALE)
    time = pa.timestamp("ms", tz="UTC")
    price, qty = candles["price_scale"].astype(np.int64), candles["qty_scale"].astype(np.int64)
    zeros = np.zeros(len(candles), np.int64)

    def numbers(hi: Ints, lo: Ints, scale: Ints) -> Any:  # noqa: ANN401 - a pyarrow array
        return pa.Array.from_buffers(decimal, len(lo), [None, pa.py_buffer(_at_scale(hi, lo, scale))])

    columns: dict[str, Any] = {
        "market": pa.array([table.market.value] * len(candles), pa.string()),
        "symbol": pa.array(np.array([name.symbol for name in table.names], object)[table.series], pa.string()),
        "interval": pa.array(np.array([name.interval for name in table.names], object)[table.series], pa.string()),
        "open_time": pa.array(candles["open_ms"], time),
        "close_time": pa.array(table.closes_ms, time),
    }
    columns |= {name: numbers(zeros, candles[name], price) for name in PRICES}
    for name, words in SUMS.items():
        scale = price + qty if "quote" in name else qty
        columns[name] = numbers(candles[f"{words}_hi"], candles[f"{words}_lo"], scale)
    labels = np.array([origin.label for origin in sorted(Origin)], object)
    sources = np.array([source.label for source in Source], object)
    closed = (candles["flags"] & Flag.CLOSED.value) != 0
    columns |= {
        "trades": pa.array(candles["trades"]),
        "first_trade_id": pa.array(candles["first_id"]),
        "last_trade_id": pa.array(candles["last_id"]),
        "closed": pa.array(closed),
        "origin": pa.array(np.where(closed, labels[candles["origin"]], None), pa.string()),
        "verified": pa.array((candles["flags"] & Flag.VERIFIED.value) != 0),
        "revision": pa.array(table.revisions),
        "source": pa.array(sources[candles["source"]], pa.string()),
        "known_time": pa.array(table.known_ms, time),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return batch.replace_schema_metadata({b"klagg": meta})


def as_arrow(table: Table, meta: bytes) -> bytes:
    """An Arrow IPC stream."""
    import pyarrow as pa

    batch = record_batch(table, meta)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def as_parquet(table: Table, meta: bytes) -> bytes:
    """A Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([record_batch(table, meta)]), sink, compression="zstd")
    return bytes(sink.getvalue())


def _at_scale(hi: Ints, lo: Ints, scale: Ints) -> bytes:
    """Two-word numbers at their scales as 128-bit little-endian integers at `_SCALE`: Arrow's layout of a decimal."""
    out = np.zeros((len(lo), 2), np.uint64)
    plain = (hi == 0) & (scale <= _SCALE)
    powers = np.array([10**n for n in range(_SCALE + 1)], np.uint64)
    factor = powers[_SCALE - scale[plain]]
    out[plain, 1], out[plain, 0] = _product(lo[plain].astype(np.uint64), factor)
    for row in np.flatnonzero(~plain).tolist():
        value, rest = join(int(hi[row]), int(lo[row])), 0
        shift = _SCALE - int(scale[row])
        if shift >= 0:
            value *= 10**shift
        else:
            value, rest = divmod(value, 10**-shift)
        if rest or value >= 10**_DIGITS:
            raise DoesNotFit
        out[row] = value & 0xFFFFFFFFFFFFFFFF, value >> 64
    return out.tobytes()


def _product(one: Any, other: Any) -> tuple[Any, Any]:  # noqa: ANN401 - arrays of uint64
    """High and low word of the product of two words, in halves."""
    a, b, c, d = one >> _HALF, one & _LOW, other >> _HALF, other & _LOW
    bottom, left, right = b * d, a * d, b * c
    middle = (bottom >> _HALF) + (left & _LOW) + (right & _LOW)
    low = (bottom & _LOW) | (middle << _HALF)
    return a * c + (left >> _HALF) + (right >> _HALF) + (middle >> _HALF), low
